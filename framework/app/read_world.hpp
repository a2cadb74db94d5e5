// The stored objects, typed, as a verb reads them once. Called by status, vip move and why.
#pragma once

#include <vector>

#include "egw/app/session.hpp"
#include "egw/model/codec.hpp"
#include "egw/model/world.hpp"

namespace egw::app {

// All objects of one kind that match `query` (its kind is set here), appended to `out`. An object
// that cannot be read is an error that names it.
template <class R, class Out>
Result<void> read_all(Session& session, std::vector<Out>& out, host::Query query = {}) {
  query.kind = R::kKind;
  auto listed = session.list(std::move(query));
  if (!listed) return tl::unexpected(std::move(listed.error()));
  for (const auto& object : *listed) {
    auto decoded = model::decode<R>(object.document);
    if (!decoded) return tl::unexpected(std::move(decoded.error()));
    out.push_back(*std::move(decoded));
  }
  return {};
}

// What the leader plans from: everything but pods.
Result<model::World> read_world(Session& session);

}  // namespace egw::app
