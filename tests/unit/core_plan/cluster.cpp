#include "cluster.hpp"

namespace egw::test {

Cluster::Cluster() {
  settings.tunnel_v4 = model::Prefix::parse("172.31.0.0/16").value();
  settings.tunnel_v6 = model::Prefix::parse("fd11::/112").value();
  settings.enable_ipv6 = true;
  input.term = 1;
  input.identity = "leader-a";
  input.now_ms = 1'000'000;
  input.wall_ms = 1'700'000'000'000;
  input.watching_since_ms = 1'000'000;
  world.revision = 100;
}

void Cluster::node(const std::string& name, model::Labels labels) {
  model::Node& n = world.nodes[name];
  n.meta.name = name;
  n.meta.labels = std::move(labels);
  touch(world, n.meta);
}

void Cluster::nodes(int count) {
  for (int i = 1; i <= count; ++i) node("n" + std::to_string(i));
}

model::EgressGateway& Cluster::gateway(const std::string& name, std::vector<std::string> v4,
                                       std::vector<std::string> v6, std::string default4,
                                       std::string default6) {
  model::EgressGateway& g = world.gateways[name];
  g.meta.name = name;
  g.meta.created_ms = ++created;
  g.meta.finalizers = {std::string(model::kGatewayFinalizer)};
  g.spec.ippools = {std::move(v4), std::move(v6), std::move(default4), std::move(default6)};
  g.spec.node_selector.requirements = {{"egress", model::Requirement::Op::kIn, {"true"}}};
  touch(world, g.meta);
  return g;
}

model::EgressPolicy& Cluster::policy(const std::string& ns, const std::string& name,
                                     const std::string& gateway_name) {
  model::EgressPolicy& p = world.policies[{ns, name}];
  p = {};
  p.meta.name = name;
  p.meta.ns = ns;
  p.meta.created_ms = ++created;
  p.spec.gateway = gateway_name;
  touch(world, p.meta);
  return p;
}

model::EgressPolicy& Cluster::rr(const std::string& name, const std::string& gateway_name) {
  model::EgressPolicy& p = policy("ns", name, gateway_name);
  p.spec.egress_ip.allocator = model::AllocatorPolicy::kRoundRobin;
  return p;
}

model::EgressPolicy& Cluster::named(const std::string& name, const std::string& gateway_name,
                                    const std::string& v4, const std::string& v6) {
  model::EgressPolicy& p = policy("ns", name, gateway_name);
  p.spec.egress_ip.ipv4 = v4;
  p.spec.egress_ip.ipv6 = v6;
  return p;
}

void Cluster::drop_policy(const std::string& name, const std::string& ns) {
  world.policies.erase({ns, name});
  ++world.revision;
}

void Cluster::delete_gateway(const std::string& name) {
  model::EgressGateway& g = world.gateways.at(name);
  g.meta.deleted_ms = ++created;
  touch(world, g.meta);
}

void Cluster::beat(const std::string& name) {
  const auto it = world.tunnels.find(name);
  if (it == world.tunnels.end()) return;
  model::EgressTunnel::Status& s = it->second.status;
  if (s.phase == model::TunnelPhase::kNodeNotReady) return;  // the controller's to end
  s.phase = model::TunnelPhase::kReady;
  s.last_heartbeat_ms += 1000;
  s.parent = {"eth0", "192.0.2." + std::to_string(name.back() - '0'), "", "02:00:00:00:00:01", {}};
  s.mac = "02:ee:00:00:00:01";
  s.realised = {input.term, world.revision};
  touch(world, it->second.meta);
}

void Cluster::beat_all(const std::vector<std::string>& except) {
  for (const auto& [name, n] : world.nodes) {
    if (std::find(except.begin(), except.end(), name) == except.end()) beat(name);
  }
}

std::string Cluster::text_of(const core::Plan& plan) {
  std::string out = "wake " + std::to_string(plan.wake_ms) + "\n";
  for (const core::Write& write : plan.writes) {
    out += std::to_string(write.index()) + " ";
    if (const auto* g = std::get_if<core::WriteGateway>(&write)) {
      out += model::encode(g->gateway).dump();
    } else if (const auto* p = std::get_if<core::WritePolicy>(&write)) {
      out += model::encode(p->policy).dump();
    } else if (const auto* t = std::get_if<core::WriteTunnel>(&write)) {
      out += model::encode(t->tunnel).dump();
    } else if (const auto* i = std::get_if<core::WriteClusterInfo>(&write)) {
      out += model::encode(i->info).dump();
    } else if (const auto* m = std::get_if<core::SetMeta>(&write)) {
      out += m->key.to_string() + std::to_string(m->finalizers.size());
    }
    out += "\n";
  }
  for (const core::Move& m : plan.moves) out += m.eip + m.from + m.to + m.why + "\n";
  for (const core::Notice& n : plan.notices) out += n.key.to_string() + n.reason + "\n";
  return out;
}

core::Plan Cluster::step() {
  input.world = &world;
  input.settings = &settings;
  core::observe(input);
  last = core::plan(input);
  if (remembers) {
    EXPECT_EQ(text_of(core::plan(input, &memory)), text_of(last))
        << "what is remembered changes the plan";
  }
  notices.insert(notices.end(), last.notices.begin(), last.notices.end());
  moves.insert(moves.end(), last.moves.begin(), last.moves.end());
  EXPECT_EQ(apply_plan(world, last), "");
  return last;
}

int Cluster::settle() {
  int rounds = 0;
  while (!step().writes.empty()) {
    if (++rounds > 4) {
      ADD_FAILURE() << "plan does not come to rest";
      break;
    }
  }
  return rounds;
}

void Cluster::start() {
  settle();
  beat_all();
  settle();
}

void Cluster::pass(std::int64_t ms) {
  input.now_ms += ms;
  input.wall_ms += ms;
}

void Cluster::live(std::int64_t ms, const std::vector<std::string>& dead) {
  for (std::int64_t t = 0; t < ms; t += 1000) {
    pass(1000);
    beat_all(dead);
    settle();
  }
}

const model::EgressPolicy::Status& Cluster::status(const std::string& name,
                                                   const std::string& ns) const {
  return world.policies.at({ns, name}).status;
}

std::string Cluster::reason(const std::string& name, const std::string& ns) const {
  const model::Condition* c = find_condition(status(name, ns).conditions, "Allocated");
  return c == nullptr ? "" : c->reason;
}

const model::EipStatus* Cluster::eip(const std::string& gateway_name, const std::string& address,
                                     std::string* owner) const {
  const model::EgressGateway::Status& s = world.gateways.at(gateway_name).status;
  for (const model::GatewayNode& n : s.node_list) {
    for (const model::EipStatus& e : n.eips) {
      if (e.ipv4 != address && e.ipv6 != address) continue;
      if (owner != nullptr) *owner = n.name;
      return &e;
    }
  }
  for (const model::EipStatus& e : s.unplaced) {
    if (e.ipv4 == address || e.ipv6 == address) return &e;
  }
  return nullptr;
}

std::string Cluster::owner(const std::string& gateway_name, const std::string& address) const {
  std::string out;
  eip(gateway_name, address, &out);
  return out;
}

const model::Condition* Cluster::condition(const std::string& gateway_name,
                                           const std::string& type) const {
  return find_condition(world.gateways.at(gateway_name).status.conditions, type);
}

const model::EgressClusterInfo::Status& Cluster::info() const {
  return world.cluster_infos.at("default").status;
}

std::string Cluster::phase(const std::string& name) const {
  return std::string(to_string(world.tunnels.at(name).status.phase));
}

int Cluster::count(const std::string& reason_text) const {
  return static_cast<int>(std::count_if(notices.begin(), notices.end(), [&](const core::Notice& n) {
    return n.reason == reason_text;
  }));
}

Moving::Moving() {
  nodes(3);
  gateway("g", {"10.0.0.1"});
  policy("ns", "a", "g");
  start();
  world.gateways["g"].meta.annotations[std::string(model::kMoveAnnotation)] =
      R"({"eip": "10.0.0.1", "to": "n3"})";
  touch(world, world.gateways["g"].meta);
  step();
}

}  // namespace egw::test
