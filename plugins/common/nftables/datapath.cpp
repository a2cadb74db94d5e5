#include "datapath.hpp"

#include <linux/fib_rules.h>
#include <linux/rtnetlink.h>
#include <malloc.h>
#include <net/if.h>

#include <algorithm>
#include <future>
#include <system_error>

#include "adoption.hpp"
#include "common/sources.hpp"
#include "common/upkeep.hpp"

namespace egw::common {
namespace {

constexpr std::uint32_t kRouteMetric = 1024;
constexpr std::uint32_t kLastMetric = 0xffffffff;
constexpr std::size_t kManyObjects = 5000;
constexpr std::chrono::milliseconds kMoveWait{300};
constexpr std::chrono::milliseconds kLastWait{2000};

NetlinkSocket open_route_socket() {
  auto socket = NetlinkSocket::open(NETLINK_ROUTE);
  return std::move(*socket);
}

std::unique_ptr<Nft> open_nft() {
  auto nft = Nft::open();
  return std::move(*nft);
}

std::size_t objects_of(const sdk::Change& c) {
  return c.peers().size() + c.egresses().size() + c.classes().size() + c.endpoints().size() +
         c.deleted_peers().size() + c.deleted_egresses().size() + c.deleted_classes().size() +
         c.deleted_endpoints().size();
}

std::vector<TunnelNextHop> next_hops(const Desired& desired) {
  std::vector<TunnelNextHop> out;
  for (const Table t : kFamilies) {
    if (desired.enabled(t)) out.push_back({next_hop(t), kNextHopMac});
  }
  return out;
}

// The endpoint that an element of the kernel's map stands for; none if it is of another map.
sdk::Address endpoint_of(const Nft::ElementFailure& failure) {
  return failure.set == "endpoints" ? register_to_address(failure.key) : sdk::Address();
}

// What is thrown, as a status.
template <class Body>
sdk::Status guarded(const Body& body) {
  try {
    body();
    return sdk::ok();
  } catch (const sdk::Failure& failure) {
    return failure.status();
  } catch (const std::system_error& error) {
    return sdk::fail(sdk::Code::kUnavailable, error.what(), "threads", error.code().value());
  }
}

// On a thread of its own; at get() where the kernel gives none.
template <class Body>
std::future<sdk::Status> beside_us(const Body& body) {
  try {
    return std::async(std::launch::async, body);
  } catch (const std::system_error&) {
    return std::async(std::launch::deferred, body);
  }
}

void report_repairs(const Repairs& repairs, sdk::ApplyReport& report) {
  for (const auto& [what, count] : repairs) report.repaired(what, count);
}

}  // namespace

NftDatapath::NftDatapath(std::string name, Numbers numbers, sdk::DatapathHost host,
                         std::unique_ptr<Programs> programs)
    : name_(std::move(name)),
      host_(host),
      numbers_(numbers),
      route_(open_route_socket()),
      nft_(open_nft()),
      tunnel_(route_, host),
      programs_(std::move(programs)),
      tables_(*nft_,
              [this](bool on) {
                if (monitor_) monitor_->listen_to_nftables(on);
              }),
      sweeper_(host),
      peer_numbers_(host.layout_dir()) {
  monitor_ = std::make_unique<Monitor>([this](const std::string& what) {
    host_.warn("changed by somebody else: " + what);
    host_.drifted(what);
  });
}

NftDatapath::~NftDatapath() { sweeper_.drain(kLastWait); }

sdk::Status NftDatapath::apply(const sdk::Change& change, sdk::ApplyReport& report) {
  if (sdk::Status s = held_.fits(change); !s.ok()) return s;
  if (change.node() != nullptr) {
    if (sdk::Status s = check_node(sdk::NodeConfig(*change.node())); !s.ok()) return s;
  }
  const bool all = change.full() || change.node() != nullptr || !desired_;
  const Monitor::OwnChange own(*monitor_);
  // What the kernel holds is in doubt: the next change must be full.
  const auto doubt = [this] {
    held_.invalidate();
    desired_.reset();
  };
  sdk::Status s;
  bool bare = false;
  try {
    bare = !held_.valid() && untouched();
    s = all ? apply_all(change, bare, report) : apply_step(change, report);
  } catch (const sdk::Failure& failure) {
    s = failure.status();
  } catch (...) {
    doubt();
    throw;
  }
  if (!s.ok()) {
    // A first change that has come to nothing leaves nothing. Without its tunnel it is something.
    const bool nothing = bare && !desired_;
    doubt();
    if (nothing) {
      if (sdk::Status gone = remove_all(); !gone.ok()) host_.warn(gone.text());
    }
  }
  if (objects_of(change) > kManyObjects) ::malloc_trim(0);
  return s;
}

void NftDatapath::watch(const sdk::State& state, const Desired& desired) {
  Monitor::Watched w =
      watched_tunnel(state, desired, device_, numbers_.route_table, route_, next_hops(desired));
  w.mtu = mtu_;
  w.nft_table = std::string(kTable);
  for (const std::uint32_t port : nft_->ports()) w.ports.insert(port);
  monitor_->watch(std::move(w));
}

sdk::Status NftDatapath::program_tunnel(const sdk::State& state, const Desired& desired,
                                        sdk::ApplyReport& report, Repairs& repairs) {
  try {
    const auto result = tunnel_.apply(tunnel_spec(state.node), tunnel_peers(state, desired),
                                      next_hops(desired), repairs);
    mtu_ = result.mtu;
    device_ = result.index;
    for (const auto& f : result.failures) {
      report.failed(f.peer.empty() ? sdk::ObjectType::kNode : sdk::ObjectType::kPeer, f.peer,
                    f.error, f.message);
    }
    return sdk::ok();
  } catch (const sdk::Failure& failure) {
    device_ = 0;
    return failure.status();
  }
}

void NftDatapath::program_routes(const Desired& desired, Repairs& repairs) {
  const Marks& marks = desired.marks();
  const std::uint32_t unit = marks.slot_mask() & (~marks.slot_mask() + 1);
  const std::uint32_t first = numbers_.rule_preference;
  const std::uint32_t last = first + kRules - 1;
  std::set<Route> routes, actual_routes;
  std::set<Rule> rules, actual_rules;
  for (const Table t : kFamilies) {
    const std::uint8_t af = address_family(t);
    actual_routes.merge(our_routes(route_, af));
    actual_rules.merge(our_rules(route_, af));
    if (!desired.enabled(t) && !desired.carries(t)) continue;
    const auto rule = [&](std::uint32_t preference, std::uint32_t mark, std::uint32_t mask,
                          std::string iif, std::uint8_t action, std::uint32_t target) {
      rules.insert(Rule{af, preference, mark, mask, std::move(iif), action, target, false});
    };
    // Packets from the tunnel are routed as the host routes; what carries bit 2 goes by the main
    // table, what carries bit 3 by the tunnel's. Every other packet of the host passes them twice:
    // all differ from it in what the kernel compares first. (`first` was a rule of earlier
    // versions.)
    rule(first + 1, 0, 0, desired.node().tunnel_device, FR_ACT_GOTO, last);
    rule(first + 2, unit << 2, unit << 2, {}, FR_ACT_TO_TBL, RT_TABLE_MAIN);
    rule(first + 3, unit << 3, unit << 3, {}, FR_ACT_TO_TBL, numbers_.route_table);
    rule(last, 0, 0, desired.node().tunnel_device, FR_ACT_NOP, 0);
    if (device_ != 0 && tunnel_.takes(t) && desired.enabled(t)) {
      routes.insert(Route{af,
                          numbers_.route_table,
                          {},
                          RTN_UNICAST,
                          kRouteMetric,
                          next_hop(t),
                          device_,
                          t == Table::kIp});
    }
    routes.insert(Route{af, numbers_.route_table, {}, RTN_BLACKHOLE, kLastMetric, {}, 0, false});
  }
  const auto must = [](const auto& failed) {
    if (failed.empty()) return;
    throw sdk::Failure(sdk::Code::kInternal, "cannot be set", failed[0].first.text(),
                       failed[0].second);
  };
  const bool known = !routes_.empty() || !rules_.empty();
  must(sync(
      route_, routes, actual_routes, known ? &routes_ : nullptr, "route", repairs,
      [](const Route& r) { return add(r); }, [](const Route& r) { return remove(r); }));
  must(sync(
      route_, rules, actual_rules, known ? &rules_ : nullptr, "rule", repairs,
      [](const Rule& r) { return add(r); }, [](const Rule& r) { return remove(r); }));
  routes_ = std::move(routes);
  rules_ = std::move(rules);
}

void NftDatapath::report_failures(const std::vector<ObjectFailure>& objects,
                                  const std::vector<Nft::ElementFailure>& elements,
                                  sdk::ApplyReport& report) {
  for (const ObjectFailure& f : objects) report.failed(f.type, f.key, 0, f.message);
  for (const Nft::ElementFailure& f : elements) {
    const sdk::Address endpoint = endpoint_of(f);
    const std::string key = endpoint ? endpoint.text() : f.set;
    report.failed(endpoint ? sdk::ObjectType::kEndpoint : sdk::ObjectType::kNode, key, f.error,
                  "the kernel refused an element of " + f.set);
  }
}

// Tables and programs; what of the programs' maps nobody refers to yet is written beside the
// tables, once the programs have been loaded, which may take as long as the tables.
sdk::Status NftDatapath::sync_kernel(const sdk::State& state, const Desired& desired, bool bare,
                                     Repairs& repairs, std::vector<Nft::ElementFailure>& elements,
                                     std::vector<SourceChange>& changes,
                                     std::future<sdk::Status>& loading) {
  const Tables::Past held{held_.state(), desired_ ? *desired_ : desired};
  const Tables::Past* past = desired_ ? &held : nullptr;
  if (!programs_) {
    const sdk::Status s = tables_.sync(past, state, desired, repairs, elements, changes);
    return s.ok() ? tables_.finish(elements) : s;
  }
  Repairs beside;
  std::optional<Programs::Bare> early;
  if (bare && device_ != 0) early.emplace(Programs::Bare{device_, mtu_});
  const auto prepare = [&] {
    if (loading.valid()) loading.wait();
    return guarded([&] { programs_->prepare(past, state, desired, beside, early); });
  };
  const auto sync_programs = [&](int tunnel_device) {
    return guarded([&] {
      programs_->sync(past, state, desired, tunnel_device, mtu_, repairs, elements, changes);
    });
  };
  sdk::Status s = sdk::ok();
  // The tables wait for the programs' marks from the moment they change; until then they direct
  // themselves what enters the tunnel.
  if (past == nullptr && tables_of_another()) {
    s = prepare();
    if (s.ok()) s = sync_programs(0);
    if (!s.ok()) return s;
  }
  auto prepared = beside_us(prepare);
  s = tables_.sync(past, state, desired, repairs, elements, changes);
  const sdk::Status p = prepared.get();
  for (const auto& [what, count] : beside) repairs[what] += count;
  if (s.ok()) s = p;
  if (s.ok()) s = sync_programs(device_);
  return s.ok() ? tables_.finish(elements) : s;
}

std::future<sdk::Status> NftDatapath::load_programs() {
  if (!programs_ || desired_) return {};
  return beside_us([this] { return guarded([this] { programs_->load(); }); });
}

void NftDatapath::read_ahead() {
  if (desired_ || ahead_.valid()) return;
  try {
    ahead_ = std::async(std::launch::async, Nft::read_all);
  } catch (const std::system_error&) {
    // No thread: it is read when it is needed.
  }
}

std::unique_ptr<KernelContent> NftDatapath::take_read() {
  if (!ahead_.valid()) return nullptr;
  try {
    return ahead_.get();
  } catch (const std::exception&) {
    return nullptr;  // who reads next meets it, and tells
  }
}

sdk::Status NftDatapath::apply_all(const sdk::Change& change, bool bare, sdk::ApplyReport& report) {
  const std::unique_ptr<Nft, void (*)(Nft*)> ends(nft_.get(),
                                                  [](Nft* nft) { nft->answer_from(nullptr); });
  nft_->answer_from(take_read());
  auto loading = load_programs();
  sdk::DatapathState next;
  if (!change.full()) next = held_;
  next.merge(change);
  const sdk::State& state = next.state();
  if (!held_.valid() && numbering_.empty()) {
    learn_numbers(*nft_, Ruleset(state.node, mtu_), numbering_);
    // Another datapath may have programmed this node before: the kernel's word comes first.
    for (const auto& [mac, number] : peer_numbers_.found()) numbering_.peers.learn(mac, number);
  }
  std::vector<ObjectFailure> failures;
  check_endpoints(change, next.state(), failures);
  Repairs repairs;

  // The device's MTU is part of the rules, the usable peers are part of the device's entries.
  Desired desired(programs_ != nullptr);
  if (desired_) desired.know(*desired_);
  desired.build(state, mtu_, numbering_, failures);
  watch(state, desired);
  sdk::Status tunnel = program_tunnel(state, desired, report, repairs);
  desired.set_mtu(mtu_);
  desired.set_device(device_ != 0);
  desired.set_ingress(device_ != 0 && find_link(route_, state.node.parent_device).has_value());
  watch(state, desired);
  program_routes(desired, repairs);

  std::vector<Nft::ElementFailure> elements;
  std::vector<SourceChange> changes;
  const Desired* before = desired_ ? &*desired_ : nullptr;
  sdk::Status s = sync_kernel(state, desired, bare, repairs, elements, changes, loading);
  if (was_unjudged(repairs)) unswept_.note(nullptr, desired, state, {});
  settle_flows(before, desired, state, changes, elements, s.ok());
  if (!s.ok()) return s;
  if (tunnel.ok()) {
    tunnel_.open(tunnel_spec(state.node), tunnel_peers(state, desired), next_hops(desired));
  }
  if (tables_.missed()) host_.drifted("nftables, by somebody, while a big change was loaded");
  if (programs_) programs_->add_failures(failures);
  report_failures(failures, elements, report);
  report_repairs(repairs, report);
  held_ = std::move(next);
  desired_ = std::move(desired);
  keep_peer_numbers(*desired_);
  return tunnel;
}

void NftDatapath::keep_peer_numbers(const Desired& desired) {
  std::map<sdk::Mac, std::uint32_t> numbers;
  for (const auto& [name, plan] : desired.peers()) numbers.emplace(plan.mac, plan.number);
  if (const sdk::Status s = peer_numbers_.keep(numbers); !s.ok()) host_.warn(s.text());
}

void NftDatapath::settle_flows(const Desired* before, const Desired& after, const sdk::State& state,
                               const std::vector<SourceChange>& changes,
                               const std::vector<Nft::ElementFailure>& refused, bool written) {
  unswept_.note(before, after, state, changes);
  if (!written) return unswept_.failed(after, state);
  const bool urgent = unswept_.urgent();
  std::vector<sdk::Address> still;
  for (const Nft::ElementFailure& f : refused) {
    if (const sdk::Address a = endpoint_of(f)) still.push_back(a);
  }
  auto sweep = unswept_.take(after, state, still);
  if (!sweep) return;
  sweeper_.add(std::move(sweep));
  // Whoever hears that an egress IP's move is realised may send the answers another way.
  if (urgent) sweeper_.drain(kMoveWait);
}

sdk::Status NftDatapath::apply_step(const sdk::Change& change, sdk::ApplyReport& report) {
  std::vector<ObjectFailure> failures;
  std::vector<Nft::ElementFailure> elements;
  std::vector<SourceChange> changes = touched_sources(*desired_, held_.state(), change);
  held_.merge(change);
  const sdk::State& state = held_.state();
  const bool endpoints_only =
      objects_of(change) == change.endpoints().size() + change.deleted_endpoints().size();
  const std::optional<Desired> before =
      endpoints_only ? std::nullopt : std::optional<Desired>(*desired_);
  if (before) desired_->update(state, change, numbering_, failures);
  settle_sources(*desired_, state, changes);
  check_endpoints(change, state, failures);
  if (!change.peers().empty() || !change.deleted_peers().empty()) {
    watch(state, *desired_);
    Tunnel::Result result;
    tunnel_.update_peers(tunnel_peers(state, *desired_), next_hops(*desired_), result);
    for (const auto& f : result.failures) {
      report.failed(sdk::ObjectType::kPeer, f.peer, f.error, f.message);
    }
    keep_peer_numbers(*desired_);
  }
  sdk::Status s = before ? tables_.step(*before, *desired_, changes, elements)
                         : tables_.step_sources(*desired_, changes, elements);
  if (s.ok() && programs_) {
    s = guarded(
        [&] { programs_->step(before ? &*before : nullptr, *desired_, changes, elements); });
  }
  if (s.ok()) s = tables_.finish(elements);
  settle_flows(before ? &*before : &*desired_, *desired_, state, changes, elements, s.ok());
  if (!s.ok()) return s;
  report_failures(failures, elements, report);
  return sdk::ok();
}

sdk::Status NftDatapath::sysctls(sdk::SysctlSink& out) {
  need_settings(held_, out);
  return sdk::ok();
}

sdk::Status NftDatapath::health() {
  if (sdk::Status s = tunnel_health(route_, held_); !s.ok()) return s;
  for (const Table t : kTables) {
    if (!nft_->table_exists(t)) {
      return sdk::fail(sdk::Code::kUnavailable, "the nftables table does not exist",
                       std::string(keyword(t)) + " " + std::string(kTable));
    }
  }
  sdk::Status s = programs_ ? programs_->health() : sdk::ok();
  if (s.ok()) read_ahead();
  return s;
}

sdk::Status NftDatapath::counters(sdk::CounterSink& out) {
  for (const Table t : kTables) {
    if (programs_ && t == Table::kNetdev) continue;  // theirs, or left by another datapath
    for (const auto& [name, packets] : nft_->counters(t)) {
      out.counter("dropped_packets_total", "table=" + std::string(keyword(t)) + ",reason=" + name,
                  packets);
    }
  }
  if (programs_) programs_->counters(desired_ ? &*desired_ : nullptr, out);
  out.counter("conntrack_deleted_total", "", sweeper_.deleted());
  return sdk::ok();
}

}  // namespace egw::common
