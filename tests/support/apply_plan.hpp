// Applies a plan to a World as a state store would: revisions, optimistic concurrency, deletion
// that waits for finalizers. For tests of plan() and of what calls it.
#pragma once

#include <string>
#include <variant>

#include "egw/core/plan.hpp"

namespace egw::test {

// Stamps an object as stored just now.
inline void touch(model::World& world, model::ObjectMeta& meta) {
  meta.revision = ++world.revision;
}

class PlanApplier {
 public:
  explicit PlanApplier(model::World& world) : world_(world) {}

  // Applies the writes in order; stops at the first that conflicts and returns its text, else "".
  std::string apply(const core::Plan& plan) {
    for (const core::Write& write : plan.writes) {
      conflict_.clear();
      std::visit([this](const auto& w) { on(w); }, write);
      if (!conflict_.empty()) return conflict_;
    }
    return {};
  }

 private:
  template <class Map>
  void status(Map& map, const typename Map::key_type& key,
              const typename Map::mapped_type& wanted) {
    const auto it = map.find(key);
    if (it == map.end() || it->second.meta.revision != wanted.meta.revision) {
      conflict_ = "status of " + wanted.meta.key().to_string();
      return;
    }
    it->second.status = wanted.status;
    it->second.status_damaged = false;
    touch(world_, it->second.meta);
  }

  template <class Map>
  void remove(Map& map, const typename Map::key_type& key) {
    const auto it = map.find(key);
    if (it == map.end()) return;
    ++world_.revision;
    if (it->second.meta.finalizers.empty()) {
      map.erase(it);
    } else if (it->second.meta.deleted_ms == 0) {
      it->second.meta.deleted_ms = 1;
      it->second.meta.revision = world_.revision;
    }
  }

  template <class Map>
  void meta(Map& map, const typename Map::key_type& key, const core::SetMeta& w) {
    const auto it = map.find(key);
    if (it == map.end() || it->second.meta.revision != w.expected_revision) {
      conflict_ = "metadata of " + w.key.to_string();
      return;
    }
    it->second.meta.finalizers = w.finalizers;
    it->second.meta.annotations = w.annotations;
    touch(world_, it->second.meta);
    if (it->second.meta.deleted_ms != 0 && w.finalizers.empty()) map.erase(it);
  }

  void on(const core::CreateTunnel& w) {
    if (world_.tunnels.contains(w.node)) conflict_ = "tunnel " + w.node + " exists";
    model::EgressTunnel& t = world_.tunnels[w.node];
    t.meta.name = w.node;
    t.meta.finalizers = {std::string(model::kTunnelFinalizer)};
    touch(world_, t.meta);
  }
  void on(const core::DeleteTunnel& w) { remove(world_.tunnels, w.node); }
  void on(const core::CreateClusterInfo& w) {
    if (world_.cluster_infos.contains(w.name)) conflict_ = "info " + w.name + " exists";
    model::EgressClusterInfo& info = world_.cluster_infos[w.name];
    info.meta.name = w.name;
    info.spec = w.spec;
    touch(world_, info.meta);
  }
  void on(const core::DeleteClusterInfo& w) { remove(world_.cluster_infos, w.name); }
  void on(const core::WriteTunnel& w) { status(world_.tunnels, w.tunnel.meta.name, w.tunnel); }
  void on(const core::WriteClusterInfo& w) {
    status(world_.cluster_infos, w.info.meta.name, w.info);
  }
  void on(const core::WriteGateway& w) {
    const auto it = world_.gateways.find(w.gateway.meta.name);
    if (it != world_.gateways.end() && w.gateway.status.term < it->second.status.term) {
      conflict_ = "the term of gateway " + w.gateway.meta.name + " falls";  // the CEL rule
      return;
    }
    status(world_.gateways, w.gateway.meta.name, w.gateway);
  }
  void on(const core::WritePolicy& w) { status(world_.policies, w.policy.meta.key(), w.policy); }
  void on(const core::SetMeta& w) {
    if (w.kind == model::Kind::kEgressGateway) meta(world_.gateways, w.key.name, w);
    if (w.kind == model::Kind::kEgressTunnel) meta(world_.tunnels, w.key.name, w);
  }

  model::World& world_;
  std::string conflict_;
};

inline std::string apply_plan(model::World& world, const core::Plan& plan) {
  return PlanApplier(world).apply(plan);
}

}  // namespace egw::test
