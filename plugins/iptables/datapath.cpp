#include "datapath.hpp"

#include <algorithm>
#include <utility>

#include "adoption.hpp"
#include "common/upkeep.hpp"
#include "step.hpp"

namespace egw::iptables {

using common::Plan;

namespace {

constexpr std::chrono::milliseconds kMoveWait{300}, kLastWait{2000};
constexpr std::string_view kUnknown = "?";  // a verdict that no plan gives

template <class T>
T opened(sdk::Outcome<T> outcome) {
  return std::move(*outcome);
}

bool only_endpoints(const sdk::Change& c) {
  return c.peers().empty() && c.egresses().empty() && c.classes().empty() &&
         c.deleted_peers().empty() && c.deleted_egresses().empty() && c.deleted_classes().empty();
}

bool only_egresses(const sdk::Change& c) {
  return c.peers().empty() && c.classes().empty() && c.deleted_peers().empty() &&
         c.deleted_classes().empty() && c.endpoints().empty() && c.deleted_endpoints().empty();
}

}  // namespace

std::atomic<Backend> IptablesDatapath::working_{Backend::kAuto};

IptablesDatapath::IptablesDatapath(std::string_view config, std::string_view /*state_dir*/,
                                   sdk::DatapathHost host)
    : host_(host),
      config_(parse_config(config)),
      route_(opened(common::NetlinkSocket::open(NETLINK_ROUTE))),
      ipset_(opened(Ipset::open())),
      tunnel_(route_, host),
      sets_(ipset_),
      sweeper_(host) {
  const auto drifted = [this](const std::string& what) {
    host_.warn("changed by somebody else: " + what);
    host_.drifted(what);
  };
  monitor_ = std::make_unique<common::Monitor>(drifted);
  watch_ = std::make_unique<Watch>(drifted);
}

IptablesDatapath::~IptablesDatapath() {
  sweeper_.drain(kLastWait);
  if (xtables_) working_ = Backend::kAuto;
}

void IptablesDatapath::choose_backend() {
  if (xtables_) return;
  auto choice = Xtables::choose(config_.backend);
  if (!choice) throw sdk::Failure(choice.status());
  host_.info("iptables backend " + std::string(word(choice->backend)) + ": " + choice->reason);
  xtables_.emplace(std::move(*choice));
  working_ = xtables_->choice().backend;
}

void IptablesDatapath::choose_companion() {
  if (companion_ || config_.nftables == Nftables::kNever) return;
  sdk::Outcome<std::unique_ptr<Companion>> found = sdk::fail(sdk::Code::kUnsupported, "");
  if (config_.nftables == Nftables::kAuto) found = Companion::open(true);
  egress_ = found.ok();
  if (!found.ok()) found = Companion::open(false);
  if (found.ok()) {
    companion_ = std::move(*found);
    return;
  }
  // Asked again with each full change.
  if (std::exchange(told_, true)) return;
  host_.info(
      "no nftables tables beside iptables; who else translates addresses must not come "
      "first: " +
      found.status().text());
}

sdk::Status IptablesDatapath::apply(const sdk::Change& change, sdk::ApplyReport& report) {
  if (sdk::Status s = held_.fits(change); !s.ok()) return s;
  if (change.node() != nullptr) {
    if (sdk::Status s = common::check_node(sdk::NodeConfig(*change.node())); !s.ok()) return s;
  }
  // While the rules wait, only what needs none is done by a step.
  const bool all = change.full() || change.node() != nullptr || !plan_ ||
                   (!waiting_.empty() && !only_endpoints(change));
  const common::Monitor::OwnChange own(*monitor_);
  watch_->pause();
  // What the kernel holds is in doubt: the next change reads it.
  const auto doubt = [this] {
    held_.invalidate();
    plan_.reset();
  };
  sdk::Status s;
  bool bare = false;
  try {
    bare = !held_.valid() && untouched();
    s = all ? apply_all(change, report) : apply_step(change, report);
  } catch (const sdk::Failure& failure) {
    s = failure.status();
  } catch (...) {
    doubt();
    throw;
  }
  if (!s.ok()) {
    // A first change that has come to nothing leaves nothing. Without its tunnel it is something.
    if (bare && !plan_) take_back();
    doubt();
  }
  watch_filters();
  return s;
}

void IptablesDatapath::take_back() {
  common::Bound nobody;
  sdk::Status s;
  try {
    s = remove_all(nobody);
  } catch (const sdk::Failure& failure) {
    s = failure.status();
  }
  if (!s.ok()) host_.warn(s.text());
}

// Before the first change: numbers that the kernel knows already are kept.
void IptablesDatapath::learn() {
  for (const Table t : common::kFamilies) {
    const Chains& mangle = saved_[index(t)][static_cast<std::size_t>(Xt::kMangle)].chains;
    for (const auto& [mac, mark] : peers_in(mangle)) {
      numbering_.peers.learn(mac, mark >> marks_.ct_shift());
    }
    for (const auto& [content, place] : classes_in(t, sets_.held(), marks_)) {
      groups_[index(t)].learn(content, place);
    }
  }
}

sdk::Status IptablesDatapath::apply_all(const sdk::Change& change, sdk::ApplyReport& report) {
  sdk::DatapathState next;
  if (!change.full()) next = held_;
  next.merge(change);
  marks_ = Marks(next.state().node.slot_mask, next.state().node.ct_mask);
  choose_companion();
  choose_backend();
  for (const Table t : common::kFamilies) saved_[index(t)] = xtables_->saved(t);
  Plan plan;
  if (plan_) plan.know(*plan_);
  Step step{held_.state(), next.state(), plan_ ? &*plan_ : nullptr, plan, {}, {}, {}, {}, {}};
  sets_.read(step.repairs);
  if (numbering_.empty()) learn();
  plan.build(step.state, numbering_, step.failures);
  common::check_endpoints(change, step.state, step.failures);
  look_at_rules(plan);
  watch_kernel(step.state, plan);
  welcome_flows(step);
  sdk::Status tunnel = program_tunnel(step);
  ingress_ = egress_ && device_ != 0 &&
             common::find_link(route_, step.state.node.parent_device).has_value();
  watch_kernel(step.state, plan);
  SetPlan sets(plan, groups_, step.failures);
  step.before != nullptr ? compare_sources(step) : compare_with_sets(step, sets);
  sdk::Status s;
  try {
    s = program(step, sets, true);
  } catch (const sdk::Failure& failure) {
    s = failure.status();
  }
  settle_flows(step, s.ok());
  if (!s.ok()) return s;
  if (tunnel.ok() && waiting_.empty()) open_tunnel(step);
  if (waiting_.empty()) clear_other_backend();
  if (!companion_ && waiting_.empty()) {
    if (sdk::Status gone = Companion::remove(); !gone.ok()) host_.warn(gone.text());
  }
  finish(step, report);
  held_ = std::move(next);
  plan_ = std::move(plan);
  set_plan_ = std::move(sets);
  return tunnel;
}

sdk::Status IptablesDatapath::apply_step(const sdk::Change& change, sdk::ApplyReport& report) {
  const Plan before = *plan_;
  std::vector<common::SourceChange> sources =
      common::touched_sources(*plan_, held_.state(), change);
  held_.merge(change);
  Step step{held_.state(), held_.state(), &before, *plan_, {}, {}, {}, {}, {}};
  const bool endpoints = only_endpoints(change);
  if (!endpoints) plan_->update(step.state, change, numbering_, step.failures);
  common::check_endpoints(change, step.state, step.failures);
  common::settle_sources(*plan_, step.state, sources);
  step.sources = std::move(sources);
  sdk::Status s;
  try {
    if (endpoints) {
      program_changed_pods(step, *set_plan_);
    } else {
      // With the device's hook egress IPs have no next hops of their own.
      if (!only_egresses(change) || !egress_) watch_kernel(step.state, *plan_);
      s = only_egresses(change) ? step_egresses(step) : step_structure(step);
    }
  } catch (const sdk::Failure& failure) {
    s = failure.status();
  }
  settle_flows(step, s.ok());
  if (s.ok()) finish(step, report);
  return s;
}

sdk::Status IptablesDatapath::step_structure(Step& step) {
  SetPlan sets(step.plan, groups_, step.failures);
  if (sdk::Status s = program(step, sets, false); !s.ok()) return s;
  set_plan_ = std::move(sets);
  return sdk::ok();
}

// For a full change: two whole states, and what the kernel has lost of the first.
void IptablesDatapath::compare_sources(Step& step) const {
  const auto held = [&](const sdk::Address& a) {
    const auto set = sets_.held().find(set_name(common::table_of(a), "pods"));
    return set != sets_.held().end() && set->second.elements.count(sdk::Prefix(a, a.bits())) != 0;
  };
  for (const auto& [a, class_id] : step.state.endpoints) {
    const auto at = step.before_state.endpoints.find(a);
    const bool had = at != step.before_state.endpoints.end() && held(a);
    std::string before = had ? common::verdict(*step.before, a, at->second) : std::string();
    std::string after = common::verdict(step.plan, a, class_id);
    if (before != after) step.sources.push_back({a, std::move(before), std::move(after)});
  }
  for (const auto& [a, class_id] : step.before_state.endpoints) {
    if (step.state.endpoints.count(a) != 0) continue;
    std::string before = common::verdict(*step.before, a, class_id);
    if (!before.empty()) step.sources.push_back({a, std::move(before), {}});
  }
}

// Where no former state is known: what the kernel's sets give pods tells of it.
void IptablesDatapath::compare_with_sets(Step& step, const SetPlan& sets) const {
  static const SetElements kNone;
  for (const Table t : common::kFamilies) {
    const auto held = [&](const char* what) -> const SetElements& {
      const auto set = sets_.held().find(set_name(t, what));
      return set == sets_.held().end() ? kNone : set->second.elements;
    };
    const SetElements& rest = held("rest");
    for (const auto& [key, mark] : held("pods")) {
      const auto at = step.state.endpoints.find(key.address);
      std::string after = at == step.state.endpoints.end()
                              ? std::string()
                              : common::verdict(step.plan, key.address, at->second);
      const PodMarks now = sets.marks_of(t, after);
      const auto others = rest.find(key);
      const bool same_rest =
          now.has_rest ? others != rest.end() && others->second == now.rest : others == rest.end();
      if (now.has_first && now.first == mark && same_rest) continue;
      step.sources.push_back({key.address, std::string(kUnknown), std::move(after)});
    }
  }
}

// An egress IP that comes to this node: its connections get their translation while their packets
// still go to the former owner, so that none meets a way that does not fit.
void IptablesDatapath::welcome_flows(const Step& step) {
  if (step.before == nullptr) return;
  bool comes = false;
  common::each_difference(
      step.before->egresses(), step.plan.egresses(),
      [&](std::uint32_t, const common::EgressPlan* had, const common::EgressPlan* has) {
        for (std::size_t f = 0; had != nullptr && has != nullptr && f < 2; ++f) {
          comes =
              comes || (has->mode[f] == common::Mode::kOwn && had->mode[f] == common::Mode::kSteer);
        }
      });
  if (!comes) return;
  common::Unswept unswept(true);
  unswept.note(step.before, step.plan, step.state, {});
  const auto job = unswept.take(step.plan, step.state, {});
  auto socket = common::NetlinkSocket::open(NETLINK_NETFILTER);
  if (!job || !socket) return;
  // What fails here is met by the sweep that follows the change.
  common::sweep(*socket, job->hint(), [&](const common::Flow& flow) {
    const common::Fate fate = job->judge(flow);
    const bool here = fate.kind == common::Fate::Kind::kRebind && fate.translated != flow.source;
    return here ? fate : common::Fate{};
  });
}

void IptablesDatapath::settle_flows(Step& step, bool written) {
  unswept_.note(step.before, step.plan, step.state, step.sources);
  if (common::was_unjudged(step.repairs)) unswept_.note(nullptr, step.plan, step.state, {});
  if (!written) return unswept_.failed(step.plan, step.state);
  std::vector<sdk::Address> refused;
  for (const SetFailure& f : step.refused) refused.push_back(f.element.address);
  const bool urgent = unswept_.urgent();
  auto sweep = unswept_.take(step.plan, step.state, refused);
  if (!sweep) return;
  sweeper_.add(std::move(sweep));
  // Whoever hears that an egress IP's move is realised may send the answers another way.
  if (urgent) sweeper_.drain(kMoveWait);
}

void IptablesDatapath::finish(Step& step, sdk::ApplyReport& report) {
  for (const auto& f : step.failures) report.failed(f.type, f.key, 0, f.message);
  for (const SetFailure& f : step.refused) {
    const bool endpoint = step.state.endpoints.count(f.element.address) != 0 &&
                          f.element.len == f.element.address.bits();
    report.failed(endpoint ? sdk::ObjectType::kEndpoint : sdk::ObjectType::kNode,
                  endpoint ? f.element.address.text() : f.set, 0,
                  "the kernel refused " + f.element.text() + " in set " + f.set + ": " +
                      ipset_error(f.error));
  }
  for (const auto& f : step.tunnel.failures) {
    report.failed(f.peer.empty() ? sdk::ObjectType::kNode : sdk::ObjectType::kPeer, f.peer, f.error,
                  f.message);
  }
  if (!waiting_.empty()) report_waiting(step, report);
  for (const auto& [what, count] : step.repairs) report.repaired(what, count);
}

// Nobody shall rely on what is not there yet. The host tries everything again soon.
void IptablesDatapath::report_waiting(const Step& step, sdk::ApplyReport& report) const {
  report.failed(
      sdk::ObjectType::kNode, step.plan.node().name, 0,
      waiting_ +
          "; iptables' rules stay as they were until then: pods are steered, but those of "
          "policies with new lists of destinations are dropped");
  if (!ruled_sources_) return;
  // Beside nftables tables rules that serve any id serve all.
  const bool any = !(*ruled_sources_)[0].empty() || !(*ruled_sources_)[1].empty();
  if (companion_ && any) return;
  std::set<std::uint32_t> missing;
  for (const Table t : common::kFamilies) {
    const Served& there = (*ruled_sources_)[index(t)];
    for (const auto& source : served_by(step.plan, t)) {
      if (!std::binary_search(there.begin(), there.end(), source)) missing.insert(source.first);
    }
  }
  for (const std::uint32_t id : missing) {
    report.failed(sdk::ObjectType::kEgress, std::to_string(id), 0,
                  "no iptables rule serves it yet: " + waiting_);
  }
}

}  // namespace egw::iptables
