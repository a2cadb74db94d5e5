// ARP and neighbour discovery frames as bytes on Ethernet: RFC 826, RFC 5227, RFC 4861. Pure; used
// by the announcer.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "egw/model/address.hpp"
#include "egw/model/node_state.hpp"

namespace egw::net {

using Frame = std::vector<std::uint8_t>;
using FrameView = std::span<const std::uint8_t>;

inline constexpr model::Mac kBroadcastMac{0xff, 0xff, 0xff, 0xff, 0xff, 0xff};

// What an ARP or NDP message says, in one shape for both protocols.
struct NeighbourMessage {
  bool asks = false;  // ARP request, neighbour solicitation
  model::Mac from{};  // who sends it: ARP sender hardware address, NDP link-layer option or
                      // else the frame's source
  model::Mac frame_source{};
  model::Address source;  // ARP sender protocol address, IPv6 source; none for 0.0.0.0 and ::
  model::Address target;  // what is asked for or advertised; ARP: target protocol address
  // The address that the sender says is its own: ARP sender, NS source, NA target; none for a
  // probe.
  model::Address claimed;
};

// nullopt: not a well-formed ARP message for IPv4 on Ethernet from a unicast address.
[[nodiscard]] std::optional<NeighbourMessage> parse_arp(FrameView frame);
// nullopt: not a valid neighbour solicitation or advertisement (RFC 4861, 7.1.1 and 7.1.2).
// checksum_ready: false for frames that never left this machine and are not finished.
[[nodiscard]] std::optional<NeighbourMessage> parse_ndp(FrameView frame,
                                                        bool checksum_ready = true);

// 0.0.0.0 asks for `target`: RFC 5227 probe.
[[nodiscard]] Frame arp_probe(const model::Mac& mac, const model::Address& target);
// RFC 5227 announcement: a request in which sender and target are `address`.
[[nodiscard]] Frame arp_announcement(const model::Mac& mac, const model::Address& address);
// The same as a broadcast reply, which some devices want to see.
[[nodiscard]] Frame arp_gratuitous_reply(const model::Mac& mac, const model::Address& address);
// The answer to `request`.
[[nodiscard]] Frame arp_reply(const model::Mac& mac, const NeighbourMessage& request);

// Duplicate address detection (RFC 4862): :: asks for `target`.
[[nodiscard]] Frame ndp_probe(const model::Mac& mac, const model::Address& target);
// Unsolicited, override, to all nodes.
[[nodiscard]] Frame ndp_announcement(const model::Mac& mac, const model::Address& address);
// The answer to `request`: to its source, or to all nodes when that is ::.
[[nodiscard]] Frame ndp_reply(const model::Mac& mac, const NeighbourMessage& request);

[[nodiscard]] model::Address solicited_node_group(const model::Address& address);
[[nodiscard]] model::Mac multicast_mac(const model::Address& group);

}  // namespace egw::net
