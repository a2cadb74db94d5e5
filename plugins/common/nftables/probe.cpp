// probe(): whether this kernel and libnftables can carry the datapath.
#include "common/probe.hpp"

#include "datapath.hpp"

namespace egw::common {
namespace {

// What not every kernel has of what tables.cpp writes.
std::string trial(const sdk::NodeConfig& node, bool egress_hook) {
  std::string out;
  for (const Table t : kFamilies) {
    if (!enables(node, t)) continue;
    const std::string table = std::string(keyword(t)) + " egw-try";
    const std::string address = t == Table::kIp ? "ipv4_addr" : "ipv6_addr";
    out += "add table " + table + "\nadd map " + table + " p { type " + address +
           " : mark; flags interval; }\nadd map " + table + " m { type mark : " + address +
           "; }\nadd chain " + table + " f { type filter hook prerouting priority 0; }\nadd rule " +
           table + " f ct mark set meta mark\nadd chain " + table +
           " n { type nat hook postrouting priority 90; }\nadd rule " + table +
           " n snat to meta mark map @m\n";
  }
  if (!egress_hook) return out;
  const std::string table = "netdev egw-try";
  return out + "add table " + table + "\nadd map " + table +
         " m { type mark : ether_addr; }\nadd chain " + table +
         " e { type filter hook egress device \"lo\" priority 0; }\nadd rule " + table +
         " e ether daddr set meta mark map @m\n";
}

std::string needs(bool egress_hook) {
  return std::string("maps of prefixes and NAT by a map") +
         (egress_hook ? ", and chains at the netdev egress hook (Linux 5.16)" : "");
}

}  // namespace

sdk::Status probe_nftables(std::string_view name, const Numbers& numbers, bool egress_hook,
                           const sdk::NodeConfig& node, sdk::ProbeSink& out) {
  const auto tools = [&] {
    auto nft = Nft::open();
    const sdk::Status tried = nft.ok() ? (*nft)->try_out(trial(node, egress_hook)) : nft.status();
    out.finding(tried.ok(), "Nftables",
                tried.ok() ? "nftables takes " + needs(egress_hook)
                           : "nftables must take " + needs(egress_hook) + ": " + tried.text());
    return tried.ok();
  };
  return probe_host({name, numbers.rule_preference, kRules, tools}, node, out);
}

}  // namespace egw::common
