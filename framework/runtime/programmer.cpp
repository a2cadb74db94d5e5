// From the World to the kernel of this node (programmer.hpp).
#include "egw/runtime/programmer.hpp"

#include <algorithm>
#include <charconv>
#include <chrono>
#include <set>
#include <utility>

#include "egw/runtime/agent_status.hpp"

namespace egw::runtime {
namespace asio = boost::asio;

namespace {

using SteadyClock = std::chrono::steady_clock;

double seconds_since(SteadyClock::time_point start) {
  return std::chrono::duration<double>(SteadyClock::now() - start).count();
}

// "egress 17" names the egress id 17 (framework/host/datapath.hpp: ApplyFailure).
std::set<std::uint32_t> failed_egresses(const std::vector<host::ApplyFailure>& failures) {
  constexpr std::string_view kWord = "egress ";
  std::set<std::uint32_t> ids;
  for (const auto& failure : failures) {
    if (failure.object.rfind(kWord, 0) != 0) continue;
    std::uint32_t id = 0;
    const char* first = failure.object.data() + kWord.size();
    const char* last = failure.object.data() + failure.object.size();
    if (std::from_chars(first, last, id).ec == std::errc{}) ids.insert(id);
  }
  return ids;
}

// As the failures of an apply call them (host/datapath_proxy.cpp).
std::set<std::string> objects_of(const model::Change& change) {
  std::set<std::string> names;
  const auto add = [&](const char* type, const auto& key) { names.insert(type + key); };
  for (const auto& peer : change.peers) add("peer ", peer.name);
  for (const auto& name : change.deleted_peers) add("peer ", name);
  for (const auto& egress : change.egresses) add("egress ", std::to_string(egress.id));
  for (const auto id : change.deleted_egresses) add("egress ", std::to_string(id));
  for (const auto& [id, table] : change.classes) add("class ", std::to_string(id));
  for (const auto id : change.deleted_classes) add("class ", std::to_string(id));
  for (const auto& [address, id] : change.endpoints) add("endpoint ", address.to_string());
  for (const auto& address : change.deleted_endpoints) add("endpoint ", address.to_string());
  return names;
}

// Of `failures`, those of objects that the delta says nothing about: it does not mend them.
std::vector<host::ApplyFailure> failures_beside(const model::Change& delta,
                                                std::vector<host::ApplyFailure> failures) {
  if (failures.empty()) return failures;
  const auto touched = objects_of(delta);
  std::erase_if(failures, [&](const auto& failure) { return touched.contains(failure.object); });
  return failures;
}

bool touches_owners(const model::Changes& changes, const model::World& world) {
  return changes.everything || changes.placements || changes.policies ||
         (changes.gateways && hands_over(world));  // which ends when all know its newest revision
}

}  // namespace

Programmer::Programmer(asio::any_io_executor executor, Clock& clock, Logger& log, Metrics& metrics,
                       WorldSync& sync, host::Datapath& datapath, Sysctls& sysctls,
                       EipKeeper& keeper, Options options, std::function<void()> on_status)
    : clock_(clock),
      log_(log),
      metrics_(metrics),
      sync_(sync),
      datapath_(datapath),
      sysctls_(sysctls),
      keeper_(keeper),
      options_(std::move(options)),
      on_status_(std::move(on_status)),
      wakeup_(executor, clock),
      mutex_(executor),
      back_off_(200, 5000, static_cast<std::uint64_t>(clock.wall_ms())) {
  datapath_.on_drift([this](std::string what) {
    metrics_.drifted();
    log_.warn("somebody else changed the datapath's kernel state, repairing", {{"what", what}});
    drifted_ = true;
    wake();
  });
}

Programmer::~Programmer() {
  datapath_.on_drift([](const std::string&) {});
}

void Programmer::stop() {
  stopping_ = true;
  wakeup_.notify();
}
void Programmer::wake() { wakeup_.notify(); }
void Programmer::set_local(core::LocalNode local) {
  local_ = std::move(local);
  wake();
}
void Programmer::apply_all() {
  need_full_ = true;
  wake();
}

void Programmer::count_eips() {
  if (!compiler_) return;
  metrics_.agent_state(keeper_.owned_count(), keeper_.announced().size(),
                       compiler_->state().endpoints.size());
}

void Programmer::hold(bool on) {
  held_ = on;
  if (!on) {
    probed_ = false;
    need_full_ = true;
    full_at_ms_ = retry_at_ms_ = 0;
  }
  wake();
}

asio::awaitable<Result<void>> Programmer::purge() {
  const auto lock = co_await mutex_.lock();
  auto purged = co_await datapath_.purge();
  if (!purged) co_return purged;
  status_ = ProgrammerStatus{};
  applied_generation_ = 0;
  co_return sysctls_.restore();
}

bool Programmer::has_tunnel_address() const {
  const auto tunnel = sync_.world().tunnels.find(options_.node_name);
  if (tunnel == sync_.world().tunnels.end()) return false;
  const auto& status = tunnel->second.status;
  return (!options_.settings.enable_ipv4 || !status.ipv4.empty()) &&
         (!options_.settings.enable_ipv6 || !status.ipv6.empty());
}

// Nothing is applied before the whole content of the store is known once, and nothing new while
// this node has no tunnel address: the kernel keeps what it has.
bool Programmer::can_compile() {
  if (!sync_.synced() || !has_tunnel_address()) return false;
  if (local_) {
    if (compiler_) {
      compiler_->set_local(*local_);
    } else {
      compiler_ = std::make_unique<core::Compiler>(options_.settings, *local_);
    }
    local_.reset();
    need_full_ = true;
  }
  return compiler_ != nullptr;
}

std::int64_t Programmer::next_look() const {
  std::int64_t at = full_at_ms_;
  if (retry_at_ms_ != 0) at = std::min(at, retry_at_ms_);
  if (drifted_) at = std::min(at, drift_at_ms_);
  return std::max(at, clock_.steady_ms() + 1);
}

asio::awaitable<void> Programmer::run() {
  while (!stopping_) {
    if (held_ || !can_compile()) {
      co_await wakeup_.wait();
      continue;
    }
    if (!probed_ && !co_await probe()) {
      if (!stopping_) co_await wakeup_.wait(clock_.steady_ms() + options_.probe_again_ms);
      continue;
    }
    const std::int64_t now = clock_.steady_ms();
    const bool due = now >= full_at_ms_ || (retry_at_ms_ != 0 && now >= retry_at_ms_) ||
                     (drifted_ && now >= drift_at_ms_);
    const bool caught_up = behind_ && sync_.connected();
    if (due || caught_up || sync_.pending() || (need_full_ && retry_at_ms_ == 0)) {
      co_await step();
    } else {
      co_await wakeup_.wait(next_look());
    }
  }
}

asio::awaitable<bool> Programmer::probe() {
  auto changes = sync_.take_changes();
  changes.everything = true;
  compiler_->update(sync_.world(), changes);
  owners_touched_ = need_full_ = true;  // the first step applies everything
  model::NodeConfig node = compiler_->state().node;
  const auto lock = co_await mutex_.lock();
  auto findings = co_await datapath_.probe(std::move(node));
  std::string refused;
  if (!findings) {
    refused = findings.error().to_string();
  } else {
    for (const auto& finding : *findings) {
      if (finding.ok || finding.advisory) continue;
      refused += (refused.empty() ? "" : "; ") + finding.code + ": " + finding.message;
    }
    remember_remarks(*findings, true);
  }
  if (refused != status_.refused) {
    status_.refused = refused;
    if (!refused.empty()) log_.error("the datapath cannot run here", {{"error", refused}});
    on_status_();
  }
  if (refused.empty()) {
    probed_ = true;
    auto needs = co_await datapath_.sysctls();
    if (needs) sysctls_.apply(*needs, false);
  }
  co_return refused.empty();
}

// What others do to the host while this runs (a firewall that is started later) is said, and stops
// nothing: the kernel forwards as it did.
asio::awaitable<void> Programmer::look_around() {
  model::NodeConfig node = compiler_->state().node;
  const auto lock = co_await mutex_.lock();
  const auto findings = co_await datapath_.probe(std::move(node));
  if (!findings) co_return;  // what hinders probe hinders apply, which says so
  const auto before = status_.remarks;
  remember_remarks(*findings, false);
  if (status_.remarks != before) on_status_();
}

// advisory: only what does not forbid to run. Settings of the host are the sysctls' business.
void Programmer::remember_remarks(const std::vector<host::ProbeFinding>& findings, bool advisory) {
  std::vector<std::string> remarks;
  for (const auto& finding : findings) {
    if (finding.ok || (advisory && !finding.advisory) || finding.code == "Forwarding") continue;
    remarks.push_back(finding.code + ": " + finding.message);
  }
  for (const std::string& remark : remarks) {
    if (std::find(status_.remarks.begin(), status_.remarks.end(), remark) ==
        status_.remarks.end()) {
      log_.warn("something on this node is in the datapath's way", {{"remark", remark}});
    }
  }
  status_.remarks = std::move(remarks);
}

// EIPs that the store gives to this node (`mine`), or that it hands over to another one.
std::set<model::Address> Programmer::eips_of_node(bool mine) const {
  std::set<model::Address> addresses;
  for (const auto& [name, gateway] : sync_.world().gateways) {
    for (const auto& node : gateway.status.node_list) {
      if ((node.name == options_.node_name) != mine) continue;
      for (const auto& eip : node.eips) {
        if (!mine && eip.moving_from != options_.node_name) continue;
        if (auto v4 = model::Address::parse(eip.ipv4)) addresses.insert(*v4);
        if (auto v6 = model::Address::parse(eip.ipv6)) addresses.insert(*v6);
      }
    }
  }
  return addresses;
}

// An apply may take long: an EIP that has gone meanwhile is no longer answered for at once.
void Programmer::withdraw() {
  if (sync_.synced()) keeper_.withdraw(eips_of_node(true), handing_over(), clock_.steady_ms());
}

// One round: compile what has changed, give it to the datapath, say what is realised.
asio::awaitable<void> Programmer::step() {
  stepping_ = true;
  const auto changes = sync_.take_changes();
  // A kind that is not heard of may hold changes older than the revision that others have reached.
  behind_ = !sync_.connected();
  model::Realised realised;
  realised.revision = sync_.revision(model::Kind::kEgressGateway);
  for (const auto& [name, gateway] : sync_.world().gateways) {
    realised.term = std::max(realised.term, gateway.status.term);
  }
  const auto start = SteadyClock::now();
  model::Change change = compiler_->update(sync_.world(), changes);
  metrics_.compiled(seconds_since(start));
  keeper_.assign(compiler_->owned(), handing_over(), clock_.steady_ms());

  const bool drift = drifted_ && clock_.steady_ms() >= drift_at_ms_;
  const bool retry = retry_at_ms_ != 0 && clock_.steady_ms() >= retry_at_ms_;
  const bool full = need_full_ || drift || retry || clock_.steady_ms() >= full_at_ms_;
  owners_touched_ |= touches_owners(changes, sync_.world());
  bool done = true;
  if (full) {
    drifted_ = false;
    drift_at_ms_ = clock_.steady_ms() + options_.drift_gap_ms;
    change = compiler_->full();
    done = co_await apply(std::move(change));
  } else if (!change.empty()) {
    change.base = applied_generation_;  // steps without effect were not sent
    done = co_await apply(std::move(change));
  } else if (status_.programmed && status_.error.empty() && !held_) {
    // An EIP that went and came back during an apply: the kernel holds it, and nothing is to be
    // done.
    keeper_.realised(failed_egresses(status_.failures), clock_.steady_ms());
  }
  // What failed for reasons of its own (a pod's address) holds nothing up; what others rely on
  // does: they take `realised` as the word that this node steers and serves as the store says.
  const bool relied_on =
      std::all_of(status_.failures.begin(), status_.failures.end(),
                  [](const host::ApplyFailure& f) { return f.object.rfind("endpoint ", 0) == 0; });
  if (done) status_.generation = compiler_->generation();
  if (done && relied_on && !behind_) {
    if (status_.realised != realised && owners_touched_) status_.realised_urgent = true;
    status_.realised = realised;
    owners_touched_ = false;
  }
  count_eips();
  stepping_ = false;
  on_status_();
  if (full && done) co_await look_around();
}

// True when the kernel holds the change, but for single objects that failed.
asio::awaitable<bool> Programmer::apply(model::Change change) {
  const bool full = change.full;
  const bool tune_after = full || change.node.has_value();
  const std::uint64_t generation = change.generation;
  const auto lock = co_await mutex_.lock();
  if (held_) co_return false;
  auto standing =
      full ? std::vector<host::ApplyFailure>{} : failures_beside(change, status_.failures);
  const auto start = SteadyClock::now();
  auto outcome = co_await datapath_.apply(std::move(change));
  const double seconds = seconds_since(start);
  if (!outcome) {
    metrics_.apply(full, "failed", seconds);
    failed(outcome.error());
    co_return false;
  }
  if (outcome->need_full) {
    metrics_.apply(full, "need_full", seconds);
    if (full) {
      failed(Error{Errc::kInternal, "datapath", "asks for everything although it was given", 0});
    }
    need_full_ = true;
    co_return false;
  }
  metrics_.apply(full, outcome->failures.empty() ? "ok" : "partial", seconds);
  if (tune_after) co_await tune(true);
  applied_generation_ = generation;
  if (full) full_at_ms_ = clock_.steady_ms() + options_.full_every_ms;
  applied(*outcome, std::move(standing));
  co_return true;
}

asio::awaitable<void> Programmer::tune(bool complete) {
  auto needs = co_await datapath_.sysctls();
  const std::string error =
      needs ? std::string()
            : "the datapath does not say which sysctls it needs: " + needs.error().to_string();
  if (!error.empty() && error != status_.settings_error) log_.warn(error);
  status_.settings_error = error;
  if (!needs) co_return;
  auto problems = sysctls_.apply(*needs, complete);
  for (const auto& problem : problems) {
    const bool known =
        std::any_of(status_.sysctls.begin(), status_.sysctls.end(), [&](const SysctlProblem& old) {
          return old.key == problem.key && old.message == problem.message;
        });
    if (!known) log_.error("sysctl " + problem.message, {{"key", problem.key}});
  }
  status_.sysctls = std::move(problems);
}

// standing: failures of earlier applies that this one has not tried again.
void Programmer::applied(const host::ApplyOutcome& outcome,
                         std::vector<host::ApplyFailure> standing) {
  const bool first = !status_.programmed;
  for (const auto& [what, count] : outcome.repaired) {
    metrics_.repaired(what, count);
    if (!first) {
      log_.warn("repaired kernel objects", {{"type", what}, {"count", std::to_string(count)}});
    }
  }
  for (const auto& failure : outcome.failures) {
    const bool known = std::any_of(
        status_.failures.begin(), status_.failures.end(), [&](const host::ApplyFailure& old) {
          return old.object == failure.object && old.message == failure.message;
        });
    if (!known) {
      log_.error("an object could not be programmed: " + failure.message,
                 {{"object", failure.object}, {"errno", std::to_string(failure.sys_errno)}});
    }
  }
  if (!status_.error.empty() || status_.missed != 0) log_.info("the datapath works again");
  std::erase_if(standing, [&](const host::ApplyFailure& old) {
    return std::any_of(outcome.failures.begin(), outcome.failures.end(),
                       [&](const host::ApplyFailure& now) { return now.object == old.object; });
  });
  status_.failures = std::move(standing);
  status_.failures.insert(status_.failures.end(), outcome.failures.begin(), outcome.failures.end());
  status_.error.clear();
  status_.missed = 0;
  status_.failing_since_ms = 0;
  status_.tunnel_mac = compiler_->state().node.tunnel_mac;
  status_.programmed = true;
  status_.last_apply_ms = clock_.steady_ms();
  status_.last_took_us = outcome.took.count();
  need_full_ = false;
  if (status_.failures.empty()) {
    retry_at_ms_ = 0;
    back_off_.reset();
  } else if (retry_at_ms_ == 0 || clock_.steady_ms() >= retry_at_ms_) {
    retry_at_ms_ = clock_.steady_ms() + back_off_.next_ms();  // everything again then
  }
  keeper_.realised(failed_egresses(status_.failures), clock_.steady_ms());
  if (first) first_apply_done();
}

// Connections that former owners have left behind here: decided from what this node may serve.
void Programmer::first_apply_done() {
  log_.info("node programmed", {{"egresses", std::to_string(compiler_->state().egresses.size())},
                                {"endpoints", std::to_string(compiler_->state().endpoints.size())},
                                {"peers", std::to_string(compiler_->state().peers.size())}});
  std::set<model::Address> foreign;
  const auto moving = handing_over();
  for (const auto& [id, egress] : compiler_->state().egresses) {
    if (!egress.may_serve || egress.kind != model::EgressKind::kAddress ||
        egress.owner == model::Owner::kSelf) {
      continue;
    }
    if (egress.v4 && !moving.contains(egress.v4)) foreign.insert(egress.v4);
    if (egress.v6 && !moving.contains(egress.v6)) foreign.insert(egress.v6);
  }
  keeper_.left_before(foreign, clock_.steady_ms());
}

// A hung plugin answers kTimeout once and kUnavailable until it returns; the host counts how many
// deadlines that is.
void Programmer::failed(const Error& error) {
  const std::string text = error.to_string();
  std::int64_t delay = back_off_.next_ms();
  if (error.code == Errc::kTimeout || error.code == Errc::kUnavailable) delay += 1000;
  const unsigned missed = std::exchange(status_.missed, datapath_.missed_deadlines());
  // Of a plugin that hangs the text counts the seconds: news is only the next missed deadline.
  const bool known = missed != 0 && missed == status_.missed && !status_.error.empty();
  if (!known && text != status_.error) {
    log_.error("the datapath could not be programmed, trying again", {{"error", text}});
  }
  if (!known) status_.error = text;
  // One that hangs has not said that it cannot: its missed deadlines are counted instead.
  if (status_.missed == 0 && status_.failing_since_ms == 0) {
    status_.failing_since_ms = std::max<std::int64_t>(1, clock_.steady_ms());
  }
  need_full_ = true;
  retry_at_ms_ = clock_.steady_ms() + delay;
  // A plugin that hangs refuses at once: what is due must not be tried again before that, or this
  // loop would leave no time for heartbeat and announcements.
  full_at_ms_ = std::max(full_at_ms_, retry_at_ms_);
  drift_at_ms_ = std::max(drift_at_ms_, retry_at_ms_);
}

asio::awaitable<Result<nlohmann::json>> Programmer::observe() {
  const auto lock = co_await mutex_.lock();
  co_return co_await datapath_.observe();
}
asio::awaitable<Result<std::vector<host::CounterValue>>> Programmer::counters() {
  const auto lock = co_await mutex_.lock();
  co_return co_await datapath_.counters();
}
asio::awaitable<Result<void>> Programmer::health() {
  const auto lock = co_await mutex_.lock();
  co_return co_await datapath_.health();
}
asio::awaitable<Result<void>> Programmer::forget(model::Address eip) {
  const auto lock = co_await mutex_.lock();
  // It may have come back while an apply was running: its connections are live again.
  if (keeper_.owns(eip)) co_return Result<void>{};
  co_return co_await datapath_.forget(eip);
}

}  // namespace egw::runtime
