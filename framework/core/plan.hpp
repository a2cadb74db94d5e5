// plan: from everything that the leader knows to what it has to write. Pure: no I/O, no clock, same
// input same output. Called by the controller (framework/runtime) after every change, at every
// tunnelMonitorPeriod and at wake_ms.
//
// A plan over the result of the last one writes nothing, but for what needs a thing that the last
// one made: the status of an object just created, and metadata (finalizers, annotations) of an
// object whose status was just written (SetMeta is never in one plan with a status write to the
// same object, so each write carries the revision that is in the world). The third writes nothing.
// A leader that finds gateways of a former term writes its own term there, and nothing else, first.
#pragma once

#include <compare>
#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <unordered_map>
#include <utility>
#include <variant>
#include <vector>

#include "egw/model/ip_pool.hpp"
#include "egw/model/settings.hpp"
#include "egw/model/world.hpp"

namespace egw::core {

// What the leader has seen of a node's heartbeats, on its own steady clock (ms). The leader never
// compares two machines' clocks: it notes when *it* saw the value change.
struct HeartbeatSeen {
  std::int64_t value_ms = 0;            // status.lastHeartbeatTime as last seen
  std::int64_t changed_ms = 0;          // when that value was first seen here, steady clock
  bool changed_while_watching = false;  // it is not the value that was there when watching began
};

// A planned move in progress: an EIP (by id) whose former owner still answers.
struct MovingEip {
  std::string gateway;
  std::uint32_t id = 0;
  std::uint64_t epoch = 0;
  friend auto operator<=>(const MovingEip&, const MovingEip&) = default;
};

// An EgressTunnel as it was when it went, and when that was (steady ms).
struct FormerTunnel {
  model::EgressTunnel tunnel;
  std::int64_t gone_ms = 0;
};

struct PlanInput {
  const model::World* world = nullptr;
  const model::Settings* settings = nullptr;
  std::map<std::string, HeartbeatSeen> heartbeats;  // by node; kept by observe()
  std::map<MovingEip, std::int64_t> moving;  // when first seen here, steady ms; kept by observe()
  // EIPs (gateway, id) that a gateway's status calls unserved: since when, steady ms; kept by
  // observe(). A new leader goes by the time in the status, and by its own clock from then on.
  std::map<std::pair<std::string, std::uint32_t>, std::int64_t> unserved;
  // Revisions of gateways that are in neither of the two; kept by observe().
  std::unordered_map<std::string, std::uint64_t> calm;
  // Gateways whose status is not to be written before that time (steady ms) unless an EIP of theirs
  // moves: what changes until then is merged. Kept by the runtime.
  std::map<std::string, std::int64_t> held;
  // The same of EgressClusterInfos of which nothing differs but the tables of nodes, which all
  // agents read.
  std::map<std::string, std::int64_t> held_infos;
  // Gateways whose status the store does not take: the others do not wait for this leader's term on
  // them. Kept by the runtime.
  std::set<std::string> refused;
  // EgressTunnels that were deleted, or are gone by another way, although their Node is there: what
  // they last said counts, and their addresses are theirs, until the one made in their place has
  // them. Added by the runtime, removed by observe().
  std::map<std::string, FormerTunnel> former;
  std::int64_t now_ms = 0;             // steady clock of this process
  std::int64_t wall_ms = 0;            // Unix time, for time stamps and the age of an uninstall
  std::int64_t started_wall_ms = 0;    // Unix time at which this controller began
  std::int64_t watching_since_ms = 0;  // steady: when this leader began to see the store without a
                                       // gap; nobody is declared dead before one eviction timeout
  std::uint64_t term = 0;
  std::string identity;  // this leader's name, for EgressClusterInfo.status.leader
};

// Brings what the leader remembers up to date with *input.world at input.now_ms. The runtime keeps
// one PlanInput per leadership and calls this before each plan() and after each batch of tunnel
// events (a heartbeat counts from when it is observed).
void observe(PlanInput& input);
// A heartbeat that ends a silence longer than this may decide something: plan again.
[[nodiscard]] std::int64_t doubtful_silence_ms(const model::Settings& settings);

// Writes, in the order in which they must be made. A failed one (conflict) ends the batch; the next
// plan, from the newer state, does the rest.
struct CreateTunnel {
  std::string node;
};
struct DeleteTunnel {
  std::string node;
};
struct CreateClusterInfo {
  std::string name;
  model::EgressClusterInfo::Spec spec;  // from the settings for "default"
};
struct DeleteClusterInfo {
  std::string name;
};
struct WriteTunnel {
  model::EgressTunnel tunnel;
};  // status
struct WriteClusterInfo {
  model::EgressClusterInfo info;
};  // status
struct WriteGateway {
  model::EgressGateway gateway;
};  // status
struct WritePolicy {
  model::EgressPolicy policy;
};                // status; kind by meta.ns
struct SetMeta {  // finalizers and annotations of a stored object
  model::Kind kind;
  model::Key key;
  std::uint64_t expected_revision;
  std::vector<std::string> finalizers;
  model::Labels annotations;
};
using Write = std::variant<CreateTunnel, DeleteTunnel, CreateClusterInfo, DeleteClusterInfo,
                           WriteTunnel, WriteClusterInfo, WriteGateway, WritePolicy, SetMeta>;

// A thing worth telling people: goes to the log, to events where the store has them, to metrics.
struct Notice {
  enum class Level : std::uint8_t { kInfo, kWarning } level = Level::kInfo;
  model::Kind kind = model::Kind::kEgressGateway;
  model::Key key;
  std::string reason;   // CamelCase, stable: "EipMoved", "HeartbeatTimeout", "StoreSuspect", ...
  std::string message;  // e.g. "update tunnel status to HeartbeatTimeout"
};

// An EIP that changes its owner, for history and metrics.
struct Move {
  std::string gateway, eip, from, to, why;  // to: empty when no node can take it
  std::uint64_t epoch = 0;
  bool planned = false;          // the former owner hands over
  std::int64_t silent_ms = 0;    // since the former owner was heard last; -1: never
  std::int64_t unserved_ms = 0;  // no Ready node had it, as far as leaders saw
};

struct Plan {
  std::vector<Write> writes;
  std::vector<Notice> notices;
  std::vector<Move> moves;
  std::int64_t wake_ms = 0;  // steady: look again at this time even if nothing changes; 0: no need
};

// What a plan found of a gateway that needed nothing, and needs nothing more as long as its inputs
// are the same.
struct QuietGateway {
  std::uint64_t inputs = 0;  // fingerprint: the object, its policies, the nodes
  model::IpPool v4, v6;
  std::vector<int> nodes;  // as GatewayDraft::nodes
  std::vector<std::uint32_t> ids;
  std::vector<std::pair<int, std::uint32_t>> loads;  // EIPs by node
};

// Kept by the caller from plan to plan; the plan is the same with and without, but sooner made when
// little has changed.
struct PlanMemory {
  std::unordered_map<std::string, QuietGateway> quiet;
};

[[nodiscard]] Plan plan(const PlanInput& input, PlanMemory* memory = nullptr);

// Up to ten names and how many more there are; for messages.
[[nodiscard]] std::string some_of(const std::vector<std::string>& names);

}  // namespace egw::core
