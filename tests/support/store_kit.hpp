// What the tests of every state store share: kinds, a host around a store, the calls that tests
// make, recorded events. The store is whatever implements sdk::StateStore.
#pragma once

#include <chrono>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "egw/sdk/state_store.hpp"

namespace egw::store_kit {

using nlohmann::json;
using namespace std::chrono_literals;

inline sdk::ObjectKind kind_of(std::string_view group, std::string_view version,
                               std::string_view kind, std::string_view plural, bool namespaced) {
  sdk::ObjectKind k;
  k.group = group;
  k.version = version;
  k.kind = kind;
  k.plural = plural;
  k.namespaced = namespaced;
  return k;
}
inline constexpr std::string_view kGroup = "egressgateway.spidernet.io";

inline sdk::ObjectKind gateway() {  // cluster-scoped, of our group
  return kind_of(kGroup, "v1beta1", "EgressGateway", "egressgateways", false);
}
inline sdk::ObjectKind policy() {  // namespaced, of our group
  return kind_of(kGroup, "v1beta1", "EgressPolicy", "egresspolicies", true);
}
inline sdk::ObjectKind node() { return kind_of("", "v1", "Node", "nodes", false); }  // core
inline sdk::ObjectKind pod() { return kind_of("", "v1", "Pod", "pods", true); }
inline sdk::ObjectKind event() { return kind_of("events.k8s.io", "v1", "Event", "events", true); }

inline json parse(std::string_view text) { return text.empty() ? json() : json::parse(text); }

// The host's side. admit is called for every CREATE, UPDATE and DELETE.
class TestHost {
 public:
  using Admit = std::function<int(std::uint32_t op, const json& before, const json& after,
                                  const egw_reader& reader, const egw_admission_sink& out)>;
  Admit admit;  // empty: admits everything unchanged
  bool serves_admission = false;
  bool existing_only = false;

  [[nodiscard]] sdk::StoreHost services() {
    host_.struct_size = sizeof(host_);
    host_.serves_admission = serves_admission ? 1 : 0;
    host_.existing_only = existing_only ? 1 : 0;
    host_.base.struct_size = sizeof(host_.base);
    host_.base.ctx = this;
    host_.base.log = [](void* ctx, std::int32_t, egw_str message) {
      auto* self = static_cast<TestHost*>(ctx);
      const std::lock_guard lock(self->mutex_);
      self->logged_.emplace_back(sdk::view(message));
    };
    host_.admit_ctx = this;
    host_.admit = [](void* ctx, std::uint32_t op, const egw_object_kind*, egw_str before,
                     egw_str after, const egw_reader* reader, const egw_admission_sink* out) {
      auto* self = static_cast<TestHost*>(ctx);
      if (self->admit) {
        return self->admit(op, parse(sdk::view(before)), parse(sdk::view(after)), *reader, *out);
      }
      if (after.len != 0) out->object(out->ctx, after);
      return static_cast<int>(EGW_OK);
    };
    return sdk::StoreHost(&host_);
  }
  [[nodiscard]] std::vector<std::string> logged() {
    const std::lock_guard lock(mutex_);
    return logged_;
  }

 private:
  egw_store_host host_{};
  std::mutex mutex_;
  std::vector<std::string> logged_;
};

struct Answer {
  sdk::Status status;
  std::uint64_t revision = 0;
  json object;
  std::vector<json> objects;
  std::vector<std::string> warnings;
  [[nodiscard]] bool ok() const { return status.ok(); }
};

inline sdk::ObjectSink sink_to(Answer& answer) {
  return sdk::ObjectSink(egw_object_sink{&answer,
                                         [](void* ctx, std::uint64_t revision, egw_str text) {
                                           auto* a = static_cast<Answer*>(ctx);
                                           a->revision = revision;
                                           a->object = parse(sdk::view(text));
                                           a->objects.push_back(a->object);
                                         },
                                         [](void* ctx, egw_str text) {
                                           static_cast<Answer*>(ctx)->warnings.emplace_back(
                                               sdk::view(text));
                                         }});
}

// The calls that tests make.
class Calls {
 public:
  explicit Calls(sdk::StateStore& store) : store_(store) {}

  struct Options {
    std::uint64_t revision = 0, term = 0;
    bool dry_run = false;
    std::chrono::milliseconds deadline{5000};
  };
  // object: a string is taken as the document's text.
  Answer write(sdk::WriteOp op, const sdk::ObjectKind& kind, const std::string& ns,
               const std::string& name, const json& object, Options options) {
    const std::string text = object.is_null()     ? ""
                             : object.is_string() ? object.get<std::string>()
                                                  : object.dump();
    sdk::Write w;
    w.op = op;
    w.kind = kind;
    w.ns = ns;
    w.name = name;
    w.object = text;
    w.expected_revision = options.revision;
    w.term = options.term;
    w.dry_run = options.dry_run;
    w.deadline = options.deadline;
    Answer answer;
    answer.status = store_.write(w, sink_to(answer));
    return answer;
  }
  Answer create(const sdk::ObjectKind& kind, const std::string& ns, const std::string& name,
                const json& object) {
    return write(sdk::WriteOp::kCreate, kind, ns, name, object, Options());
  }
  Answer update(const sdk::ObjectKind& kind, const std::string& ns, const std::string& name,
                const json& object) {
    return write(sdk::WriteOp::kUpdate, kind, ns, name, object, Options());
  }
  Answer remove(const sdk::ObjectKind& kind, const std::string& ns, const std::string& name) {
    return write(sdk::WriteOp::kDelete, kind, ns, name, json(), Options());
  }
  Answer get(const sdk::ObjectKind& kind, const std::string& ns, const std::string& name) {
    Answer answer;
    answer.status = store_.get(kind, ns, name, sink_to(answer));
    return answer;
  }
  Answer list(const sdk::ObjectKind& kind, const std::string& ns = {},
              const std::string& fields = {}, const std::string& labels = {}) {
    sdk::Query q;
    q.kind = kind;
    q.ns = ns;
    q.fields = fields;
    q.labels = labels;
    Answer answer;
    answer.status = store_.list(q, sink_to(answer));
    return answer;
  }

 private:
  sdk::StateStore& store_;
};

// A subscription that remembers what came.
class Recorder {
 public:
  struct Event {
    int type;
    std::uint64_t revision;
    std::string ns, name, object, message;
    [[nodiscard]] std::string text() const {  // "UPSERT n1", "SNAPSHOT", "DELETE d/p"
      const char* names[] = {"?",      "SNAPSHOT",     "UPSERT",  "DELETE",
                             "SYNCED", "DISCONNECTED", "REVISION"};
      std::string out = names[type];
      if (!name.empty()) out += " " + (ns.empty() ? "" : ns + "/") + name;
      return out;
    }
  };
  Recorder(sdk::StateStore& store, const sdk::ObjectKind& kind, const std::string& ns = {},
           const std::string& name = {}, const std::string& fields = {},
           const std::string& labels = {})
      : store_(store) {
    sdk::Query q;
    q.kind = kind;
    q.ns = ns;
    q.name = name;
    q.fields = fields;
    q.labels = labels;
    number_ = store_.subscribe(q, sdk::EventSink({this, on_event})).value();
  }
  ~Recorder() { store_.unsubscribe(number_); }
  Recorder(const Recorder&) = delete;
  Recorder& operator=(const Recorder&) = delete;

  // Waits for an event; false after the time.
  bool wait(const std::function<bool(const Event&)>& wanted,
            std::chrono::milliseconds longest = 5s) {
    std::unique_lock lock(mutex_);
    return news_.wait_for(lock, longest, [&] {
      while (looked_at_ < events_.size()) {
        if (wanted(events_[looked_at_++])) return true;
      }
      return false;
    });
  }
  bool wait(const std::string& text, std::chrono::milliseconds longest = 5s) {
    return wait([&](const Event& e) { return e.text() == text; }, longest);
  }
  // The text of all events but bookmarks so far; forgets them.
  std::vector<std::string> take() {
    const std::lock_guard lock(mutex_);
    std::vector<std::string> out;
    for (const Event& e : events_) {
      if (e.type != EGW_EVENT_REVISION) out.push_back(e.text());
    }
    events_.clear();
    looked_at_ = 0;
    return out;
  }
  std::vector<Event> events() {
    const std::lock_guard lock(mutex_);
    return events_;
  }

 private:
  static void on_event(void* ctx, const egw_event* e) {
    auto* self = static_cast<Recorder*>(ctx);
    const std::lock_guard lock(self->mutex_);
    self->events_.push_back({static_cast<int>(e->type), e->revision,
                             std::string(sdk::view(e->namespace_)), std::string(sdk::view(e->name)),
                             std::string(sdk::view(e->object)),
                             std::string(sdk::view(e->message))});
    self->news_.notify_all();
  }

  sdk::StateStore& store_;
  std::mutex mutex_;
  std::condition_variable news_;
  std::vector<Event> events_;
  std::size_t looked_at_ = 0;
  std::uint64_t number_ = 0;
};

}  // namespace egw::store_kit
