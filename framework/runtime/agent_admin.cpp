// What the agent shows of itself: the admin API's documents and the numbers for a scrape
// (agent.hpp).
#include <nlohmann/json.hpp>

#include "egw/model/node_state_codec.hpp"
#include "egw/runtime/agent_impl.hpp"

namespace egw::runtime {
namespace asio = boost::asio;
using nlohmann::json;

namespace {

json addresses(const std::vector<model::Address>& list) {
  json out = json::array();
  for (const auto& address : list) out.push_back(address.to_string());
  return out;
}

std::string_view owner_name(model::Owner owner) {
  switch (owner) {
    case model::Owner::kSelf:
      return "self";
    case model::Owner::kPeer:
      return "peer";
    case model::Owner::kNone:
      break;
  }
  return "none";
}

std::string_view action_name(model::ActionKind action) {
  switch (action) {
    case model::ActionKind::kEgress:
      return "egress";
    case model::ActionKind::kDrop:
      return "drop";
    case model::ActionKind::kNodeIp:
      return "nodeip";
    case model::ActionKind::kBypass:
      break;
  }
  return "bypass";
}

json node_json(const model::NodeConfig& node) {
  json prefixes = json::array();
  for (const auto& prefix : node.cluster_prefixes) prefixes.push_back(prefix.to_string());
  return {{"name", node.name},
          {"tunnelDevice", node.tunnel_device},
          {"tunnelMac", model::format_mac(node.tunnel_mac)},
          {"tunnelIPv4", node.tunnel_v4.to_string()},
          {"tunnelIPv6", node.tunnel_v6.to_string()},
          {"parentDevice", node.parent_device},
          {"parentIPv4", node.parent_v4.to_string()},
          {"parentIPv6", node.parent_v6.to_string()},
          {"underlay", node.underlay.to_string()},
          {"clusterPrefixes", std::move(prefixes)}};
}

json programmer_json(const ProgrammerStatus& status, std::int64_t now_ms) {
  json failures = json::array();
  for (const auto& failure : status.failures) {
    failures.push_back({{"object", failure.object}, {"message", failure.message}});
  }
  json sysctls = json::array();
  for (const auto& problem : status.sysctls) {
    sysctls.push_back({{"key", problem.key}, {"message", problem.message}});
  }
  json out = {
      {"programmed", status.programmed},
      {"generation", status.generation},
      {"realised", {{"term", status.realised.term}, {"revision", status.realised.revision}}},
      {"missedDeadlines", status.missed},
      {"refused", status.refused},
      {"error", status.error},
      {"failures", std::move(failures)},
      {"sysctlsMissing", std::move(sysctls)}};
  if (status.last_apply_ms != 0) {
    out["lastApply"] = {{"agoMs", now_ms - status.last_apply_ms},
                        {"tookMicroseconds", status.last_took_us}};
  }
  return out;
}

}  // namespace

// A plugin that leaks descriptors takes them from the whole process: said long before none is left.
asio::awaitable<Result<void>> Agent::Impl::descriptors_held() {
  co_return descriptors.look(open_descriptors());
}

model::NodeConfig Agent::node() const {
  const auto* compiler = impl_->programmer.compiler();
  return compiler == nullptr ? model::NodeConfig{} : compiler->state().node;
}

json Agent::state() const {
  const Impl& in = *impl_;
  const std::int64_t now = in.clock.steady_ms();
  json conflicts = json::array();
  for (const auto& [address, conflict] : in.conflicts) {
    conflicts.push_back({{"eip", address.to_string()},
                         {"mac", model::format_mac(conflict.mac)},
                         {"interface", conflict.interface}});
  }
  json out = {{"role", "agent"},
              {"node", in.options.node_name},
              {"store", {{"connected", in.sync.connected()}, {"trouble", in.sync.trouble()}}},
              {"revision", in.sync.world().revision},
              {"uplink",
               {{"interface", in.uplink.name},
                {"works", in.uplink_works},
                {"mac", model::format_mac(in.uplink.mac)},
                {"ipv4", in.uplink.ipv4.to_string()},
                {"ipv6", in.uplink.ipv6.to_string()}}},
              {"datapath", programmer_json(in.programmer.status(), now)},
              {"announced", addresses(in.keeper.announced())},
              {"yielded", addresses(in.keeper.yielded())},
              {"conflicts", std::move(conflicts)},
              {"unreachable", in.reachability.unreachable()},
              {"plugins", in.health.state()},
              {"otherAgent", in.namesake.other()},
              {"draining", in.draining}};
  if (in.ports.datapath_in_use) {
    const DatapathInUse in_use = in.ports.datapath_in_use();
    out["datapath"]["name"] = in_use.name;
    if (in_use.automatic) out["datapath"]["notChosen"] = in_use.others;
  }
  const auto own = in.sync.world().tunnels.find(in.options.node_name);
  if (own != in.sync.world().tunnels.end()) {
    out["phase"] = model::to_string(own->second.status.phase);
  }
  if (const auto* compiler = in.programmer.compiler(); compiler != nullptr) {
    const auto& state = compiler->state();
    json owned = json::array();
    for (const auto& eip : compiler->owned()) {
      owned.push_back(
          {{"eip", eip.address.to_string()}, {"id", eip.id}, {"movingIn", eip.moving_in}});
    }
    out["owned"] = std::move(owned);
    out["counts"] = {{"peers", state.peers.size()},
                     {"egresses", state.egresses.size()},
                     {"classes", state.classes.size()},
                     {"endpoints", state.endpoints.size()}};
  }
  return out;
}

json Agent::desired() const {
  json out = json::object();
  const auto* compiler = impl_->programmer.compiler();
  if (compiler == nullptr) return out;
  const auto& state = compiler->state();
  out["node"] = node_json(state.node);
  out["generation"] = compiler->generation();
  for (const auto& [name, peer] : state.peers) {
    out["peers"][name] = {{"underlay", peer.underlay.to_string()},
                          {"tunnelIPv4", peer.tunnel_v4.to_string()},
                          {"tunnelIPv6", peer.tunnel_v6.to_string()},
                          {"mac", model::format_mac(peer.mac)}};
  }
  for (const auto& [id, egress] : state.egresses) {
    out["egresses"][std::to_string(id)] = {
        {"kind", egress.kind == model::EgressKind::kNode ? "node" : "address"},
        {"ipv4", egress.v4.to_string()},
        {"ipv6", egress.v6.to_string()},
        {"owner", owner_name(egress.owner)},
        {"peer", egress.owner_peer},
        {"mayServe", egress.may_serve}};
  }
  for (const auto& [id, table] : state.classes) {
    json rules = json::array();
    for (const auto& rule : table) {
      rules.push_back({{"destination", rule.destination.to_string()},
                       {"action", action_name(rule.action)},
                       {"egressId", rule.egress_id}});
    }
    out["classes"][std::to_string(id)] = std::move(rules);
  }
  for (const auto& [address, class_id] : state.endpoints) {
    out["endpoints"][address.to_string()] = class_id;
  }
  return out;
}

asio::awaitable<Result<json>> Agent::counters() {
  auto values = co_await impl_->programmer.counters();
  if (!values) co_return tl::unexpected(values.error());
  json out = {{"datapath", json::array()}};
  for (const auto& value : *values) {
    out["datapath"].push_back(
        {{"name", value.name}, {"labels", value.labels}, {"value", value.value}});
  }
  const auto announcer = impl_->ports.announcer.counters();
  out["announcer"] = {{"arpAnswered", announcer.arp_answered},
                      {"ndpAnswered", announcer.ndp_answered},
                      {"announcements", announcer.announcements},
                      {"conflicts", announcer.conflicts},
                      {"yielded", announcer.yielded}};
  co_return out;
}

// A datapath that does not answer leaves its last numbers standing.
asio::awaitable<void> Agent::refresh_metrics() {
  const auto announcer = impl_->ports.announcer.counters();
  impl_->metrics.external("announcer", {{"arp_answers", "", announcer.arp_answered},
                                        {"ndp_answers", "", announcer.ndp_answered},
                                        {"announcements", "", announcer.announcements},
                                        {"claims", "", announcer.conflicts},
                                        {"yields", "", announcer.yielded}});
  if (!started()) co_return;
  auto values = co_await impl_->programmer.counters();
  if (!values) co_return;
  std::vector<ExternalCounter> copied;
  copied.reserve(values->size());
  for (auto& value : *values) {
    copied.push_back({"datapath_" + value.name, std::move(value.labels), value.value});
  }
  impl_->metrics.external("datapath", std::move(copied));
}

}  // namespace egw::runtime
