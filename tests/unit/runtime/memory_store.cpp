#include "memory_store.hpp"

#include <algorithm>
#include <boost/asio/post.hpp>
#include <boost/asio/use_awaitable.hpp>

#include "egw/model/pod_text.hpp"

namespace egw::test {

Result<host::StoredObject> MemoryContent::write(const host::WriteRequest& request) {
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
        if (given.contains(field) && !given[field].empty()) next["metadata"][field] = given[field];
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

void MemoryContent::put_raw(model::Kind kind, const model::Key& key, nlohmann::json document) {
  ++revision;
  const Place place{kind, key};
  objects[place] = {document, revision};
  publish(place, document, false);
}

host::StoredObject MemoryContent::put(model::Kind kind, nlohmann::json document) {
  host::WriteRequest request;
  request.kind = kind;
  request.key = {document["metadata"].value("namespace", ""), document["metadata"]["name"]};
  request.op = objects.contains({kind, request.key}) ? host::WriteRequest::Op::kUpdate
                                                     : host::WriteRequest::Op::kCreate;
  request.document = std::move(document);
  return write(request).value();
}

host::StoredObject MemoryContent::put_status(model::Kind kind, const model::Key& key,
                                             nlohmann::json status) {
  host::WriteRequest request;
  request.kind = kind;
  request.key = key;
  request.op = host::WriteRequest::Op::kUpdateStatus;
  request.document = {{"status", std::move(status)}};
  return write(request).value();
}

void MemoryContent::remove(model::Kind kind, const model::Key& key) {
  host::WriteRequest request;
  request.kind = kind;
  request.key = key;
  request.op = host::WriteRequest::Op::kDelete;
  (void)write(request);
}

nlohmann::json MemoryContent::read(model::Kind kind, const model::Key& key) const {
  const auto found = objects.find({kind, key});
  return found == objects.end() ? nlohmann::json() : found->second.document;
}

void MemoryContent::publish(const Place& place, const nlohmann::json& document, bool deleted) {
  for (MemoryStore* connection : connections) connection->event(place, document, deleted);
}

MemoryStore::MemoryStore(boost::asio::any_io_executor executor,
                         std::shared_ptr<MemoryContent> content)
    : executor_(std::move(executor)), content_(std::move(content)) {
  content_->connections.insert(this);
}

boost::asio::awaitable<Result<std::unique_ptr<host::Subscription>>> MemoryStore::subscribe(
    host::Query query, std::function<void(host::StoreEvent)> on_event) {
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

boost::asio::awaitable<Result<host::StoredObject>> MemoryStore::get(model::Kind kind,
                                                                    model::Key key) {
  co_await boost::asio::post(executor_, boost::asio::use_awaitable);
  if (!connected_) co_return fail(Errc::kUnavailable, "store", "disconnected");
  const auto found = content_->objects.find({kind, key});
  if (found == content_->objects.end()) co_return fail(Errc::kNotFound, key.name, "is not there");
  co_return host::StoredObject{found->second.document, found->second.revision};
}

boost::asio::awaitable<Result<std::vector<host::StoredObject>>> MemoryStore::list(
    host::Query query) {
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

boost::asio::awaitable<Result<host::WriteOutcome>> MemoryStore::write(host::WriteRequest request) {
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

boost::asio::awaitable<Result<void>> MemoryStore::health() {
  if (!connected_) co_return fail(Errc::kUnavailable, "store", "disconnected");
  co_return Result<void>{};
}

void MemoryStore::disconnect() {
  connected_ = false;
  for (const auto& sub : live()) cut_off(sub);
}

void MemoryStore::disconnect(model::Kind kind) {
  broken_.insert(kind);
  for (const auto& sub : live()) {
    if (sub->query.kind == kind) cut_off(sub);
  }
}

void MemoryStore::cut_off(const std::shared_ptr<Sub>& sub) {
  host::StoreEvent event;
  event.type = host::StoreEvent::Type::kDisconnected;
  event.message = "cut off";
  send(sub, event);
}

void MemoryStore::reconnect() {
  connected_ = true;
  broken_.clear();
  for (const auto& sub : live()) snapshot(sub);
}

void MemoryStore::event(const MemoryContent::Place& place, const nlohmann::json& document,
                        bool deleted) {
  if (!connected_ || broken_.contains(place.first)) return;
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

auto MemoryStore::live() -> std::vector<std::shared_ptr<Sub>> {
  std::erase_if(subs_, [](const auto& sub) { return sub->ended; });
  return subs_;
}

bool MemoryStore::matches(const host::Query& query, const MemoryContent::Place& place,
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

void MemoryStore::send(const std::shared_ptr<Sub>& sub, host::StoreEvent event) {
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

void MemoryStore::snapshot(const std::shared_ptr<Sub>& sub) {
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

}  // namespace egw::test
