// EndpointSlices: which pods each policy selects, in slices of limited size, as the leader writes
// them for people and tools (framework/runtime/slice_keeper). Pure, like plan(): it is told what
// the store holds and says which slices have to be written.
//
// A pod stays in the slice that it is in and a new one goes to the first with room, so that one
// pod's change is one slice's. Slices that were stored by an earlier leader are taken over. Of a
// pod only what selects and describes it is kept, in some 250 bytes. The work for a change of
// policies or namespaces is done in portions: work().
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "egw/core/compile_index.hpp"
#include "egw/core/compile_policy.hpp"
#include "egw/core/string_table.hpp"
#include "egw/model/world.hpp"

namespace egw::core {

class EndpointSlices {
 public:
  // most: endpoints in one slice, at least 1.
  explicit EndpointSlices(std::size_t most);

  // Policies and the labels of namespaces, as they are now.
  void follow(const model::World& world);

  // A slice as it is stored: at first all of them, before the pods; later each that changes, and
  // what the caller has written. Older revisions than known are ignored.
  void stored(const model::EgressEndpointSlice& slice);
  void not_stored(const model::Key& slice);
  // Those of which stored() has spoken and not_stored() has not.
  [[nodiscard]] std::vector<model::Key> all_stored() const;

  // The pods of the cluster: between begin and end all of them, then each that changes.
  void begin_pods();
  void upsert(const model::Pod& pod);
  void remove(const model::Key& pod);
  void end_pods();

  // Looks at up to `most` pods whose policies may have changed. True: there are more.
  bool work(std::size_t most);

  struct Job {
    model::Key slice;
    std::optional<model::EgressEndpointSlice> wanted;  // nullopt: shall not be there
    bool is_stored = true;                             // as far as is known
  };
  // Looks at one slice that may differ from what is stored. `job`: it does; the caller writes it
  // and says stored() or not_stored(), or again() if it could not.
  struct Step {
    bool idle = false;  // there was none to look at
    std::optional<Job> job;
  };
  // Selections that are remembered, for pods that are alike.
  [[nodiscard]] std::size_t remembered() const { return groups_.size(); }
  [[nodiscard]] Step next();
  void again(const model::Key& slice);

 private:
  struct Member {
    std::uint32_t policy = 0, slice = 0;
  };
  struct Row {                                   // a pod
    std::uint32_t ns = 0, node = 0, labels = 0;  // in texts_
    std::uint32_t seen = 0;
    std::uint32_t name_size = 0;
    bool used = false;
    bool known = false;     // as a pod; else a stored slice alone names it
    bool eligible = false;  // has a node and an address of its own, and has not ended
    bool terminating = false;
    bool queued = false;
    std::int64_t created_ms = 0;
    std::unique_ptr<char[]> name;
    std::vector<model::Address> addresses;
    std::vector<Member> members;  // sorted by policy
    [[nodiscard]] std::string_view name_view() const { return {name.get(), name_size}; }
  };
  struct Slice {
    std::uint32_t policy = 0;
    std::uint32_t number = 0;  // from 1; 0: not in use
    bool queued = false;
    bool is_stored = false;
    std::uint64_t hash = 0;  // of the stored content
    std::uint64_t revision = 0;
    std::vector<std::uint32_t> pods;
  };
  struct Owner {  // a policy
    model::Key key;
    std::string uid;
    bool used = false;
    bool present = false;
    std::vector<std::uint32_t> slices;
    std::size_t room_from = 0;  // slices before this one are full
  };

  void follow_owners(const model::World& world);
  [[nodiscard]] bool follow_namespaces(const model::World& world);
  std::uint32_t owner_of(const model::Key& policy);
  void queue_all_pods();
  void queue_pod(std::uint32_t pod);
  void queue_slice(std::uint32_t slice);
  void claim(std::uint32_t pod, bool on);
  // No other pod of its node has it (pod_claims.hpp).
  [[nodiscard]] bool has(const Row& row, const model::Address& address) const;
  [[nodiscard]] std::uint32_t find_pod(std::uint32_t ns, std::string_view name) const;
  std::uint32_t add_pod(std::string_view ns, std::string_view name);
  void drop_pod(std::uint32_t pod);
  void evaluate(std::uint32_t pod);
  const std::vector<std::uint32_t>& slots_of_group(const Row& row, model::Labels& labels);
  [[nodiscard]] std::vector<std::uint32_t> policies_of(const Row& row);
  [[nodiscard]] std::uint32_t slice_with_room(std::uint32_t policy);
  [[nodiscard]] std::uint32_t make_slice(std::uint32_t policy, std::uint32_t number);
  void free_slice(std::uint32_t slice);
  void join(std::uint32_t pod, std::uint32_t slice);
  void leave(std::uint32_t pod, const Member& member);
  bool adopt(const model::EgressEndpointSlice& slice);
  [[nodiscard]] model::EgressEndpointSlice document(const Slice& slice) const;
  [[nodiscard]] model::Key key_of(const Slice& slice) const;
  [[nodiscard]] const model::Labels& namespace_labels(const std::string& name);

  const std::size_t most_;
  detail::PolicyStore policies_;
  std::vector<std::uint32_t> owner_by_slot_;
  std::deque<Owner> owners_;
  std::vector<std::uint32_t> free_owners_;
  std::unordered_map<model::Key, std::uint32_t, detail::KeyHash> owner_by_key_;
  std::deque<Slice> slices_;
  std::vector<std::uint32_t> free_slices_;
  std::unordered_map<model::Key, std::uint32_t, detail::KeyHash> slice_by_key_;
  // Slices of a policy that is gone, or that another implementation has written: to be deleted.
  std::unordered_map<model::Key, bool, detail::KeyHash> strangers_;  // true: queued
  detail::StringTable texts_;
  std::deque<Row> pods_;
  std::vector<std::uint32_t> free_pods_;
  detail::HashIndex pods_by_name_;
  detail::HashIndex claims_;  // of eligible pods, by address
  std::unordered_map<std::string, model::Labels> namespaces_;
  // Slots of the policies that select all pods of a namespace with the same labels that matter.
  std::unordered_map<std::string, std::vector<std::uint32_t>> groups_;
  std::vector<std::uint32_t> pods_to_do_;
  std::deque<std::uint32_t> slices_to_do_;
  std::deque<model::Key> strangers_to_do_;
  std::uint32_t round_ = 0;
  bool loaded_ = false;  // all pods are known
};

// The name of a policy's slice: the policy's (cut), a hash of its whole name, and a number from 1.
[[nodiscard]] std::string slice_name(const std::string& policy, std::uint32_t number);

}  // namespace egw::core
