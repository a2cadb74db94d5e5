// One object of the API server that somebody looks at again and again, and writes now and then.
// From the first look on a watch of that name alone tells what becomes of it, so that a look costs
// no request. While the watch does not (it begins, is not allowed, the server is away), and where
// the object is missing, the API is asked. Used by certificate_source.cpp; one thread.
#pragma once

#include <functional>
#include <memory>
#include <mutex>
#include <nlohmann/json.hpp>
#include <string>

#include "api.hpp"
#include "egw/sdk/state_store.hpp"
#include "reflector.hpp"
#include "resource.hpp"

namespace egw::kube {

class WatchedObject {
 public:
  // changed: by somebody else; called on any thread.
  WatchedObject(Api& api, Resource resource, std::string ns, std::string name, Stop& stop,
                const sdk::Host& host, std::function<void()> changed);
  ~WatchedObject();
  WatchedObject(const WatchedObject&) = delete;
  WatchedObject& operator=(const WatchedObject&) = delete;

  // May be older than the API's by as much as a watch is behind: a write by it is a kConflict then.
  [[nodiscard]] sdk::Outcome<nlohmann::json> look();
  [[nodiscard]] sdk::Outcome<nlohmann::json> read();
  // kExists when another was faster.
  [[nodiscard]] sdk::Status create(const nlohmann::json& object);
  // With the resourceVersion that was read: kConflict when another was faster.
  [[nodiscard]] sdk::Status update(const nlohmann::json& object);
  [[nodiscard]] std::string text() const;

 private:
  sdk::Outcome<nlohmann::json> send(const char* method, const char* verb,
                                    const nlohmann::json& body);
  sdk::Status write(const char* method, const char* verb, const nlohmann::json& body);
  void take(const egw_event& event);

  Api& api_;
  const Resource resource_;
  const std::string ns_, name_;
  Stop& stop_;
  const sdk::Host host_;
  const std::function<void()> changed_;
  std::mutex mutex_;  // guards the next two
  bool in_step_ = false;
  nlohmann::json object_;             // null: not known
  std::unique_ptr<Reflector> watch_;  // last: its events need all the rest
};

}  // namespace egw::kube
