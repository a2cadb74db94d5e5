#include "maps.hpp"

#include <arpa/inet.h>
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <sys/mman.h>

#include <algorithm>
#include <atomic>
#include <bit>
#include <cerrno>
#include <cstring>
#include <numeric>

namespace egw::ebpf {
namespace {

using common::Elements;
using common::Table;

static_assert(EGW_ID_MASK == common::kIdMask && EGW_CLASS_MASK == common::kMaxClass &&
              EGW_EARLY_SHIFT == common::kEarlyShift && EGW_NUMBER_CLASS == common::kClassBit &&
              EGW_NUMBER_BYPASS == common::kBypassNumber);

constexpr std::uint32_t kBatch = 4096;
constexpr std::size_t kValue = sizeof(std::uint32_t);

[[noreturn]] void refuse(const char* what, int error) {
  throw sdk::Failure(sdk::Code::kInternal, what, "BPF map", error);
}

void dump_one_by_one(int map, std::size_t key_size, Elements& out) {
  std::string key(key_size, '\0'), value(kValue, '\0');
  const void* before = nullptr;
  std::string previous;
  while (bpf_map_get_next_key(map, before, key.data()) == 0) {
    if (bpf_map_lookup_elem(map, key.data(), value.data()) == 0) out.emplace_back(key, value);
    previous = key;
    before = previous.data();
  }
}

}  // namespace

Elements dump(int map, std::size_t key_size) {
  Elements out;
  std::string keys(kBatch * key_size, '\0'), values(kBatch * kValue, '\0');
  std::string at(std::max<std::size_t>(key_size, 8), '\0'), next = at;
  bool first = true;
  for (;;) {
    std::uint32_t count = kBatch;
    const int r = bpf_map_lookup_batch(map, first ? nullptr : at.data(), next.data(), keys.data(),
                                       values.data(), &count, nullptr);
    if (r != 0 && errno != ENOENT) {
      // Before 5.6, and tries before 5.14, there is no batch; a long chain of a hash wants more
      // room.
      out.clear();
      dump_one_by_one(map, key_size, out);
      break;
    }
    for (std::uint32_t i = 0; i < count; ++i) {
      out.emplace_back(keys.substr(i * key_size, key_size), values.substr(i * kValue, kValue));
    }
    if (r != 0) break;
    at = next;
    first = false;
  }
  std::sort(out.begin(), out.end());
  return out;
}

std::vector<Refused> put(int map, const Elements& elements) {
  std::vector<Refused> out;
  std::string keys, values;
  for (std::size_t begin = 0; begin < elements.size();) {
    const std::size_t end = std::min(elements.size(), begin + kBatch);
    keys.clear();
    values.clear();
    for (std::size_t i = begin; i < end; ++i) {
      keys += elements[i].first;
      values += elements[i].second;
    }
    const auto all = static_cast<std::uint32_t>(end - begin);
    std::uint32_t count = all;
    const int r = bpf_map_update_batch(map, keys.data(), values.data(), &count, nullptr);
    // On failure `count` is how many have been written; as it was when the kernel has no batches,
    // of this map or at all, or refuses before the first.
    begin += r == 0 || count != all ? count : 0;
    if (r == 0) continue;
    for (; begin < end; ++begin) {
      const auto& [key, value] = elements[begin];
      if (bpf_map_update_elem(map, key.data(), value.data(), BPF_ANY) != 0) {
        out.push_back({key, errno});
      }
    }
  }
  return out;
}

void remove(int map, const Elements& elements) {
  for (const auto& [key, value] : elements) {
    if (bpf_map_delete_elem(map, key.data()) != 0 && errno != ENOENT) {
      refuse("an element cannot be removed", errno);
    }
  }
}

std::uint32_t possible_cpus() {
  const int cpus = libbpf_num_possible_cpus();
  return cpus > 0 ? static_cast<std::uint32_t>(cpus) : 1;
}

std::uint64_t sum_of(int map, std::uint32_t index) {
  std::vector<std::uint64_t> values(possible_cpus());
  if (bpf_map_lookup_elem(map, &index, values.data()) != 0) return 0;
  return std::accumulate(values.begin(), values.end(), std::uint64_t{0});
}

namespace {

template <class T>
T* map_into_memory(int map, std::size_t elements) {
  void* memory = mmap(nullptr, elements * sizeof(T), PROT_READ | PROT_WRITE, MAP_SHARED, map, 0);
  if (memory == MAP_FAILED) refuse("an array cannot be mapped into memory", errno);
  return static_cast<T*>(memory);
}

}  // namespace

Counts::Counts(int map)
    : memory_(map_into_memory<egw_count>(map, std::size_t{EGW_IDS} * possible_cpus())) {}

Counts::~Counts() { munmap(memory_, std::size_t{EGW_IDS} * possible_cpus() * sizeof(egw_count)); }

egw_count Counts::get(std::uint32_t index) const {
  egw_count sum{};
  for (std::size_t cpu = 0; cpu < possible_cpus(); ++cpu) {
    const egw_count& c = memory_[cpu * EGW_IDS + (index & EGW_ID_MASK)];
    sum.packets += __atomic_load_n(&c.packets, __ATOMIC_RELAXED);
    sum.bytes += __atomic_load_n(&c.bytes, __ATOMIC_RELAXED);
  }
  return sum;
}

void Counts::clear(std::uint32_t index) {
  for (std::size_t cpu = 0; cpu < possible_cpus(); ++cpu) {
    egw_count& c = memory_[cpu * EGW_IDS + (index & EGW_ID_MASK)];
    __atomic_store_n(&c.packets, 0, __ATOMIC_RELAXED);
    __atomic_store_n(&c.bytes, 0, __ATOMIC_RELAXED);
  }
}

SharedArray::SharedArray(int map) : memory_(map_into_memory<std::uint64_t>(map, EGW_IDS)) {}

SharedArray::~SharedArray() { munmap(memory_, EGW_IDS * sizeof(std::uint64_t)); }

std::uint64_t SharedArray::get(std::uint32_t index) const {
  return std::atomic_ref<std::uint64_t>(memory_[index & EGW_ID_MASK]).load();
}

void SharedArray::set(std::uint32_t index, std::uint64_t value) {
  std::atomic_ref<std::uint64_t>(memory_[index & EGW_ID_MASK]).store(value);
}

namespace {

std::uint32_t address_in(__u64 slot) { return static_cast<std::uint32_t>(slot); }

// How many places of a bucket are free. What has been removed leaves holes.
std::ptrdiff_t room(const egw_bucket4& bucket) {
  return std::count(bucket.slot, bucket.slot + EGW_BUCKET, 0);
}

}  // namespace

EndpointTable::EndpointTable(int map) : memory_(map_into_memory<egw_bucket4>(map, EGW_BUCKETS)) {}

EndpointTable::~EndpointTable() { munmap(memory_, EGW_BUCKETS * sizeof(egw_bucket4)); }

__u64* EndpointTable::find(std::uint32_t address) const {
  for (const int second : {0, 1}) {
    for (__u64& slot : memory_[egw_bucket_of(egw_hash4(address), second)].slot) {
      if (slot != 0 && address_in(slot) == address) return &slot;
    }
  }
  return nullptr;
}

bool EndpointTable::put(std::uint32_t address, std::uint32_t number) {
  const __u64 value = __u64{number} << 32U | address;
  __u64* slot = find(address);
  if (slot == nullptr) {
    // The emptier bucket: both are full only when hardly any place is free.
    egw_bucket4* bucket = &memory_[egw_bucket_of(egw_hash4(address), 0)];
    egw_bucket4* other = &memory_[egw_bucket_of(egw_hash4(address), 1)];
    if (room(*other) > room(*bucket)) bucket = other;
    slot = std::find(bucket->slot, bucket->slot + EGW_BUCKET, 0);
    if (slot == bucket->slot + EGW_BUCKET) return false;
  }
  std::atomic_ref<__u64>(*slot).store(value);
  return true;
}

void EndpointTable::remove(std::uint32_t address) {
  if (__u64* slot = find(address)) std::atomic_ref<__u64>(*slot).store(0);
}

Elements EndpointTable::dump() const {
  Elements out;
  for (std::size_t i = 0; i < EGW_BUCKETS; ++i) {
    for (const __u64 slot : memory_[i].slot) {
      if (slot == 0) continue;
      out.emplace_back(common::register_u32(address_in(slot)),
                       common::register_u32(static_cast<std::uint32_t>(slot >> 32U)));
    }
  }
  std::sort(out.begin(), out.end());
  return out;
}

std::uint64_t owner_value(const common::EgressPlan& plan) {
  egw_owner out{};
  for (std::size_t family = 0; family < 2; ++family) {
    out.mode[family] = plan.mode[family] == common::Mode::kSteer ? EGW_MODE_STEER
                       : plan.mode[family] == common::Mode::kOwn ? EGW_MODE_OWN
                                                                 : EGW_MODE_DROP;
  }
  std::copy(plan.owner.begin(), plan.owner.end(), out.mac);
  return std::bit_cast<std::uint64_t>(out);
}

std::uint64_t back_value(const sdk::Mac& mac) {
  egw_back out{};
  std::copy(mac.begin(), mac.end(), out.mac);
  return std::bit_cast<std::uint64_t>(out);
}

std::string prefix_key(std::uint32_t number, const sdk::Prefix& prefix) {
  std::string out = common::register_u32(32U + prefix.len);
  out += common::register_u32(htonl(number));
  return out + common::register_address(prefix.first());
}

void add_class(const common::ClassTable& table, Elements& out) {
  for (const common::ClassEntry& e : table.entries) {
    out.emplace_back(prefix_key(table.number, e.prefix), common::register_u32(e.action));
  }
}

Elements class_elements(const common::Plan& plan, Table t) {
  Elements out;
  if (!plan.enabled(t)) return out;
  for (const auto& [name, kept] : plan.class_tables(t)) add_class(*kept.table, out);
  std::sort(out.begin(), out.end());
  return out;
}

Elements cluster_elements(const common::Plan& plan, Table t) {
  Elements out;
  for (const sdk::Prefix& p : plan.cluster_prefixes(t)) {
    out.emplace_back(prefix_key(0, p), common::register_u32(1));
  }
  std::sort(out.begin(), out.end());
  out.erase(std::unique(out.begin(), out.end()), out.end());
  return out;
}

}  // namespace egw::ebpf
