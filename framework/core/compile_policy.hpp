// The policies as core::Compiler keeps them: parsed once, in their total order, with what each does
// to each family, and an index that finds the policies that select a pod without trying all of
// them.
#pragma once

#include <array>
#include <compare>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "egw/core/compile_gateway.hpp"
#include "egw/core/compile_index.hpp"
#include "egw/core/compile_table.hpp"

namespace egw::core::detail {

// What a policy does to the destinations of one family. kBypass: it does not apply to the family.
struct Decision {
  model::ActionKind action = model::ActionKind::kBypass;
  std::uint32_t id = 0;
  friend bool operator==(const Decision&, const Decision&) = default;
};

// What the compiler needs of a policy, parsed.
struct Policy {
  bool used = false;              // slot holds a policy
  bool node_ip = false;           // egressIP.useNodeIP
  bool all_destinations = false;  // spec.destSubnet is empty
  bool by_subnet = false;         // spec.podSubnet is given
  model::FailurePolicy failure = model::FailurePolicy::kDrop;
  bool refused = false;  // failurePolicy NodeIP, and the leader gives it no EIP
  // Findings; the texts are made when somebody asks.
  bool gateway_full = false, waits_for_prefixes = false;
  std::uint8_t uncovered = 0;  // families (kHasV4, kHasV6) that the gateway does not cover
  std::uint32_t rank = 0;      // position in the total order
  Decision v4, v6;
  model::PolicyRef ref;
  std::string gateway;
  std::uint64_t revision = 0;
  std::int64_t created_ms = 0;
  std::int64_t priority = 0;
  std::optional<model::LabelSelector> pod_selector, namespace_selector;
  std::vector<model::Prefix> destinations;  // minimal
  std::vector<model::Prefix> pod_subnets;   // minimal
  std::uint64_t seen = 0;

  [[nodiscard]] bool has_family(model::Family family) const;  // some destination is of the family
};

// By one requirement of a label selector: which policies to try for a set of labels.
class SelectorIndex {
 public:
  void add(std::uint32_t slot, const model::LabelSelector* selector);
  // After the last add(), before the first candidates().
  void seal();
  // Appends every policy that can match, perhaps with others or twice.
  void candidates(const model::Labels& labels, std::string& scratch,
                  std::vector<std::uint32_t>& out) const;

 private:
  struct Entry {
    std::uint32_t hash = 0;  // of "key\0value" or "key"
    std::uint32_t slot = 0;
    friend auto operator<=>(const Entry&, const Entry&) = default;
  };
  void add(std::uint32_t slot, const std::string& label);

  std::vector<Entry> by_label_;  // sorted
  std::vector<std::uint32_t> always_;
};

class PolicyStore {
 public:
  struct Delta {
    bool selection = false;   // some policy may select other pods, or the order has changed
    bool label_keys = false;  // the set of label keys that matter has changed
  };
  // Takes over world.policies. Slots of policies that stay are kept; slots whose destinations
  // changed are marked dirty.
  Delta reconcile(const std::map<model::Key, model::EgressPolicy>& policies);
  // Decides what each policy does; slots with a new answer are marked dirty.
  void decide(const EgressTable& gateways, const model::Settings& settings, bool prefixes_known);

  [[nodiscard]] const std::vector<Policy>& slots() const { return slots_; }
  [[nodiscard]] bool any_dirty() const { return any_dirty_; }
  [[nodiscard]] bool dirty(std::uint32_t slot) const { return dirty_[slot]; }
  void clear_dirty();

  // Only labels with these keys can tell pods apart.
  [[nodiscard]] bool label_key_matters(const std::string& key) const {
    return label_keys_.count(key) != 0;
  }
  [[nodiscard]] bool uses_subnets() const { return !subnets_.empty(); }

  // Policies that select every pod of namespace `ns` with these labels whatever its address, best
  // rank first. `ns_labels` include kubernetes.io/metadata.name.
  [[nodiscard]] std::vector<std::uint32_t> select(const std::string& ns,
                                                  const model::Labels& ns_labels,
                                                  const model::Labels& labels) const;
  // Policies that select the pod by podSubnet, best rank first.
  [[nodiscard]] std::vector<std::uint32_t> select_by_address(
      const std::string& ns, const model::Labels& ns_labels, const model::Labels& labels,
      std::span<const model::Address> addresses) const;
  void sort_by_rank(std::vector<std::uint32_t>& slots) const;

  // The class table of a set of policies, best rank first.
  [[nodiscard]] model::ClassTable table(const std::vector<std::uint32_t>& slots) const;

 private:
  std::uint32_t new_slot();
  // The slot of that policy; false: it is new, and has one from now on.
  bool slot_of(const model::Key& key, std::uint32_t& slot);
  void drop_unseen();
  void mark_dirty(std::uint32_t slot);
  void sort_all();
  bool rebuild_index();
  void index_policy(std::uint32_t slot);
  void mark_full_gateways(const EgressTable& gateways);
  void decide_one(std::uint32_t slot, const GatewayFacts* gateway, const Placement* placement,
                  const model::Settings& settings, bool prefixes_known);
  [[nodiscard]] bool selects(std::uint32_t slot, const std::string& ns,
                             const model::Labels& ns_labels, const model::Labels& labels) const;

  std::vector<Policy> slots_;
  std::vector<bool> dirty_;
  bool any_dirty_ = false;
  std::vector<std::uint32_t> free_;
  HashIndex by_key_;                    // slots by the policy's namespace and name
  std::vector<std::uint32_t> ordered_;  // slots, best first
  std::uint64_t round_ = 0;

  std::unordered_map<std::string, SelectorIndex> by_namespace_;  // namespaced, by podSelector
  SelectorIndex by_pod_;                                         // cluster-wide, by podSelector
  SelectorIndex by_ns_;  // cluster-wide, by namespaceSelector
  std::unordered_map<model::Prefix, std::vector<std::uint32_t>> subnets_;
  std::array<std::vector<std::uint8_t>, 2> subnet_lengths_;  // v4, v6: lengths in use
  std::unordered_set<std::string> label_keys_;
};

}  // namespace egw::core::detail
