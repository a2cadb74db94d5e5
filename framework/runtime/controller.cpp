// The controller's loop (controller.hpp).
#include "egw/runtime/controller.hpp"

#include <algorithm>
#include <chrono>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <utility>

#include "egw/core/plan.hpp"
#include "egw/runtime/dispute.hpp"
#include "egw/runtime/events.hpp"
#include "egw/runtime/heap_trimmer.hpp"
#include "egw/runtime/leader_gate.hpp"
#include "egw/runtime/plan_teller.hpp"
#include "egw/runtime/plan_writer.hpp"
#include "egw/runtime/plugin_health.hpp"
#include "egw/runtime/slice_keeper.hpp"
#include "egw/runtime/spawn.hpp"
#include "egw/runtime/world_sync.hpp"
#include "egw/runtime/write_pace.hpp"

namespace egw::runtime {
namespace asio = boost::asio;
using model::EgressTunnel;
using model::Kind;

namespace {

constexpr int kRoundsToSettle = 20;  // plans in a row that write something
constexpr int kRoundsWithoutEnd = 10 * kRoundsToSettle;
constexpr std::int64_t kUnsettledMs = 1000;
constexpr std::int64_t kInfoGapPerNodeMs = 2, kLongestInfoGapMs = 2000;

// That nobody leads is an election's word to those who do not stand in it.
asio::awaitable<Result<void>> election_health(host::LeaderElection& election) {
  auto health = co_await election.health();
  if (!health && health.error().code == Errc::kNotFound) co_return Result<void>{};
  co_return health;
}

// Everything but the heartbeat is the same.
bool only_heartbeat_differs(const EgressTunnel& before, const EgressTunnel& after) {
  const auto& a = before.status;
  const auto& b = after.status;
  return before.meta.deleted_ms == after.meta.deleted_ms &&
         before.meta.annotations == after.meta.annotations &&
         before.meta.finalizers == after.meta.finalizers && before.meta.uid == after.meta.uid &&
         a.ipv4 == b.ipv4 && a.ipv6 == b.ipv6 && a.mac == b.mac && a.parent == b.parent &&
         a.mark == b.mark && a.phase == b.phase && a.realised == b.realised &&
         a.unreachable == b.unreachable && a.lost_subnets == b.lost_subnets &&
         a.conditions == b.conditions;
}

}  // namespace

struct Controller::Impl {
  Impl(asio::any_io_executor the_executor, Clock& the_clock, Logger& the_log, Metrics& the_metrics,
       ControllerOptions the_options, host::StateStore& store, host::LeaderElection& election)
      : executor(the_executor),
        clock(the_clock),
        log(the_log),
        metrics(the_metrics),
        options(std::move(the_options)),
        sync(the_executor, clock, log, metrics, store, sync_options()),
        gate(the_executor, clock, log, election, [this] { on_gate(); }),
        writer(clock, log, metrics, sync, store),
        events(the_executor, clock, log, metrics, store, "egw-controller", options.identity),
        teller(log, metrics, events, clock, sync.world()),
        dispute(clock, log, events, sync, store, options.identity),
        health(the_executor, clock, log, metrics, options.settings.tunnel_update_period.count(),
               [] {}),
        slices(the_executor, clock, log, metrics, store, options.settings, sync.world()),
        wakeup(the_executor, clock),
        back_off(200, 5000, static_cast<std::uint64_t>(clock.wall_ms())),
        started_wall_ms(clock.wall_ms()) {
    health.add("stateStore", [&store] { return store.health(); });
    health.add("leaderElection", [&election] { return election_health(election); });
  }

  asio::any_io_executor executor;
  Clock& clock;
  Logger& log;
  Metrics& metrics;
  ControllerOptions options;
  WorldSync sync;
  LeaderGate gate;
  PlanWriter writer;
  EventRecorder events;
  PlanTeller teller;
  Dispute dispute;
  PluginHealth health;
  SliceKeeper slices;
  Wakeup wakeup;
  BackOff back_off;
  const std::int64_t started_wall_ms;
  core::PlanInput input;
  core::PlanMemory memory;
  std::int64_t leading_since = 0;
  std::int64_t look_at_ms = 0;   // at the latest
  std::int64_t retry_at_ms = 0;  // not before, after a failure; 0: no failure
  std::int64_t connected_since = 0;
  HeapTrimmer trimmer;
  int rounds = 0;                    // one after the other that wrote something
  std::int64_t unsettled_since = 0;  // the first of them
  bool heartbeats = false;           // arrived since the last observe()
  bool stopping = false;
  std::map<std::string, WritePace> paces;             // by gateway
  std::map<std::string, std::int64_t> infos_written;  // EgressClusterInfos: when
  int loops = 0;                                      // beside this one

  [[nodiscard]] WorldSync::Options sync_options();
  bool tunnel_matters(const EgressTunnel* before, const EgressTunnel& after);
  void on_gate();
  void leave_office();
  void take_office();
  void stand_back();
  [[nodiscard]] std::uint64_t highest_stored_term() const;
  [[nodiscard]] bool in_charge() const {
    return !stopping && gate.leading() && input.term != 0 && sync.connected();
  }
  asio::awaitable<void> wait_for_office();
  asio::awaitable<void> round();
  void finish(BatchEnd end, std::int64_t wake_ms, std::size_t writes);
  void hold_gateways();
  void hold_cluster_infos();
  void count_tunnels();
  static asio::awaitable<void> run(std::shared_ptr<Impl> self);
  static asio::awaitable<void> beside(std::shared_ptr<Impl> self, asio::awaitable<void> loop);
};

WorldSync::Options Controller::Impl::sync_options() {
  WorldSync::Options sync_settings;
  for (const Kind kind :
       {Kind::kEgressGateway, Kind::kEgressPolicy, Kind::kEgressClusterPolicy, Kind::kEgressTunnel,
        Kind::kEgressClusterInfo, Kind::kNode, Kind::kNamespace}) {
    host::Query query;
    query.kind = kind;
    query.metadata_only = kind == Kind::kNamespace;  // its labels
    sync_settings.queries.push_back(std::move(query));
  }
  for (const Kind kind : {Kind::kCalicoIpPool, Kind::kServiceCidr}) {
    host::Query query;
    query.kind = kind;
    sync_settings.optional_queries.push_back(std::move(query));
  }
  sync_settings.on_change = [this](std::optional<Kind>) { wakeup.notify(); };
  sync_settings.tunnel_matters = [this](const EgressTunnel* before, const EgressTunnel& after) {
    return tunnel_matters(before, after);
  };
  sync_settings.tunnel_gone = [this](const EgressTunnel& last) {
    if (input.term != 0) input.former[last.meta.name] = {last, clock.steady_ms()};
  };
  return sync_settings;
}

// A heartbeat alone is noted, not planned for, unless it ends a silence.
bool Controller::Impl::tunnel_matters(const EgressTunnel* before, const EgressTunnel& after) {
  if (before == nullptr || !only_heartbeat_differs(*before, after)) return true;
  heartbeats = true;
  wakeup.notify();
  const auto seen = input.heartbeats.find(after.meta.name);
  return seen == input.heartbeats.end() ||
         clock.steady_ms() - seen->second.changed_ms > core::doubtful_silence_ms(options.settings);
}

void Controller::Impl::on_gate() {
  if (!gate.leading()) {
    dispute.end();
    leave_office();
  }
  wakeup.notify();
}

void Controller::Impl::leave_office() {
  input = {};  // nothing of an office outlives it
  slices.lead(0);
  metrics.leader(false, 0);
}

void Controller::Impl::stand_back() {
  dispute.begin(input.term, leading_since, highest_stored_term() > input.term);
  leave_office();
}

std::uint64_t Controller::Impl::highest_stored_term() const {
  std::uint64_t term = 0;
  for (const auto& [name, gateway] : sync.world().gateways) {
    term = std::max(term, gateway.status.term);
  }
  for (const auto& [name, cluster_info] : sync.world().cluster_infos) {
    term = std::max(term, cluster_info.status.term);
  }
  return term;
}

// The term is greater than any that is stored, so that no write of a predecessor can pass after
// ours (decision record: term and epoch).
void Controller::Impl::take_office() {
  input = {};
  memory = {};
  input.term = std::max({gate.epoch(), highest_stored_term(), dispute.floor()}) + 1;
  input.identity = options.identity;
  input.started_wall_ms = started_wall_ms;
  input.world = &sync.world();
  input.settings = &options.settings;
  leading_since = clock.steady_ms();
  rounds = 0;
  retry_at_ms = 0;
  look_at_ms = 0;
  metrics.leader(true, input.term);
  log.info("leading", {{"term", std::to_string(input.term)}});
}

asio::awaitable<void> Controller::Impl::beside(std::shared_ptr<Impl> self,
                                               asio::awaitable<void> loop) {
  ++self->loops;
  co_await std::move(loop);
  --self->loops;
  self->wakeup.notify();
}

asio::awaitable<void> Controller::Impl::wait_for_office() {
  if (dispute.on() && sync.connected()) {
    co_await wakeup.wait(dispute.look_at_ms());
  } else {
    co_await wakeup.wait();
  }
}

asio::awaitable<void> Controller::Impl::run(std::shared_ptr<Impl> self) {
  Impl& me = *self;
  me.sync.start();
  me.gate.start();
  spawn(me.executor, beside(self, me.events.run()));
  spawn(me.executor, beside(self, me.health.run()));
  spawn(me.executor, beside(self, me.slices.run()));
  while (!me.stopping) {
    if (me.dispute.on() && me.sync.connected()) co_await me.dispute.look();
    if (me.gate.leading() && me.sync.synced() && me.sync.connected() && me.input.term == 0 &&
        !me.dispute.on()) {
      me.take_office();
    }
    if (!me.in_charge()) {
      co_await me.wait_for_office();
      continue;
    }
    const std::int64_t now = me.clock.steady_ms();
    const std::int64_t since = me.sync.connected_since_ms();
    // The pause was for a store that was away.
    if (std::exchange(me.connected_since, since) != since) {
      me.retry_at_ms = 0;
      me.writer.store_is_back();
    }
    if (me.heartbeats) {
      me.heartbeats = false;
      me.input.now_ms = now;
      me.input.wall_ms = me.clock.wall_ms();  // a new leader's is 0 yet
      core::observe(me.input);
    }
    if (now < me.retry_at_ms) {
      co_await me.wakeup.wait(me.retry_at_ms);
    } else if (me.sync.pending() || now >= me.look_at_ms) {
      co_await me.round();
    } else {
      co_await me.wakeup.wait(me.look_at_ms);
    }
  }
  me.events.stop();
  me.health.stop();
  me.slices.stop();
  co_await me.gate.stop();
  while (me.loops > 0) co_await me.wakeup.wait();
  me.sync.stop();
}

// The status of a gateway is written at most so often (write_pace.hpp).
void Controller::Impl::hold_gateways() {
  input.held.clear();
  std::erase_if(paces,
                [&](const auto& pace) { return !sync.world().gateways.contains(pace.first); });
  for (const auto& [name, pace] : paces) {
    if (pace.next_ms() > input.now_ms) input.held[name] = pace.next_ms();
  }
  input.refused = writer.refused_gateways();
}

// The tables of nodes are read by all of them: the more there are, the longer a change waits for
// others to go with it. The first after a quiet time goes at once.
void Controller::Impl::hold_cluster_infos() {
  const auto nodes = static_cast<std::int64_t>(sync.world().tunnels.size());
  const std::int64_t gap = std::min(nodes * kInfoGapPerNodeMs, kLongestInfoGapMs);
  input.held_infos.clear();
  std::erase_if(infos_written, [&](const auto& w) { return w.second + gap <= input.now_ms; });
  for (const auto& [name, at] : infos_written) input.held_infos[name] = at + gap;
}

asio::awaitable<void> Controller::Impl::round() {
  const model::Changes changes = sync.take_changes();  // a plan looks at everything
  if (changes.everything || changes.policies || !changes.namespaces.empty()) {
    slices.world_changed();
  }
  if (highest_stored_term() > input.term) {
    stand_back();
    co_return;
  }
  input.now_ms = clock.steady_ms();
  input.wall_ms = clock.wall_ms();
  input.watching_since_ms = std::max(leading_since, sync.connected_since_ms());
  hold_gateways();
  hold_cluster_infos();
  const auto start = std::chrono::steady_clock::now();
  core::observe(input);
  const core::Plan plan = core::plan(input, &memory);
  metrics.planned(std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  count_tunnels();

  std::set<WriteTarget> targets;
  for (const auto& write : plan.writes) targets.insert(target_of(write));
  teller.tell_rest(plan, targets);
  const std::uint64_t term = input.term;
  std::function<bool()> may_go_on = [this, term] { return in_charge() && input.term == term; };
  PlanWriter::Written written = [this, &plan](const core::Write& write, std::int64_t took_ms) {
    const auto* gateway = std::get_if<core::WriteGateway>(&write);
    if (gateway != nullptr) paces[gateway->gateway.meta.name].made(clock.steady_ms(), took_ms);
    const auto* info = std::get_if<core::WriteClusterInfo>(&write);
    if (info != nullptr) infos_written[info->info.meta.name] = clock.steady_ms();
    teller.tell_made(plan, target_of(write), input.now_ms);
  };
  events.busy(true);
  slices.busy(true);
  const BatchEnd end = co_await writer.run(plan, term, std::move(may_go_on), std::move(written));
  events.busy(false);
  slices.busy(false);
  finish(end, plan.wake_ms, writer.made());
}

void Controller::Impl::finish(BatchEnd end, std::int64_t wake_ms, std::size_t writes) {
  const std::int64_t now = clock.steady_ms();
  look_at_ms = now + options.settings.tunnel_monitor_period.count();
  if (wake_ms != 0) look_at_ms = std::clamp(wake_ms, now + 1, look_at_ms);
  retry_at_ms = 0;
  switch (end) {
    case BatchEnd::kDone:
      back_off.reset();
      if (writes == 0) rounds = 0;
      if (writes != 0 && rounds++ == 0) unsettled_since = now;
      if (writes == 0) trimmer.look(sync.external_changes());
      if (writer.retry_at_ms() != 0) {
        look_at_ms = std::clamp(writer.retry_at_ms(), now + 1, look_at_ms);
      }
      // What was just made may need a second step: its metadata, the status of a new object.
      if (writes != 0) look_at_ms = now;
      if (writes == 0 || rounds >= kRoundsToSettle) slices.lead(input.term);
      if (rounds >= kRoundsToSettle) {
        // So many within a moment. Where many nodes or policies come, each round has its own
        // reason, and a failover must not wait.
        const bool at_once = rounds == kRoundsToSettle && now - unsettled_since < kUnsettledMs;
        if (at_once || rounds >= kRoundsWithoutEnd) {
          log.error("plans do not settle: each writes something again",
                    {{"rounds", std::to_string(rounds)}});
          retry_at_ms = now + kUnsettledMs;
          rounds = 0;
        }
      }
      break;
    case BatchEnd::kInterrupted:
      look_at_ms = now;
      break;
    case BatchEnd::kConflict:
      // The event, or the next regular look. Slices wait for nobody who keeps changing a policy.
      if (writer.complete() && writes == 0) slices.lead(input.term);
      break;
    case BatchEnd::kStaleTerm:
      // Where the election has said it meanwhile, there is no dispute.
      if (input.term != 0) stand_back();
      break;
    case BatchEnd::kUnavailable:
      retry_at_ms = now + back_off.next_ms();
      look_at_ms = std::min(look_at_ms, retry_at_ms);
      break;
  }
}

void Controller::Impl::count_tunnels() {
  std::map<std::string, std::size_t> by_phase;
  for (const auto phase :
       {model::TunnelPhase::kPending, model::TunnelPhase::kInit, model::TunnelPhase::kFailed,
        model::TunnelPhase::kReady, model::TunnelPhase::kHeartbeatTimeout,
        model::TunnelPhase::kNodeNotReady}) {
    by_phase[std::string(model::to_string(phase))] = 0;
  }
  for (const auto& [name, tunnel] : sync.world().tunnels) {
    ++by_phase[std::string(model::to_string(tunnel.status.phase))];
  }
  metrics.tunnels(by_phase);
}

// ---- the public face
// -----------------------------------------------------------------------------

Controller::Controller(asio::any_io_executor executor, Clock& clock, Logger& log, Metrics& metrics,
                       ControllerOptions options, host::StateStore& store,
                       host::LeaderElection& election)
    : impl_(std::make_shared<Impl>(std::move(executor), clock, log, metrics, std::move(options),
                                   store, election)) {}

Controller::~Controller() {
  stop();
  impl_->sync.stop();
}

asio::awaitable<void> Controller::run() { return Impl::run(impl_); }

void Controller::stop() {
  impl_->stopping = true;
  impl_->wakeup.notify();
}

bool Controller::synced() const { return impl_->sync.synced(); }
bool Controller::ready() const { return synced() && impl_->health.trouble("stateStore").empty(); }
bool Controller::leading() const { return impl_->in_charge(); }

nlohmann::json Controller::state() const {
  const Impl& in = *impl_;
  return {{"role", "controller"},
          {"identity", in.options.identity},
          {"leading", in.in_charge()},
          {"leader", in.gate.holder()},
          {"otherLeader", in.dispute.on() ? in.dispute.other() : ""},
          {"term", in.input.term},
          {"revision", in.sync.world().revision},
          {"store", {{"connected", in.sync.connected()}, {"trouble", in.sync.trouble()}}},
          {"plugins", in.health.state()},
          {"moves", in.teller.moves()}};
}

}  // namespace egw::runtime
