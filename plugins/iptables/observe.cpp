// What is read or shown as JSON: the configuration and observe().
#include "common/observe.hpp"

#include <linux/if_ether.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "adoption.hpp"
#include "common/config.hpp"
#include "datapath.hpp"

namespace egw::iptables {
using nlohmann::json;

Config parse_config(std::string_view text) {
  Config out;
  const json config = common::parse_config(
      text, {"backendMode", "nftables", "rulePreference", "treePreference", "routeTable"});
  const auto choice = [&](const char* key, auto& value, auto choices, const char* words) {
    const auto given = config.find(key);
    if (given == config.end()) return;
    const std::string said = given->is_string() ? given->get<std::string>() : "";
    const auto* at =
        std::find_if(choices.begin(), choices.end(), [&](auto c) { return word(c) == said; });
    if (at == choices.end()) {
      throw common::wrong_config(std::string("wants ") + words + ", not " + given->dump(), key);
    }
    value = *at;
  };
  choice("backendMode", out.backend,
         std::initializer_list<Backend>{Backend::kAuto, Backend::kLegacy, Backend::kNft},
         "auto, legacy or nft");
  choice("nftables", out.nftables,
         std::initializer_list<Nftables>{Nftables::kAuto, Nftables::kNoEgress, Nftables::kNever},
         "auto, no-egress or never");
  const auto number = [&](const char* key, std::uint32_t& value, std::uint32_t lowest,
                          std::uint32_t highest) {
    value = common::number_in(config, key, value, lowest, highest);
  };
  number("rulePreference", out.rule_preference, 1, 32000);
  number("treePreference", out.tree_preference, 32768, 2000000000);
  number("routeTable", out.route_table, 256, 0xffffffffU - kRouteTables);
  return out;
}

namespace {

json endpoints_of(const SetElements& pods, const Marks& marks) {
  json out = json::object();
  for (const auto& [key, mark] : pods) {
    std::string what = common::name_of(action_in(mark.value, marks));
    if ((mark.value & marks.slot_mask()) == value(marks, Kind::kClass)) {
      what = "class " + std::to_string(mark.value & kIdMask);
    }
    out[key.address.text()] = what;
  }
  return out;
}

json sizes_of(const XtSaved& table) {
  std::size_t rules = 0;
  for (const auto& [name, lines] : table.chains) rules += lines.size();
  return {{"chains", table.chains.size()}, {"rules", rules}, {"jumps", table.jumps.size()}};
}

}  // namespace

// Of the ids that a route leads into the tunnel for, the owners' MACs.
void IptablesDatapath::observe_owners(json& egresses) {
  std::map<sdk::Address, sdk::Mac> macs;
  if (const auto link = common::find_tunnel(route_)) {
    for (const Table t : common::kFamilies) {
      for (const auto& n : common::neighbours(route_, common::address_family(t), link->index)) {
        macs[n.address] = n.mac;
      }
    }
  }
  const std::uint32_t first = hop_table(config_, Hop::kEgress, 0);
  for (const common::Route& r : routes_) {
    const auto mac = macs.find(r.gateway);
    if (mac == macs.end() || r.table <= first || r.table > first + kIdMask) continue;
    egresses[std::to_string(r.table - first)]["ownerMac"] = common::mac_text(mac->second);
  }
  if (!egress_) return;
  for (const auto& [id, mac] : companion_->nft().elements(Table::kNetdev, kOwners, false)) {
    egresses[std::to_string(number_in(id))]["ownerMac"] = common::mac_text(mac_in(mac));
  }
}

// What ids are translated to, and how large the tables are.
void IptablesDatapath::observe_rules(json& egresses, json& tables) {
  for (const Table t : common::kFamilies) {
    const auto saved = xtables_->saved(t);
    for (const Xt x : kXtTables) {
      const std::string family = t == Table::kIp ? "ip " : "ip6 ";
      tables[family + std::string(word(x))] = sizes_of(saved[static_cast<std::size_t>(x)]);
    }
    const char* family = t == Table::kIp ? "v4" : "v6";
    for (const auto& [id, address] : sources_in(saved[static_cast<std::size_t>(Xt::kNat)].chains)) {
      egresses[std::to_string(id)][family] = address.text();
    }
    if (!companion_) continue;
    for (const auto& [id, address] : sources_in(companion_->nft().elements(t, kSources, false))) {
      egresses[std::to_string(id)][family] = address.text();
    }
  }
}

sdk::Outcome<std::string> IptablesDatapath::observe() {
  json out = json::object();
  out["datapath"] = "iptables";
  common::observe_tunnel(route_, out);
  json endpoints = json::object(), egresses = json::object(), tables = json::object();
  json sets = json::object();
  for (const auto& [name, header] : ipset_.headers()) sets[name] = header.elements;
  for (const Table t : common::kFamilies) {
    endpoints.update(endpoints_of(ipset_.elements(set_name(t, "pods")), marks_));
  }
  observe_owners(egresses);
  if (xtables_) observe_rules(egresses, tables);
  out["endpoints"] = endpoints;
  out["egresses"] = egresses;
  out["sets"] = sets;
  if (xtables_) {
    out["iptables"] = {{"backend", word(xtables_->choice().backend)},
                       {"reason", xtables_->choice().reason},
                       {"nftables", companion_ == nullptr ? "never"
                                    : egress_             ? "auto"
                                                          : "no-egress"},
                       {"tables", tables}};
  }
  return out.dump();
}

}  // namespace egw::iptables
