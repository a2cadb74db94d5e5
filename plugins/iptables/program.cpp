// The parts of a change that write: device and next hops, rules and routes, chains, sets of pods;
// and what the watchers are told about it.
#include <algorithm>
#include <cerrno>

#include "adoption.hpp"
#include "common/upkeep.hpp"
#include "datapath.hpp"
#include "step.hpp"

namespace egw::iptables {

using common::Plan;

namespace {

constexpr std::string_view kFingerprint = "EGW-FP-";
constexpr unsigned kPatience = 1;  // s; tried again soon, and pods wait meanwhile

// An empty chain whose name tells what the table's other chains are: by it a restarted agent knows
// that it needs to write nothing.
void add_fingerprint(XtRules& rules) {
  if (rules.empty()) return;
  std::string all;
  for (const Jump& j : rules.jumps) all += j.chain + ' ' + j.rule + (j.last ? " last\n" : "\n");
  for (const auto& [name, lines] : rules.chains) {
    all += name + '\n';
    for (const std::string& line : lines) all += line + '\n';
  }
  rules.chains[std::string(kFingerprint) + common::hex(common::fingerprint(all), 16)];
}

const std::string* fingerprint_of(const XtRules& rules) {
  const auto at = rules.chains.lower_bound(std::string(kFingerprint));
  const bool found = at != rules.chains.end() && at->first.rfind(kFingerprint, 0) == 0;
  return found ? &at->first : nullptr;
}

// Ids are translated here to the same addresses.
bool same_sources(const Plan& a, const Plan& b) {
  return std::equal(a.egresses().begin(), a.egresses().end(), b.egresses().begin(),
                    b.egresses().end(), [](const auto& x, const auto& y) {
                      return x.first == y.first && x.second.serve == y.second.serve &&
                             x.second.guarded == y.second.guarded &&
                             x.second.address == y.second.address;
                    });
}

bool same_jumps(const std::vector<Jump>& a, const std::vector<Jump>& b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(), [](const Jump& x, const Jump& y) {
    return x.chain == y.chain && x.rule == y.rule && x.last == y.last;
  });
}

// Against what was written last.
XtChange step_change(const XtRules& wanted, const XtRules& written) {
  XtChange out;
  for (const auto& [name, rules] : wanted.chains) {
    const auto at = written.chains.find(name);
    if (at == written.chains.end() || at->second != rules) out.chains[name] = rules;
  }
  for (const auto& [name, rules] : written.chains) {
    if (wanted.chains.count(name) == 0) out.gone.push_back(name);
  }
  out.jumps = !same_jumps(wanted.jumps, written.jumps);
  return out;
}

// Against what the kernel holds. learned: what it makes of the chains that were written.
XtChange full_change(const XtRules& wanted, const XtRules& written, Chains& learned,
                     const XtSaved& saved, std::uint64_t& repaired) {
  XtChange out;
  const bool known = !written.empty();
  const std::string* fingerprint = fingerprint_of(wanted);
  const bool adopted = !known && fingerprint != nullptr && saved.chains.count(*fingerprint) != 0;
  for (const auto& [name, rules] : wanted.chains) {
    const auto at = saved.chains.find(name);
    const auto mine = written.chains.find(name);
    const bool meant = adopted || (mine != written.chains.end() && mine->second == rules);
    const auto form = learned.find(name);
    const bool intact =
        at != saved.chains.end() &&
        (form != learned.end() ? form->second == at->second : at->second.size() == rules.size());
    if (meant && intact) {
      learned[name] = at->second;
      continue;
    }
    if (meant && known) ++repaired;
    out.chains[name] = rules;
  }
  for (const auto& [name, rules] : saved.chains) {
    if (wanted.chains.count(name) != 0) continue;
    out.gone.push_back(name);
    if (known && written.chains.count(name) == 0) ++repaired;
  }
  const bool placed = jumps_in_place(wanted, saved);
  out.jumps = !placed || (known ? !same_jumps(wanted.jumps, written.jumps)
                                : !adopted && !wanted.jumps.empty());
  if (known && !placed && same_jumps(wanted.jumps, written.jumps)) ++repaired;
  return out;
}

}  // namespace

std::vector<std::pair<std::uint32_t, sdk::Address>> served_by(const Plan& plan, Table t) {
  std::vector<std::pair<std::uint32_t, sdk::Address>> out;
  for (const auto& [id, egress] : plan.egresses()) {
    const sdk::Address& a = egress.address[index(t)];
    if (egress.serve && a) out.emplace_back(id, a);
  }
  return out;
}

// An egress IP that goes from peer to peer is one element, or without the device's hook one
// neighbour entry in each family.
sdk::Status IptablesDatapath::step_egresses(Step& step) {
  welcome_flows(step);
  if (!egress_) {
    update_hops(step);
    if (!same_ways(*step.before, step.plan)) program_routing(step, false);
  }
  // Beside nftables tables no rule knows an id, but by whether there is any.
  if (companion_ && step.before->serves() == step.plan.serves()) return step_elements(step);
  if (same_sources(*step.before, step.plan)) return program_companion(step, false, lean_);
  set_plan_->set_eips(step.plan);
  return program_filters(step, *set_plan_, false);
}

// Nothing is looked at that stays: with thousands of egress IPs one costs what it costs alone.
sdk::Status IptablesDatapath::step_elements(Step& step) {
  const SetElements none;
  std::array<EipChange, 2> eips;
  const auto write = [&](Table t, const SetElements& put, const SetElements& remove) {
    if (put.empty() && remove.empty()) return;
    sets_.put_pods(set_name(t, "eips"), {SetType::kAddresses, t, false}, put, remove, step.refused);
  };
  for (const Table t : common::kFamilies) {
    eips[index(t)] = eip_change(t, *step.before, step.plan);
    write(t, eips[index(t)].come, none);
  }
  sdk::Status s = companion_->step(companion_changes(*step.before, step.plan, egress_));
  if (!s.ok()) return s;
  for (const Table t : common::kFamilies) write(t, none, eips[index(t)].gone);
  return sdk::ok();
}

sdk::Status IptablesDatapath::program(Step& step, SetPlan& sets, bool read) {
  if (!read) {
    welcome_flows(step);
    update_hops(step);
  }
  program_routing(step, read);
  if (sdk::Status s = program_filters(step, sets, read); !s.ok()) return s;
  if (!waiting_.empty()) return sdk::ok();
  for (const Table t : common::kFamilies) groups_[index(t)].keep(step.plan.class_tables(t));
  return sdk::ok();
}

// What is new, then what refers to it, then what is old goes.
sdk::Status IptablesDatapath::program_filters(Step& step, const SetPlan& sets, bool read) {
  std::vector<std::string> of_pods;
  sets_.put(sets.contents(), step.refused);
  for (const Table t : common::kFamilies) {
    if (!step.plan.enabled(t)) continue;
    for (const char* what : {"pods", "rest"}) {
      of_pods.push_back(set_name(t, what));
      sets_.make_pods(of_pods.back(), pod_kind(t), step.state.endpoints.size());
    }
  }
  if (standing_) program_new_pods(step, sets);
  if (sdk::Status s = program_rules_in_order(step, sets, read); !s.ok()) return s;
  if (read) {
    program_pods(step, sets);
  } else {
    program_changed_pods(step, sets);
  }
  if (waiting_.empty()) sets_.take(sets.contents(), of_pods);
  return sdk::ok();
}

// What comes in by the wire is judged by the one until it is by the other.
sdk::Status IptablesDatapath::program_rules_in_order(Step& step, const SetPlan& sets, bool read) {
  const bool lean = this->lean(step.plan);
  const bool rules_first = lean_ && !lean;
  std::array<ClassGroups, 2> classes;
  for (const Table t : common::kFamilies) {
    classes[index(t)] = with_former(t, sets.classes(t), ruled_[index(t)], sets_.held(), marks_);
  }
  sdk::Status s = rules_first ? sdk::ok() : program_companion(step, read, lean);
  if (s.ok()) s = program_rules(rules_wanted(step.plan, classes), read, step.repairs);
  if (!s.ok()) return s;
  if (waiting_.empty()) {
    standing_ = true;
    lean_ = lean;
    ruled_ = std::move(classes);
    ruled_sources_.emplace();
    for (const Table t : common::kFamilies) (*ruled_sources_)[index(t)] = served_by(step.plan, t);
  }
  return rules_first ? program_companion(step, read, lean_) : sdk::ok();
}

sdk::Status IptablesDatapath::program_companion(Step& step, bool read, bool lean) {
  if (!companion_) return sdk::ok();
  return companion_->apply(companion_tables({step.plan, mtu_, egress_, device_ != 0, lean}), read,
                           step.repairs);
}

// In what state the rules are that are found in the kernel. Before a full change.
void IptablesDatapath::look_at_rules(const Plan& plan) {
  const bool known = standing_;
  standing_ = lean_ = true;
  for (const Table t : common::kFamilies) {
    if (!plan.enabled(t)) continue;
    const auto& saved = saved_[index(t)];
    const XtSaved& mangle = saved[static_cast<std::size_t>(Xt::kMangle)];
    standing_ = standing_ && mangle.jumps.count("PREROUTING") != 0;
    lean_ = lean_ && saved[static_cast<std::size_t>(Xt::kRaw)].chains.empty();
    if (known && plan_) continue;
    ruled_[index(t)] = classes_ruled(t, mangle.chains, sets_.held(), marks_);
  }
  lean_ = lean_ && standing_;
  if (!standing_) ruled_sources_.reset();
}

sdk::Status IptablesDatapath::program_tunnel(Step& step) {
  try {
    step.tunnel = tunnel_.apply(common::tunnel_spec(step.state.node),
                                common::tunnel_peers(step.state, step.plan),
                                hops_of(step.plan, egress_), step.repairs);
    mtu_ = step.tunnel.mtu;
    device_ = step.tunnel.index;
    return sdk::ok();
  } catch (const sdk::Failure& failure) {
    device_ = 0;
    return failure.status();
  }
}

void IptablesDatapath::open_tunnel(const Step& step) {
  tunnel_.open(common::tunnel_spec(step.state.node), common::tunnel_peers(step.state, step.plan),
               hops_of(step.plan, egress_));
}

void IptablesDatapath::update_hops(Step& step) {
  tunnel_.update_peers(common::tunnel_peers(step.state, step.plan), hops_of(step.plan, egress_),
                       step.tunnel);
}

// New rules, which end in the blackhole until their routes are there; routes; then what is old
// goes.
void IptablesDatapath::program_routing(Step& step, bool read) {
  std::set<common::Route> routes, actual_routes;
  std::set<common::Rule> rules, actual_rules;
  for (const Table t : common::kFamilies) {
    const RoutingInput in{step.plan, config_, tunnel_.takes(t) ? device_ : 0, companion_ != nullptr,
                          egress_};
    routes.merge(routes_of(t, in));
    rules.merge(rules_of(t, in));
    if (!read) continue;
    actual_routes.merge(common::our_routes(route_, common::address_family(t)));
    actual_rules.merge(common::our_rules(route_, common::address_family(t)));
  }
  if (!read) {
    actual_routes = routes_;
    actual_rules = rules_;
  }
  const bool known = !rules_.empty();
  std::vector<common::Rule> added;
  std::vector<common::Message> messages = messages_to_add(rules, actual_rules, added);
  std::uint64_t repaired = 0;
  for (const common::Rule& r : added) repaired += known ? rules_.count(r) : 0;
  const std::vector<int> errors = route_.requests(messages);
  for (std::size_t i = 0; i < added.size(); ++i) {
    if (errors[i] == 0 || errors[i] == EEXIST) continue;
    throw sdk::Failure(sdk::Code::kInternal, "cannot be set", added[i].text(), errors[i]);
  }
  const auto failed = common::sync(
      route_, routes, actual_routes, known ? &routes_ : nullptr, "route", step.repairs,
      [](const common::Route& r) { return common::add(r); },
      [](const common::Route& r) { return common::remove(r); });
  if (!failed.empty()) {
    throw sdk::Failure(sdk::Code::kInternal, "cannot be set", failed[0].first.text(),
                       failed[0].second);
  }
  messages.clear();
  for (const common::Rule& r : actual_rules) {
    if (rules.count(r) != 0) continue;
    messages.push_back(common::remove(r));
    if (known && rules_.count(r) == 0) ++repaired;
  }
  route_.requests(messages);
  if (repaired != 0) step.repairs["rule"] += repaired;
  routes_ = std::move(routes);
  rules_ = std::move(rules);
}

IptablesDatapath::AllRules IptablesDatapath::rules_wanted(
    const Plan& plan, const std::array<ClassGroups, 2>& classes) const {
  AllRules out;
  RuleInput in;
  in.node = plan.node();
  in.mtu = mtu_;
  in.serves = plan.serves();
  in.companion = companion_ != nullptr;
  in.egress = egress_;
  in.ingress = lean(plan);
  for (const auto& [name, peer] : plan.peers()) in.peers.push_back(peer);
  for (const Table t : common::kFamilies) {
    // Rules that drop what the tunnel brings of a family are not needed where the host has no such.
    if (!plan.enabled(t) && !kernel_has(t)) continue;
    in.sources = served_by(plan, t);
    in.classes = classes[index(t)];
    out[index(t)] = rules_for(t, in);
    for (XtRules& table : out[index(t)]) add_fingerprint(table);
  }
  return out;
}

sdk::Status IptablesDatapath::program_rules(AllRules wanted, bool read, common::Repairs& repairs) {
  std::array<std::string, 2> texts;
  std::uint64_t repaired = 0;
  for (const Table t : common::kFamilies) {
    bool fresh = read;
    for (std::size_t x = 0; x < kXtTables.size(); ++x) {
      const XtRules& want = wanted[index(t)][x];
      const XtRules& written = written_[index(t)][x];
      Chains& learned = learned_[index(t)][x];
      const XtChange change =
          read ? full_change(want, written, learned, saved_[index(t)][x], repaired)
               : step_change(want, written);
      if (change.jumps && !fresh) {
        saved_[index(t)] = xtables_->saved(t);
        fresh = true;
      }
      for (const auto& [name, rules] : change.chains) learned.erase(name);
      for (const std::string& name : change.gone) learned.erase(name);
      texts[index(t)] += text_of(kXtTables[x], want, saved_[index(t)][x], change);
    }
  }
  waiting_.clear();
  if (sdk::Status s = xtables_->restore(texts, kPatience); !s.ok()) {
    written_ = {};
    // What is in the kernel goes on. Pods are elements, for which no lock is needed.
    if (!standing_ || s.code != sdk::Code::kUnavailable) return s;
    waiting_ = s.text();
    return sdk::ok();
  }
  if (repaired != 0) repairs["iptables chain"] += repaired;
  written_ = std::move(wanted);
  filters_.reset();
  return sdk::ok();
}

// The rules in the kernel do not know the class.
bool IptablesDatapath::unruled(Table t, const PodMarks& marks) const {
  const auto& known = ruled_[index(t)];
  const auto at = std::lower_bound(known.begin(), known.end(), std::pair{marks.class_number, 0U});
  return marks.class_number != 0 && (at == known.end() || at->first != marks.class_number);
}

PodMarks IptablesDatapath::marks_of(Table t, const SetPlan& sets, const std::string& target) const {
  PodMarks out = sets.marks_of(t, target);
  return !waiting_.empty() && unruled(t, out) ? sets.dropped() : out;
}

// Pods that come shall not be left alone while the rules are written, or wait for a lock. Those of
// a class that these bring get their marks after them, and are dropped only if that may take long.
void IptablesDatapath::program_new_pods(Step& step, const SetPlan& sets) {
  const bool locked = xtables_->locked();
  for (const Table t : common::kFamilies) {
    if (!step.plan.enabled(t)) continue;
    PodChange change;
    const SetElements& held = sets_.held().at(set_name(t, "pods")).elements;
    const SetElements& held_rest = sets_.held().at(set_name(t, "rest")).elements;
    const auto add = [&](const sdk::Address& a, const std::string& target) {
      const sdk::Prefix key(a, a.bits());
      if (common::table_of(a) != t || target.empty()) return;
      PodMarks marks = sets.marks_of(t, target);
      if (held.count(key) != 0) {
        // Earlier versions left other destinations alone without an element that says so.
        if (marks.has_rest && held_rest.count(key) == 0) change.rest[key] = marks.rest;
        return;
      }
      if (unruled(t, marks) && !locked) return;
      if (unruled(t, marks)) marks = sets.dropped();
      if (marks.has_first) change.pods[key] = marks.first;
      if (marks.has_rest) change.rest[key] = marks.rest;
    };
    if (step.before != nullptr) {
      for (const common::SourceChange& c : step.sources) add(c.address, c.after);
    } else {
      for (const auto& [a, class_id] : step.state.endpoints) {
        add(a, common::verdict(step.plan, a, class_id));
      }
    }
    sets_.change_pods(t, std::move(change), step.refused);
  }
}

void IptablesDatapath::program_pods(Step& step, const SetPlan& sets) {
  for (const Table t : common::kFamilies) {
    if (!step.plan.enabled(t)) continue;
    SetElements pods, rest;
    for (const auto& [a, class_id] : step.state.endpoints) {
      if (common::table_of(a) != t) continue;
      const PodMarks marks = marks_of(t, sets, common::verdict(step.plan, a, class_id));
      if (marks.has_first) pods[sdk::Prefix(a, a.bits())] = marks.first;
      if (marks.has_rest) rest[sdk::Prefix(a, a.bits())] = marks.rest;
    }
    sets_.change_pods(t, sets_.pod_change(t, pods, rest), step.refused);
  }
}

void IptablesDatapath::program_changed_pods(Step& step, const SetPlan& sets) {
  static const SetElements kNone;
  for (const Table t : common::kFamilies) {
    PodChange change;
    const auto held = sets_.held().find(set_name(t, "rest"));
    const SetElements& had = held == sets_.held().end() ? kNone : held->second.elements;
    for (const common::SourceChange& c : step.sources) {
      if (common::table_of(c.address) != t) continue;
      const sdk::Prefix key(c.address, c.address.bits());
      const PodMarks now = marks_of(t, sets, c.after);
      if (now.has_first) change.pods[key] = now.first;
      if (!now.has_first) change.no_pods[key];
      if (now.has_rest) change.rest[key] = now.rest;
      if (!now.has_rest && had.count(key) != 0) change.no_rest[key];
    }
    if (change.pods.empty() && change.no_pods.empty()) continue;
    sets_.change_pods(t, std::move(change), step.refused);
  }
}

void IptablesDatapath::watch_kernel(const sdk::State& state, const Plan& plan) {
  common::Monitor::Watched w = common::watched_tunnel(state, plan, device_, config_.route_table,
                                                      route_, hops_of(plan, egress_));
  w.mtu = mtu_;
  if (companion_) {
    w.nft_table = std::string(kCompanionTable);
    for (const std::uint32_t port : companion_->nft().ports()) w.ports.insert(port);
  }
  monitor_->watch(std::move(w));
}

void IptablesDatapath::watch_filters() {
  // While the rules are not the wanted ones, they are looked at by every full change.
  if (!plan_ || !xtables_ || !waiting_.empty()) return;
  if (!filters_) {
    filters_ =
        std::make_shared<const Filters>(Filters{xtables_->choice().backend, written_, learned_});
  }
  watch_->watch(*xtables_, filters_, sets_.counts());
}

}  // namespace egw::iptables
