// ARP and NDP frames: see frames.hpp.
#include "egw/net/frames.hpp"

#include <algorithm>
#include <array>

namespace egw::net {

namespace {

constexpr std::size_t kEthernet = 14;
constexpr std::size_t kArp = 28;
constexpr std::size_t kIpv6 = 40;
constexpr std::size_t kNeighbour = 24;  // NS and NA without options
constexpr std::uint8_t kSolicitation = 135, kAdvertisement = 136;
constexpr std::uint8_t kIcmpv6 = 58;
constexpr std::uint8_t kOptionSourceMac = 1, kOptionTargetMac = 2;
constexpr std::uint8_t kFlagSolicited = 0x40, kFlagOverride = 0x20;
constexpr std::uint16_t kRequest = 1, kReply = 2;

std::uint16_t get16(FrameView bytes, std::size_t at) {
  return static_cast<std::uint16_t>((bytes[at] << 8U) | bytes[at + 1]);
}

void put16(Frame& out, unsigned value) {
  out.push_back(static_cast<std::uint8_t>(value >> 8U));
  out.push_back(static_cast<std::uint8_t>(value));
}

void put(Frame& out, const model::Mac& mac) { out.insert(out.end(), mac.begin(), mac.end()); }

void put(Frame& out, const model::Address& address) {
  const std::size_t size = address.is_v6() ? 16 : 4;
  out.insert(out.end(), address.bytes().begin(),
             address.bytes().begin() + static_cast<std::ptrdiff_t>(size));
}

model::Mac get_mac(FrameView bytes, std::size_t at) {
  model::Mac mac{};
  std::copy_n(bytes.begin() + static_cast<std::ptrdiff_t>(at), mac.size(), mac.begin());
  return mac;
}

bool is_unicast(const model::Mac& mac) { return (mac[0] & 1U) == 0 && mac != model::Mac{}; }

// None for the unspecified address.
model::Address get_v4(FrameView bytes, std::size_t at) {
  std::array<std::uint8_t, 4> raw{};
  std::copy_n(bytes.begin() + static_cast<std::ptrdiff_t>(at), raw.size(), raw.begin());
  return raw == std::array<std::uint8_t, 4>{} ? model::Address{} : model::Address::v4(raw);
}

model::Address get_v6(FrameView bytes, std::size_t at) {
  std::array<std::uint8_t, 16> raw{};
  std::copy_n(bytes.begin() + static_cast<std::ptrdiff_t>(at), raw.size(), raw.begin());
  return raw == std::array<std::uint8_t, 16>{} ? model::Address{} : model::Address::v6(raw);
}

Frame arp(const model::Mac& to, const model::Mac& mac, std::uint16_t operation,
          const model::Address& sender, const model::Mac& target_mac,
          const model::Address& target) {
  const auto zero = model::Address::v4({});
  Frame out;
  out.reserve(kEthernet + kArp);
  put(out, to);
  put(out, mac);
  put16(out, 0x0806);
  put16(out, 1);       // Ethernet
  put16(out, 0x0800);  // IPv4
  out.push_back(6);
  out.push_back(4);
  put16(out, operation);
  put(out, mac);
  put(out, sender ? sender : zero);
  put(out, target_mac);
  put(out, target ? target : zero);
  return out;
}

// RFC 8200, 8.1: pseudo-header and the ICMPv6 message. A correct message sums up to 0.
std::uint16_t icmpv6_checksum(FrameView ip) {
  const std::size_t length = ip.size() - kIpv6;
  std::uint32_t sum = static_cast<std::uint32_t>(length) + kIcmpv6;
  const auto add = [&sum](FrameView bytes) {
    for (std::size_t i = 0; i + 1 < bytes.size(); i += 2) sum += get16(bytes, i);
    if (bytes.size() % 2 != 0) sum += static_cast<std::uint32_t>(bytes.back() << 8U);
  };
  add(ip.subspan(8, 32));
  add(ip.subspan(kIpv6));
  while (sum >> 16U) sum = (sum & 0xffffU) + (sum >> 16U);
  return static_cast<std::uint16_t>(~sum);
}

struct Neighbour {
  std::uint8_t type, flags;
  model::Address source, destination, target;
  std::optional<std::uint8_t> option;  // with the sender's MAC
};

Frame ndp(const model::Mac& to, const model::Mac& mac, const Neighbour& message) {
  Frame out;
  out.reserve(kEthernet + kIpv6 + kNeighbour + 8);
  put(out, to);
  put(out, mac);
  put16(out, 0x86dd);
  const unsigned length = kNeighbour + (message.option ? 8 : 0);
  put16(out, 0x6000);
  put16(out, 0);
  put16(out, length);
  out.push_back(kIcmpv6);
  out.push_back(255);
  put(out, message.source ? message.source : model::Address::v6({}));
  put(out, message.destination);
  out.push_back(message.type);
  out.push_back(0);
  put16(out, 0);  // checksum, below
  out.push_back(message.flags);
  out.insert(out.end(), 3, 0);
  put(out, message.target);
  if (message.option) {
    out.push_back(*message.option);
    out.push_back(1);
    put(out, mac);
  }
  const auto sum = icmpv6_checksum(FrameView(out).subspan(kEthernet));
  out[kEthernet + kIpv6 + 2] = static_cast<std::uint8_t>(sum >> 8U);
  out[kEthernet + kIpv6 + 3] = static_cast<std::uint8_t>(sum);
  return out;
}

model::Address all_nodes() {
  return model::Address::v6({0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1});
}

// Walks the options; false: malformed. mac: from the option `wanted`, if it is there.
bool read_options(FrameView options, std::uint8_t wanted, std::optional<model::Mac>& mac) {
  while (!options.empty()) {
    if (options.size() < 8) return false;
    const std::size_t length = std::size_t{options[1]} * 8;
    if (length == 0 || length > options.size()) return false;
    if (options[0] == wanted && length == 8) mac = get_mac(options, 2);
    options = options.subspan(length);
  }
  return true;
}

}  // namespace

std::optional<NeighbourMessage> parse_arp(FrameView frame) {
  if (frame.size() < kEthernet + kArp || get16(frame, 12) != 0x0806) return std::nullopt;
  const auto body = frame.subspan(kEthernet);
  if (get16(body, 0) != 1 || get16(body, 2) != 0x0800 || body[4] != 6 || body[5] != 4) {
    return std::nullopt;
  }
  const auto operation = get16(body, 6);
  if (operation != kRequest && operation != kReply) return std::nullopt;
  NeighbourMessage out;
  out.asks = operation == kRequest;
  out.frame_source = get_mac(frame, 6);
  out.from = get_mac(body, 8);
  if (!is_unicast(out.from)) return std::nullopt;
  out.source = get_v4(body, 14);
  out.claimed = out.source;
  out.target = get_v4(body, 24);
  return out;
}

std::optional<NeighbourMessage> parse_ndp(FrameView frame, bool checksum_ready) {
  if (frame.size() < kEthernet + kIpv6 + kNeighbour || get16(frame, 12) != 0x86dd) {
    return std::nullopt;
  }
  auto ip = frame.subspan(kEthernet);
  const std::size_t length = get16(ip, 4);
  if ((ip[0] >> 4U) != 6 || ip[6] != kIcmpv6 || ip[7] != 255 || length < kNeighbour ||
      length > ip.size() - kIpv6) {
    return std::nullopt;
  }
  ip = ip.subspan(0, kIpv6 + length);
  const auto body = ip.subspan(kIpv6);
  if ((body[0] != kSolicitation && body[0] != kAdvertisement) || body[1] != 0) return std::nullopt;
  if (checksum_ready && icmpv6_checksum(ip) != 0) return std::nullopt;
  NeighbourMessage out;
  out.asks = body[0] == kSolicitation;
  out.frame_source = get_mac(frame, 6);
  out.source = get_v6(ip, 8);
  out.target = get_v6(body, 8);
  if (!out.target || body[8] == 0xff) return std::nullopt;
  std::optional<model::Mac> mac;
  if (!read_options(body.subspan(kNeighbour), out.asks ? kOptionSourceMac : kOptionTargetMac,
                    mac)) {
    return std::nullopt;
  }
  if (out.asks && !out.source && mac) return std::nullopt;
  out.from = mac.value_or(out.frame_source);
  if (!is_unicast(out.from)) return std::nullopt;
  out.claimed = out.asks ? out.source : out.target;
  return out;
}

Frame arp_probe(const model::Mac& mac, const model::Address& target) {
  return arp(kBroadcastMac, mac, kRequest, {}, {}, target);
}

Frame arp_announcement(const model::Mac& mac, const model::Address& address) {
  return arp(kBroadcastMac, mac, kRequest, address, {}, address);
}

Frame arp_gratuitous_reply(const model::Mac& mac, const model::Address& address) {
  return arp(kBroadcastMac, mac, kReply, address, kBroadcastMac, address);
}

Frame arp_reply(const model::Mac& mac, const NeighbourMessage& request) {
  return arp(request.from, mac, kReply, request.target, request.from, request.source);
}

Frame ndp_probe(const model::Mac& mac, const model::Address& target) {
  const auto group = solicited_node_group(target);
  return ndp(multicast_mac(group), mac, {kSolicitation, 0, {}, group, target, std::nullopt});
}

Frame ndp_announcement(const model::Mac& mac, const model::Address& address) {
  const auto group = all_nodes();
  return ndp(multicast_mac(group), mac,
             {kAdvertisement, kFlagOverride, address, group, address, kOptionTargetMac});
}

Frame ndp_reply(const model::Mac& mac, const NeighbourMessage& request) {
  if (!request.source) return ndp_announcement(mac, request.target);
  return ndp(request.from, mac,
             {kAdvertisement, kFlagSolicited | kFlagOverride, request.target, request.source,
              request.target, kOptionTargetMac});
}

model::Address solicited_node_group(const model::Address& address) {
  std::array<std::uint8_t, 16> raw{0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, 0, 0, 0};
  std::copy_n(address.bytes().begin() + 13, 3, raw.begin() + 13);
  return model::Address::v6(raw);
}

model::Mac multicast_mac(const model::Address& group) {
  const auto& b = group.bytes();
  return {0x33, 0x33, b[12], b[13], b[14], b[15]};
}

}  // namespace egw::net
