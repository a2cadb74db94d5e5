// Announcer: answers ARP and NDP for the EIPs that this node owns, announces them, and notices
// other machines that claim them (RFC 5227, RFC 4861). Runs on a thread of its own with pre-opened
// sockets, so that answers leave within 1 ms whatever the rest of the agent does. No EIP is ever
// made a local address.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "egw/model/address.hpp"
#include "egw/model/node_state.hpp"
#include "egw/model/result.hpp"

namespace egw::net {

struct AnnouncedEip {
  model::Address address;
  bool probe_first = true;  // false: a planned move from a known peer
  friend bool operator==(const AnnouncedEip&, const AnnouncedEip&) = default;
};

// Somebody else claims an EIP of ours (a gratuitous ARP, an ARP request or reply with it as sender,
// an unsolicited neighbour advertisement, a DAD probe).
struct Claim {
  model::Address address;
  model::Mac mac{};
  std::string interface;
  bool from_gateway = false;  // the MAC is a known gateway's (set_gateway_macs)
};

// A subnet on which EIPs could be announced, until the interface went, was set down or lost its
// carrier.
struct LostSubnet {
  model::Prefix subnet;
  std::string interface;
  friend bool operator==(const LostSubnet&, const LostSubnet&) = default;
};

struct AnnouncerOptions {
  std::vector<std::string> exclude;  // regular expressions on interface names, anchored both ends
  std::string tunnel_device;         // ours: never announced on
  std::vector<std::chrono::milliseconds> announce_at{
      // after taking an EIP over
      std::chrono::milliseconds{0}, std::chrono::milliseconds{50}, std::chrono::milliseconds{200},
      std::chrono::milliseconds{1000}, std::chrono::milliseconds{3000}};
  std::chrono::milliseconds probe_wait{100};  // how long a conflicting answer is waited for
  std::chrono::seconds defend_interval{10};   // RFC 5227 DEFEND_INTERVAL
};

struct AnnouncerCounters {
  std::uint64_t arp_answered = 0, ndp_answered = 0, announcements = 0, conflicts = 0, yielded = 0;
};

class Announcer {
 public:
  // Called on the announcer's thread; must not block.
  using OnClaim = std::function<void(const Claim&)>;
  using OnPorts = std::function<void()>;  // silent() or lost_subnets() may have changed
  using Log = std::function<void(int level, std::string message)>;
  static Result<std::unique_ptr<Announcer>> start(AnnouncerOptions options, OnClaim on_claim,
                                                  OnPorts on_ports, Log log);
  ~Announcer();  // stops answering at once

  // Replaces the set of EIPs owned. What is new is (probed and) announced, what is gone is no
  // longer answered when this returns.
  void set(std::vector<AnnouncedEip> eips);
  // MACs of the interfaces that other gateways announce on: a claim by one of these means that the
  // EIP has moved; the announcer yields (stops answering) until confirm().
  void set_gateway_macs(std::vector<model::Mac> macs);
  // The store confirms that `address` is still ours after we yielded: answer and announce again.
  void confirm(const model::Address& address);
  // true: answer and announce nothing (uplink lost, draining) until false.
  void mute(bool on);
  [[nodiscard]] AnnouncerCounters counters() const;
  // Those of set() that nobody is told of, or not where they are looked for; sorted.
  [[nodiscard]] std::vector<model::Address> silent() const;
  // Since the start, until an interface has the subnet again or the same one works. One that works
  // and has only lost the subnet is the same link. Sorted.
  [[nodiscard]] std::vector<LostSubnet> lost_subnets() const;
  // Of the interfaces that EIPs may be announced on. Sorted, at most kMostMacs.
  [[nodiscard]] std::vector<model::Mac> port_macs() const;
  static constexpr std::size_t kMostMacs = 16;

 private:
  Announcer();
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace egw::net
