// `egw why`: which policy decides about a pod's packets, and where they leave.
#include <fmt/format.h>

#include <algorithm>

#include "egw/app/console.hpp"
#include "egw/app/read_world.hpp"
#include "egw/app/table.hpp"
#include "egw/app/verbs.hpp"
#include "egw/app/yaml.hpp"
#include "egw/core/explain.hpp"

namespace egw::app {
namespace {

using nlohmann::json;

std::string name_of(const model::PolicyRef& p) {
  return p.ns.empty() ? "egressclusterpolicy/" + p.name
                      : fmt::format("egresspolicy/{}/{}", p.ns, p.name);
}

// Where an egress id stands in the gateways' status.
struct Egress {
  const model::EgressGateway* gateway = nullptr;
  std::string node, node_status;
  const model::EipStatus* entry = nullptr;
};

Egress find_egress(const model::World& world, std::uint32_t id) {
  for (const auto& [name, gateway] : world.gateways) {
    for (const auto& node : gateway.status.node_list) {
      for (const auto& entry : node.eips) {
        if (entry.id == id) return {&gateway, node.name, node.status, &entry};
      }
    }
    for (const auto& entry : gateway.status.unplaced) {
      if (entry.id == id) return {&gateway, "", "", &entry};
    }
  }
  return {};
}

// Nodes whose kernel holds the gateway's state of now, and those that do not report it yet.
json programmed(const model::World& world, const model::EgressGateway& gateway) {
  json out{{"on", json::array()}, {"notYet", json::array()}};
  for (const auto& [name, tunnel] : world.tunnels) {
    const bool done = tunnel.status.realised.revision >= gateway.meta.revision;
    out[done ? "on" : "notYet"].push_back(name);
  }
  return out;
}

// Why a policy does not steer, in the leader's words.
void add_trouble(json& out, const model::World& world, const model::PolicyRef& ref) {
  out["reason"] = "NotYetPlaced";
  out["message"] = "no leader has given it an EIP and a node yet";
  const auto policy = world.policies.find({ref.ns, ref.name});
  if (policy == world.policies.end()) return;
  const model::EgressPolicy& p = policy->second;
  out["gateway"] = p.spec.gateway;
  out["source"] = p.status.ipv4.empty() || p.status.ipv6.empty()
                      ? p.status.ipv4 + p.status.ipv6
                      : p.status.ipv4 + "/" + p.status.ipv6;
  for (const char* type : {"Degraded", "Allocated", "Placed"}) {
    const auto* told = model::find_condition(p.status.conditions, type);
    if (told == nullptr || (told->type != "Degraded" && told->status)) continue;
    out["reason"] = told->reason;
    out["message"] = told->message;
    return;
  }
}

json rule_json(const model::World& world, const model::ClassRule& rule,
               const model::PolicyRef& policy) {
  json out{{"destination", rule.destination.to_string()}, {"policy", name_of(policy)}};
  switch (rule.action) {
    case model::ActionKind::kEgress:
      break;
    case model::ActionKind::kDrop:
      out["action"] = "drop";
      add_trouble(out, world, policy);
      return out;
    case model::ActionKind::kNodeIp:
      out["action"] = "nodeIP";
      add_trouble(out, world, policy);
      return out;
    case model::ActionKind::kBypass:
      out["action"] = "leaveAlone";
      return out;
  }
  const Egress egress = find_egress(world, rule.egress_id);
  out["action"] = "egress";
  out["egressID"] = rule.egress_id;
  if (egress.entry == nullptr) return out;
  const bool v6 = rule.destination.family() == model::Family::kV6;
  out["source"] = egress.entry->use_node_ip ? "the node's own address"
                  : v6                      ? egress.entry->ipv6
                                            : egress.entry->ipv4;
  out["node"] = egress.node;
  out["nodeStatus"] = egress.node_status;
  out["gateway"] = egress.gateway->meta.name;
  out["epoch"] = egress.entry->epoch;
  out["programmed"] = programmed(world, *egress.gateway);
  const auto* move = model::find_condition(egress.gateway->status.conditions, "LastMove");
  if (move != nullptr) {
    out["lastMove"] = {{"time", model::format_time(move->transition_ms)},
                       {"message", move->message}};
  }
  return out;
}

json report(const model::World& world, const model::Pod& pod, const std::string& destination,
            const core::Explanation& e) {
  json out{{"pod", pod.meta.ns + "/" + pod.meta.name},
           {"node", pod.node_name},
           {"addresses", json::array()},
           {"policies", json::array()},
           {"rules", json::array()}};
  for (const auto& address : pod.ips) out["addresses"].push_back(address.to_string());
  if (!destination.empty()) out["destination"] = destination;
  if (!e.excluded.empty()) out["notSelected"] = e.excluded;
  if (!e.left_alone.empty()) out["leftAlone"] = e.left_alone;
  for (const auto& p : e.policies) {
    json row{
        {"policy", name_of(p.policy)}, {"priority", p.priority}, {"destinations", p.destinations}};
    if (!p.verdict.empty()) row["verdict"] = p.verdict;
    out["policies"].push_back(std::move(row));
  }
  for (std::size_t i = 0; i < e.table.size(); ++i) {
    out["rules"].push_back(rule_json(world, e.table[i], e.rule_policies[i]));
  }
  return out;
}

std::string names(const json& list) {
  std::string out;
  for (const auto& name : list) out += (out.empty() ? "" : ", ") + name.get<std::string>();
  return out;
}

std::string trouble_text(const json& rule, const char* what) {
  const std::string eip = rule.value("source", "");
  return fmt::format("{}: {}: {} (EgressGateway {}{}): {}: {}\n",
                     rule["destination"].get<std::string>(), what,
                     rule["policy"].get<std::string>(), rule.value("gateway", ""),
                     eip.empty() ? ", no EIP" : ", EIP " + eip + " on no Ready node",
                     rule["reason"].get<std::string>(), rule["message"].get<std::string>());
}

std::string rule_text(const json& rule) {
  const std::string to = rule["destination"].get<std::string>();
  const std::string action = rule["action"].get<std::string>();
  if (action == "drop") return trouble_text(rule, "dropped");
  if (action == "nodeIP") {
    return trouble_text(rule, "leaves by the pod's own node with its address (failurePolicy)");
  }
  if (action != "egress") return fmt::format("{}: left alone\n", to);
  if (!rule.contains("source")) {
    return fmt::format("{}: egress id {}, which no gateway's status has\n", to,
                       rule["egressID"].dump());
  }
  const std::string node = rule["node"].get<std::string>();
  std::string out = fmt::format(
      "{}: leaves with {} {} (EgressGateway {}, egress id {}, epoch {})\n", to,
      rule["source"].get<std::string>(),
      node.empty() ? "as soon as a node is Ready; dropped until then"
                   : fmt::format("from node {}, {}", node, rule["nodeStatus"].get<std::string>()),
      rule["gateway"].get<std::string>(), rule["egressID"].dump(), rule["epoch"].dump());
  const json& done = rule["programmed"];
  out += fmt::format("  programmed on: {}{}\n", done["on"].empty() ? "no node" : names(done["on"]),
                     done["notYet"].empty() ? "" : "; not yet on: " + names(done["notYet"]));
  if (rule.contains("lastMove")) {
    out += fmt::format("  last move: {} {}\n", rule["lastMove"]["time"].get<std::string>(),
                       rule["lastMove"]["message"].get<std::string>());
  }
  return out;
}

std::string text(const json& r) {
  std::string out = fmt::format("Pod {} on node {}: {}\n", r["pod"].get<std::string>(),
                                r["node"].get<std::string>(), names(r["addresses"]));
  if (r.contains("notSelected")) {
    return out + fmt::format("No policy applies: {}.\n", r["notSelected"].get<std::string>());
  }
  if (r.contains("leftAlone")) {
    out += fmt::format("{}: left alone: {}\n", r["destination"].get<std::string>(),
                       r["leftAlone"].get<std::string>());
  }
  for (const auto& rule : r["rules"]) out += rule_text(rule);
  if (r["policies"].empty()) return out + "No policy selects it.\n";
  const bool judged = r.contains("destination");
  Table table(judged ? std::vector<std::string>{"POLICY", "PRIORITY", "DESTINATIONS", "VERDICT"}
                     : std::vector<std::string>{"POLICY", "PRIORITY", "DESTINATIONS"});
  for (const auto& p : r["policies"]) {
    std::vector<std::string> row{p["policy"].get<std::string>(), p["priority"].dump(),
                                 p["destinations"].get<std::string>()};
    if (judged) row.push_back(p.value("verdict", ""));
    table.add(std::move(row));
  }
  return out + "\nPolicies that select it, best first:\n" + table.format();
}

// The pods of the node, of which another one may have the pod's address.
void read_neighbours(Context& context, Session& session, const std::string& node,
                     model::World& world) {
  if (node.empty()) return;
  host::Query query;
  query.kind = model::Kind::kPod;
  query.fields = "spec.nodeName=" + node;
  const auto listed = session.list(std::move(query));
  if (!listed) {
    context.console.warning(fmt::format(
        "the pods of node {} cannot be read, one of which may have this pod's address: {}", node,
        listed.error().to_string()));
    return;
  }
  for (const auto& object : *listed) {
    if (auto pod = model::decode<model::Pod>(object.document)) {
      model::Key key = pod->meta.key();
      world.pods.emplace(std::move(key), *std::move(pod));
    }
  }
}

int run_why(Context& context) {
  const Args& args = context.args;
  const std::string format = args.get("output");
  if (!format.empty() && format != "json") {
    return usage_error(context, "why", fmt::format("-o is \"{}\"; expected json", format));
  }
  const std::string& word = args.positional[0];
  const std::size_t slash = word.find('/');
  const model::Key key{slash == std::string::npos ? "default" : word.substr(0, slash),
                       slash == std::string::npos ? word : word.substr(slash + 1)};
  std::optional<model::Address> destination;
  if (args.positional.size() > 1) {
    auto parsed = model::Address::parse(args.positional[1]);
    if (!parsed) return usage_error(context, "why", parsed.error().to_string());
    destination = *parsed;
  }
  int code = kDone;
  const auto config = load(context, code);
  if (config == nullptr) return code;
  const auto session = open_store(context, *config, code);
  if (session == nullptr) return code;
  const auto stored = session->get(model::Kind::kPod, key);
  auto pod = stored ? model::decode<model::Pod>(stored->document) : tl::unexpected(stored.error());
  std::vector<Unreadable> unreadable;
  auto world = pod ? read_world(*session, unreadable) : tl::unexpected(pod.error());
  if (!world) {
    context.console.error(
        world.error().code == Errc::kNotFound
            ? fmt::format("pods \"{}\" not found in namespace \"{}\"", key.name, key.ns)
            : world.error().to_string());
    return kRefused;
  }
  warn_of(context.console, unreadable);
  read_neighbours(context, *session, pod->node_name, *world);
  const auto e = core::explain(*world, config->runtime.settings, *pod, destination);
  const json r = report(*world, *pod, destination ? destination->to_string() : "", e);
  context.console.out(format == "json" ? write_json(r) : text(r));
  return finish(context, kDone);
}

}  // namespace

Verb why_verb() {
  Verb v;
  v.name = "why";
  v.usage = "[NAMESPACE/]POD [DESTINATION] [-o json]";
  v.summary = "Say which policy decides about a pod's packets, and where they leave";
  v.details =
      "With a destination: the policy that decides and those that it beats, the egress IP, its "
      "owner, and the\nnodes that have programmed it. Without: every prefix that its policies "
      "cover.\n\n"
      "examples:\n"
      "  egw why default/pod1 203.0.113.7\n"
      "  egw why default/pod1";
  v.options = {{"output", 'o', "json", "the same as JSON"}};
  v.min_args = 1;
  v.max_args = 2;
  v.run = run_why;
  return v;
}

}  // namespace egw::app
