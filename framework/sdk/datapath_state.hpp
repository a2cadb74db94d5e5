// The desired state of one node as plain values, and DatapathState, which gathers the steps of
// egw_change into it. What every field means: abi/datapath.h. Used by sdk/datapath.hpp; a plugin
// may keep a State of its own.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <string>
#include <unordered_map>
#include <vector>

#include "egw/abi/datapath.h"
#include "egw/sdk/status.hpp"
#include "egw/sdk/views.hpp"

namespace egw::sdk {

using Mac = std::array<std::uint8_t, 6>;

struct NodeConfig {
  bool enable_ipv4 = false, enable_ipv6 = false, disable_checksum_offload = false;
  std::string name;
  std::string tunnel_device;
  std::uint32_t tunnel_vni = 0;
  std::uint16_t tunnel_port = 0;
  Mac tunnel_mac{};
  Prefix tunnel_v4, tunnel_v6;  // this node's address with the subnet's length: host bits are set
  std::string parent_device;
  Address underlay;
  Address parent_v4, parent_v6;
  std::uint32_t slot_mask = 0, ct_mask = 0;
  std::vector<Prefix> cluster_prefixes;

  NodeConfig() = default;
  explicit NodeConfig(const egw_node_config& n)
      : enable_ipv4(n.enable_ipv4 != 0),
        enable_ipv6(n.enable_ipv6 != 0),
        disable_checksum_offload(n.disable_checksum_offload != 0),
        name(view(n.name)),
        tunnel_device(view(n.tunnel_device)),
        tunnel_vni(n.tunnel_vni),
        tunnel_port(n.tunnel_port),
        tunnel_mac(std::to_array(n.tunnel_mac)),
        tunnel_v4(n.tunnel_v4),
        tunnel_v6(n.tunnel_v6),
        parent_device(view(n.parent_device)),
        underlay(n.underlay),
        parent_v4(n.parent_v4),
        parent_v6(n.parent_v6),
        slot_mask(n.slot_mask),
        ct_mask(n.ct_mask),
        cluster_prefixes(prefixes(n.cluster_prefixes)) {}
  friend bool operator==(const NodeConfig&, const NodeConfig&) = default;
};

struct Peer {
  std::string name;
  Address underlay, tunnel_v4, tunnel_v6;
  Mac mac{};
  std::vector<Prefix> pod_cidrs;

  Peer() = default;
  explicit Peer(const egw_peer& p)
      : name(view(p.name)),
        underlay(p.underlay),
        tunnel_v4(p.tunnel_v4),
        tunnel_v6(p.tunnel_v6),
        mac(std::to_array(p.mac)),
        pod_cidrs(prefixes(p.pod_cidrs)) {}
  friend bool operator==(const Peer&, const Peer&) = default;
};

enum class EgressKind : std::uint8_t { kAddress = EGW_EGRESS_ADDRESS, kNode = EGW_EGRESS_NODE };
enum class Owner : std::uint8_t {
  kNone = EGW_OWNER_NONE,
  kSelf = EGW_OWNER_SELF,
  kPeer = EGW_OWNER_PEER,
};

struct Egress {
  std::uint32_t id = 0;
  EgressKind kind = EgressKind::kAddress;
  Owner owner = Owner::kNone;
  bool may_serve = false;
  Address v4, v6;
  std::string owner_peer;

  Egress() = default;
  explicit Egress(const egw_egress& e)
      : id(e.id),
        kind(static_cast<EgressKind>(e.kind)),
        owner(static_cast<Owner>(e.owner)),
        may_serve(e.may_serve != 0),
        v4(e.v4),
        v6(e.v6),
        owner_peer(view(e.owner_peer)) {}
  friend bool operator==(const Egress&, const Egress&) = default;
};

enum class ActionKind : std::uint8_t {
  kEgress = EGW_ACTION_EGRESS,
  kDrop = EGW_ACTION_DROP,
  kNodeIp = EGW_ACTION_NODEIP,
  kBypass = EGW_ACTION_BYPASS,
};

// As a value for flatten(): two rules with equal actions are one range.
struct Action {
  ActionKind kind = ActionKind::kBypass;
  std::uint32_t egress_id = 0;  // kEgress; otherwise 0
  friend auto operator<=>(const Action&, const Action&) = default;
};

struct ClassRule {
  Prefix destination;
  Action action;

  ClassRule() = default;
  explicit ClassRule(const egw_class_rule& r)
      : destination(r.destination),
        action{static_cast<ActionKind>(r.action), r.action == EGW_ACTION_EGRESS ? r.egress_id : 0} {
  }
  friend bool operator==(const ClassRule&, const ClassRule&) = default;
};
using ClassTable = std::vector<ClassRule>;

[[nodiscard]] inline ClassTable class_table(const egw_class& c) {
  ClassTable out;
  const Strided<egw_class_rule> rules(c.rules);
  out.reserve(rules.size());
  for (const egw_class_rule r : rules) out.emplace_back(r);
  return out;
}

// A class's table as disjoint ranges, both families, longest prefix won.
[[nodiscard]] inline std::vector<FlatRange<Action>> flatten(const ClassTable& table) {
  std::vector<std::pair<Prefix, Action>> pairs;
  pairs.reserve(table.size());
  for (const ClassRule& rule : table) pairs.emplace_back(rule.destination, rule.action);
  return flatten(std::move(pairs));
}

// A step as a view: valid for the call of apply(). Records come as the ABI's structs by value;
// Peer(...), Egress(...), class_table(...) make owned values of them.
class Change {
 public:
  explicit Change(const egw_change* change) : raw_(read_struct(change)) {
    if (raw_.node != nullptr) node_ = read_struct(raw_.node);
  }

  [[nodiscard]] bool full() const { return raw_.full != 0; }
  [[nodiscard]] std::uint64_t generation() const { return raw_.generation; }
  [[nodiscard]] std::uint64_t base() const { return raw_.base; }
  // nullptr: unchanged.
  [[nodiscard]] const egw_node_config* node() const {
    return raw_.node == nullptr ? nullptr : &node_;
  }
  [[nodiscard]] Strided<egw_peer> peers() const { return Strided<egw_peer>(raw_.peers); }
  [[nodiscard]] Strided<egw_egress> egresses() const { return Strided<egw_egress>(raw_.egresses); }
  [[nodiscard]] Strided<egw_class> classes() const { return Strided<egw_class>(raw_.classes); }
  [[nodiscard]] Strided<egw_endpoint> endpoints() const {
    return Strided<egw_endpoint>(raw_.endpoints);
  }
  [[nodiscard]] Strided<egw_str> deleted_peers() const {
    return Strided<egw_str>(raw_.deleted_peers);
  }
  [[nodiscard]] Strided<std::uint32_t> deleted_egresses() const {
    return Strided<std::uint32_t>(raw_.deleted_egresses);
  }
  [[nodiscard]] Strided<std::uint32_t> deleted_classes() const {
    return Strided<std::uint32_t>(raw_.deleted_classes);
  }
  [[nodiscard]] Strided<egw_addr> deleted_endpoints() const {
    return Strided<egw_addr>(raw_.deleted_endpoints);
  }

 private:
  egw_change raw_;
  egw_node_config node_{};
};

struct State {
  std::uint64_t generation = 0;
  NodeConfig node;
  std::map<std::string, Peer, std::less<>> peers;
  std::map<std::uint32_t, Egress> egresses;
  std::map<std::uint32_t, ClassTable> classes;
  std::unordered_map<Address, std::uint32_t> endpoints;  // address -> class id
};

// Gathers changes. Ask fits() first; look at state() for what was there before; then merge().
class DatapathState {
 public:
  // ok; kNeedFull when the change is a step from another state than the one held; kInvalid when the
  // change breaks the contract. Changes nothing.
  [[nodiscard]] Status fits(const Change& change) const {
    if (change.full()) {
      if (change.node() == nullptr) return fail(Code::kInvalid, "a full change without a node");
    } else if (!valid_) {
      return fail(Code::kNeedFull, "no state yet: send everything");
    } else if (change.base() != state_.generation) {
      return fail(Code::kNeedFull, "the change is a step from generation " +
                                       std::to_string(change.base()) + ", the state held is " +
                                       std::to_string(state_.generation) + ": send everything");
    }
    for (const egw_egress e : change.egresses()) {
      if (e.id < EGW_EGRESS_ID_MIN || e.id > EGW_EGRESS_ID_MAX || e.kind > EGW_EGRESS_NODE ||
          e.owner > EGW_OWNER_PEER) {
        return fail(Code::kInvalid, "id, kind or owner out of range",
                    "egress " + std::to_string(e.id));
      }
    }
    for (const egw_class c : change.classes()) {
      for (const egw_class_rule r : Strided<egw_class_rule>(c.rules)) {
        const unsigned bits = Address(r.destination.addr).bits();
        if (c.id == 0 || r.action < EGW_ACTION_EGRESS || r.action > EGW_ACTION_BYPASS ||
            bits == 0 || r.destination.len > bits) {
          return fail(Code::kInvalid, "id, action or destination out of range",
                      "class " + std::to_string(c.id));
        }
      }
    }
    return ok();
  }

  // Precondition: fits().
  void merge(const Change& change) {
    if (change.full()) state_ = State{};
    valid_ = true;
    state_.generation = change.generation();
    if (change.node() != nullptr) state_.node = NodeConfig(*change.node());
    for (const egw_str name : change.deleted_peers()) state_.peers.erase(std::string(view(name)));
    for (const std::uint32_t id : change.deleted_egresses()) state_.egresses.erase(id);
    for (const std::uint32_t id : change.deleted_classes()) state_.classes.erase(id);
    for (const egw_addr a : change.deleted_endpoints()) state_.endpoints.erase(Address(a));
    for (const egw_peer p : change.peers()) {
      state_.peers.insert_or_assign(std::string(view(p.name)), Peer(p));
    }
    for (const egw_egress e : change.egresses()) {
      state_.egresses.insert_or_assign(e.id, Egress(e));
    }
    for (const egw_class c : change.classes()) {
      state_.classes.insert_or_assign(c.id, class_table(c));
    }
    state_.endpoints.reserve(state_.endpoints.size() + change.endpoints().size());
    for (const egw_endpoint e : change.endpoints()) {
      state_.endpoints.insert_or_assign(Address(e.address), e.class_id);
    }
  }

  // The next change must be full: for a plugin whose kernel state is in doubt.
  void invalidate() { valid_ = false; }
  [[nodiscard]] bool valid() const { return valid_; }
  [[nodiscard]] const State& state() const { return state_; }

 private:
  State state_;
  bool valid_ = false;
};

}  // namespace egw::sdk
