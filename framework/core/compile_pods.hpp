// Which policies select which of this node's pods: pods with the same namespace and labels form a
// group that is matched once; groups and pods share sets of policies. Used by core::Compiler only.
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "egw/core/compile_index.hpp"
#include "egw/core/compile_policy.hpp"

namespace egw::core::detail {

// Policies that apply together, best rank first. Index 0 of the table is the empty set.
struct PolicySet {
  std::vector<std::uint32_t> slots;
  std::uint32_t holders = 0;   // groups and pods that refer to it
  std::uint32_t pods = 0;      // pods with an address, to which it applies
  std::uint32_t class_id = 0;  // 0: no class (not live, or an empty table)
  std::uint8_t families = 0;   // of the class
  bool known = false;          // applied to pods before this update
  bool touched = false;        // to be looked at in this update
};

class PodIndex {
 public:
  explicit PodIndex(const model::Settings& settings) : settings_(settings) {}

  // Brings one pod up to date with the world.
  void update(const model::World& world, const PolicyStore& policies, const std::string& node,
              const model::Key& key);
  void update_all(const model::World& world, const PolicyStore& policies, const std::string& node);
  // Policies or a namespace's labels changed: match groups again. ns: nullptr for all.
  void rematch(const model::World& world, const PolicyStore& policies, const std::string* ns);

  // Sets that changed, came or lost their last pod since the last call of end().
  [[nodiscard]] std::vector<std::uint32_t>& touched_sets() { return touched_sets_; }
  [[nodiscard]] std::vector<PolicySet>& sets() { return sets_; }
  [[nodiscard]] const std::vector<PolicySet>& sets() const { return sets_; }
  void touch_set(std::uint32_t set);
  // The class of these sets changed: look at all addresses of their pods again.
  void touch_pods_of(const std::vector<bool>& sets);
  // Addresses to look at again, sorted, each once.
  [[nodiscard]] std::vector<model::Address> take_touched_addresses();
  // The set that applies to an address; 0: none. Of several pods with one address (it is reused
  // before the old pod's end is seen) the newest counts.
  [[nodiscard]] std::uint32_t set_of(const model::Address& address) const;
  // Forgets sets that nobody refers to.
  void end();

  // Pods with an address of a family that is switched off.
  [[nodiscard]] std::size_t pods_with_disabled_family() const { return disabled_family_pods_; }
  [[nodiscard]] std::size_t address_count() const { return claims_.size(); }

 private:
  // One per pod with an address: kept small, there are tens of thousands.
  struct Record {
    std::array<model::Address, 2> first;  // of enabled families, sorted; the rest is in `more`
    std::uint8_t count = 0;               // of addresses; more than 2: all are in `more`
    bool terminating = false;
    bool disabled_family = false;
    bool used = false;
    std::uint32_t ns = 0;
    std::uint32_t group = 0;
    std::uint32_t set = 0;
    std::uint32_t seen = 0;
    std::uint32_t name_size = 0;
    std::int64_t created_ms = 0;
    std::unique_ptr<char[]> name;
    std::unique_ptr<std::vector<model::Address>> more;

    [[nodiscard]] std::span<const model::Address> addresses() const {
      return more ? std::span<const model::Address>(*more)
                  : std::span<const model::Address>(first.data(), count);
    }
    [[nodiscard]] std::string_view name_view() const { return {name.get(), name_size}; }
  };
  struct Group {
    std::uint32_t ns = 0;
    model::Labels labels;  // those that matter
    std::uint32_t set = 0;
    std::uint32_t pods = 0;
    const std::string* key = nullptr;  // in group_by_key_
  };
  struct Namespace {
    std::string name;
    model::Labels labels;
    std::uint32_t pods = 0;
    bool labels_read = false;
  };

  void upsert(const model::World& world, const PolicyStore& policies, const model::Pod& pod);
  void remove(std::uint32_t pod);
  // kNoPod: not there.
  [[nodiscard]] std::uint32_t find(std::uint32_t ns, std::string_view name) const;
  [[nodiscard]] std::uint32_t add(std::uint32_t ns, const std::string& name);
  [[nodiscard]] std::uint32_t intern_namespace(const std::string& name);
  const Namespace& read_namespace(const model::World& world, std::uint32_t ns);
  [[nodiscard]] std::uint32_t group_of(const model::World& world, const PolicyStore& policies,
                                       std::uint32_t ns, const model::Labels& labels);
  void leave_group(std::uint32_t group);
  void leave_namespace(std::uint32_t ns);
  void set_addresses(std::uint32_t pod, std::vector<model::Address> addresses);
  void touch_addresses(const Record& record);
  [[nodiscard]] std::uint32_t hold_set(std::vector<std::uint32_t> slots);
  void release_set(std::uint32_t set);
  void assign(Record& record, std::uint32_t set);
  // The set of a pod, held once for the caller.
  [[nodiscard]] std::uint32_t hold_set_of(const PolicyStore& policies, const Record& record);
  void drop_unseen();
  void regroup();

  const model::Settings& settings_;
  std::vector<PolicySet> sets_{1};
  std::vector<std::uint32_t> free_sets_, touched_sets_;
  std::unordered_multimap<std::size_t, std::uint32_t> set_by_hash_;
  std::vector<Group> groups_{1};  // index 0: none
  std::vector<std::uint32_t> free_groups_;
  std::unordered_map<std::string, std::uint32_t> group_by_key_;
  std::vector<Namespace> namespaces_;
  std::vector<std::uint32_t> free_namespaces_;
  std::unordered_map<std::string, std::uint32_t> namespace_by_name_;
  static constexpr std::uint32_t kNoPod = UINT32_MAX;
  std::deque<Record> pods_;
  std::vector<std::uint32_t> free_pods_;
  HashIndex pods_by_name_;
  HashIndex claims_;  // by address
  std::vector<model::Address> touched_addresses_;
  std::size_t disabled_family_pods_ = 0;
  std::uint32_t round_ = 0;
};

}  // namespace egw::core::detail
