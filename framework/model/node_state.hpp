// NodeState: what the kernel of one node shall do; the input of a datapath. Meaning of every field:
// framework/abi/datapath.h, which this mirrors with C++ values.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "egw/model/address.hpp"

namespace egw::model {

using Mac = std::array<std::uint8_t, 6>;

struct NodeConfig {
  bool enable_ipv4 = true, enable_ipv6 = false, disable_checksum_offload = false;
  std::string name;
  std::string tunnel_device;
  std::uint32_t tunnel_vni = 0;
  std::uint16_t tunnel_port = 0;
  Mac tunnel_mac{};
  Address tunnel_v4, tunnel_v6;  // this node's
  std::uint8_t tunnel_v4_length = 0, tunnel_v6_length = 0;
  std::string parent_device;
  Address underlay;
  Address parent_v4, parent_v6;
  std::uint32_t slot_mask = 0, ct_mask = 0;
  std::vector<Prefix> cluster_prefixes;  // sorted
  friend bool operator==(const NodeConfig&, const NodeConfig&) = default;
};

struct Peer {
  std::string name;
  Address underlay, tunnel_v4, tunnel_v6;
  Mac mac{};
  std::vector<Prefix> pod_cidrs;
  friend bool operator==(const Peer&, const Peer&) = default;
};

enum class EgressKind : std::uint8_t { kAddress = 0, kNode = 1 };
enum class Owner : std::uint8_t { kNone = 0, kSelf = 1, kPeer = 2 };

struct Egress {
  std::uint32_t id = 0;
  EgressKind kind = EgressKind::kAddress;
  Owner owner = Owner::kNone;
  bool may_serve = false;
  Address v4, v6;
  std::string owner_peer;
  friend bool operator==(const Egress&, const Egress&) = default;
};

enum class ActionKind : std::uint8_t { kEgress = 1, kDrop = 2, kNodeIp = 3, kBypass = 4 };

struct ClassRule {
  Prefix destination;
  ActionKind action = ActionKind::kBypass;
  std::uint32_t egress_id = 0;
  friend auto operator<=>(const ClassRule&, const ClassRule&) = default;
};
using ClassTable = std::vector<ClassRule>;  // sorted by destination

struct NodeState {
  NodeConfig node;
  std::map<std::string, Peer> peers;
  std::map<std::uint32_t, Egress> egresses;
  std::map<std::uint32_t, ClassTable> classes;
  std::unordered_map<Address, std::uint32_t> endpoints;  // address -> class id
};

// A step between two NodeStates (framework/abi/datapath.h: egw_change).
struct Change {
  bool full = false;
  std::uint64_t generation = 0, base = 0;
  std::optional<NodeConfig> node;
  std::vector<Peer> peers;
  std::vector<Egress> egresses;
  std::vector<std::pair<std::uint32_t, ClassTable>> classes;
  std::vector<std::pair<Address, std::uint32_t>> endpoints;
  std::vector<std::string> deleted_peers;
  std::vector<std::uint32_t> deleted_egresses, deleted_classes;
  std::vector<Address> deleted_endpoints;
  [[nodiscard]] bool empty() const {
    return !node && peers.empty() && egresses.empty() && classes.empty() && endpoints.empty() &&
           deleted_peers.empty() && deleted_egresses.empty() && deleted_classes.empty() &&
           deleted_endpoints.empty();
  }
};

}  // namespace egw::model
