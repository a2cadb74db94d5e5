// A state store in memory with the semantics of framework/abi/state_store.h: revisions, expected
// revisions, terms, the status subresource, finalizers, snapshots and events, disconnection. For
// tests in virtual time; every answer and event comes by way of the executor, as from a plugin.
#pragma once

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "egw/host/state_store.hpp"
#include "egw/model/pod_text.hpp"

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

  Result<host::StoredObject> write(const host::WriteRequest& request) {
    using Op = host::WriteRequest::Op;
    if (request.term != 0 && request.term < term) {
      return fail(Errc::kStaleTerm, request.key.to_string(), "an older term");
    }
    term = std::max(term, request.term);
    const Place place{request.kind, request.key};
    const auto found = objects.find(place);
    const bool exists = found != objects.end();
    if (request.op == Op::kCreate && exists) return fail(Errc::kExists, request.key.name, "exists");
    if (request.op != Op::kCreate && !exists) {
      return fail(Errc::kNotFound, request.key.to_string(), "is not there");
    }
    if (request.expected_revision != 0 &&
        (!exists || found->second.revision != request.expected_revision)) {
      return fail(Errc::kConflict, request.key.to_string(), "another revision is stored");
    }
    nlohmann::json next = exists ? found->second.document : nlohmann::json();
    switch (request.op) {
      case Op::kCreate:
        next = request.document;
        next.erase("status");
        next["metadata"]["uid"] = "uid-" + std::to_string(++uids_);
        next["metadata"]["creationTimestamp"] = "2026-01-01T00:00:00Z";
        break;
      case Op::kUpdate:
        for (const auto& [field, value] : request.document.items()) {
          if (field != "metadata" && field != "status") next[field] = value;
        }
        for (const char* field : {"labels", "annotations", "finalizers"}) {
          next["metadata"].erase(field);
          const auto& given = request.document["metadata"];
          if (given.contains(field) && !given[field].empty())
            next["metadata"][field] = given[field];
        }
        break;
      case Op::kUpdateStatus:
        next["status"] = request.document.value("status", nlohmann::json::object());
        break;
      case Op::kDelete:
        next["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:01Z";
        break;
    }
    const bool gone =
        next["metadata"].contains("deletionTimestamp") &&
        (!next["metadata"].contains("finalizers") || next["metadata"]["finalizers"].empty());
    if (!gone && exists && next == found->second.document) {
      return host::StoredObject{next, found->second.revision};
    }
    ++revision;
    next["metadata"]["resourceVersion"] = std::to_string(revision);
    if (gone) {
      objects.erase(place);
    } else {
      objects[place] = {next, revision};
    }
    publish(place, next, gone);
    return host::StoredObject{next, revision};
  }

  // Stores anything, as a hand in the database would.
  void put_raw(model::Kind kind, const model::Key& key, nlohmann::json document) {
    ++revision;
    const Place place{kind, key};
    objects[place] = {document, revision};
    publish(place, document, false);
  }

  // Creates, or replaces metadata and spec.
  host::StoredObject put(model::Kind kind, nlohmann::json document) {
    host::WriteRequest request;
    request.kind = kind;
    request.key = {document["metadata"].value("namespace", ""), document["metadata"]["name"]};
    request.op = objects.contains({kind, request.key}) ? host::WriteRequest::Op::kUpdate
                                                       : host::WriteRequest::Op::kCreate;
    request.document = std::move(document);
    return write(request).value();
  }
  host::StoredObject put_status(model::Kind kind, const model::Key& key, nlohmann::json status) {
    host::WriteRequest request;
    request.kind = kind;
    request.key = key;
    request.op = host::WriteRequest::Op::kUpdateStatus;
    request.document = {{"status", std::move(status)}};
    return write(request).value();
  }
  void remove(model::Kind kind, const model::Key& key) {
    host::WriteRequest request;
    request.kind = kind;
    request.key = key;
    request.op = host::WriteRequest::Op::kDelete;
    (void)write(request);
  }
  [[nodiscard]] nlohmann::json read(model::Kind kind, const model::Key& key) const {
    const auto found = objects.find({kind, key});
    return found == objects.end() ? nlohmann::json() : found->second.document;
  }

 private:
  void publish(const Place& place, const nlohmann::json& document, bool deleted);
  std::uint64_t uids_ = 0;
};

class MemoryStore final : public host::StateStore {
 public:
  MemoryStore(boost::asio::any_io_executor executor, std::shared_ptr<MemoryContent> content)
      : executor_(std::move(executor)), content_(std::move(content)) {
    content_->connections.insert(this);
  }
  ~MemoryStore() override { content_->connections.erase(this); }
  MemoryStore(const MemoryStore&) = delete;
  MemoryStore& operator=(const MemoryStore&) = delete;

  boost::asio::awaitable<Result<std::unique_ptr<host::Subscription>>> subscribe(
      host::Query query, std::function<void(host::StoreEvent)> on_event) override {
    co_await boost::asio::post(executor_, boost::asio::use_awaitable);
    if (unknown_kinds.contains(query.kind)) {
      co_return fail(Errc::kNotFound, "store", "the server could not find the requested resource");
    }
    if (refuse_subscriptions > 0) {
      --refuse_subscriptions;
      co_return fail(Errc::kUnavailable, "store", "not now");
    }
    auto sub = std::make_shared<Sub>();
    queries.push_back(query);
    sub->query = std::move(query);
    sub->on_event = std::move(on_event);
    subs_.push_back(sub);
    if (connected_) snapshot(sub);
    std::unique_ptr<host::Subscription> handle = std::make_unique<Handle>(sub);
    co_return handle;
  }
  boost::asio::awaitable<Result<host::StoredObject>> get(model::Kind kind,
                                                         model::Key key) override {
    co_await boost::asio::post(executor_, boost::asio::use_awaitable);
    if (!connected_) co_return fail(Errc::kUnavailable, "store", "disconnected");
    const auto found = content_->objects.find({kind, key});
    if (found == content_->objects.end()) co_return fail(Errc::kNotFound, key.name, "is not there");
    co_return host::StoredObject{found->second.document, found->second.revision};
  }
  boost::asio::awaitable<Result<std::vector<host::StoredObject>>> list(host::Query query) override {
    co_await boost::asio::post(executor_, boost::asio::use_awaitable);
    if (!connected_) co_return fail(Errc::kUnavailable, "store", "disconnected");
    std::vector<host::StoredObject> all;
    for (const auto& [place, object] : content_->objects) {
      if (matches(query, place, object.document)) {
        all.push_back({object.document, object.revision});
      }
    }
    co_return all;
  }
  boost::asio::awaitable<Result<host::WriteOutcome>> write(host::WriteRequest request) override {
    co_await boost::asio::post(executor_, boost::asio::use_awaitable);
    ++attempts;
    if (before_write) before_write(request);
    if (!connected_) co_return fail(Errc::kUnavailable, "store", "disconnected");
    if (refuse) {
      if (auto error = refuse(request)) co_return tl::unexpected(*error);
    }
    auto stored = content_->write(request);
    if (!stored) co_return tl::unexpected(stored.error());
    if (lose_answer) {
      if (auto error = lose_answer(request)) co_return tl::unexpected(*error);
    }
    writes.push_back(std::move(request));
    host::WriteOutcome outcome;
    outcome.object = std::move(*stored);
    co_return outcome;
  }
  boost::asio::awaitable<Result<void>> health() override {
    if (!connected_) co_return fail(Errc::kUnavailable, "store", "disconnected");
    co_return Result<void>{};
  }

  // Events stop and calls fail, until reconnect(), which brings snapshots again.
  void disconnect() {
    connected_ = false;
    host::StoreEvent event;
    event.type = host::StoreEvent::Type::kDisconnected;
    event.message = "cut off";
    for (const auto& sub : live()) send(sub, event);
  }
  void reconnect() {
    connected_ = true;
    for (const auto& sub : live()) snapshot(sub);
  }
  void event(const MemoryContent::Place& place, const nlohmann::json& document, bool deleted) {
    if (!connected_) return;
    for (const auto& sub : live()) {
      if (sub->query.kind != place.first) continue;
      const bool wanted = matches(sub->query, place, document) && !deleted;
      if (!wanted && !sub->matched.contains(place.second)) continue;
      host::StoreEvent event;
      event.type = wanted ? host::StoreEvent::Type::kUpsert : host::StoreEvent::Type::kDelete;
      event.revision = content_->revision;
      event.key = place.second;
      event.document = document;
      if (wanted) {
        sub->matched.insert(place.second);
      } else {
        sub->matched.erase(place.second);
      }
      send(sub, std::move(event));
    }
  }

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

  std::vector<std::shared_ptr<Sub>> live() {
    std::erase_if(subs_, [](const auto& sub) { return sub->ended; });
    return subs_;
  }
  // namespace, name and "a.b=value" field selectors.
  static bool matches(const host::Query& query, const MemoryContent::Place& place,
                      const nlohmann::json& document) {
    if (query.kind != place.first) return false;
    if (!query.ns.empty() && query.ns != place.second.ns) return false;
    if (!query.name.empty() && query.name != place.second.name) return false;
    if (query.fields.empty()) return true;
    const auto equals = query.fields.find('=');
    std::string pointer = "/" + query.fields.substr(0, equals);
    for (char& c : pointer) c = c == '.' ? '/' : c;
    const nlohmann::json::json_pointer path(pointer);
    return document.contains(path) && document[path] == query.fields.substr(equals + 1);
  }
  void send(const std::shared_ptr<Sub>& sub, host::StoreEvent event) {
    if (event.type == host::StoreEvent::Type::kUpsert) {
      const std::string text = event.document.dump();
      const bool reads = sub->query.pods_read && sub->query.kind == model::Kind::kPod;
      if (reads) event.pod = model::read_pod(text);
      if (event.pod) event.document = nullptr;
      const auto part = sub->query.trim != nullptr ? sub->query.trim(text) : std::nullopt;
      if (part) event.document = nlohmann::json::parse(*part);
    }
    boost::asio::post(executor_, [sub, event = std::move(event)] {
      if (!sub->ended) sub->on_event(event);
    });
  }
  void snapshot(const std::shared_ptr<Sub>& sub) {
    host::StoreEvent event;
    event.type = host::StoreEvent::Type::kSnapshot;
    event.store = content_->id;
    send(sub, event);
    sub->matched.clear();
    for (const auto& [place, object] : content_->objects) {
      if (!matches(sub->query, place, object.document)) continue;
      sub->matched.insert(place.second);
      event.type = host::StoreEvent::Type::kUpsert;
      event.key = place.second;
      event.revision = object.revision;
      event.document = object.document;
      send(sub, event);
    }
    host::StoreEvent done;
    done.type = host::StoreEvent::Type::kSynced;
    done.revision = content_->revision;
    send(sub, std::move(done));
  }

  boost::asio::any_io_executor executor_;
  std::shared_ptr<MemoryContent> content_;
  std::vector<std::shared_ptr<Sub>> subs_;
  bool connected_ = true;
};

inline void MemoryContent::publish(const Place& place, const nlohmann::json& document,
                                   bool deleted) {
  for (MemoryStore* connection : connections) connection->event(place, document, deleted);
}

}  // namespace egw::test
