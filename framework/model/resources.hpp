// The resources as values (docs: api reference). Absent strings are empty, absent lists are empty.
// JSON in and out: codec.hpp.
#pragma once

#include <algorithm>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "egw/model/address.hpp"
#include "egw/model/meta.hpp"
#include "egw/model/selector.hpp"

namespace egw::model {

// ---- EgressGateway ---------------------------------------------------------------------------
struct IpPools {
  std::vector<std::string> ipv4;  // address, "a-b" or CIDR, as written
  std::vector<std::string> ipv6;
  std::string ipv4_default_eip;
  std::string ipv6_default_eip;
  friend bool operator==(const IpPools&, const IpPools&) = default;
};

struct PolicyRef {
  std::string name;
  std::string ns;     // empty: EgressClusterPolicy
  std::string uid{};  // new: empty in what older versions wrote
  friend auto operator<=>(const PolicyRef&, const PolicyRef&) = default;
};
// Whether two uids can be those of one object: they are equal, or one is not known.
[[nodiscard]] inline bool may_be_same(std::string_view uid, std::string_view other) {
  return uid.empty() || other.empty() || uid == other;
}

// One egress id: a pair of addresses, or the node's own (use_node_ip).
struct EipStatus {
  std::string ipv4;
  std::string ipv6;
  bool use_node_ip = false;
  std::uint32_t id = 0;     // 1..16383
  std::uint64_t epoch = 0;  // grows with every change of owner
  std::string moving_from;  // planned move in progress: the former owner
  // new: since when no Ready node has it and none can take it, Unix time by the leader that saw it;
  // 0: it is served. And that this has lasted for one eviction timeout: failurePolicy NodeIP acts.
  std::int64_t unserved_since_ms = 0;
  bool unserved = false;
  // new: while it is unplaced: the node that had it last, and why it left it ("NodeNotSelected").
  std::string left_node, left_why;
  std::vector<PolicyRef> policies;  // sorted
  friend bool operator==(const EipStatus&, const EipStatus&) = default;
};

struct GatewayNode {
  std::string name;
  std::string status;  // the tunnel's phase as the leader sees it: "Ready", "HeartbeatTimeout", ...
  std::vector<EipStatus> eips;  // sorted by (ipv4, ipv6, id)
  friend bool operator==(const GatewayNode&, const GatewayNode&) = default;
};

// Pools of 2^64 and more saturate at INT64_MAX.
struct IpUsage {
  std::int64_t ipv4_total = 0, ipv4_free = 0, ipv6_total = 0, ipv6_free = 0;
  friend bool operator==(const IpUsage&, const IpUsage&) = default;
};

struct EgressGateway {
  static constexpr Kind kKind = Kind::kEgressGateway;
  ObjectMeta meta;
  struct Spec {
    bool cluster_default = false;
    IpPools ippools;
    LabelSelector node_selector;                      // spec.nodeSelector.selector
    std::string node_selector_policy;                 // no meaning: warn
    std::optional<LabelSelector> allowed_namespaces;  // absent: all
    friend bool operator==(const Spec&, const Spec&) = default;
  } spec;
  struct Status {
    std::uint64_t term = 0;
    std::vector<GatewayNode> node_list;  // sorted by name
    std::vector<EipStatus> unplaced;     // EIPs whose policies wait for a Ready node
    IpUsage ip_usage;
    std::string
        round_robin_last;  // new: where allocator rr stands; its next search begins after it
    Conditions conditions;
    friend bool operator==(const Status&, const Status&) = default;
  } status;
  std::string unknown_status;   // see codec.hpp
  bool status_damaged = false;  // see decode_stored() there
};

// ---- EgressPolicy, EgressClusterPolicy -------------------------------------------------------
enum class AllocatorPolicy : std::uint8_t { kDefault, kRoundRobin };
enum class FailurePolicy : std::uint8_t { kDrop, kNodeIp };

// Both kinds have this shape; meta.ns is empty for the cluster-wide one.
struct EgressPolicy {
  static constexpr Kind kKind = Kind::kEgressPolicy;
  ObjectMeta meta;
  struct Spec {
    std::string gateway;  // egressGatewayName
    struct EgressIp {
      std::string ipv4, ipv6;
      bool use_node_ip = false;
      AllocatorPolicy allocator = AllocatorPolicy::kDefault;
      friend bool operator==(const EgressIp&, const EgressIp&) = default;
    } egress_ip;
    std::optional<LabelSelector> pod_selector;
    std::optional<LabelSelector> namespace_selector;  // cluster-wide only
    std::vector<std::string> pod_subnet;
    std::vector<std::string> dest_subnet;
    std::int64_t priority = 0;  // lower wins
    FailurePolicy failure_policy = FailurePolicy::kDrop;
    friend bool operator==(const Spec&, const Spec&) = default;
  } spec;
  struct Status {
    std::string ipv4, ipv6;  // status.eip
    std::string node;
    Conditions conditions;
    friend bool operator==(const Status&, const Status&) = default;
  } status;
  std::string unknown_status;   // see codec.hpp
  bool status_damaged = false;  // see decode_stored() there
  [[nodiscard]] PolicyRef ref() const { return {meta.name, meta.ns, meta.uid}; }
  // The leader has looked at it and gives it no EIP.
  [[nodiscard]] bool is_refused() const {
    const Condition* allocated = find_condition(status.conditions, "Allocated");
    return allocated != nullptr && allocated->status == false;
  }
};

struct EgressClusterPolicy : EgressPolicy {
  static constexpr Kind kKind = Kind::kEgressClusterPolicy;
};

// ---- EgressTunnel ----------------------------------------------------------------------------
enum class TunnelPhase : std::uint8_t {
  kPending,
  kInit,
  kFailed,
  kReady,
  kHeartbeatTimeout,
  kNodeNotReady,
  kUnknown  // a word of a newer version: neither Ready nor for others to change
};
[[nodiscard]] std::string_view to_string(TunnelPhase phase);
[[nodiscard]] std::string tunnel_phases();  // the words, "Pending, Init, ..."

struct Realised {
  std::uint64_t term = 0;
  std::uint64_t revision = 0;  // everything up to this store revision is in the kernel
  friend bool operator==(const Realised&, const Realised&) = default;
};

struct EgressTunnel {
  static constexpr Kind kKind = Kind::kEgressTunnel;
  ObjectMeta meta;
  struct Status {
    // Written by the controller: ipv4, ipv6, mark. Written by the agent: the rest.
    std::string ipv4, ipv6;  // tunnel addresses
    std::string mac;         // of the tunnel device
    struct Parent {
      std::string name, ipv4, ipv6;
      std::string mac;  // new: the uplink's, by which claims of the EIP are told apart
      std::vector<std::string> macs;  // of the node's other interfaces that announce; sorted
      friend bool operator==(const Parent&, const Parent&) = default;
    } parent;
    std::string mark;  // "0x26......", shown for compatibility
    TunnelPhase phase = TunnelPhase::kPending;
    std::string phase_word;              // as it stands there, where the phase is kUnknown
    std::int64_t last_heartbeat_ms = 0;  // the agent's clock; only compared for being different
    Realised realised;
    std::vector<std::string> unreachable;  // owners that do not answer through the tunnel; sorted
    std::vector<std::string>
        lost_subnets;  // in which no EIP can be announced here any more; sorted
    Conditions conditions;
    friend bool operator==(const Status&, const Status&) = default;
  } status;
  std::string unknown_status;   // see codec.hpp
  bool status_damaged = false;  // see decode_stored() there
};

// ---- EgressClusterInfo -----------------------------------------------------------------------
struct PeerInfo {  // a row of the peer table: what other nodes need to know of a node
  std::string name;
  std::string underlay_v4, underlay_v6;
  std::string tunnel_v4, tunnel_v6;
  std::string mac;         // of the tunnel device
  std::string parent_mac;  // of the uplink
  std::vector<std::string> pod_cidrs;
  std::vector<std::string> macs;  // of its other interfaces that announce
  friend bool operator==(const PeerInfo&, const PeerInfo&) = default;
};

struct RetiredId {
  std::uint32_t id = 0;
  std::uint64_t revision = 0;
  friend bool operator==(const RetiredId&, const RetiredId&) = default;
};

// One object named "default"; further shards of the peer table are named "peers-N", N >= 1, and
// hold status.peers only.
struct EgressClusterInfo {
  static constexpr Kind kKind = Kind::kEgressClusterInfo;
  ObjectMeta meta;
  struct Spec {
    std::string pod_cidr_mode = "auto";  // autoDetect.podCidrMode: auto, k8s, calico, ""
    bool cluster_ip = true;              // autoDetect.clusterIP
    bool node_ip = true;                 // autoDetect.nodeIP
    std::vector<std::string> extra_cidr;
    friend bool operator==(const Spec&, const Spec&) = default;
  } spec;
  struct Addresses {
    std::vector<std::string> ipv4, ipv6;
    friend bool operator==(const Addresses&, const Addresses&) = default;
  };
  struct Status {
    bool present = false;  // the controller has written it once
    std::string pod_cidr_mode;
    Addresses cluster_ip;
    std::map<std::string, Addresses> node_ip;   // by node
    std::map<std::string, Addresses> pod_cidr;  // by node; mode calico: by IPPool
    std::vector<std::string> extra_cidr;
    std::uint32_t next_egress_id = 1;
    std::vector<RetiredId> retired;
    std::uint64_t term = 0;
    std::string leader;  // identity of the leader of that term; "default" only, for `egw status`
    std::vector<PeerInfo> peers;  // sorted by name
    Conditions conditions;
    // Until then nothing outside the cluster can be told from what is inside.
    [[nodiscard]] bool prefixes_known() const {
      return present && (pod_cidr_mode != "calico" ||
                         std::any_of(pod_cidr.begin(), pod_cidr.end(), [](const auto& pool) {
                           return !pool.second.ipv4.empty() || !pool.second.ipv6.empty();
                         }));
    }
    friend bool operator==(const Status&, const Status&) = default;
  } status;
  std::string unknown_status;   // see codec.hpp
  bool status_damaged = false;  // see decode_stored() there
};

// ---- EgressEndpointSlice, EgressClusterEndpointSlice ------------------------------------------
// A pod that a policy selects.
struct Endpoint {
  std::string pod, ns, node;
  std::vector<std::string> ipv4, ipv6;
  friend bool operator==(const Endpoint&, const Endpoint&) = default;
};

// Some of the endpoints of one policy, for people and tools. Both kinds have this shape; meta.ns is
// empty for the cluster-wide one, which belongs to an EgressClusterPolicy.
struct EgressEndpointSlice {
  static constexpr Kind kKind = Kind::kEgressEndpointSlice;
  ObjectMeta meta;
  std::string policy, policy_uid;   // the owner (metadata.ownerReferences), of meta.ns
  std::vector<Endpoint> endpoints;  // sorted by (ns, pod)
};

struct EgressClusterEndpointSlice : EgressEndpointSlice {
  static constexpr Kind kKind = Kind::kEgressClusterEndpointSlice;
};

// ---- core kinds, the parts that are used -----------------------------------------------------
struct Node {
  static constexpr Kind kKind = Kind::kNode;
  ObjectMeta meta;
  std::vector<std::string> pod_cidrs;     // spec.podCIDRs, else spec.podCIDR
  std::vector<std::string> internal_ips;  // status.addresses[type=InternalIP]
  bool ready = true;                      // false only if condition Ready is present and not "True"
};

struct Pod {
  static constexpr Kind kKind = Kind::kPod;
  ObjectMeta meta;
  std::string node_name;
  bool host_network = false;
  bool finished = false;     // phase Succeeded or Failed
  std::vector<Address> ips;  // status.podIPs, else status.podIP
};

struct Namespace {
  static constexpr Kind kKind = Kind::kNamespace;
  ObjectMeta meta;
};

// Prefixes of the cluster in an object of somebody else's: Calico's IPPool (spec.cidr; its pods
// keep their addresses when it is disabled) and Kubernetes' ServiceCIDR (spec.cidrs).
struct ClusterPrefixes {
  ObjectMeta meta;
  std::vector<std::string> cidrs;
};
struct CalicoIpPool : ClusterPrefixes {
  static constexpr Kind kKind = Kind::kCalicoIpPool;
};
struct ServiceCidr : ClusterPrefixes {
  static constexpr Kind kKind = Kind::kServiceCidr;
};

// Something that happened to an object, for people (events.k8s.io/v1); the store forgets it after a
// while. Those of cluster-wide objects stand in the namespace "default". What happens again is
// counted in `series`; the API server lets nothing else of a stored event be changed.
struct Event {
  static constexpr Kind kKind = Kind::kEvent;
  ObjectMeta meta;
  std::string about_kind, about_api_version, about_uid;  // regarding
  Key about;
  bool warning = false;                    // type: Warning, else Normal
  std::string action, reason;              // CamelCase, stable
  std::string message;                     // note
  std::string component, host;             // reportingController, reportingInstance
  std::int64_t count = 1;                  // from 2 on there is a series
  std::int64_t first_ms = 0, last_ms = 0;  // eventTime, series.lastObservedTime
};

// A namespace's labels as selectors see them: with kubernetes.io/metadata.name, which in Kubernetes
// every one has and nobody can change; also where the store holds no such Namespace (null).
[[nodiscard]] Labels namespace_labels(const Namespace* stored, const std::string& name);

// ---- names that others rely on ---------------------------------------------------------------
inline constexpr std::string_view kGroup = "egressgateway.spidernet.io";
inline constexpr std::string_view kGatewayFinalizer = "egressgateway.spidernet.io/egressgateway";
inline constexpr std::string_view kTunnelFinalizer = "egressgateway.spidernet.io/egresstunnel";
inline constexpr std::string_view kNamespaceDefaultLabel = "spidernet.io/egressgateway-default";
inline constexpr std::string_view kNamespaceNameLabel = "kubernetes.io/metadata.name";
inline constexpr std::string_view kMoveAnnotation = "egressgateway.spidernet.io/move";
inline constexpr std::string_view kDrainAnnotation = "egressgateway.spidernet.io/drain";
// On the EgressClusterInfo "default", a time: agents take everything out of their nodes' kernels.
inline constexpr std::string_view kUninstallAnnotation = "egressgateway.spidernet.io/uninstall";
// Of an EgressClusterInfo: a controller that holds an office asks whether another one leads;
// whoever leads takes it off.
inline constexpr std::string_view kWhoLeadsAnnotation = "egressgateway.spidernet.io/who-leads";
// Conditions of the tunnel, the agent's answer to that.
inline constexpr std::string_view kPurgedCondition = "Purged";
inline constexpr std::string_view kPurgeFailedCondition = "PurgeFailed";
// The leader's answer to a drain, a condition of the tunnel, and its reason when nobody takes over.
inline constexpr std::string_view kDrainedCondition = "Drained";
inline constexpr std::string_view kNoOtherReadyNode = "NoOtherReadyNode";
inline constexpr std::string_view kClusterInfoName = "default";
// On what `egw apply` has written: {"labels": [...], "annotations": [...]}, the names of those that
// the manifest gave.
inline constexpr std::string_view kAppliedAnnotation = "egressgateway.spidernet.io/applied";
// On every endpoint slice: as a label, cut where the policy's name is longer than a label may be,
// and as an annotation with the whole name.
inline constexpr std::string_view kPolicyNameLabel = "spidernet.io/policy-name";

}  // namespace egw::model
