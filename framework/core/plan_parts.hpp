// What the parts of plan() share: the draft of everything that the leader decides in one pass.
// Included by plan*.cpp only. Order of the passes: look_at_nodes, look_at_prefixes,
// look_at_taken, recall, draft_gateways, allocate, read_requests, place, finish_gateways,
// finish_policies, remember, finish_tunnels, finish_cluster_infos.
#pragma once

#include <array>
#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "egw/core/plan.hpp"
#include "egw/model/ip_pool.hpp"

namespace egw::core::parts {

inline constexpr std::uint32_t kMaxEgressId = 16383;  // 14 bits: decision on marks
inline constexpr std::size_t kMaxPoliciesPerGateway = 5000;
inline constexpr std::int64_t kPlannedMoveMs = 2000;
inline constexpr std::size_t kPeersPerShard = 200;
inline constexpr std::int64_t kWakeMarginMs = 2;  // past a deadline, never just before
inline constexpr int kNobody = -1;

// ---- nodes -----------------------------------------------------------------------------------
struct NodeView {
  const model::Node* node = nullptr;
  const model::EgressTunnel* tunnel = nullptr;              // null: not created yet
  model::TunnelPhase phase = model::TunnelPhase::kPending;  // after this plan's writes
  bool ready = false;                                       // node Ready, phase Ready
  bool stale = false;        // heartbeat too old, while the phase still says Ready (StoreSuspect,
                             // or too early to tell)
  bool unreachable = false;  // most of its clients get no answer through the tunnel
  bool draining = false;
  std::vector<model::Prefix> lost_subnets;  // EIPs in them answer nowhere on this node
  bool lost = false;                        // its EIPs shall move if another node can take them
  std::uint32_t load = 0;                   // EIPs it holds, over all gateways
  [[nodiscard]] const std::string& name() const { return node->meta.name; }
  [[nodiscard]] bool may_take() const { return ready && !stale && !draining; }
  [[nodiscard]] bool reaches(const model::EipStatus& eip) const;  // plan_placement.cpp
};

// ---- egress ids ----------------------------------------------------------------
class IdSpace {
 public:
  // in use: what the gateways' statuses hold (in_use(), before load()); blocked: retired and not
  // yet past everywhere.
  void in_use(std::uint32_t id);
  void load(const model::World& world, const model::EgressClusterInfo& info,
            std::uint64_t min_realised);
  // A fresh id, 0 when there is none. Never one given, used or blocked.
  std::uint32_t take();
  // The id goes with this plan.
  void retire(std::uint32_t id);
  [[nodiscard]] bool exhausted() const { return exhausted_; }
  // Brings next_egress_id and retired up to date; tidying (forgetting ids that are past, noting the
  // revision of those that have just gone) is done only when something else changes or ids are
  // scarce, because every node reads this object.
  void store(model::EgressClusterInfo::Status& status, bool tidy) const;

 private:
  enum : std::uint8_t { kUsed = 1, kBlocked = 2, kGiven = 4, kGone = 8, kPast = 16 };
  std::array<std::uint8_t, kMaxEgressId + 1> state_{};
  std::uint32_t next_ = 1;
  std::uint32_t highest_ = 0;
  std::uint64_t revision_ = 0;  // of the world
  bool exhausted_ = false;
};

// ---- gateways --------------------------------------------------------------------------------
struct Entry {
  model::EipStatus eip;  // policies: those that keep or get it
  model::Address v4, v6;
  std::string_view owner_before;  // into the world; empty: nobody
  int owner = kNobody;            // index into Draft::nodes
  bool recorded = false;          // was in the status
  bool bad_id = false;            // recorded without a valid id of its own
  bool taken = false;             // somebody else in the cluster has an address of it: not placed
  int request = kNobody;          // a person wants it on this node
  std::string_view why;           // of the move, when it moves
  bool planned = false;
};

// What a policy gets; entry kNobody: nothing, and why.
struct Outcome {
  const model::EgressPolicy* policy = nullptr;
  int entry = kNobody;
  std::string_view reason;
  std::string message;
};

struct GatewayDraft {
  const model::EgressGateway* gateway = nullptr;
  model::IpPool v4, v6;                     // what it may give
  model::IpPool taken_v4, taken_v6;         // what it lists although the cluster itself uses it
  std::int64_t total_v4 = 0, total_v6 = 0;  // what it lists
  std::string pool_problem;                 // InvalidPool: bad entries
  std::string pool_conflict;                // PoolConflict: who else has addresses of the pool
  std::string default_conflict;             // DefaultConflict: another one is the default
  std::vector<int> nodes;                   // matched by the selector, by name
  std::vector<Entry> entries;
  std::vector<Outcome> policies;
  std::string round_robin_last;
  bool ids_changed = false;  // takes or retires an id: the ClusterInfo write goes first
  bool no_id = false;
  bool moved = false;                   // something has a new owner
  bool held = false;                    // not written by this plan (PlanInput::held)
  const QuietGateway* quiet = nullptr;  // needs nothing: left out by the passes
  std::uint64_t inputs = 0;             // fingerprint, where plan() has a memory
  bool policy_writes = false;
  bool meta_write = false;                 // of its finalizers or annotations
  bool overlaps = false;                   // another gateway lists an address of its, or is the
                                           // cluster's default too
  std::vector<std::size_t> moves;          // indices into Plan::moves
  std::optional<model::Condition> answer;  // of a move request
  bool differs = false;
  model::EgressGateway::Status status;
};

struct Draft {
  Draft(const PlanInput& i, PlanMemory* m)
      : in(i), world(*i.world), settings(*i.settings), memory(m) {}

  const PlanInput& in;
  const model::World& world;
  const model::Settings& settings;
  PlanMemory* memory;                              // may be null
  const model::EgressClusterInfo* info = nullptr;  // "default"; null: not there yet
  model::EgressClusterInfo::Status own;  // its status to be, the cluster's own prefixes only
  std::string prefixes_unknown;          // why they are not all known; empty: they are
  // What no EIP may be: addresses of nodes, of pods, of services, the tunnel's.
  model::IpPool taken_v4{model::Family::kV4}, taken_v6{model::Family::kV6};

  std::vector<NodeView> nodes;  // sorted by name
  std::unordered_map<std::string_view, int> node_index;
  bool suspect = false;  // StoreSuspect: nothing moves
  bool doubt = false;    // it may become so: nobody is declared dead yet
  std::string suspect_message;
  std::uint64_t min_realised = 0;  // over Ready tunnels; 0 when there is none

  IdSpace ids;
  std::vector<GatewayDraft> gateways;                          // sorted by name
  std::vector<std::vector<const model::EgressPolicy*>> users;  // by gateway
  std::vector<Outcome> orphans;                                // policies without a gateway

  // Filled as the passes go; plan() puts them in order.
  std::vector<Write> creates, tunnels, infos_first, infos_last, policies, metas;
  Plan out;

  [[nodiscard]] int find_node(std::string_view name) const {
    const auto it = node_index.find(name);
    return it == node_index.end() ? kNobody : it->second;
  }
  NodeView& node(int i) { return nodes[static_cast<std::size_t>(i)]; }
  [[nodiscard]] const NodeView& node(int i) const { return nodes[static_cast<std::size_t>(i)]; }
  void wake_at(std::int64_t ms) {
    if (out.wake_ms == 0 || ms < out.wake_ms) out.wake_ms = ms;
  }
  void notice(Notice::Level level, model::Kind kind, model::Key key, std::string reason,
              std::string message) {
    out.notices.push_back({level, kind, std::move(key), std::move(reason), std::move(message)});
  }
};

// No controller has given it anything yet.
[[nodiscard]] inline bool is_blank(const model::EgressTunnel& tunnel) {
  return tunnel.status.ipv4.empty() && tunnel.status.ipv6.empty() && tunnel.status.mark.empty();
}

// ---- the passes ------------------------------------------------------------------------------
void look_at_nodes(Draft& d);     // plan_tunnels.cpp
void look_at_prefixes(Draft& d);  // plan_cluster_info.cpp; needs info
void look_at_taken(Draft& d);     // plan_taken.cpp
// Takes out of the gateway's pools what the cluster itself uses, and says whose it is.
void leave_taken(const Draft& d, GatewayDraft& g);
void recall(Draft& d);                // plan_memory.cpp: gateways, who uses them, who is quiet
void draft_gateways(Draft& d);        // plan_pools.cpp
void read_requests(Draft& d);         // plan_requests.cpp
void allocate(Draft& d);              // plan_allocation.cpp
void place(Draft& d);                 // plan_placement.cpp
void finish_gateways(Draft& d);       // plan_status.cpp
void finish_policies(Draft& d);       // plan_policies.cpp
void remember(Draft& d);              // plan_memory.cpp
void finish_tunnels(Draft& d);        // plan_tunnels.cpp
void finish_cluster_infos(Draft& d);  // plan_cluster_info.cpp

// Takes a quiet gateway into the passes after all.
void wake_gateway(const Draft& d, GatewayDraft& g);  // plan_pools.cpp
// Whether place() will move or place an EIP that the gateway's status holds.
[[nodiscard]] bool will_move(const Draft& d, GatewayDraft& g);  // plan_placement.cpp
// The node that takes what has to move; kNobody: there is none.
[[nodiscard]] int best_node(const Draft& d, const GatewayDraft& g,
                            const model::EipStatus& eip);  // plan_placement.cpp

// Reason of Realised for what has no EIP.
inline constexpr std::string_view kNothingToProgram = "NothingToProgram";
// The condition Realised as it shall be: True once every Ready node has programmed what the object
// says, after its status last changed (same_as_stored: not by this plan) and its spec's generation.
[[nodiscard]] model::Condition realised_now(const Draft& d, const model::Conditions& before,
                                            const model::ObjectMeta& meta, bool same_as_stored,
                                            bool is_something);  // plan_policies.cpp

// "10.6.1.60, fd00::60" or "node address"; for messages.
[[nodiscard]] std::string eip_text(const model::EipStatus& eip);

}  // namespace egw::core::parts
