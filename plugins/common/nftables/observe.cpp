// What of a datapath on nftables is read or shown as JSON: its configuration and observe().
#include "common/observe.hpp"

#include <linux/if_ether.h>

#include <algorithm>
#include <cstring>
#include <nlohmann/json.hpp>

#include "common/config.hpp"
#include "datapath.hpp"

namespace egw::common {
Numbers parse_numbers(const nlohmann::json& config) {
  Numbers out;
  out.rule_preference = number_in(config, "rulePreference", out.rule_preference, 1, 32000);
  out.route_table = number_in(config, "routeTable", out.route_table, 1, 0xffffffffU);
  // 253..255: default, main, local.
  if (out.route_table >= 253 && out.route_table <= 255) {
    throw wrong_config("is one of the kernel's own tables", "routeTable");
  }
  return out;
}

namespace {

std::string address_text(const std::string& bytes) { return register_to_address(bytes).text(); }

std::string mac_bytes_text(const std::string& bytes) {
  sdk::Mac mac{};
  if (bytes.size() == mac.size()) std::copy(bytes.begin(), bytes.end(), mac.begin());
  return mac_text(mac);
}

std::uint32_t u32_of(const std::string& bytes) {
  std::uint32_t v = 0;
  if (bytes.size() == sizeof(v)) std::memcpy(&v, bytes.data(), sizeof(v));
  return v;
}

}  // namespace

sdk::Outcome<std::string> NftDatapath::observe() {
  using nlohmann::json;
  json out = json::object();
  out["datapath"] = name_;
  observe_tunnel(route_, out);
  json endpoints = json::object(), egresses = json::object();
  for (const Table t : kFamilies) {
    const std::string family(t == Table::kIp ? "v4" : "v6");
    std::unordered_map<std::uint32_t, std::string> classes;
    if (desired_) classes = desired_->class_names(t);
    for (const auto& [key, number] : nft_->elements(t, "endpoints", false)) {
      const auto at = classes.find(u32_of(number));
      endpoints[address_text(key)] = at == classes.end() ? name_of(u32_of(number)) : at->second;
    }
    for (const auto& [key, address] : nft_->elements(t, "idnat", false)) {
      egresses[std::to_string(u32_of(key))][family] = address_text(address);
    }
  }
  for (const auto& [key, mac] : nft_->elements(Table::kNetdev, "owner", false)) {
    egresses[std::to_string(u32_of(key))]["ownerMac"] = mac_bytes_text(mac);
  }
  out["endpoints"] = endpoints;
  out["egresses"] = egresses;
  json tables = json::object();
  for (const Table t : kTables) {
    const KernelTable k = nft_->dump(t);
    if (!k.exists) continue;
    std::size_t count = 0;
    for (const auto& [name, chain] : k.chains) count += chain.rules;
    tables[std::string(keyword(t))] = {
        {"chains", k.chains.size()}, {"rules", count}, {"sets", k.sets.size()}};
  }
  out["nftables"] = tables;
  if (programs_) programs_->observe(desired_ ? &*desired_ : nullptr, out);
  return out.dump();
}

}  // namespace egw::common
