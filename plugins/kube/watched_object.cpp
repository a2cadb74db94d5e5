// See watched_object.hpp.
#include "watched_object.hpp"

#include <utility>

namespace egw::kube {

using nlohmann::json;
using namespace std::chrono_literals;

namespace {
constexpr auto kDeadline = 4000ms;
}

WatchedObject::WatchedObject(Api& api, Resource resource, std::string ns, std::string name,
                             Stop& stop, const sdk::Host& host, std::function<void()> changed)
    : api_(api),
      resource_(std::move(resource)),
      ns_(std::move(ns)),
      name_(std::move(name)),
      stop_(stop),
      host_(host),
      changed_(std::move(changed)) {}

WatchedObject::~WatchedObject() = default;

std::string WatchedObject::text() const {
  return resource_.kind + " " + (ns_.empty() ? "" : ns_ + "/") + name_;
}

sdk::Outcome<json> WatchedObject::look() {
  if (watch_ == nullptr) {
    sdk::Query query;
    query.kind.group = resource_.group;
    query.kind.version = resource_.version;
    query.kind.kind = resource_.kind;
    query.kind.plural = resource_.plural;
    query.kind.namespaced = resource_.namespaced;
    query.ns = ns_;
    query.name = name_;
    const auto on_event = [](void* ctx, const egw_event* event) {
      static_cast<WatchedObject*>(ctx)->take(*event);
    };
    watch_ = std::make_unique<Reflector>(api_, query, sdk::EventSink({this, on_event}), host_);
  }
  {
    const std::lock_guard lock(mutex_);
    if (in_step_ && !object_.is_null()) return object_;
  }
  return read();
}

sdk::Outcome<json> WatchedObject::read() { return send("GET", "get", json()); }

sdk::Status WatchedObject::create(const json& object) { return write("POST", "create", object); }

sdk::Status WatchedObject::update(const json& object) { return write("PUT", "update", object); }

sdk::Status WatchedObject::write(const char* method, const char* verb, const json& body) {
  sdk::Outcome<json> stored = send(method, verb, body);
  if (!stored.ok()) return stored.status();
  const std::lock_guard lock(mutex_);
  if (revision_of(*stored) > revision_of(object_)) object_ = std::move(*stored);
  return sdk::ok();
}

sdk::Outcome<json> WatchedObject::send(const char* method, const char* verb, const json& body) {
  HttpRequest request;
  request.method = method;
  request.path =
      request.method == "POST" ? resource_.collection(ns_) : resource_.object(ns_, name_);
  request.deadline = kDeadline;
  if (!body.is_null()) {
    request.body = body.dump(-1, ' ', false, json::error_handler_t::replace);
    request.content_type = "application/json";
  }
  return api_.object(request, {verb, resource_.text(), text()}, &stop_);
}

void WatchedObject::take(const egw_event& event) {
  {
    const std::lock_guard lock(mutex_);
    switch (event.type) {
      case EGW_EVENT_SNAPSHOT:
      case EGW_EVENT_DISCONNECTED:
        in_step_ = false;
        object_ = json();
        return;
      case EGW_EVENT_SYNCED:
        in_step_ = true;
        return;
      case EGW_EVENT_UPSERT: {
        // What we have written ourselves, or somebody before us.
        if (event.revision <= revision_of(object_)) return;
        json object = json::parse(sdk::view(event.object), nullptr, false);
        object_ = object.is_object() ? std::move(object) : json();
        break;
      }
      case EGW_EVENT_DELETE:
        if (event.revision < revision_of(object_)) return;
        object_ = json();
        break;
      default:
        return;
    }
  }
  changed_();
}

}  // namespace egw::kube
