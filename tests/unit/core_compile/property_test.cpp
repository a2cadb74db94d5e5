// Properties: any sequence of updates ends where a fresh compiler ends; the steps add up to the
// state; the state is what the rules say, checked against a slow evaluation policy by policy.
#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <algorithm>
#include <tuple>

#include "egw/core/compile.hpp"
#include "support.hpp"

namespace egw::core::test {
namespace {

const std::vector<std::string> kNamespaces{"a", "b", "c"};
const std::vector<std::string> kValues{"x", "y", "z"};
const std::vector<std::string> kGateways{"gw", "v4", "missing"};
const std::vector<std::string> kDestinations{"0.0.0.0/0",
                                             "198.51.100.0/24",
                                             "198.51.100.0/25",
                                             "198.51.100.64/26",
                                             "198.51.100.70",
                                             "203.0.113.0/24",
                                             "::/0",
                                             "2001:db8::/32",
                                             "2001:db8:1::/48",
                                             "bad"};
const std::vector<std::string> kSubnets{"10.244.1.0/29", "10.244.1.4/30",  "10.244.1.0/24",
                                        "10.244.1.3",    "fd00:244::/125", "bad"};
const std::vector<std::string> kProbes{"198.51.100.1",   "198.51.100.65", "198.51.100.70",
                                       "198.51.100.200", "203.0.113.9",   "8.8.8.8",
                                       "2001:db8::1",    "2001:db8:1::1", "2606::1"};

// At full size from the first case on: small worlds come by chance.
int number(int bound) { return *rc::gen::resize(rc::kNominalSize, rc::gen::inRange(0, bound)); }
bool one_in(int n) { return number(n) == 0; }
template <class T>
T pick(const std::vector<T>& from) {
  return from[static_cast<std::size_t>(number(static_cast<int>(from.size())))];
}
template <class T>
std::vector<T> some(const std::vector<T>& from, int at_most) {
  std::vector<T> out(static_cast<std::size_t>(number(at_most + 1)));
  for (auto& item : out) item = pick(from);
  return out;
}

model::LabelSelector any_selector(const std::vector<std::string>& keys) {
  model::LabelSelector selector;
  for (int i = number(3); i > 0; --i) {
    model::Requirement r;
    r.key = pick(keys);
    r.op = static_cast<model::Requirement::Op>(number(4));
    if (r.op == model::Requirement::Op::kIn || r.op == model::Requirement::Op::kNotIn) {
      r.values = some(kValues, 2);
      r.values.push_back(pick(kValues));
      std::sort(r.values.begin(), r.values.end());
    }
    selector.requirements.push_back(r);
  }
  return selector;
}

model::Labels any_labels(const std::vector<std::string>& keys) {
  model::Labels labels;
  for (const auto& key : keys) {
    if (!one_in(3)) labels[key] = pick(kValues);
  }
  return labels;
}

void set_policy_field(model::EgressPolicy& p, int field) {
  switch (field) {
    case 0:
      p.meta.created_ms = 1000 + number(3);
      return;
    case 1:
      p.spec.priority = number(3);
      return;
    case 2:
      p.spec.pod_subnet = one_in(3) ? some(kSubnets, 3) : std::vector<std::string>{};
      return;
    case 3:
      p.spec.pod_selector.reset();
      if (p.spec.pod_subnet.empty() && !one_in(4))
        p.spec.pod_selector = any_selector({"app", "tier"});
      return;
    case 4:
      p.spec.namespace_selector.reset();
      if (p.meta.ns.empty() && one_in(2)) p.spec.namespace_selector = any_selector({"team"});
      return;
    case 5:
      p.spec.dest_subnet = some(kDestinations, 4);
      return;
    case 6:
      p.spec.egress_ip.use_node_ip = one_in(6);
      return;
    case 7:
      p.spec.failure_policy =
          one_in(2) ? model::FailurePolicy::kNodeIp : model::FailurePolicy::kDrop;
      p.status.conditions.clear();
      if (one_in(2)) p.status.conditions = {{"Allocated", one_in(3), "", "", 0}};
      return;
    default:
      p.spec.gateway = pick(kGateways);
  }
}

// A new policy, an old one with one field changed, or one gone.
void change_policy(model::World& world, model::Changes& changes) {
  changes.policies = true;
  const model::Key key{one_in(3) ? "" : pick(kNamespaces), "p" + std::to_string(number(4))};
  const auto found = world.policies.find(key);
  if (found != world.policies.end()) {
    if (one_in(3)) {
      world.policies.erase(found);
    } else {
      set_policy_field(found->second, number(9));
      found->second.meta.revision = ++world.revision;
    }
    return;
  }
  auto p = policy(key.ns, key.name, "gw");
  for (int field = 0; field < 9; ++field) set_policy_field(p, field);
  p.meta.revision = ++world.revision;
  put(world, p);
}

void set_pod_field(model::Pod& p, int field) {
  const auto n = std::to_string(1 + number(8));
  switch (field) {
    case 0:
      p.ips.clear();
      if (!one_in(6)) p.ips.push_back(ip("10.244.1." + n));
      if (one_in(2)) p.ips.push_back(ip("fd00:244::" + n));
      return;
    case 1:
      p.meta.labels = any_labels({"app", "tier", "unused"});
      return;
    case 2:
      p.meta.created_ms = 1000 + number(4);
      return;
    case 3:
      p.meta.deleted_ms = one_in(5) ? 1 : 0;
      return;
    case 4:
      p.host_network = one_in(8);
      return;
    case 5:
      p.finished = one_in(8);
      return;
    default:
      p.node_name = one_in(8) ? "n2" : "n1";
  }
}

void change_pod(model::World& world, model::Changes& changes) {
  const model::Key key{pick(kNamespaces), "pod" + std::to_string(number(4))};
  changes.pods.push_back(key);
  const auto found = world.pods.find(key);
  if (found != world.pods.end()) {
    if (one_in(4)) {
      world.pods.erase(found);
    } else {
      set_pod_field(found->second, number(7));
    }
    return;
  }
  auto p = pod(key.ns, key.name, {});
  for (int field = 0; field < 7; ++field) set_pod_field(p, field);
  put(world, p);
}

void change_gateway(model::World& world, model::Changes& changes) {
  changes.gateways = true;
  const std::string name = one_in(2) ? "gw" : "v4";
  if (one_in(8)) {
    world.gateways.erase(name);
    return;
  }
  auto& gateway = world.gateways[name];
  gateway.meta.name = name;
  gateway.spec.ippools.ipv4 = {"10.6.1.0/24"};
  gateway.spec.ippools.ipv6 =
      name == "gw" ? std::vector<std::string>{"fd00:6:1::/64"} : std::vector<std::string>{};
  gateway.status.node_list.clear();
  for (const auto* node : {"n1", "n2", "n9"}) {
    if (one_in(3)) continue;
    model::GatewayNode entry{node, one_in(3) ? "HeartbeatTimeout" : "Ready", {}};
    for (int i = number(3); i > 0; --i) {
      const auto id = static_cast<std::uint32_t>(number(9));
      auto e = eip(id, one_in(6) ? "" : "10.6.1." + std::to_string(id),
                   one_in(3) ? "" : "fd00:6:1::" + std::to_string(id), {});
      e.use_node_ip = one_in(5);
      if (one_in(5)) e.moving_from = "n2";
      e.unserved = one_in(5);
      for (const auto& [key, p] : world.policies) {
        if (one_in(3)) e.policies.push_back({key.name, key.ns});
      }
      entry.eips.push_back(std::move(e));
    }
    gateway.status.node_list.push_back(std::move(entry));
  }
  gateway.status.unplaced.clear();
  if (one_in(2)) return;
  auto e = eip(9, one_in(4) ? "" : "10.6.1.9", one_in(3) ? "" : "fd00:6:1::9", {});
  e.use_node_ip = one_in(5);
  e.unserved = one_in(2);
  for (const auto& [key, p] : world.policies) {
    if (one_in(3)) e.policies.push_back({key.name, key.ns});
  }
  gateway.status.unplaced.push_back(std::move(e));
}

void change_something(model::World& world, model::Changes& changes) {
  switch (number(10)) {
    case 0:
    case 1:
      return change_gateway(world, changes);
    case 2: {
      const auto ns = pick(kNamespaces);
      changes.namespaces.push_back(ns);
      if (one_in(3)) {
        world.namespaces.erase(ns);
      } else {
        world.namespaces[ns].meta.labels = any_labels({"team"});
      }
      return;
    }
    case 3: {
      changes.cluster_infos = true;
      auto& status = world.cluster_infos["default"].status;
      status.present = !one_in(4);
      status.peers = {peer_row("n1", 1)};
      if (!one_in(3)) status.peers.push_back(peer_row("n2", 2));
      if (one_in(3)) status.extra_cidr = some(kDestinations, 2);
      return;
    }
    case 4:
    case 5:
    case 6:
      return change_policy(world, changes);
    default:
      return change_pod(world, changes);
  }
}

// ---- the rules once more, slowly ---------------------------------------------------------------

bool selected(const model::World& world, const model::EgressPolicy& p, const model::Pod& pod) {
  if (!p.meta.ns.empty() && p.meta.ns != pod.meta.ns) return false;
  const bool by_ns = p.meta.ns.empty() && p.spec.namespace_selector;
  if (!p.spec.pod_selector && p.spec.pod_subnet.empty() && !by_ns) return false;
  if (by_ns) {
    model::Labels labels;
    const auto ns = world.namespaces.find(pod.meta.ns);
    if (ns != world.namespaces.end()) labels = ns->second.meta.labels;
    labels["kubernetes.io/metadata.name"] = pod.meta.ns;
    if (!p.spec.namespace_selector->matches(labels)) return false;
  }
  if (p.spec.pod_selector && !p.spec.pod_selector->matches(pod.meta.labels)) return false;
  if (p.spec.pod_subnet.empty()) return true;
  return std::any_of(p.spec.pod_subnet.begin(), p.spec.pod_subnet.end(), [&](const auto& text) {
    const auto prefix = model::Prefix::parse(text);
    return prefix && std::any_of(pod.ips.begin(), pod.ips.end(),
                                 [&](const auto& address) { return prefix->contains(address); });
  });
}

const model::EipStatus* eip_of(const model::World& world, const model::EgressPolicy& p) {
  std::vector<std::uint32_t> taken;
  const model::EipStatus* found = nullptr;
  for (const auto& [name, gateway] : world.gateways) {
    for (const auto& node : gateway.status.node_list) {
      for (const auto& e : node.eips) {
        if (e.id == 0 || (e.ipv4.empty() && e.ipv6.empty() && !e.use_node_ip)) continue;
        if (std::count(taken.begin(), taken.end(), e.id) != 0) continue;
        taken.push_back(e.id);
        if (found == nullptr && name == p.spec.gateway &&
            std::count(e.policies.begin(), e.policies.end(), p.ref()) != 0) {
          found = &e;
        }
      }
    }
  }
  return found;
}

std::pair<model::ActionKind, std::uint32_t> decision(const model::World& world,
                                                     const model::EgressPolicy& p,
                                                     model::Family family) {
  const bool node_ip = p.spec.failure_policy == model::FailurePolicy::kNodeIp;
  const std::pair<model::ActionKind, std::uint32_t> failure{
      node_ip ? model::ActionKind::kNodeIp : model::ActionKind::kDrop, 0};
  const model::EipStatus* e = eip_of(world, p);
  const bool v4 = family == model::Family::kV4;
  if (e != nullptr && (e->use_node_ip || !(v4 ? e->ipv4 : e->ipv6).empty())) {
    if (node_ip && e->unserved) return failure;
    return {model::ActionKind::kEgress, e->id};
  }
  const auto gateway = world.gateways.find(p.spec.gateway);
  bool known = e != nullptr;
  if (e == nullptr && gateway != world.gateways.end()) {
    for (const auto& waiting : gateway->second.status.unplaced) {
      if (std::count(waiting.policies.begin(), waiting.policies.end(), p.ref()) == 0) continue;
      known = true;
      if (!waiting.use_node_ip && (v4 ? waiting.ipv4 : waiting.ipv6).empty()) continue;
      return {node_ip && waiting.unserved ? model::ActionKind::kNodeIp : model::ActionKind::kDrop,
              0};
    }
  }
  if (gateway != world.gateways.end() && !p.spec.egress_ip.use_node_ip) {
    const auto& pools = gateway->second.spec.ippools;
    if ((v4 ? pools.ipv4 : pools.ipv6).empty()) return {model::ActionKind::kBypass, 0};
  }
  if (!known && !p.is_refused()) return {model::ActionKind::kDrop, 0};
  return failure;
}

bool covers(const model::World& world, const model::EgressPolicy& p,
            const model::Address& destination) {
  if (p.spec.dest_subnet.empty()) return world.cluster_infos.at("default").status.present;
  return std::any_of(p.spec.dest_subnet.begin(), p.spec.dest_subnet.end(), [&](const auto& text) {
    const auto prefix = model::Prefix::parse(text);
    return prefix && prefix->contains(destination);
  });
}

std::pair<model::ActionKind, std::uint32_t> expected(const model::World& world,
                                                     const model::Address& source,
                                                     const model::Address& destination) {
  const model::Pod* owner = nullptr;
  const auto rank = [](const model::Pod& pod) {
    return std::make_tuple(pod.meta.created_ms, pod.meta.deleted_ms == 0, pod.meta.ns,
                           pod.meta.name);
  };
  for (const auto& [key, pod] : world.pods) {
    if (pod.node_name != "n1" || pod.host_network || pod.finished) continue;
    if (std::count(pod.ips.begin(), pod.ips.end(), source) == 0) continue;
    if (owner == nullptr || rank(*owner) < rank(pod)) owner = &pod;
  }
  if (owner == nullptr) return {model::ActionKind::kBypass, 0};
  std::vector<const model::EgressPolicy*> ordered;
  for (const auto& [key, p] : world.policies) ordered.push_back(&p);
  std::sort(ordered.begin(), ordered.end(), [](const auto* a, const auto* b) {
    return std::make_tuple(a->spec.priority, a->meta.ns.empty(), a->meta.created_ms, a->meta.name,
                           a->meta.ns) < std::make_tuple(b->spec.priority, b->meta.ns.empty(),
                                                         b->meta.created_ms, b->meta.name,
                                                         b->meta.ns);
  });
  for (const auto* p : ordered) {
    if (!selected(world, *p, *owner) || !covers(world, *p, destination)) continue;
    const auto answer = decision(world, *p, source.family());
    if (answer.first != model::ActionKind::kBypass) return answer;
  }
  return {model::ActionKind::kBypass, 0};
}

void check_against_rules(const model::World& world, const Compiler& compiler) {
  for (int n = 1; n <= 8; ++n) {
    for (const auto& probe : kProbes) {
      const auto destination = ip(probe);
      const auto source =
          ip((destination.is_v4() ? "10.244.1." : "fd00:244::") + std::to_string(n));
      const auto endpoint = compiler.state().endpoints.find(source);
      const auto got = endpoint == compiler.state().endpoints.end()
                           ? std::pair{model::ActionKind::kBypass, std::uint32_t{0}}
                           : look_up(compiler.state().classes.at(endpoint->second), destination);
      RC_ASSERT(got == expected(world, source, destination));
    }
  }
}

void sort_change(model::Change& change) {
  std::sort(change.peers.begin(), change.peers.end(),
            [](const auto& a, const auto& b) { return a.name < b.name; });
  std::sort(change.classes.begin(), change.classes.end());
  std::sort(change.endpoints.begin(), change.endpoints.end());
  std::sort(change.deleted_classes.begin(), change.deleted_classes.end());
  std::sort(change.deleted_endpoints.begin(), change.deleted_endpoints.end());
}

// The step is the smallest one: the difference, and nothing that did not change.
void check_minimal(model::Change step, const model::NodeState& from, const model::NodeState& to) {
  auto wanted = diff(from, to);
  sort_change(step);
  sort_change(wanted);
  RC_ASSERT(step.node.has_value() == wanted.node.has_value());
  RC_ASSERT(step.peers == wanted.peers);
  RC_ASSERT(step.egresses == wanted.egresses);
  RC_ASSERT(step.classes == wanted.classes);
  RC_ASSERT(step.endpoints == wanted.endpoints);
  RC_ASSERT(step.deleted_peers == wanted.deleted_peers);
  RC_ASSERT(step.deleted_egresses == wanted.deleted_egresses);
  RC_ASSERT(step.deleted_classes == wanted.deleted_classes);
  RC_ASSERT(step.deleted_endpoints == wanted.deleted_endpoints);
}

std::vector<std::tuple<model::PolicyRef, std::string, std::string>> texts(
    const Compiler& compiler) {
  std::vector<std::tuple<model::PolicyRef, std::string, std::string>> out;
  for (const auto& f : compiler.findings()) out.emplace_back(f.policy, f.reason, f.message);
  std::sort(out.begin(), out.end());
  return out;
}

RC_GTEST_PROP(CompileProperty, UpdatesEndWhereAFreshCompilerEnds, ()) {
  auto world = small_world();
  model::Changes ignored;
  for (int i = 0; i < 20; ++i) change_something(world, ignored);
  Compiler compiler(dual_stack(), local_node());
  model::NodeState held;
  apply(held, compile(compiler, world));
  for (int round = number(60); round > 0; --round) {
    model::Changes changes;
    for (int i = 1 + number(4); i > 0; --i) change_something(world, changes);
    if (one_in(10)) changes.everything = true;
    const auto before = compiler.state();
    const auto base = compiler.generation();
    const auto step = compiler.update(world, changes);
    check_minimal(step, before, compiler.state());
    RC_ASSERT(step.base == base);
    RC_ASSERT(step.empty() == (compiler.generation() == base));
    apply(held, step);
    RC_ASSERT(same(held, compiler.state()));
    check_against_rules(world, compiler);
  }
  Compiler fresh(dual_stack(), local_node());
  compile(fresh, world);
  RC_ASSERT(content(fresh.state()) == content(compiler.state()));
  RC_ASSERT(fresh.owned() == compiler.owned());
  RC_ASSERT(fresh.policies_in_use() == compiler.policies_in_use());
  RC_ASSERT(texts(fresh) == texts(compiler));
}

RC_GTEST_PROP(CompileProperty, ClassesAreUsedAndDifferFromEachOther, ()) {
  auto world = small_world();
  model::Changes ignored;
  for (int i = 0; i < 30; ++i) change_something(world, ignored);
  Compiler compiler(dual_stack(), local_node());
  compile(compiler, world);
  const auto tables = content(compiler.state()).tables;
  RC_ASSERT(std::adjacent_find(tables.begin(), tables.end()) == tables.end());
  for (const auto& table : tables) {
    RC_ASSERT(!table.empty());
    RC_ASSERT(std::is_sorted(table.begin(), table.end()));
  }
}

model::NodeState any_state() {
  auto world = small_world();
  model::Changes ignored;
  for (int i = number(25); i > 0; --i) change_something(world, ignored);
  Compiler compiler(dual_stack(), local_node());
  compile(compiler, world);
  return compiler.state();
}

RC_GTEST_PROP(DiffProperty, ApplyingTheDifferenceGivesTheOtherState, ()) {
  const auto from = any_state();
  const auto to = any_state();
  auto state = from;
  apply(state, diff(from, to));
  RC_ASSERT(same(state, to));
  RC_ASSERT(diff(to, to).empty());
}

}  // namespace
}  // namespace egw::core::test
