// BPF maps by file descriptor: dumps, differences written in batches, arrays written through
// memory. Keys and values are byte strings as layout.h orders them. Called by programs.cpp and by
// tests.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "bpf/layout.h"
#include "common/nftables/desired.hpp"

namespace egw::ebpf {

struct Refused {
  std::string key;
  int error;
};

// Everything that a hash or a trie holds, sorted. Throws sdk::Failure.
[[nodiscard]] common::Elements dump(int map, std::size_t key_size);
// Adds or replaces; what the kernel refuses (a full map) is answered, the rest is written.
std::vector<Refused> put(int map, const common::Elements& elements);
// What is absent is no failure. Throws sdk::Failure.
void remove(int map, const common::Elements& elements);

// The sum over all CPUs; nothing there: 0.
[[nodiscard]] std::uint64_t sum_of(int map, std::uint32_t index);

[[nodiscard]] std::uint32_t possible_cpus();

// An array with EGW_IDS counts for each CPU, read through memory.
class Counts {
 public:
  explicit Counts(int map);
  ~Counts();
  Counts(const Counts&) = delete;
  Counts& operator=(const Counts&) = delete;

  [[nodiscard]] egw_count get(std::uint32_t index) const;
  // From zero on: the index is somebody else's now.
  void clear(std::uint32_t index);

 private:
  egw_count* memory_;
};

// An array of eight-byte values, mapped into memory: a change is one store.
class SharedArray {
 public:
  explicit SharedArray(int map);
  ~SharedArray();
  SharedArray(const SharedArray&) = delete;
  SharedArray& operator=(const SharedArray&) = delete;

  [[nodiscard]] std::uint64_t get(std::uint32_t index) const;
  void set(std::uint32_t index, std::uint64_t value);

 private:
  std::uint64_t* memory_;
};

using Endpoints = std::vector<std::pair<sdk::Address, std::uint32_t>>;  // and the number

// The IPv4 endpoints (layout.h), in memory.
class EndpointTable {
 public:
  explicit EndpointTable(int map);
  ~EndpointTable();
  EndpointTable(const EndpointTable&) = delete;
  EndpointTable& operator=(const EndpointTable&) = delete;

  // Adds or replaces; false: both buckets are full.
  bool put(std::uint32_t address, std::uint32_t number);
  void remove(std::uint32_t address);
  [[nodiscard]] common::Elements dump() const;  // sorted, as that of a hash

 private:
  [[nodiscard]] __u64* find(std::uint32_t address) const;
  egw_bucket4* memory_;
};

[[nodiscard]] std::uint64_t owner_value(const common::EgressPlan& plan);
[[nodiscard]] std::uint64_t back_value(const sdk::Mac& mac);
// Of a trie: the class's number (0: cluster) and a prefix.
[[nodiscard]] std::string prefix_key(std::uint32_t number, const sdk::Prefix& prefix);
void add_class(const common::ClassTable& table, common::Elements& out);
[[nodiscard]] common::Elements class_elements(const common::Plan& plan, common::Table t);
[[nodiscard]] common::Elements cluster_elements(const common::Plan& plan, common::Table t);

}  // namespace egw::ebpf
