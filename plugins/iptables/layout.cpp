#include "layout.hpp"

namespace egw::iptables {

std::string_view word(Backend backend) {
  switch (backend) {
    case Backend::kLegacy:
      return "legacy";
    case Backend::kNft:
      return "nft";
    case Backend::kAuto:
      break;
  }
  return "auto";
}

std::string_view word(Nftables choice) {
  switch (choice) {
    case Nftables::kNoEgress:
      return "no-egress";
    case Nftables::kNever:
      return "never";
    case Nftables::kAuto:
      break;
  }
  return "auto";
}

std::string set_name(Table t, std::string_view what) {
  return std::string(t == Table::kIp ? "EGW4-" : "EGW6-") + std::string(what);
}

bool is_our_set(std::string_view name) {
  return name == kTemporarySet || name.rfind(set_name(Table::kIp, ""), 0) == 0 ||
         name.rfind(set_name(Table::kIp6, ""), 0) == 0;
}

// 169.254.64.0/18 and 169.254.128.0/18, fe80::6567:77:0/112 and fe80::6567:78:0/112.
sdk::Address hop_address(Table t, Hop hop, std::uint32_t number) {
  const auto high = static_cast<std::uint8_t>(number >> 8);
  const auto low = static_cast<std::uint8_t>(number);
  if (t == Table::kIp) {
    const std::uint8_t base = hop == Hop::kEgress ? 64 : 128;
    return sdk::Address::v4(169, 254, static_cast<std::uint8_t>(base + high), low);
  }
  sdk::Address out;
  out.family = 6;
  out.bytes = {0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0x65, 0x67, 0, 0, high, low};
  out.bytes[13] = hop == Hop::kEgress ? 0x77 : 0x78;
  return out;
}

}  // namespace egw::iptables
