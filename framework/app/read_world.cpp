// Stored objects for verbs (read_world.hpp).
#include "egw/app/read_world.hpp"

#include <algorithm>

namespace egw::app {
namespace {

template <class R, class Map>
Result<void> read_into(Session& session, Map& out, std::uint64_t& revision,
                       std::vector<Unreadable>& unreadable) {
  std::vector<R> all;
  if (auto ok = read_all<R>(session, all, unreadable); !ok) return ok;
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

std::string key_of(const nlohmann::json& document) {
  const nlohmann::json metadata = document.value("metadata", nlohmann::json::object());
  return model::Key{metadata.value("namespace", ""), metadata.value("name", "")}.to_string();
}

Result<model::World> read_world(Session& session, std::vector<Unreadable>& unreadable) {
  model::World w;
  auto ok = read_into<model::EgressGateway>(session, w.gateways, w.revision, unreadable);
  if (ok) ok = read_into<model::EgressPolicy>(session, w.policies, w.revision, unreadable);
  if (ok) {
    std::vector<model::EgressPolicy> cluster_wide;
    ok = read_all<model::EgressClusterPolicy>(session, cluster_wide, unreadable);
    for (auto& p : cluster_wide) w.policies.emplace(p.meta.key(), p);
  }
  if (ok) ok = read_into<model::EgressTunnel>(session, w.tunnels, w.revision, unreadable);
  if (ok)
    ok = read_into<model::EgressClusterInfo>(session, w.cluster_infos, w.revision, unreadable);
  if (ok) ok = read_into<model::Node>(session, w.nodes, w.revision, unreadable);
  if (ok) ok = read_into<model::Namespace>(session, w.namespaces, w.revision, unreadable);
  if (!ok) return tl::unexpected(std::move(ok.error()));
  return w;
}

void warn_of(Console& console, const std::vector<Unreadable>& unreadable) {
  for (const Unreadable& u : unreadable) console.warning(u.object + ": " + u.message);
}

}  // namespace egw::app
