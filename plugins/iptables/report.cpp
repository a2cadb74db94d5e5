// What the host asks besides apply: settings, health, counters; and what ends things: forget,
// purge.
#include "adoption.hpp"
#include "common/upkeep.hpp"
#include "datapath.hpp"

namespace egw::iptables {
namespace {

constexpr unsigned kPurgePatience = 5;  // s

}  // namespace

sdk::Status IptablesDatapath::sysctls(sdk::SysctlSink& out) {
  common::need_settings(held_, out);
  return sdk::ok();
}

sdk::Status IptablesDatapath::health() {
  if (sdk::Status s = common::tunnel_health(route_, held_); !s.ok()) return s;
  const auto headers = ipset_.headers();
  bool any = false;
  for (const Table t : common::kFamilies) {
    const auto at = headers.find(set_name(t, "pods"));
    if (at == headers.end()) {
      if (!held_.valid() || !plan_ || !plan_->enabled(t)) continue;
      return sdk::fail(sdk::Code::kUnavailable, "the set does not exist", set_name(t, "pods"));
    }
    any = true;
    if (at->second.references == 0) {
      return sdk::fail(sdk::Code::kUnavailable, "no iptables rule uses it: our chains are gone",
                       "ipset " + set_name(t, "pods"));
    }
  }
  if (companion_) {
    if (const std::string table = companion_->missing(); !table.empty()) {
      return sdk::fail(sdk::Code::kUnavailable, "the nftables table does not exist", table);
    }
  }
  if (!any) return sdk::fail(sdk::Code::kUnavailable, "no set of ours exists", "ipset");
  return sdk::ok();
}

// The rules' own counters. They begin anew when a chain is written.
sdk::Status IptablesDatapath::counters(sdk::CounterSink& out) {
  for (const Table t : common::kFamilies) {
    if (xtables_) drops_[index(t)].add(xtables_->drops(t));
    const std::string table = "table=" + std::string(common::keyword(t));
    for (const auto& [reason, packets] : drops_[index(t)].by_reason()) {
      out.counter("dropped_packets_total", table + ",reason=" + reason, packets);
    }
  }
  for (const Table t : common::kTables) {
    if (!companion_) break;
    for (const auto& [reason, packets] : companion_->nft().counters(t)) {
      out.counter("dropped_packets_total",
                  "table=nft-" + std::string(common::keyword(t)) + ",reason=" + reason, packets);
    }
  }
  out.counter("conntrack_deleted_total", "", sweeper_.deleted());
  return sdk::ok();
}

sdk::Status IptablesDatapath::forget(const sdk::Address& eip) { return common::forget_eip(eip); }

sdk::Status IptablesDatapath::clear_backend(const Xtables& xtables) {
  std::array<std::string, 2> texts;
  for (const Table t : common::kFamilies) {
    const auto saved = xtables.saved(t);
    for (const Xt x : kXtTables) {
      const XtSaved& table = saved[static_cast<std::size_t>(x)];
      XtChange change;
      for (const auto& [name, rules] : table.chains) change.gone.push_back(name);
      change.jumps = !table.jumps.empty();
      texts[index(t)] += text_of(x, {}, table, change);
    }
  }
  return xtables.restore(texts, kPurgePatience);
}

void IptablesDatapath::clear_other_backend() {
  if (alone_ || !xtables_) return;
  alone_ = true;
  const Backend other =
      xtables_->choice().backend == Backend::kNft ? Backend::kLegacy : Backend::kNft;
  auto choice = Xtables::choose(other);
  if (!choice) return;
  try {
    if (sdk::Status s = clear_backend(Xtables(*choice)); !s.ok()) host_.warn(s.text());
  } catch (const sdk::Failure& failure) {
    host_.info(std::string("the other iptables backend cannot be read: ") + failure.what());
  }
}

// What has been bound by what the kernel holds.
common::Bound IptablesDatapath::bound() {
  common::Bound out;
  for (const Table t : common::kFamilies) {
    for (const auto& [key, mark] : ipset_.elements(set_name(t, "pods"))) {
      out.endpoints.insert(key.address);
    }
    for (const auto& [key, mark] : ipset_.elements(set_name(t, "eips"))) {
      out.eips.insert(key.address);
    }
    std::vector<std::pair<sdk::Prefix, std::string>> cluster;
    for (const auto& [key, mark] : ipset_.elements(set_name(t, "cluster"))) {
      cluster.emplace_back(key, std::string());
    }
    out.cluster[index(t)] = sdk::flatten(std::move(cluster));
  }
  return out;
}

sdk::Status IptablesDatapath::purge_companion(common::Bound& held) {
  companion_.reset();
  egress_ = false;
  return Companion::remove(
      [&held](std::uint32_t id) { held.zones.insert(static_cast<std::uint16_t>(id)); });
}

// Our chains in a backend, and the zones that they bind connections to. One that cannot be read is
// no reason to leave the other as it is.
sdk::Status IptablesDatapath::purge_backend(Backend backend, common::Bound& held) {
  auto choice = Xtables::choose(backend);
  if (!choice) return sdk::ok();
  const Xtables xtables(*choice);
  try {
    for (const Table t : common::kFamilies) {
      const auto saved = xtables.saved(t);
      for (const auto& [id, _] : sources_in(saved[static_cast<std::size_t>(Xt::kNat)].chains)) {
        held.zones.insert(static_cast<std::uint16_t>(id));
      }
    }
    return clear_backend(xtables);
  } catch (const sdk::Failure& failure) {
    return failure.status();
  }
}

sdk::Status IptablesDatapath::purge() {
  const common::Monitor::OwnChange own(*monitor_);
  // Half of it would leave pods cut off. Looked for before anything is taken away.
  if (auto legacy = Xtables::choose(Backend::kLegacy); legacy) {
    if (sdk::Status s = Xtables(*legacy).await_lock(kPurgePatience); !s.ok()) return s;
  }
  sweeper_.forget_late();
  bound_.add(bound());
  sdk::Status first = remove_all(bound_);
  // A connection keeps what it was bound to: the pod's address, or an egress IP.
  sdk::Status flows = common::forget_bound(bound_);
  return first.ok() ? flows : first;
}

bool IptablesDatapath::untouched() {
  return common::no_routing(route_) && ipset_.headers().empty();
}

// held: also the zones that the kernel's chains and tables bind connections to. Not their
// addresses: one may be this node's own (NodeIP), which connections of anybody have.
sdk::Status IptablesDatapath::remove_all(common::Bound& held) {
  watch_->pause();
  monitor_->watch({});
  sweeper_.drain(std::chrono::milliseconds(2000));
  unswept_ = common::Unswept(true);
  sdk::Status first;
  const auto note = [&](sdk::Status s) {
    if (first.ok() && !s.ok()) first = std::move(s);
  };
  // Rules first: steered packets have no route then, and our chains drop what leaves otherwise.
  note(common::remove_routing(route_));
  note(purge_companion(held));
  for (const Backend backend : {Backend::kNft, Backend::kLegacy}) {
    note(purge_backend(backend, held));
  }
  note(sets_.purge());
  held_ = sdk::DatapathState();
  plan_.reset();
  set_plan_.reset();
  numbering_ = common::Numbering();
  groups_ = {};
  routes_.clear();
  rules_.clear();
  written_ = {};
  lean_ = false;
  standing_ = false;
  ruled_ = {};
  ruled_sources_ = {};
  waiting_.clear();
  learned_ = {};
  filters_.reset();
  device_ = 0;
  tunnel_.forget();
  return first;
}

}  // namespace egw::iptables
