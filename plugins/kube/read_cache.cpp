// See read_cache.hpp.
#include "read_cache.hpp"

namespace egw::kube {

using sdk::Status;

namespace {
constexpr std::size_t kMostKinds = 8;  // the host asks for three
}

// The objects of a kind, as a subscriber of its own.
struct ReadCache::Collection {
  struct Known {
    std::uint64_t revision = 0;
    std::shared_ptr<const std::string> text;
  };
  using Key = std::pair<std::string, std::string>;  // namespace, name

  Collection(Api& api, const sdk::ObjectKind& kind, const sdk::Host& host) {
    sdk::Query query;
    query.kind = kind;
    reflector = std::make_unique<Reflector>(api, query, sdk::EventSink({this, on_event}), host);
  }
  static void on_event(void* ctx, const egw_event* event) {
    static_cast<Collection*>(ctx)->take(*event);
  }
  void take(const egw_event& event);
  Known find(std::string_view ns, std::string_view name);

  std::mutex mutex;
  std::map<Key, Known> objects;
  bool in_step = false;
  std::unique_ptr<Reflector> reflector;  // last: its events need all the rest
};

void ReadCache::Collection::take(const egw_event& event) {
  const std::lock_guard lock(mutex);
  Key key(sdk::view(event.namespace_), sdk::view(event.name));
  switch (event.type) {
    case EGW_EVENT_SNAPSHOT:
    case EGW_EVENT_DISCONNECTED:
      in_step = false;
      objects.clear();
      break;
    case EGW_EVENT_SYNCED:
      in_step = true;
      break;
    case EGW_EVENT_UPSERT:
      objects[std::move(key)] = {event.revision,
                                 std::make_shared<const std::string>(sdk::view(event.object))};
      break;
    case EGW_EVENT_DELETE:
      objects.erase(key);
      break;
    default:
      break;
  }
}

ReadCache::Collection::Known ReadCache::Collection::find(std::string_view ns,
                                                         std::string_view name) {
  const std::lock_guard lock(mutex);
  if (!in_step) return {};
  const auto it = objects.find(Key(ns, name));
  return it == objects.end() ? Known() : it->second;
}

ReadCache::~ReadCache() = default;

std::shared_ptr<ReadCache::Collection> ReadCache::collection_of(const sdk::ObjectKind& kind) {
  const std::lock_guard lock(mutex_);
  const std::string name = Resource(kind).text();
  const auto it = collections_.find(name);
  if (it != collections_.end()) return it->second;
  if (collections_.size() >= kMostKinds) return nullptr;
  return collections_.emplace(name, std::make_shared<Collection>(api_, kind, host_)).first->second;
}

bool ReadCache::get(const sdk::ObjectKind& kind, std::string_view ns, std::string_view name,
                    const sdk::ObjectSink& out) {
  const auto collection = collection_of(kind);
  if (collection == nullptr) return false;
  const Collection::Known known = collection->find(ns, name);
  if (known.text == nullptr) return false;
  out.object(known.revision, *known.text);
  return true;
}

Status CachedReader::get(const sdk::ObjectKind& kind, std::string_view ns, std::string_view name,
                         const sdk::ObjectSink& out) {
  if (!kind.group.empty() && cache_.get(kind, ns, name, out)) {
    cached_ = true;
    return sdk::ok();
  }
  return api_.get(kind, ns, name, out);
}

}  // namespace egw::kube
