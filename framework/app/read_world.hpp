// The stored objects, typed, as a verb reads them once. Called by status, vip move and why.
#pragma once

#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "egw/app/console.hpp"
#include "egw/app/session.hpp"
#include "egw/model/codec.hpp"
#include "egw/model/text.hpp"
#include "egw/model/world.hpp"

namespace egw::app {

// An object that cannot be read, in whole or in its status alone, and why.
struct Unreadable {
  std::string object;  // "egressgateway/gm"
  std::string message;
};

// "namespace/name" or "name" of a document, whatever else it holds.
std::string key_of(const nlohmann::json& document);

// All objects of one kind, appended to `out`. One that cannot be read is told in `unreadable` and
// keeps nobody from reading the others; where that is its status alone, the rest of it is there.
template <class R, class Out>
Result<void> read_all(Session& session, std::vector<Out>& out,
                      std::vector<Unreadable>& unreadable) {
  host::Query query;
  query.kind = R::kKind;
  auto listed = session.list(std::move(query));
  if (!listed) return tl::unexpected(std::move(listed.error()));
  for (const auto& object : *listed) {
    std::vector<Error> damage;
    auto decoded = model::decode_stored<R>(object.document, damage);
    const auto tell = [&](const Error& error, std::string_view what) {
      unreadable.push_back(
          {fmt::format("{}/{}", model::info(R::kKind).singular, key_of(object.document)),
           model::one_line(fmt::format("{}; {}", error.to_string(), what))});
    };
    if (!decoded) {
      tell(decoded.error(), "the object is left out: mend it (egw apply)");
      continue;
    }
    if (!damage.empty()) {
      tell(damage.front(), "what can be read of its status is taken; a leader writes it anew");
    }
    out.push_back(*std::move(decoded));
  }
  return {};
}

// What the leader plans from: everything but pods.
Result<model::World> read_world(Session& session, std::vector<Unreadable>& unreadable);

// One warning for each.
void warn_of(Console& console, const std::vector<Unreadable>& unreadable);

}  // namespace egw::app
