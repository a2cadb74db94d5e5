// A state store in memory with the semantics of framework/abi/state_store.h: revisions, expected
// revisions, terms, the status subresource, finalizers, snapshots and events, disconnection. For
// tests in virtual time; every answer and event comes by way of the executor, as from a plugin.
#pragma once

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/awaitable.hpp>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "egw/host/state_store.hpp"

namespace egw::test {

class MemoryStore;

// What all connections see.
class MemoryContent {
 public:
  struct Object {
    nlohmann::json document;
    std::uint64_t revision = 0;
  };
  using Place = std::pair<model::Kind, model::Key>;

  std::map<Place, Object> objects;
  std::uint64_t revision = 0;
  std::uint64_t term = 0;  // the highest that a write has carried
  std::string id;          // which store this is; empty: it does not say
  std::set<MemoryStore*> connections;

  Result<host::StoredObject> write(const host::WriteRequest& request);

  // Stores anything, as a hand in the database would.
  void put_raw(model::Kind kind, const model::Key& key, nlohmann::json document);

  // Creates, or replaces metadata and spec.
  host::StoredObject put(model::Kind kind, nlohmann::json document);
  host::StoredObject put_status(model::Kind kind, const model::Key& key, nlohmann::json status);
  void remove(model::Kind kind, const model::Key& key);
  [[nodiscard]] nlohmann::json read(model::Kind kind, const model::Key& key) const;

 private:
  void publish(const Place& place, const nlohmann::json& document, bool deleted);
  std::uint64_t uids_ = 0;
};

class MemoryStore final : public host::StateStore {
 public:
  MemoryStore(boost::asio::any_io_executor executor, std::shared_ptr<MemoryContent> content);
  ~MemoryStore() override { content_->connections.erase(this); }
  MemoryStore(const MemoryStore&) = delete;
  MemoryStore& operator=(const MemoryStore&) = delete;

  boost::asio::awaitable<Result<std::unique_ptr<host::Subscription>>> subscribe(
      host::Query query, std::function<void(host::StoreEvent)> on_event) override;
  boost::asio::awaitable<Result<host::StoredObject>> get(model::Kind kind, model::Key key) override;
  boost::asio::awaitable<Result<std::vector<host::StoredObject>>> list(host::Query query) override;
  boost::asio::awaitable<Result<host::WriteOutcome>> write(host::WriteRequest request) override;
  boost::asio::awaitable<Result<void>> health() override;

  // Events stop and calls fail, until reconnect(), which brings snapshots again.
  void disconnect();
  void reconnect();
  // As a watch of one kind that breaks: everything else goes on, until reconnect().
  void disconnect(model::Kind kind);
  void event(const MemoryContent::Place& place, const nlohmann::json& document, bool deleted);

  std::function<std::optional<Error>(const host::WriteRequest&)> refuse;
  // The write has been made, but the caller does not learn of it.
  std::function<std::optional<Error>(const host::WriteRequest&)> lose_answer;
  std::function<void(const host::WriteRequest&)> before_write;
  std::vector<host::WriteRequest> writes;  // accepted ones, in order
  std::vector<host::Query> queries;        // of all subscriptions
  int attempts = 0;
  int refuse_subscriptions = 0;
  std::set<model::Kind> unknown_kinds;

 private:
  struct Sub {
    host::Query query;
    std::function<void(host::StoreEvent)> on_event;
    std::set<model::Key> matched;
    bool ended = false;
  };
  class Handle final : public host::Subscription {
   public:
    explicit Handle(std::shared_ptr<Sub> sub) : sub_(std::move(sub)) {}
    ~Handle() override {
      sub_->ended = true;
      sub_->on_event = nullptr;
    }

   private:
    std::shared_ptr<Sub> sub_;
  };

  std::vector<std::shared_ptr<Sub>> live();
  // namespace, name and "a.b=value" field selectors.
  static bool matches(const host::Query& query, const MemoryContent::Place& place,
                      const nlohmann::json& document);
  void send(const std::shared_ptr<Sub>& sub, host::StoreEvent event);
  void cut_off(const std::shared_ptr<Sub>& sub);
  void snapshot(const std::shared_ptr<Sub>& sub);

  boost::asio::any_io_executor executor_;
  std::shared_ptr<MemoryContent> content_;
  std::vector<std::shared_ptr<Sub>> subs_;
  bool connected_ = true;
  std::set<model::Kind> broken_;
};

}  // namespace egw::test
