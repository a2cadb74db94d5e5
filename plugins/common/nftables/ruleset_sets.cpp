// The sets and maps that the rules look packets up in (ruleset.hpp).
#include "ruleset.hpp"

namespace egw::common {
namespace {

std::string address_type(Table t) { return t == Table::kIp ? "ipv4_addr" : "ipv6_addr"; }
std::uint32_t address_length(Table t) { return t == Table::kIp ? 4U : 16U; }

// Of the sets that each packet is looked up in. With a size the kernel takes a hash that does not
// grow, which is found faster; more elements than that it refuses.
constexpr std::string_view kEndpointsSize = "; size 131072";
constexpr std::string_view kIdsSize = "; size 16384";  // kIdMask and one
constexpr std::string_view kOwnSize = "; size 32768";
std::string sized(const std::string& type, std::string_view size) {
  return type + std::string(size);
}

}  // namespace

SetSpec Ruleset::prefix_map(Table t, std::uint8_t length) {
  const std::string address = length == 0 ? "" : " . " + address_type(t);
  return {std::string(kPrefixMaps) + std::to_string(length),
          true,
          "type classid" + address + " : classid",
          length == 0 ? 4 : 4 + address_length(t),
          4,
          false,
          false};
}

SetSpec Ruleset::cluster_set(Table t) {
  return {std::string(kClusterSet),
          false,
          "type " + address_type(t) + "; flags interval",
          address_length(t),
          0,
          false,
          true};
}

std::vector<std::pair<Dyn, SetSpec>> Ruleset::sets(Table t) const {
  std::vector<std::pair<Dyn, SetSpec>> out;
  if (t == Table::kNetdev) {
    if (programs_) return out;
    out.push_back({Dyn::kOwnerMac,
                   {"owner", true, sized("type mark : ether_addr", kIdsSize), 4, 6, false, false}});
    out.push_back({Dyn::kBackMac,
                   {"back", true, sized("type mark : ether_addr", kIdsSize), 4, 6, false, false}});
    return out;
  }
  const std::string f(keyword(t));
  const std::string address = address_type(t);
  const std::uint32_t n = address_length(t);
  if (carries(t)) {
    out.push_back(
        {Dyn::kOuter,
         {"outer", false, "typeof " + f + " saddr . @th,176,48", n + 8, 0, false, false}});
  }
  if (!enabled(t)) return out;
  if (!programs_)
    out.push_back({Dyn::kSource,
                   {"endpoints", true, sized("type " + address + " : classid", kEndpointsSize), n,
                    4, false, false}});
  if (programs_) {
    out.push_back({Dyn::kNumber, {"numbers", true, "type classid : classid", 4, 4, false, false}});
  }
  out.push_back({Dyn::kShape, {"shapes", true, "type classid : verdict", 4, 0, true, false}});
  if (programs_) {
    out.push_back(
        {Dyn::kDropped, {"dropped", false, sized("type classid", kIdsSize), 4, 0, false, false}});
  } else {
    out.push_back(
        {Dyn::kSteered, {"steered", false, sized("type classid", kIdsSize), 4, 0, false, false}});
  }
  out.push_back(
      {Dyn::kOwned, {"owned", false, sized("type classid", kIdsSize), 4, 0, false, false}});
  out.push_back(
      {Dyn::kServed, {"served", false, "type " + address + " . classid", n + 4, 0, false, false}});
  out.push_back({Dyn::kGuarded, {"eips", false, "type " + address, n, 0, false, false}});
  out.push_back(
      {Dyn::kOwn, {"own", false, sized("type " + address, kOwnSize), n, 0, false, false}});
  out.push_back({Dyn::kIdNat, {"idnat", true, "type mark : " + address, 4, n, false, false}});
  out.push_back(
      {Dyn::kZoneNat,
       {"zonenat", true, "typeof ct original zone : " + f + " saddr", 2, n, false, false}});
  out.push_back(
      {Dyn::kZone,
       {"zone", true, sized("typeof meta mark : ct original zone", kIdsSize), 4, 2, false, false}});
  out.push_back({Dyn::kKnown, {"known", false, "type ether_addr . mark", 12, 0, false, false}});
  out.push_back({Dyn::kPeer, {"peers", true, "type ether_addr : mark", 6, 4, false, false}});
  return out;
}

}  // namespace egw::common
