// What `egw status` says (status.hpp).
#include "egw/app/status.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "egw/app/table.hpp"
#include "egw/model/conditions.hpp"

namespace egw::app {
namespace {

using nlohmann::json;

// Conditions that are good when true; every other one says what is wrong when it is true.
constexpr std::array<std::string_view, 7> kGood{
    "Ready",           "Allocated",           "Placed",          "Realised",
    "TunnelReachable", model::kDatapathInUse, model::kReportedBy};
// Conditions that tell what happened or is under way, good or not.
constexpr std::array<std::string_view, 4> kNews{"LastMove", "MoveDone", "Drained", "Deleting"};

bool is_problem(const model::Condition& c) {
  const auto in = [&c](const auto& list) {
    return std::find(list.begin(), list.end(), c.type) != list.end();
  };
  if (in(kNews)) return false;
  return in(kGood) ? !c.status : c.status || c.status.is_unknown();
}

bool is_false(const model::Conditions& all, std::string_view type) {
  const auto* c = model::find_condition(all, type);
  return c != nullptr && !c->status && !c->status.is_unknown();
}

// A policy without an EIP, or without a node that serves it, says so in up to four conditions: the
// one that says why is enough.
bool follows_from_another(const model::Condition& c, const model::Conditions& all) {
  const auto* degraded = model::find_condition(all, "Degraded");
  if (c.type == "Allocated" || c.type == "Placed") {
    if (degraded != nullptr && degraded->status && degraded->reason == c.reason) return true;
    return c.reason == "NotAllocated" && is_false(all, "Allocated");
  }
  if (c.reason == "NothingToProgram") return is_false(all, "Allocated");
  return c.reason == "Programming" && (is_false(all, "Placed") || is_false(all, "Ready"));
}

// With what the conditions say that are left out for this one.
std::string message_of(const model::Condition& c, const model::Conditions& all) {
  if (c.reason == "Programming") {
    return c.message + ": not every Ready node has programmed it yet (egw get egt -o wide)";
  }
  if (c.type != "Degraded") return c.message;
  for (const char* type : {"Allocated", "Placed"}) {
    const auto* cause = model::find_condition(all, type);
    if (cause != nullptr && cause->reason == c.reason && !c.message.starts_with(cause->message)) {
      return cause->message + "; " + c.message;
    }
  }
  return c.message;
}

void add_problem(json& status, const std::string& object, std::string_view reason,
                 const std::string& message) {
  status["problems"].push_back({{"object", object}, {"reason", reason}, {"message", message}});
}

void add_conditions(json& status, const std::string& object, const model::Conditions& conditions) {
  for (const auto& c : conditions) {
    if (is_problem(c) && !follows_from_another(c, conditions)) {
      std::string what = c.type;
      if (!c.reason.empty() && c.reason != c.type) what += fmt::format(" ({})", c.reason);
      if (c.status.is_unknown()) what += " is unknown";
      add_problem(status, object, what, message_of(c, conditions));
    }
  }
}

json policies_json(const std::vector<model::PolicyRef>& policies) {
  json out = json::array();
  for (const auto& p : policies) out.push_back(p.ns.empty() ? p.name : p.ns + "/" + p.name);
  return out;
}

void add_eip(json& status, const std::string& gateway, const std::string& node,
             const std::string& node_status, const model::EipStatus& eip) {
  status["eips"].push_back({{"gateway", gateway},
                            {"ipv4", eip.ipv4},
                            {"ipv6", eip.ipv6},
                            {"useNodeIP", eip.use_node_ip},
                            {"id", eip.id},
                            {"epoch", eip.epoch},
                            {"node", node},
                            {"nodeStatus", node_status},
                            {"movingFrom", eip.moving_from},
                            {"policies", policies_json(eip.policies)}});
}

void add_gateway(json& status, const model::EgressGateway& gateway) {
  const std::string& name = gateway.meta.name;
  for (const auto& node : gateway.status.node_list) {
    for (const auto& eip : node.eips) add_eip(status, name, node.name, node.status, eip);
  }
  for (const auto& eip : gateway.status.unplaced) add_eip(status, name, "", "", eip);
  add_conditions(status, "egressgateway/" + name, gateway.status.conditions);
  if (const auto* move = model::find_condition(gateway.status.conditions, "LastMove")) {
    status["moves"].push_back({{"gateway", name},
                               {"time", model::format_time(move->transition_ms)},
                               {"message", move->message}});
  }
}

bool is_draining(const model::EgressTunnel& tunnel) {
  const auto found = tunnel.meta.annotations.find(std::string(model::kDrainAnnotation));
  return found != tunnel.meta.annotations.end() && found->second != "false";
}

// Why a heartbeat that is too old is not called so by the leader.
std::string unjudged(const StatusInput& input) {
  if (!input.leaderless.empty()) return "nobody leads who could judge it: start egw controller";
  for (const auto& info : input.infos) {
    const auto* suspect = model::find_condition(info.status.conditions, "StoreSuspect");
    if (suspect != nullptr && suspect->status) {
      return "the leader does not judge it while it suspects the store (StoreSuspect)";
    }
  }
  return "the leader has not judged it yet; if this stays, compare the clocks of the node and of "
         "this machine, and look at the controller's log";
}

void add_tunnel(json& status, const model::EgressTunnel& tunnel, const StatusInput& input) {
  const auto& s = tunnel.status;
  const std::int64_t age = input.now_ms - s.last_heartbeat_ms;
  json entry{{"node", tunnel.meta.name},
             {"phase", model::to_string(s.phase)},
             {"draining", is_draining(tunnel)},
             {"ipv4", s.ipv4},
             {"ipv6", s.ipv6},
             {"datapath", ""},
             {"heartbeatAgeMs", s.last_heartbeat_ms == 0 ? json() : json(age)}};
  if (const auto* in_use = model::find_condition(s.conditions, model::kDatapathInUse)) {
    const auto end = in_use->message.find("; ");
    entry["datapath"] = in_use->message.substr(0, end);
    if (end != std::string::npos) entry["datapathNotChosen"] = in_use->message.substr(end + 2);
  }
  status["tunnels"].push_back(std::move(entry));
  const std::string object = "egresstunnel/" + tunnel.meta.name;
  const auto limit = input.settings.eip_eviction_timeout + 2 * input.settings.tunnel_monitor_period;
  if (s.phase != model::TunnelPhase::kReady) {
    add_problem(status, object, model::to_string(s.phase),
                s.last_heartbeat_ms == 0 ? "its agent has not reported yet"
                                         : fmt::format("last heartbeat {} ago", format_age(age)));
  } else if (age > limit.count()) {
    add_problem(status, object, "HeartbeatOld",
                fmt::format("last heartbeat {} ago; {}", format_age(age), unjudged(input)));
  }
  add_conditions(status, object, s.conditions);
}

std::string or_none(const json& value) {
  const std::string text = value.is_string() ? value.get<std::string>() : value.dump();
  return text.empty() || text == "null" ? "<none>" : text;
}

std::string joined(const json& list, std::size_t most) {
  std::string out;
  for (std::size_t i = 0; i < list.size() && i < most; ++i) {
    out += (i == 0 ? "" : ",") + list[i].get<std::string>();
  }
  if (list.size() > most) out += fmt::format(" and {} more", list.size() - most);
  return out.empty() ? "<none>" : out;
}

std::string section(const std::string& title, Table table) {
  return "\n" + title + "\n" + table.format();
}

}  // namespace

json make_status(const StatusInput& input) {
  json status{{"leader", {{"holder", ""}, {"term", 0}}},
              {"eips", json::array()},
              {"tunnels", json::array()},
              {"problems", json::array()},
              {"moves", json::array()}};
  for (const auto& info : input.infos) {
    if (info.meta.name != model::kClusterInfoName) continue;
    status["leader"] = {{"holder", info.status.leader}, {"term", info.status.term}};
    const std::string object = "egressclusterinfo/" + info.meta.name;
    const auto& notes = info.meta.annotations;
    if (const auto asked = notes.find(std::string(model::kUninstallAnnotation));
        asked != notes.end()) {
      add_problem(
          status, object, "Uninstalling",
          "asked for at " + asked->second +
              ": agents take their nodes out of service; egw uninstall --cancel takes it back");
    }
    add_conditions(status, object, info.status.conditions);
  }
  if (status["leader"]["holder"] == "") {
    add_problem(status, "leader", "NoLeader", "no controller has led yet; start egw controller");
  } else if (!input.leaderless.empty()) {
    add_problem(status, "leader", "NoLeader",
                fmt::format("{} led last and has left the office or died: no EIP moves when a node "
                            "fails; start egw controller ({})",
                            status["leader"]["holder"].get<std::string>(), input.leaderless));
    status["leader"]["holder"] = "";
  } else if (!input.untold.empty()) {
    status["leader"]["untold"] = input.untold;
  }
  for (const auto& u : input.unreadable) add_problem(status, u.object, "Unreadable", u.message);
  for (const auto& tunnel : input.tunnels) add_tunnel(status, tunnel, input);
  for (const auto& gateway : input.gateways) add_gateway(status, gateway);
  for (const auto& policy : input.policies) {
    const std::string object = policy.meta.ns.empty()
                                   ? "egressclusterpolicy/" + policy.meta.name
                                   : "egresspolicy/" + policy.meta.ns + "/" + policy.meta.name;
    add_conditions(status, object, policy.status.conditions);
  }
  status["healthy"] = status["problems"].empty();
  return status;
}

std::string status_text(const json& status) {
  std::string out = fmt::format("Leader: {}, term {}\n", or_none(status["leader"]["holder"]),
                                status["leader"]["term"].dump());
  if (status["leader"].contains("untold")) {
    out += fmt::format("Whether it lives is not known: {}\n", or_none(status["leader"]["untold"]));
  }
  Table tunnels({"NODE", "PHASE", "HEARTBEAT", "IPV4", "IPV6", "DATAPATH"});
  Table chosen({"NODE", "DATAPATH", "NOT CHOSEN"});
  for (const auto& t : status["tunnels"]) {
    const json& age = t["heartbeatAgeMs"];
    tunnels.add({or_none(t["node"]), or_none(t["phase"]) + (t["draining"] == true ? ",Drain" : ""),
                 age.is_null() ? "<none>" : format_age(age.get<std::int64_t>()) + " ago",
                 or_none(t["ipv4"]), or_none(t["ipv6"]), or_none(t["datapath"])});
    if (!t.contains("datapathNotChosen")) continue;
    chosen.add({or_none(t["node"]), or_none(t["datapath"]), or_none(t["datapathNotChosen"])});
  }
  if (!tunnels.empty()) out += section("Tunnels:", std::move(tunnels));
  if (!chosen.empty()) out += section("Datapaths chosen automatically:", std::move(chosen));
  Table eips({"GATEWAY", "IPV4", "IPV6", "NODE", "STATUS", "EPOCH", "POLICIES"});
  for (const auto& e : status["eips"]) {
    const bool own = e["useNodeIP"].get<bool>();
    const std::string from = e["movingFrom"].get<std::string>();
    eips.add({or_none(e["gateway"]), own ? "(node's)" : or_none(e["ipv4"]),
              own ? "(node's)" : or_none(e["ipv6"]), or_none(e["node"]),
              from.empty() ? or_none(e["nodeStatus"]) : "moving from " + from, e["epoch"].dump(),
              joined(e["policies"], 5)});
  }
  if (!eips.empty()) out += section("Egress IPs:", std::move(eips));
  Table moves({"TIME", "GATEWAY", "MOVE"});
  for (const auto& m : status["moves"]) {
    moves.add({or_none(m["time"]), or_none(m["gateway"]), or_none(m["message"])});
  }
  if (!moves.empty()) out += section("Last moves:", std::move(moves));
  Table problems({"OBJECT", "REASON", "MESSAGE"});
  for (const auto& p : status["problems"]) {
    problems.add({or_none(p["object"]), or_none(p["reason"]), or_none(p["message"])});
  }
  return out + (problems.empty() ? "\nHealthy.\n" : section("Problems:", std::move(problems)));
}

}  // namespace egw::app
