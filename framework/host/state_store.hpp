// StateStore: what the runtime and the verbs see of a state store, whatever implements it.
// All callbacks run on the executor given at opening; no object here is shared between threads.
#pragma once

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/awaitable.hpp>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "egw/model/resources.hpp"

namespace egw::host {

struct StoredObject {
  nlohmann::json document;
  std::uint64_t revision = 0;
};

struct Query {
  model::Kind kind;
  std::string ns, name, fields, labels;  // empty: no restriction (framework/abi/state_store.h)
  bool metadata_only = false;            // nothing but metadata is looked at; more may come
  bool pods_read = false;  // Pods: an upsert may bring the Pod in place of its document
  // Any thread: what an upsert's document is made of, where that is not the whole text (nullopt).
  std::optional<std::string> (*trim)(std::string_view text) = nullptr;
};

struct StoreEvent {
  enum class Type { kSnapshot, kUpsert, kDelete, kSynced, kDisconnected, kRevision } type;
  std::uint64_t revision = 0;
  model::Key key;
  nlohmann::json document;        // upsert: whole; delete: last known, or null
  std::optional<model::Pod> pod;  // upsert: see Query::pods_read; annotations are left out
  std::string message;            // disconnected: why
  std::string store;              // snapshot: which store it comes from; empty: it does not say
};

// What a process is to the store that it opens.
enum class StoreUse {
  kLooks,  // no store is made where there is none
  kWrites,
  kServes,  // ... and it answers for writes of others, too (a webhook)
};

struct WriteRequest {
  enum class Op { kCreate, kUpdate, kUpdateStatus, kDelete } op;
  model::Kind kind;
  model::Key key;
  nlohmann::json document;
  std::uint64_t expected_revision = 0;
  std::uint64_t term = 0;
  bool dry_run = false;
  std::chrono::milliseconds deadline{5000};
};

struct WriteOutcome {
  StoredObject object;
  std::vector<std::string> warnings;
};

// Ends the subscription when destroyed; no callback afterwards.
class Subscription {
 public:
  virtual ~Subscription() = default;
};

class StateStore {
 public:
  virtual ~StateStore() = default;
  virtual boost::asio::awaitable<Result<std::unique_ptr<Subscription>>> subscribe(
      Query query, std::function<void(StoreEvent)> on_event) = 0;
  virtual boost::asio::awaitable<Result<StoredObject>> get(model::Kind kind, model::Key key) = 0;
  virtual boost::asio::awaitable<Result<std::vector<StoredObject>>> list(Query query) = 0;
  virtual boost::asio::awaitable<Result<WriteOutcome>> write(WriteRequest request) = 0;
  virtual boost::asio::awaitable<Result<void>> health() = 0;
};

}  // namespace egw::host
