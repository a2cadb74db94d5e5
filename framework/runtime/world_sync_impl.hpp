// The parts of a WorldSync; shared by world_sync.cpp (subscriptions) and world_objects.cpp (what an
// event does to the World) only.
#pragma once

#include <algorithm>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "egw/runtime/world_sync.hpp"

namespace egw::runtime {

struct WorldSync::Impl : std::enable_shared_from_this<Impl> {
  struct Sub {
    host::Query query;
    std::unique_ptr<host::Subscription> handle;
    std::unique_ptr<Wakeup> wakeup;
    std::set<model::Key> seen;  // named by the snapshot in progress; empty in the first
    bool optional = false;
    bool in_snapshot = false;
    bool elsewhere = false;     // another store answers, whose content is not taken
    bool had_snapshot = false;  // one has begun: something may be known that the next does not name
    bool prunes = false;        // the snapshot in progress
    bool synced_once = false;
    bool connected = false;
    std::uint64_t revision = 0;
    std::string trouble = "waiting for the first answer";
  };

  boost::asio::any_io_executor executor;
  Clock& clock;
  Logger& log;
  Metrics& metrics;
  host::StateStore& store;
  Options options;
  model::World world;
  model::Changes changes;
  std::vector<Sub> subs;
  std::int64_t connected_since = 0;
  std::uint64_t external = 0;  // changes that came as events
  bool adopting = false;
  bool stopping = false;
  std::string last_trouble;
  std::string store_id, other_store;

  Impl(boost::asio::any_io_executor the_executor, Clock& the_clock, Logger& the_log,
       Metrics& the_metrics, host::StateStore& the_store, Options the_options)
      : executor(std::move(the_executor)),
        clock(the_clock),
        log(the_log),
        metrics(the_metrics),
        store(the_store),
        options(std::move(the_options)) {
    for (const auto* list : {&options.queries, &options.optional_queries}) {
      for (const auto& query : *list) {
        Sub sub;
        sub.query = query;
        sub.optional = list == &options.optional_queries;
        sub.wakeup = std::make_unique<Wakeup>(executor, clock);
        subs.push_back(std::move(sub));
      }
    }
  }

  [[nodiscard]] bool synced_once(model::Kind kind) const {
    return std::any_of(subs.begin(), subs.end(), [kind](const Sub& sub) {
      return sub.query.kind == kind && sub.synced_once;
    });
  }
  [[nodiscard]] bool connected() const {
    return std::all_of(subs.begin(), subs.end(),
                       [](const Sub& sub) { return sub.connected || sub.optional; });
  }

  static boost::asio::awaitable<void> subscribe_loop(std::shared_ptr<Impl> self, std::size_t index);
  void on_event(std::size_t index, host::StoreEvent event);
  [[nodiscard]] bool is_elsewhere(const std::string& id);
  void synced(Sub& sub, std::uint64_t revision);
  void prune(Sub& sub);
  void connection_changed(const std::string& why);
  void upsert(model::Kind kind, const model::Key& key, const nlohmann::json& document,
              std::uint64_t revision, bool in_snapshot);
  void erase(model::Kind kind, const model::Key& key, std::uint64_t revision, bool pruned);
  void mark(model::Kind kind, const model::Key& key, bool in_snapshot = false);

  template <class R, class Map>
  void put(Map& map, model::Kind kind, const model::Key& key, const nlohmann::json& document,
           std::uint64_t revision, bool in_snapshot);
  template <class R, class Map>
  void keep(Map& map, typename Map::iterator place, model::Kind kind, const model::Key& key, R now,
            std::uint64_t revision, bool in_snapshot);
  void put_pod(const model::Key& key, model::Pod pod, std::uint64_t revision, bool in_snapshot);
  template <class Map>
  void drop(Map& map, model::Kind kind, const model::Key& key, std::uint64_t revision, bool pruned);
  void bad_object(model::Kind kind, const model::Key& key, const std::string& why);
  void damaged_status(model::Kind kind, const model::Key& key, const std::string& why);
};

}  // namespace egw::runtime
