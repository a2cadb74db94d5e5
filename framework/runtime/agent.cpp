// The agent's life and glue (agent.hpp). What it says of itself: agent_status.cpp; how it leaves:
// agent_drain.cpp; its uplink: agent_uplink.cpp.
#include "egw/runtime/agent.hpp"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>
#include <utility>

#include "egw/model/conditions.hpp"
#include "egw/model/node_state_codec.hpp"
#include "egw/runtime/agent_impl.hpp"
#include "egw/runtime/spawn.hpp"
#include "egw/runtime/store_record.hpp"

namespace egw::runtime {
namespace asio = boost::asio;
using model::Kind;

namespace {

constexpr std::int64_t kConflictShownMs = 60'000;  // after the last claim
constexpr std::int64_t kConfirmGapMs = 1'000;
constexpr std::int64_t kForgetAgainMs = 10'000;
constexpr const char* kDescriptors = "descriptors";

WorldSync::Options sync_options(const AgentOptions& options,
                                std::function<void(std::optional<Kind>)> on_change,
                                std::function<bool()> keeps_store) {
  const auto query = [](Kind kind) {
    host::Query q;
    q.kind = kind;
    q.metadata_only = kind == Kind::kNamespace;  // its labels
    return q;
  };
  WorldSync::Options sync;
  for (const Kind kind : {Kind::kEgressGateway, Kind::kEgressPolicy, Kind::kEgressClusterPolicy,
                          Kind::kEgressClusterInfo, Kind::kNamespace}) {
    sync.queries.push_back(query(kind));
  }
  for (const Kind kind : {Kind::kNode, Kind::kEgressTunnel}) {
    sync.queries.push_back(query(kind));
    sync.queries.back().name = options.node_name;
  }
  sync.queries.push_back(query(Kind::kPod));
  sync.queries.back().fields = "spec.nodeName=" + options.node_name;
  sync.policy_statuses = false;
  sync.on_change = std::move(on_change);
  sync.keeps_store = std::move(keeps_store);
  return sync;
}

Programmer::Options programmer_options(const AgentOptions& options) {
  Programmer::Options programmer;
  programmer.settings = options.settings;
  programmer.node_name = options.node_name;
  return programmer;
}

}  // namespace

Agent::Impl::Impl(asio::any_io_executor the_executor, Clock& the_clock, Logger& the_log,
                  Metrics& the_metrics, AgentOptions the_options, AgentPorts the_ports)
    : executor(the_executor),
      clock(the_clock),
      log(the_log),
      metrics(the_metrics),
      options(std::move(the_options)),
      ports(std::move(the_ports)),
      keeper(ports.announcer),
      sysctls(options.sysctl_root, options.state_dir / "sysctls.json",
              options.settings.manage_forwarding, log),
      sync(the_executor, clock, log, metrics, ports.store,
           sync_options(
               options, [this](std::optional<Kind> kind) { on_world(kind); },
               [this] { return keeps_store(); })),
      programmer(the_executor, clock, log, metrics, sync, ports.datapath, sysctls, keeper,
                 programmer_options(options), [this] { on_status(); }),
      reporter(the_executor, clock, log, metrics, sync, ports.store, reporter_options()),
      events(the_executor, clock, log, metrics, ports.store, "egw-agent", options.node_name),
      health(the_executor, clock, log, metrics, options.settings.tunnel_update_period.count(),
             [this] { on_health(); }),
      namesake(options.identity, options.settings.tunnel_update_period.count()),
      lasting(options.settings.eip_eviction_timeout.count()),
      upkeep_wakeup(the_executor, clock),
      forget_wakeup(the_executor, clock),
      drain_wakeup(the_executor, clock),
      reach_wakeup(the_executor, clock),
      uninstall_wakeup(the_executor, clock),
      done(the_executor, clock) {
  health.add("datapath", [this] { return datapath_health(); });
  health.add("stateStore", [this] { return ports.store.health(); });
  health.add(kDescriptors, [this] { return descriptors_held(); });
}

TunnelReporter::Options Agent::Impl::reporter_options() {
  TunnelReporter::Options reporter_settings;
  reporter_settings.node_name = options.node_name;
  reporter_settings.period_ms = options.settings.tunnel_update_period.count();
  reporter_settings.fill = [this](model::EgressTunnel::Status& status) {
    fill_status(view(), status);
  };
  reporter_settings.realised_urgent = [this] { return programmer.status().realised_urgent; };
  reporter_settings.realised_spread_ms = [this] { return realised_spread_ms(sync.world()); };
  reporter_settings.written = [this](model::TunnelPhase before, const model::EgressTunnel& own) {
    on_written(before, own);
  };
  reporter_settings.fill_elsewhere = [this](model::EgressTunnel::Status& status) {
    fill_elsewhere(other_store_text(), clock.wall_ms(), status);
  };
  reporter_settings.part = [this] { return look_for_namesake(); };
  reporter_settings.fill_aside = [this](model::EgressTunnel::Status& status) {
    fill_aside(namesake.identity(), clock.wall_ms(), status);
  };
  return reporter_settings;
}

AgentView Agent::Impl::view() {
  AgentView v;
  v.programmer = &programmer.status();
  v.has_tunnel_address = programmer.has_tunnel_address();
  v.kernel_intact = kernel_intact;
  if (ports.datapath_in_use) v.datapath = ports.datapath_in_use();
  v.unwell = health.trouble("datapath");
  if (v.unwell.empty()) v.unwell = health.trouble(kDescriptors);
  v.uplink_known = uplink_known;
  v.uplink = uplink;
  v.port_macs = ports.announcer.port_macs();
  v.uplink_works = uplink_works;
  v.uplink_method = uplink_method;
  v.uplink_without_address = uplink_without_address;
  v.lost_address = lost_address;
  if (uplink_works) {  // else that is said, and everything moves
    v.silent = ports.announcer.silent();
    v.lost_subnets = lost_subnets();
  }
  if (programmer.status().programmed) {
    v.tunnel_mac = programmer.status().tunnel_mac;
  } else if (underlay()) {
    v.tunnel_mac = tunnel_mac(underlay(), options.node_name);
  }
  if (behind_since != 0 &&
      clock.steady_ms() - behind_since >= options.settings.eip_eviction_timeout.count()) {
    v.behind = sync.behind();
  }
  v.failing_too_long = lasting.look(programmer.failing_ms(), clock.steady_ms());
  v.failed_times = lasting.held_ms() > 0 ? lasting.times() : 0;
  v.conflicts = conflicts;
  if (programmer.compiler() != nullptr && programmer.status().programmed) {
    v.findings = programmer.compiler()->findings();
  }
  v.pinged = reachability.asked_anybody();
  v.unreachable = reachability.unreachable();
  if (purged) v.purged_for = uninstall_asked;
  v.purge_trouble = purge_trouble;
  v.identity = namesake.identity();
  v.namesake_gone = namesake.told_long_ago(clock.steady_ms());
  v.wall_ms = clock.wall_ms();
  return v;
}

// ---- events --------------------------------------------------------------------------

// kind: whose objects changed; nullopt: the connection, or everything. Policies and pods come by
// the thousand and concern the programmer alone.
void Agent::Impl::on_world(std::optional<Kind> kind) {
  programmer.wake();
  if (kind == Kind::kEgressPolicy || kind == Kind::kEgressClusterPolicy || kind == Kind::kPod)
    return;
  if (sync.connected() && !was_connected) reporter.reconnected();
  if (sync.behind().empty()) {
    behind_since = 0;
  } else if (behind_since == 0) {
    behind_since = std::max<std::int64_t>(1, clock.steady_ms());
  }
  was_connected = sync.connected();
  look_at_store();
  look_for_namesake();
  look_for_uninstall();
  look_for_node();
  choose_uplink();
  update_gateway_macs();
  programmer.withdraw();
  hold_pods();
  reporter.wake();
  forget_wakeup.notify();
  upkeep_wakeup.notify();
  drain_wakeup.notify();
}

void Agent::Impl::on_status() {
  note_store();
  if (programmer.status().programmed && !told_programmed) {
    told_programmed = true;
    if (ports.on_programmed) ports.on_programmed();
  }
  if (!health.trouble("datapath").empty()) health.again();
  reporter.wake();
  forget_wakeup.notify();
  upkeep_wakeup.notify();
  drain_wakeup.notify();
}

// Before the first apply there is nothing to be well or unwell.
asio::awaitable<Result<void>> Agent::Impl::datapath_health() {
  if (!programmer.status().programmed) co_return Result<void>{};
  co_return co_await programmer.health();
}

void Agent::Impl::on_health() {
  // Something of the datapath is missing: programming everything again puts it back.
  if (!health.trouble("datapath").empty()) programmer.apply_all();
  reporter.wake();
}

void Agent::Impl::on_written(model::TunnelPhase before, const model::EgressTunnel& own) {
  programmer.realised_reported();
  namesake.reported();
  trimmer.look(sync.external_changes());
  const model::TunnelPhase now = own.status.phase;
  if (before == now) return;
  const bool failed = now == model::TunnelPhase::kFailed;
  std::string why;
  for (const auto& condition : own.status.conditions) {
    const bool good = condition.type == "TunnelReachable" ||
                      condition.type == model::kDatapathInUse ||
                      condition.type == model::kReportedBy;
    if (!failed || !condition.status || good) continue;
    why += (why.empty() ? ": " : "; ") + condition.type + " " + condition.message;
  }
  const std::string phase(model::to_string(now));
  events.record({Kind::kEgressTunnel,
                 own.meta.key(),
                 failed,
                 "Report",
                 phase,
                 "phase " + std::string(model::to_string(before)) + " to " + phase + why,
                 {},
                 own.meta.uid});
}

const model::EgressTunnel* Agent::Impl::own_tunnel() const {
  const auto own = sync.world().tunnels.find(options.node_name);
  return own == sync.world().tunnels.end() ? nullptr : &own->second;
}

void Agent::Impl::update_gateway_macs() {
  if (!sync.synced()) return;
  std::vector<model::Mac> macs;
  for (const auto& [name, info] : sync.world().cluster_infos) {
    for (const auto& peer : info.status.peers) {
      if (peer.name == options.node_name) continue;
      const auto add = [&macs](const std::string& text) {
        const auto mac = model::parse_mac(text);
        if (mac && *mac != model::Mac{}) macs.push_back(*mac);
      };
      add(peer.parent_mac);
      std::for_each(peer.macs.begin(), peer.macs.end(), add);
    }
  }
  std::sort(macs.begin(), macs.end());
  if (macs == gateway_macs) return;
  gateway_macs = macs;
  ports.announcer.set_gateway_macs(std::move(macs));
}

void Agent::Impl::on_claim(const net::Claim& claim) {
  const std::int64_t now = clock.steady_ms();
  if (namesake.part() != Namesake::Part::kReports) return;  // those of the other agent
  if (!keeper.claimed(claim.address, claim.from_gateway, now)) return;
  if (claim.from_gateway) {
    log.info("another gateway announces an EIP of this node: yielding",
             {{"eip", claim.address.to_string()}, {"mac", model::format_mac(claim.mac)}});
  } else {
    auto& conflict = conflicts[claim.address];
    if (conflict.last_ms == 0) {
      log.error("EipConflict: another machine claims an EIP of this node",
                {{"eip", claim.address.to_string()},
                 {"mac", model::format_mac(claim.mac)},
                 {"interface", claim.interface}});
      events.record({Kind::kEgressTunnel,
                     {"", options.node_name},
                     true,
                     "Announce",
                     "EipConflict",
                     claim.address.to_string() + " is claimed by " + model::format_mac(claim.mac) +
                         " on " + claim.interface +
                         ", which is no gateway: take the address away "
                         "from that machine",
                     {},
                     own_tunnel() == nullptr ? "" : own_tunnel()->meta.uid});
    }
    conflict = Conflict{claim.mac, claim.interface, std::max<std::int64_t>(1, now)};
    metrics.conflict();
    reporter.wake();
  }
  upkeep_wakeup.notify();
  drain_wakeup.notify();
}

// ---- loops
// ---------------------------------------------------------------------------------------

// What time brings: planned moves, yielded EIPs to ask the store about, conflicts that have ended.
// Waits for no datapath.
asio::awaitable<void> Agent::Impl::upkeep(std::shared_ptr<Impl> self) {
  while (!self->stopping) {
    std::int64_t next = self->keeper.tick(self->clock.steady_ms());
    self->note_served();
    next = std::min(next, self->expire_conflicts());
    if (!self->keeper.yielded().empty() && self->sync.connected() &&
        self->sync.other_store().empty()) {
      const std::int64_t now = self->clock.steady_ms();
      if (now >= self->confirm_at_ms) {
        self->confirm_at_ms = now + kConfirmGapMs;
        co_await confirm(self);
        continue;
      }
      next = std::min(next, self->confirm_at_ms);
    }
    if (!self->programmer.status().programmed) next = kForever;
    if (!self->stopping) co_await self->upkeep_wakeup.wait(next);
  }
}

// Ends the connections of EIPs that have left (decision 5). A datapath that cannot do it now is
// asked again: what stayed would meet the EIP when that comes back.
asio::awaitable<void> Agent::Impl::forget_former(std::shared_ptr<Impl> self) {
  while (!self->stopping) {
    const bool programmed = self->programmer.status().programmed;
    model::Address eip;
    if (!programmed || !self->keeper.take_forgettable(self->clock.steady_ms(), eip)) {
      co_await self->forget_wakeup.wait(programmed ? self->keeper.next_forgettable() : kForever);
      continue;
    }
    auto forgotten = co_await self->programmer.forget(eip);
    if (forgotten) continue;
    const std::int64_t again = self->clock.steady_ms() + kForgetAgainMs;
    self->keeper.forget_again(eip, again);
    self->log.warn("connections of a former EIP could not be deleted, trying again",
                   {{"eip", eip.to_string()}, {"error", forgotten.error().to_string()}});
    while (!self->stopping && self->clock.steady_ms() < again) {
      co_await self->forget_wakeup.wait(again);
    }
  }
}

// Asks the store, not the view of it: the event that takes the EIP away may still be under way.
asio::awaitable<void> Agent::Impl::confirm(std::shared_ptr<Impl> self) {
  host::Query query;
  query.kind = Kind::kEgressGateway;
  auto gateways = co_await self->ports.store.list(std::move(query));
  if (!gateways) co_return;
  const auto before = self->keeper.yielded();
  for (const auto& object : *gateways) self->sync.adopt(Kind::kEgressGateway, object);
  std::set<std::string> ours;
  for (const auto& [name, gateway] : self->sync.world().gateways) {
    for (const auto& node : gateway.status.node_list) {
      if (node.name != self->options.node_name) continue;
      for (const auto& eip : node.eips) {
        ours.insert(eip.ipv4);
        ours.insert(eip.ipv6);
      }
    }
  }
  self->programmer.wake();
  for (const auto& address : before) {
    if (!ours.contains(address.to_string())) continue;
    self->log.info("the store confirms an EIP that another gateway had claimed",
                   {{"eip", address.to_string()}});
    self->keeper.confirmed(address);
  }
}

std::int64_t Agent::Impl::expire_conflicts() {
  std::int64_t next = kForever;
  for (auto it = conflicts.begin(); it != conflicts.end();) {
    const std::int64_t ends = it->second.last_ms + kConflictShownMs;
    if (ends <= clock.steady_ms()) {
      it = conflicts.erase(it);
      reporter.wake();
    } else {
      next = std::min(next, ends);
      ++it;
    }
  }
  return next;
}

// Once per update period: do the owners of the EIPs that our pods use answer through the tunnel,
// and do those now that did not?
asio::awaitable<void> Agent::Impl::reach(std::shared_ptr<Impl> self) {
  const std::int64_t period = self->options.settings.tunnel_update_period.count();
  while (!self->stopping) {
    const std::int64_t next = self->clock.steady_ms() + period;
    // A node that nobody counts among his peers is not answered: that says nothing about them.
    if (self->programmer.status().programmed && self->uplink_works && !self->node_gone) {
      const auto asked =
          self->reachability.to_ask(self->programmer.compiler()->state(), self->sync.world());
      std::set<model::Address> answered;
      if (!asked.empty()) {
        std::vector<model::Address> targets;
        for (const auto& [name, address] : asked) targets.push_back(address);
        std::string device = self->options.settings.vxlan_name;
        answered = co_await self->ports.pinger->ping(std::move(device), std::move(targets),
                                                     std::min<std::int64_t>(period / 2, 1000));
      }
      if (self->reachability.round(asked, answered)) {
        for (const auto& name : self->reachability.unreachable()) {
          self->log.warn("an owner of EIPs does not answer through the tunnel", {{"node", name}});
        }
        self->reporter.wake();
      }
    }
    while (!self->stopping && self->clock.steady_ms() < next) {
      co_await self->reach_wakeup.wait(next);
    }
  }
}

void Agent::Impl::halt() {
  stopping = true;
  programmer.stop();
  reporter.stop();
  events.stop();
  health.stop();
  forget_wakeup.notify();
  upkeep_wakeup.notify();
  drain_wakeup.notify();
  reach_wakeup.notify();
  uninstall_wakeup.notify();
  done.notify();
}

void Agent::Impl::start(std::shared_ptr<Impl> self, asio::awaitable<void> loop) {
  ++self->loops;
  const auto on = self->executor;
  spawn(on, counted(std::move(self), std::move(loop)));
}

asio::awaitable<void> Agent::Impl::counted(std::shared_ptr<Impl> self, asio::awaitable<void> loop) {
  co_await std::move(loop);
  --self->loops;
  self->done.notify();
}

asio::awaitable<void> Agent::Impl::run(std::shared_ptr<Impl> self) {
  if (self->options.settings.tunnel_detect_custom.empty()) self->choose_uplink();
  // From another store than the recorded one nothing is taken while the kernel holds what came from
  // that: whether it does must be known first.
  std::string recorded = read_store_record(self->options.state_dir);
  const bool waits = !recorded.empty();
  if (!waits) self->sync.start();
  // Before anything is said of this node: is what a predecessor programmed still there?
  const auto found = co_await self->programmer.health();
  self->kernel_intact = found.has_value();
  self->look_for_namesake();
  if (found && waits) {
    self->noted_store = recorded;
    self->sync.expect_store(std::move(recorded));
  }
  if (waits) self->sync.start();
  if (!found) {
    self->log.info("this node has to be programmed from scratch",
                   {{"reason", found.error().to_string()}});
  }
  start(self, self->programmer.run());
  start(self, self->reporter.run());
  start(self, self->events.run());
  start(self, self->health.run());
  start(self, upkeep(self));
  start(self, forget_former(self));
  start(self, undrain(self));
  start(self, uninstall(self));
  if (self->ports.pinger != nullptr) start(self, reach(self));
  while (!self->stopping || self->loops > 0) co_await self->done.wait();
  self->sync.stop();
}

// ---- the public face
// -----------------------------------------------------------------------------

Agent::Agent(asio::any_io_executor executor, Clock& clock, Logger& log, Metrics& metrics,
             AgentOptions options, AgentPorts ports)
    : impl_(std::make_shared<Impl>(std::move(executor), clock, log, metrics, std::move(options),
                                   std::move(ports))) {}

Agent::~Agent() {
  impl_->halt();
  impl_->sync.stop();
}

asio::awaitable<void> Agent::run() { return Impl::run(impl_); }

void Agent::stop(bool drain) {
  if (impl_->stopping) return;
  // Nobody hands over while the cluster is being left, nor what another agent of this name has.
  if (!drain || impl_->draining || !impl_->uninstall_asked.empty() ||
      impl_->namesake.part() != Namesake::Part::kReports) {
    impl_->halt();
    return;
  }
  impl_->draining = true;
  Impl::start(impl_, Impl::drain(impl_));
}

void Agent::on_uplink(const net::UplinkState& state) { impl_->on_uplink(state); }
void Agent::on_claim(const net::Claim& claim) { impl_->on_claim(claim); }
void Agent::on_ports() { impl_->on_ports(); }
void Agent::apply_all() { impl_->programmer.apply_all(); }

bool Agent::started() const { return impl_->programmer.status().programmed; }
bool Agent::ready() const {
  return started() && impl_->sync.other_store().empty() && !impl_->node_gone &&
         impl_->namesake.part() == Namesake::Part::kReports &&
         impl_->programmer.status().missed < kMissedDeadlinesToFail &&
         impl_->health.trouble("datapath").empty();
}

asio::awaitable<Result<nlohmann::json>> Agent::observe() { return impl_->programmer.observe(); }

}  // namespace egw::runtime
