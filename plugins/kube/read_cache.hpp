// What the webhook has read by name before, kept up to date by watches of its own: a kind is
// watched from its first question on. Used by webhook.cpp; any thread.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <utility>

#include "api.hpp"
#include "egw/sdk/state_store.hpp"
#include "reads.hpp"
#include "reflector.hpp"

namespace egw::kube {

class ReadCache {
 public:
  ReadCache(Api& api, const sdk::Host& host) : api_(api), host_(host) {}
  ~ReadCache();
  ReadCache(const ReadCache&) = delete;
  ReadCache& operator=(const ReadCache&) = delete;

  // Gives the object to `out` when it is known here; false: ask the API. What is given may be older
  // than the API's by as much as a watch is behind.
  bool get(const sdk::ObjectKind& kind, std::string_view ns, std::string_view name,
           const sdk::ObjectSink& out);

 private:
  struct Collection;
  std::shared_ptr<Collection> collection_of(const sdk::ObjectKind& kind);

  Api& api_;
  const sdk::Host host_;
  std::mutex mutex_;
  std::map<std::string, std::shared_ptr<Collection>> collections_;  // by Resource::text()
};

// Reads for a question to the webhook: by name from the cache, what is not there from the API.
// Lists and the core kinds come from the API always: siblings that must differ, and the label of a
// namespace, which gives a default, count at once.
class CachedReader : public sdk::Reader {
 public:
  CachedReader(ReadCache& cache, ApiReader& api) : cache_(cache), api_(api) {}
  sdk::Status get(const sdk::ObjectKind& kind, std::string_view ns, std::string_view name,
                  const sdk::ObjectSink& out) override;
  sdk::Status list(const sdk::ObjectKind& kind, const sdk::ObjectSink& out) override {
    return api_.list(kind, out);
  }
  // Something came from the cache: a denial by it must be looked at again.
  [[nodiscard]] bool cached() const { return cached_; }

 private:
  ReadCache& cache_;
  ApiReader& api_;
  bool cached_ = false;
};

}  // namespace egw::kube
