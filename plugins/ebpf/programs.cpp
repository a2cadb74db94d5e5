#include "programs.hpp"

#include <bpf/bpf.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <iterator>
#include <nlohmann/json.hpp>
#include <utility>

#include "common/nftables/changes.hpp"
#include "folder.hpp"

namespace egw::ebpf {
namespace {

using common::Desired;
using common::Elements;
using common::kFamilies;
using common::Table;

std::size_t prefix_size(Table t) {
  return t == Table::kIp ? sizeof(egw_prefix4) : sizeof(egw_prefix6);
}

std::uint32_t u32_of(const std::string& bytes) {
  std::uint32_t v = 0;
  std::memcpy(&v, bytes.data(), std::min(bytes.size(), sizeof(v)));
  return v;
}

std::string number_name(const std::unordered_map<std::uint32_t, std::string>& classes,
                        const std::string* number) {
  if (number == nullptr) return {};
  const auto at = classes.find(u32_of(*number));
  return at == classes.end() ? common::name_of(u32_of(*number)) : at->second;
}

void fail_endpoints(Table t, const std::vector<Refused>& refused,
                    std::vector<common::Nft::ElementFailure>& failures) {
  for (const Refused& r : refused) failures.push_back({t, "endpoints", r.key, r.error});
}

// Prefixes of classes and of the cluster: without one of them packets would go astray.
void must(const std::vector<Refused>& refused, const char* what) {
  if (refused.empty()) return;
  throw sdk::Failure(sdk::Code::kInternal, "the kernel refuses an element", what, refused[0].error);
}

std::array<std::uint64_t, EGW_IDS> owner_values(const Desired& desired) {
  std::array<std::uint64_t, EGW_IDS> out{};
  for (const auto& [id, plan] : desired.egresses()) out[id & EGW_ID_MASK] = owner_value(plan);
  return out;
}

std::array<std::uint64_t, EGW_IDS> back_values(const Desired& desired) {
  std::array<std::uint64_t, EGW_IDS> out{};
  for (const auto& [name, peer] : desired.peers()) {
    out[peer.number & EGW_ID_MASK] = back_value(peer.mac);
  }
  return out;
}

void sync_array(SharedArray& array, const std::array<std::uint64_t, EGW_IDS>& want,
                const std::array<std::uint64_t, EGW_IDS>* past, common::Repairs& repairs) {
  for (std::uint32_t i = 0; i < EGW_IDS; ++i) {
    if (array.get(i) == want[i]) continue;
    array.set(i, want[i]);
    if (past != nullptr && (*past)[i] == want[i]) ++repairs["BPF map element"];
  }
}

// A remark: without it packets go the host's way.
void probe_fast_path(sdk::ProbeSink& out) {
  try {
    const Loaded loaded("", true);
    out.finding(true, "FastPath", "the kernel takes the programs of fastPath");
  } catch (const sdk::Failure& failure) {
    out.finding(false, "FastPath",
                failure.status().text() +
                    "; packets go the host's way (fastPath needs Linux 5.18 "
                    "with BTF and conntrack)");
  }
}

}  // namespace

sdk::Status probe_programs(const Config& config, sdk::ProbeSink& out) {
  try {
    const Loaded loaded("", false);
    const bool tcx = kernel_has_tcx(loaded.program(Loaded::Program::kPod));
    out.finding(true, "BpfPrograms", "the kernel takes the programs");
    if (config.attach == Attach::kTcx && !tcx) {
      out.finding(false, "BpfAttach",
                  "plugins.datapath.config.attach is tcx, and this kernel has none (it came with "
                  "6.6); set it to auto");
      return sdk::fail(sdk::Code::kUnsupported, "the ebpf datapath cannot run here; see findings");
    }
    out.finding(true, "BpfAttach",
                config.attach == Attach::kClsact ? "by clsact, as configured"
                : tcx                            ? "by tcx"
                      : "by clsact: this kernel has no tcx (it came with 6.6)");
    if (config.fast_path) probe_fast_path(out);
    if (sdk::Status s = check_folder(config.pin_path); !s.ok()) {
      out.finding(false, "Bpffs", s.text());
      return sdk::fail(sdk::Code::kUnsupported, "the ebpf datapath cannot run here; see findings");
    }
    out.finding(true, "Bpffs", "maps and links can be pinned in " + config.pin_path);
    return sdk::ok();
  } catch (const sdk::Failure& failure) {
    out.finding(false, "BpfPrograms", failure.status().text());
    return sdk::fail(sdk::Code::kUnsupported, "the ebpf datapath cannot run here; see findings");
  }
}

BpfPrograms::BpfPrograms(const Config& config, std::string_view state_dir, sdk::DatapathHost host)
    : kernel_(config.pin_path + "/" + common::hex(common::fingerprint(state_dir), 16),
              config.attach, config.fast_path, host) {}

void BpfPrograms::sync_settings(const Desired& desired, int device, std::uint32_t mtu) {
  using common::Slot;
  const common::Marks& marks = desired.marks();
  const sdk::NodeConfig& node = desired.node();
  egw_settings s{};
  s.slot_mask = marks.slot_mask();
  s.slot_early = marks.value(Slot::kEarly);
  s.slot_late = marks.value(Slot::kLate);
  s.slot_steer = marks.value(Slot::kSteer);
  s.slot_back = marks.value(Slot::kBack);
  s.slot_outer = marks.value(Slot::kOuter);
  s.mtu = mtu;
  s.tunnel = static_cast<std::uint32_t>(device);
  std::memcpy(&s.tunnel4, node.tunnel_v4.address.bytes.data(), node.tunnel_v4 ? 4 : 0);
  std::memcpy(&s.tunnel6, node.tunnel_v6.address.bytes.data(), node.tunnel_v6 ? 16 : 0);
  std::copy(node.tunnel_mac.begin(), node.tunnel_mac.end(), s.mac);
  const std::uint32_t zero = 0;
  if (bpf_map_update_elem(kernel_.loaded()->maps().settings, &zero, &s, BPF_ANY) != 0) {
    throw sdk::Failure(sdk::Code::kInternal, "the kernel refuses an element", "BPF map settings",
                       errno);
  }
}

namespace {

template <class Each>
void each_bit(const std::bitset<EGW_IDS>& bits, const Each& each) {
  if (bits.none()) return;
  for (std::uint32_t i = 0; i < EGW_IDS; ++i) {
    if (bits[i]) each(i);
  }
}

// The same id with the addresses of another egress IP: one went and another came in one change.
bool another(const common::EgressPlan& had, const common::EgressPlan& has) {
  const auto same = [&](std::size_t f) {
    return has.address[f] && has.address[f] == had.address[f];
  };
  return (had.address[0] || had.address[1]) && !same(0) && !same(1);
}

}  // namespace

void BpfPrograms::start_counts(const Desired* before, const Desired& desired) {
  Loaded& loaded = *kernel_.loaded();
  const bool known = before != nullptr && counted_.has_value();
  const Counted had = counted_.value_or(Counted());
  Counted now = had;
  if (!known || !before->same_egresses(desired)) {
    now.egresses.reset();
    for (const auto& [id, plan] : desired.egresses()) now.egresses.set(id & EGW_ID_MASK);
  }
  if (!known || !before->same_classes(desired)) {
    now.classes = {};
    for (const Table t : kFamilies) {
      for (const auto& [name, kept] : desired.class_tables(t)) {
        now.classes[index(t)].set(kept.table->number & EGW_ID_MASK);
      }
    }
  }
  if (counted_) {
    each_bit(now.egresses & ~had.egresses, [&](std::uint32_t i) { loaded.steered().clear(i); });
    for (const Table t : kFamilies) {
      each_bit(now.classes[index(t)] & ~had.classes[index(t)],
               [&](std::uint32_t i) { loaded.judged(t).clear(i); });
    }
  }
  counted_ = now;
  if (before == nullptr) return;
  common::each_difference(
      before->egresses(), desired.egresses(),
      [&](std::uint32_t id, const common::EgressPlan* was, const common::EgressPlan* is) {
        if (was != nullptr && is != nullptr && another(*was, *is)) {
          loaded.steered().clear(id & EGW_ID_MASK);
        }
      });
}

void BpfPrograms::sync_arrays(const common::Tables::Past* before, const Desired& desired,
                              common::Repairs& repairs) {
  Loaded& loaded = *kernel_.loaded();
  std::array<std::uint64_t, EGW_IDS> owners{}, backs{};
  if (before != nullptr) {
    owners = owner_values(before->desired);
    backs = back_values(before->desired);
  }
  sync_array(loaded.owners(), owner_values(desired), before != nullptr ? &owners : nullptr,
             repairs);
  sync_array(loaded.backs(), back_values(desired), before != nullptr ? &backs : nullptr, repairs);
}

Elements BpfPrograms::held(int map, std::size_t key_size) const {
  return fresh_ ? Elements() : dump(map, key_size);
}

Elements BpfPrograms::sync_prefixes(int map, std::size_t key_size, const Elements& want,
                                    const Elements& past, common::Repairs& repairs) {
  common::ElementChange put_change, drop;
  common::difference({}, held(map, key_size), want, put_change, drop,
                     [&](const std::string& key, const std::string*, const std::string* wants) {
                       const std::string* was = common::find_element(past, key);
                       if (wants != nullptr && was != nullptr && *was == *wants)
                         ++repairs["BPF map element"];
                     });
  must(put(map, put_change.add), "BPF map of prefixes");
  return std::move(drop.remove);
}

namespace {

// What an endpoint's number was last, if any.
std::uint32_t number_before(const common::Tables::Past& before, const sdk::Address& address) {
  const auto at = before.state.endpoints.find(address);
  return at == before.state.endpoints.end()
             ? 0
             : before.desired.number(at->second, common::table_of(address));
}

}  // namespace

// At a first load, without the work of a comparison.
void BpfPrograms::fill_sources(Table t, const common::Tables::Past* before, const sdk::State& state,
                               const Desired& desired, common::Repairs& repairs,
                               std::vector<common::Nft::ElementFailure>& failures,
                               std::vector<common::SourceChange>& changes) {
  if (!desired.enabled(t)) return;
  Endpoints add;
  add.reserve(state.endpoints.size());
  changes.reserve(changes.size() + state.endpoints.size());
  for (const auto& [address, class_id] : state.endpoints) {
    if (common::table_of(address) != t) continue;
    const std::uint32_t number = desired.number(class_id, t);
    if (number == 0) continue;
    add.emplace_back(address, number);
    changes.push_back({address, {}, desired.target(class_id, t)});
    if (before != nullptr && number_before(*before, address) == number) {
      ++repairs["BPF map element"];
    }
  }
  fail_endpoints(t, kernel_.loaded()->put(t, add), failures);
}

void BpfPrograms::sync_sources(Table t, const common::Tables::Past* before, const sdk::State& state,
                               const Desired& desired, common::Repairs& repairs,
                               std::vector<common::Nft::ElementFailure>& failures,
                               std::vector<common::SourceChange>& changes) {
  const Elements have = kernel_.loaded()->endpoints(t);
  if (have.empty()) {
    return fill_sources(t, before, state, desired, repairs, failures, changes);
  }
  const auto names_now = desired.class_names(t);
  const auto names_before = before != nullptr ? before->desired.class_names(t) : names_now;
  Endpoints add;
  std::vector<sdk::Address> gone;
  common::ElementChange put_change, drop;
  common::difference(
      {}, have, desired.source_elements(state, t), put_change, drop,
      [&](const std::string& key, const std::string* had, const std::string* wants) {
        const sdk::Address address = common::register_to_address(key);
        if (wants != nullptr) {
          add.emplace_back(address, u32_of(*wants));
        } else {
          gone.push_back(address);
        }
        changes.push_back({address, number_name(names_before, had), number_name(names_now, wants)});
        if (before != nullptr &&
            number_before(*before, address) == (wants == nullptr ? 0 : u32_of(*wants))) {
          ++repairs["BPF map element"];
        }
      });
  fail_endpoints(t, kernel_.loaded()->put(t, add), failures);
  kernel_.loaded()->remove(t, gone);
}

void BpfPrograms::prepare(const common::Tables::Past* before, const sdk::State& state,
                          const Desired& desired, common::Repairs& repairs,
                          const std::optional<Bare>& bare) {
  prepared_ = {};
  Loaded& loaded = kernel_.load();
  const MapSet& maps = loaded.maps();
  fresh_ = loaded.take_fresh();
  for (const Table t : kFamilies) {
    const Elements past = before != nullptr ? class_elements(before->desired, t) : Elements();
    prepared_.cluster[index(t)] = sync_prefixes(maps.cluster[index(t)], prefix_size(t),
                                                cluster_elements(desired, t), {}, repairs);
    prepared_.classes[index(t)] = sync_prefixes(maps.classes[index(t)], prefix_size(t),
                                                class_elements(desired, t), past, repairs);
    if (!fresh_) continue;
    fill_sources(t, before, state, desired, repairs, prepared_.failures, prepared_.changes);
  }
  // The kernel's first tcx link on a machine takes 10 ms.
  if (!bare || !fresh_) return;
  sync_settings(desired, bare->device, bare->mtu);
  kernel_.attach(bare->device, desired.node().parent_device);
}

void BpfPrograms::sync(const common::Tables::Past* before, const sdk::State& state,
                       const Desired& desired, int device, std::uint32_t mtu,
                       common::Repairs& repairs, std::vector<common::Nft::ElementFailure>& failures,
                       std::vector<common::SourceChange>& changes) {
  const MapSet& maps = kernel_.loaded()->maps();
  sync_settings(desired, device, mtu);
  start_counts(before != nullptr ? &before->desired : nullptr, desired);
  sync_arrays(before, desired, repairs);
  Prepared prepared = std::exchange(prepared_, {});
  std::move(prepared.failures.begin(), prepared.failures.end(), std::back_inserter(failures));
  std::move(prepared.changes.begin(), prepared.changes.end(), std::back_inserter(changes));
  for (const Table t : kFamilies) {
    if (!fresh_) sync_sources(t, before, state, desired, repairs, failures, changes);
    remove(maps.classes[index(t)], prepared.classes[index(t)]);
    remove(maps.cluster[index(t)], prepared.cluster[index(t)]);
  }
  const Mended mended = kernel_.attach(device, desired.node().parent_device);
  if (before == nullptr) return;
  if (mended.programs != 0) repairs["BPF program"] += mended.programs;
  if (mended.pins != 0) repairs["BPF pin"] += mended.pins;
}

void BpfPrograms::step_egresses(const Desired& before, const Desired& desired) {
  Loaded& loaded = *kernel_.loaded();
  if (!before.same_egresses(desired)) {
    common::each_surplus(desired.egresses(), before.egresses(),
                         [&](std::uint32_t id, const common::EgressPlan& plan) {
                           loaded.owners().set(id, owner_value(plan));
                         });
    common::each_surplus(before.egresses(), desired.egresses(),
                         [&](std::uint32_t id, const common::EgressPlan&) {
                           if (desired.egresses().count(id) == 0) loaded.owners().set(id, 0);
                         });
  }
  if (before.same_peers(desired)) return;
  // A number may have gone from one peer to another.
  common::each_surplus(before.peers(), desired.peers(),
                       [&](const std::string&, const common::PeerPlan& peer) {
                         loaded.backs().set(peer.number, 0);
                       });
  common::each_surplus(desired.peers(), before.peers(),
                       [&](const std::string&, const common::PeerPlan& peer) {
                         loaded.backs().set(peer.number, back_value(peer.mac));
                       });
}

void BpfPrograms::step(const Desired* before, const Desired& desired,
                       const std::vector<common::SourceChange>& changes,
                       std::vector<common::Nft::ElementFailure>& failures) {
  const MapSet& maps = kernel_.load().maps();
  if (before != nullptr) {
    start_counts(before, desired);
    step_egresses(*before, desired);
  }
  const bool classes = before != nullptr && !before->same_classes(desired);
  const auto collect = [](Elements& out) {
    return [&out](const std::string&, const common::ClassTables& kept) {
      add_class(*kept.table, out);
    };
  };
  for (const Table t : kFamilies) {
    if (!desired.enabled(t)) continue;
    Elements fresh, stale;
    Endpoints add;
    std::vector<sdk::Address> gone;
    if (classes) {
      common::each_surplus(desired.class_tables(t), before->class_tables(t), collect(fresh));
      common::each_surplus(before->class_tables(t), desired.class_tables(t), collect(stale));
    }
    must(put(maps.classes[index(t)], fresh), "BPF map of prefixes");
    for (const common::SourceChange& c : changes) {
      if (common::table_of(c.address) != t) continue;
      if (c.after.empty()) {
        gone.push_back(c.address);
      } else {
        add.emplace_back(c.address, desired.number_of(t, c.after));
      }
    }
    fail_endpoints(t, kernel_.loaded()->put(t, add), failures);
    kernel_.loaded()->remove(t, gone);
    remove(maps.classes[index(t)], stale);
  }
}

sdk::Status BpfPrograms::health() {
  return kernel_.loaded() == nullptr ? sdk::ok() : kernel_.health();
}

void BpfPrograms::add_failures(std::vector<common::ObjectFailure>& out) {
  for (auto& [where, text] : kernel_.faults()) {
    out.push_back({sdk::ObjectType::kNode, where, text});
  }
}

void BpfPrograms::counters(const Desired* desired, sdk::CounterSink& out) {
  if (kernel_.loaded() == nullptr) return;
  const MapSet& maps = kernel_.loaded()->maps();
  constexpr std::array<const char*, EGW_REASONS> kReasons{"not_steered", "no_owner", "no_peer",
                                                          "malformed"};
  for (std::uint32_t i = 0; i < kReasons.size(); ++i) {
    out.counter("dropped_packets_total", std::string("table=netdev,reason=") + kReasons[i],
                sum_of(maps.drops, i));
  }
  if (desired == nullptr) return;
  const auto count = [&](const char* what, const std::string& label, const Counts& counts,
                         std::uint32_t i) {
    const egw_count c = counts.get(i);
    if (c.packets == 0) return;
    out.counter(std::string(what) + "_packets_total", label, c.packets);
    out.counter(std::string(what) + "_bytes_total", label, c.bytes);
  };
  for (const auto& [id, plan] : desired->egresses()) {
    count("steered", "egress=" + std::to_string(id), kernel_.loaded()->steered(), id);
  }
  for (const Table t : kFamilies) {
    const std::string family = t == Table::kIp ? ",family=ipv4" : ",family=ipv6";
    for (const auto& [name, kept] : desired->class_tables(t)) {
      // Of a class with a number beyond the array another's would be told.
      if ((kept.table->number & EGW_CLASS_MASK) > EGW_ID_MASK) continue;
      count("class", "class=" + name + family, kernel_.loaded()->judged(t),
            kept.table->number & EGW_ID_MASK);
    }
  }
}

void BpfPrograms::observe(const Desired* desired, nlohmann::json& out) {
  if (kernel_.loaded() == nullptr) return;
  for (const Table t : kFamilies) {
    const auto names = desired != nullptr ? desired->class_names(t)
                                          : std::unordered_map<std::uint32_t, std::string>();
    for (const auto& [key, number] : kernel_.loaded()->endpoints(t)) {
      out["endpoints"][common::register_to_address(key).text()] = number_name(names, &number);
    }
  }
  if (desired != nullptr) {
    for (const auto& [id, plan] : desired->egresses()) {
      const auto owner = std::bit_cast<egw_owner>(kernel_.loaded()->owners().get(id));
      sdk::Mac mac{};
      std::copy(std::begin(owner.mac), std::end(owner.mac), mac.begin());
      if (mac != sdk::Mac{}) {
        out["egresses"][std::to_string(id)]["ownerMac"] = common::mac_text(mac);
      }
    }
  }
  out["bpf"] = {{"attach", kernel_.method_text()}, {"fastPath", kernel_.fast()}};
}

void BpfPrograms::add_bound(common::Bound& out) {
  Loaded* loaded = kernel_.loaded();
  if (loaded == nullptr) {
    try {
      loaded = &kernel_.load();
    } catch (const sdk::Failure&) {
      return;  // nothing can have been steered here
    }
  }
  for (const Table t : kFamilies) {
    for (const auto& [key, number] : loaded->endpoints(t)) {
      out.endpoints.insert(common::register_to_address(key));
    }
  }
}

sdk::Status BpfPrograms::purge() { return kernel_.purge(); }

}  // namespace egw::ebpf
