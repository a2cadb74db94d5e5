// Stored objects for verbs (read_world.hpp).
#include "egw/app/read_world.hpp"

#include <algorithm>

namespace egw::app {
namespace {

template <class R, class Map>
Result<void> read_into(Session& session, Map& out, std::uint64_t& revision) {
  std::vector<R> all;
  if (auto ok = read_all<R>(session, all); !ok) return ok;
  for (R& object : all) {
    revision = std::max(revision, object.meta.revision);
    if constexpr (std::is_same_v<typename Map::key_type, model::Key>) {
      model::Key key = object.meta.key();
      out.emplace(std::move(key), std::move(object));
    } else {
      std::string name = object.meta.name;
      out.emplace(std::move(name), std::move(object));
    }
  }
  return {};
}

}  // namespace

Result<model::World> read_world(Session& session) {
  model::World w;
  auto ok = read_into<model::EgressGateway>(session, w.gateways, w.revision);
  if (ok) ok = read_into<model::EgressPolicy>(session, w.policies, w.revision);
  if (ok) {
    std::vector<model::EgressPolicy> cluster_wide;
    ok = read_all<model::EgressClusterPolicy>(session, cluster_wide);
    for (auto& p : cluster_wide) w.policies.emplace(p.meta.key(), p);
  }
  if (ok) ok = read_into<model::EgressTunnel>(session, w.tunnels, w.revision);
  if (ok) ok = read_into<model::EgressClusterInfo>(session, w.cluster_infos, w.revision);
  if (ok) ok = read_into<model::Node>(session, w.nodes, w.revision);
  if (ok) ok = read_into<model::Namespace>(session, w.namespaces, w.revision);
  if (!ok) return tl::unexpected(std::move(ok.error()));
  return w;
}

}  // namespace egw::app
