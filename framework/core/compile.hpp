// compile: from the store's content to the desired state of one node. Pure. Incremental behind the
// same result: Compiler keeps indexes so that one pod's change costs O(policies that select it).
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "egw/model/node_state.hpp"
#include "egw/model/settings.hpp"
#include "egw/model/world.hpp"

namespace egw::core {

// What the agent knows of its own node beyond the store: filled by framework/runtime from
// framework/net's look at the interfaces.
struct LocalNode {
  std::string name;
  std::string parent_device;
  model::Address parent_v4, parent_v6;
  model::Mac tunnel_mac{};  // stable per node: 02:ee + underlay IPv4, or a hash of the name
};

// Why a policy does not do all that it says, for conditions ("ClusterPrefixesUnknown",
// "FamilyNotCovered", "GatewayFull").
struct CompileFinding {
  model::PolicyRef policy;
  std::string reason;
  std::string message;
};

// An EIP as the announcer needs it.
struct OwnedEip {
  model::Address address;
  std::uint32_t id = 0;
  bool moving_in = false;  // a planned move from a known peer: no probe before the announcement
  friend auto operator<=>(const OwnedEip&, const OwnedEip&) = default;
};

class Compiler {
 public:
  Compiler(model::Settings settings, LocalNode local);
  ~Compiler();
  Compiler(Compiler&&) noexcept;
  Compiler& operator=(Compiler&&) noexcept;

  // Brings the desired state up to date with `world` and returns the step from the last call's
  // state. The first call, and every call with changes.everything, compares everything; the result
  // is the same as from a fresh Compiler but for class ids, which are kept where the class is. The
  // first call's Change is full (base 0); later ones are deltas, empty when nothing changed (then
  // the generation stays). `world` is not kept.
  model::Change update(const model::World& world, const model::Changes& changes);
  // The whole desired state as a Change with full = true, at the present generation.
  [[nodiscard]] model::Change full() const;
  // The node's interfaces changed; the next update is a full comparison.
  void set_local(LocalNode local);

  [[nodiscard]] const model::NodeState& state() const;
  [[nodiscard]] std::uint64_t generation() const;
  [[nodiscard]] std::vector<OwnedEip> owned() const;  // sorted; kind ADDRESS, owner self
  [[nodiscard]] std::vector<CompileFinding> findings() const;
  // Policies that select at least one endpoint of this node.
  [[nodiscard]] std::vector<model::PolicyRef> policies_in_use() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// The step between two states; ids and keys as in egw_change. generation/base are left 0.
[[nodiscard]] model::Change diff(const model::NodeState& from, const model::NodeState& to);

}  // namespace egw::core
