#include "layout.hpp"

#include <linux/netfilter.h>
#include <sys/socket.h>

#include <algorithm>
#include <cstdio>

namespace egw::common {

std::string_view keyword(Table t) {
  switch (t) {
    case Table::kIp:
      return "ip";
    case Table::kIp6:
      return "ip6";
    case Table::kNetdev:
      break;
  }
  return "netdev";
}

std::uint8_t nf_family(Table t) {
  switch (t) {
    case Table::kIp:
      return NFPROTO_IPV4;
    case Table::kIp6:
      return NFPROTO_IPV6;
    case Table::kNetdev:
      break;
  }
  return NFPROTO_NETDEV;
}

std::uint8_t address_family(Table t) {
  switch (t) {
    case Table::kIp:
      return AF_INET;
    case Table::kIp6:
      return AF_INET6;
    case Table::kNetdev:
      break;
  }
  return AF_UNSPEC;
}

namespace {

bool contiguous(std::uint32_t mask) {
  const std::uint32_t run = mask >> std::countr_zero(mask);
  return mask != 0 && (run & (run + 1)) == 0;
}

}  // namespace

std::string Marks::why_invalid() const {
  const int bits = std::popcount(slot_mask_);
  if (!contiguous(slot_mask_) || bits < 4 || bits > 8) {
    return "marks.slotMask " + mark_text(slot_mask_) + " is no contiguous run of 4 to 8 bits";
  }
  // 14 bits of egress id, two of kube-proxy.
  if ((slot_mask_ & 0xffffU) != 0) {
    return "marks.slotMask " + mark_text(slot_mask_) +
           " touches the low 16 bits, which belong to the egress id and kube-proxy";
  }
  if (!contiguous(ct_mask_) || std::popcount(ct_mask_) < 4) {
    return "marks.ctMask " + mark_text(ct_mask_) + " is no contiguous run of at least 4 bits";
  }
  return {};
}

std::uint32_t Marks::max_peer_number() const {
  return std::min<std::uint32_t>((ct_mask_ >> ct_shift()) - 1, kIdMask);
}

sdk::Address next_hop(Table t) {
  if (t == Table::kIp) return sdk::Address::v4(169, 254, 119, 1);
  sdk::Address out;
  out.family = 6;
  out.bytes = {0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x65, 0x67, 0x77, 0x01};
  return out;
}

std::uint64_t fingerprint(std::string_view text) {
  std::uint64_t h = 0xcbf29ce484222325U;
  for (const char c : text) {
    h ^= static_cast<unsigned char>(c);
    h *= 0x100000001b3U;
  }
  return h;
}

std::string hex(std::uint64_t value, unsigned digits) {
  char text[20];
  std::snprintf(text, sizeof(text), "%0*llx", static_cast<int>(digits),
                static_cast<unsigned long long>(value));
  return std::string(text).substr(std::string(text).size() - digits);
}

std::string mark_text(std::uint32_t value) { return "0x" + hex(value, 8); }

std::string mac_text(const sdk::Mac& mac) {
  char text[20];
  std::snprintf(text, sizeof(text), "%02x:%02x:%02x:%02x:%02x:%02x", mac[0], mac[1], mac[2], mac[3],
                mac[4], mac[5]);
  return text;
}

}  // namespace egw::common
