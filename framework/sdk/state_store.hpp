// Base class of a state store plugin. An author derives from StateStore, gives the class a
// constructor (std::string_view config_json, sdk::StoreHost host), and writes
// EGW_STATE_STORE_PLUGIN once. The constructor may throw sdk::Failure.
//
// Every std::string_view and every sink reference is borrowed for the call; EventSink and StoreHost
// are handles that may be kept.
#pragma once

#include <chrono>
#include <string>
#include <vector>

#include "egw/abi/state_store.h"
#include "egw/sdk/plugin.hpp"

namespace egw::sdk {

struct ObjectKind {
  std::string_view group, version, kind, plural;
  bool namespaced = false;

  ObjectKind() = default;
  explicit ObjectKind(const egw_object_kind& k)
      : group(view(k.group)),
        version(view(k.version)),
        kind(view(k.kind)),
        plural(view(k.plural)),
        namespaced(k.namespaced != 0) {}
  [[nodiscard]] egw_object_kind abi() const {
    egw_object_kind k{};
    k.struct_size = sizeof(k);
    k.namespaced = namespaced ? 1 : 0;
    k.group = str(group);
    k.version = str(version);
    k.kind = str(kind);
    k.plural = str(plural);
    return k;
  }
};

// Empty: no restriction. fields: "spec.nodeName=n1,..."; labels: "a=b,c!=d,e in (f,g),h,!i".
struct Query {
  ObjectKind kind;
  std::string_view ns, name, fields, labels;
  bool metadata_only = false;  // nothing but metadata is looked at; more may be given

  Query() = default;
  explicit Query(const egw_query& q)
      : kind(q.kind),
        ns(view(q.namespace_)),
        name(view(q.name)),
        fields(view(q.fields)),
        labels(view(q.labels)),
        metadata_only(q.metadata_only != 0) {}
};

enum class WriteOp : std::uint32_t {
  kCreate = EGW_WRITE_CREATE,
  kUpdate = EGW_WRITE_UPDATE,
  kUpdateStatus = EGW_WRITE_UPDATE_STATUS,
  kDelete = EGW_WRITE_DELETE,
};

struct Write {
  WriteOp op = WriteOp::kCreate;
  ObjectKind kind;
  std::string_view ns, name, object;
  std::uint64_t expected_revision = 0;  // 0: whatever is stored
  std::uint64_t term = 0;               // 0: not written by a leader
  bool dry_run = false;
  std::chrono::milliseconds deadline{0};  // of the whole call

  Write() = default;
  explicit Write(const egw_write& w)
      : op(static_cast<WriteOp>(w.op)),
        kind(w.kind),
        ns(view(w.namespace_)),
        name(view(w.name)),
        object(view(w.object)),
        expected_revision(w.expected_revision),
        term(w.term),
        dry_run(w.dry_run != 0),
        deadline(w.deadline_ms) {}
};

// Takes the objects of get, list and write.
class ObjectSink {
 public:
  explicit ObjectSink(const egw_object_sink& sink) : sink_(sink) {}
  void object(std::uint64_t revision, std::string_view json) const {
    sink_.object(sink_.ctx, revision, str(json));
  }
  void warning(std::string_view text) const { sink_.warning(sink_.ctx, str(text)); }

 private:
  egw_object_sink sink_;
};

// Takes a subscription's events: snapshot() upsert()* synced(), again after every disconnected(),
// then changes in the order of their revisions. From any one thread at a time; no more after
// unsubscribe() has returned.
class EventSink {
 public:
  EventSink() = default;
  explicit EventSink(const egw_event_sink& sink) : sink_(sink) {}

  // store: which one, by a text that it was given when it was made; empty: not said.
  void snapshot(std::string_view store = {}) const noexcept {
    send(EGW_EVENT_SNAPSHOT, 0, {}, {}, {}, {}, store);
  }
  void upsert(std::uint64_t revision, std::string_view ns, std::string_view name,
              std::string_view json) const noexcept {
    send(EGW_EVENT_UPSERT, revision, ns, name, json, {});
  }
  // json: the last document known, or empty.
  void deleted(std::uint64_t revision, std::string_view ns, std::string_view name,
               std::string_view json) const noexcept {
    send(EGW_EVENT_DELETE, revision, ns, name, json, {});
  }
  void synced(std::uint64_t revision) const noexcept {
    send(EGW_EVENT_SYNCED, revision, {}, {}, {}, {});
  }
  void disconnected(std::string_view why) const noexcept {
    send(EGW_EVENT_DISCONNECTED, 0, {}, {}, {}, why);
  }
  void revision(std::uint64_t revision) const noexcept {
    send(EGW_EVENT_REVISION, revision, {}, {}, {}, {});
  }

 private:
  void send(egw_event_type type, std::uint64_t revision, std::string_view ns, std::string_view name,
            std::string_view object, std::string_view message,
            std::string_view store = {}) const noexcept {
    egw_event e{};
    e.struct_size = sizeof(e);
    e.type = type;
    e.revision = revision;
    e.namespace_ = str(ns);
    e.name = str(name);
    e.object = str(object);
    e.message = str(message);
    e.store = str(store);
    sink_.event(sink_.ctx, &e);
  }
  egw_event_sink sink_{};
};

// Reads other objects for admission, inside the write's transaction; the store implements it.
class Reader {
 public:
  virtual ~Reader() = default;
  // kNotFound when there is no such object.
  virtual Status get(const ObjectKind& kind, std::string_view ns, std::string_view name,
                     const ObjectSink& out) = 0;
  virtual Status list(const ObjectKind& kind, const ObjectSink& out) = 0;
};

struct Admission {
  bool admitted = false;
  std::string object;  // what to store; empty for a delete
  std::vector<std::string> warnings, denials;
};

class StoreHost : public Host {
 public:
  StoreHost() = default;
  explicit StoreHost(const egw_store_host* host)
      : Host(host == nullptr ? nullptr : &host->base), host_(read_struct(host)) {}

  // This process answers for writes of others too (egw_store_host).
  [[nodiscard]] bool serves_admission() const { return host_.serves_admission != 0; }

  // This process only looks: no store is made where there is none (egw_store_host).
  [[nodiscard]] bool existing_only() const { return host_.existing_only != 0; }

  // Asks the framework's admission; thread-safe. old_json is empty on create, new_json on delete.
  // Not for kUpdateStatus.
  [[nodiscard]] Admission admit(WriteOp op, const ObjectKind& kind, std::string_view old_json,
                                std::string_view new_json, Reader& reader) const {
    Admission answer;
    if (host_.admit == nullptr) {
      answer.denials.emplace_back("the host offers no admission");
      return answer;
    }
    const egw_admission_sink sink{&answer, on_object, on_warning, on_denial};
    const egw_reader abi_reader{&reader, read_get, read_list};
    const egw_object_kind abi_kind = kind.abi();
    const std::int32_t status =
        host_.admit(host_.admit_ctx, static_cast<std::uint32_t>(op), &abi_kind, str(old_json),
                    str(new_json), &abi_reader, &sink);
    answer.admitted = status == EGW_OK && answer.denials.empty();
    if (!answer.admitted && answer.denials.empty()) {
      answer.denials.emplace_back("the host's admission failed with status " +
                                  std::to_string(status));
    }
    return answer;
  }

 private:
  static void on_object(void* ctx, egw_str json) noexcept {
    static_cast<Admission*>(ctx)->object.assign(view(json));
  }
  static void on_warning(void* ctx, egw_str text) noexcept {
    static_cast<Admission*>(ctx)->warnings.emplace_back(view(text));
  }
  static void on_denial(void* ctx, egw_str text) noexcept {
    static_cast<Admission*>(ctx)->denials.emplace_back(view(text));
  }
  static std::int32_t read_get(void* ctx, const egw_object_kind* kind, egw_str ns, egw_str name,
                               const egw_object_sink* out) noexcept {
    return detail::guarded(nullptr, [&] {
      return static_cast<Reader*>(ctx)->get(ObjectKind(read_struct(kind)), view(ns), view(name),
                                            ObjectSink(*out));
    });
  }
  static std::int32_t read_list(void* ctx, const egw_object_kind* kind,
                                const egw_object_sink* out) noexcept {
    return detail::guarded(nullptr, [&] {
      return static_cast<Reader*>(ctx)->list(ObjectKind(read_struct(kind)), ObjectSink(*out));
    });
  }
  egw_store_host host_{};
};

class StateStore {
 public:
  StateStore() = default;
  StateStore(const StateStore&) = delete;
  StateStore& operator=(const StateStore&) = delete;
  virtual ~StateStore() = default;

  // Answers with a number for unsubscribe() and delivers from then on, from any thread. Called
  // back before it has returned is allowed too.
  virtual Outcome<std::uint64_t> subscribe(const Query& query, EventSink sink) = 0;
  // No event of that subscription is delivered after it has returned. Unknown number: nothing.
  virtual void unsubscribe(std::uint64_t subscription) = 0;
  virtual Status get(const ObjectKind& kind, std::string_view ns, std::string_view name,
                     const ObjectSink& out) = 0;
  virtual Status list(const Query& query, const ObjectSink& out) = 0;
  // On success the stored object goes to `out` (for a finished delete: the last document).
  virtual Status write(const Write& write, const ObjectSink& out) = 0;
  // ok, or kUnavailable with the reason.
  virtual Status health() = 0;
};

namespace detail {

template <class Class>
struct StateStoreThunks {
  static std::int32_t open(egw_str config, const egw_store_host* host, void** instance,
                           const egw_error_sink* error) {
    return guarded(error, [&] {
      const StoreHost services(host);
      *instance = new Instance<Class>(services, view(config), services);
      return ok();
    });
  }
  static std::int32_t subscribe(void* instance, const egw_query* query, const egw_event_sink* sink,
                                std::uint64_t* subscription, const egw_error_sink* error) {
    return guarded(error, [&] {
      Outcome<std::uint64_t> number =
          object_of<Class>(instance).subscribe(Query(read_struct(query)), EventSink(*sink));
      if (number.ok()) *subscription = *number;
      return number.status();
    });
  }
  static void unsubscribe(void* instance, std::uint64_t subscription) {
    guarded_void(static_cast<Instance<Class>*>(instance)->host, "unsubscribe",
                 [&] { object_of<Class>(instance).unsubscribe(subscription); });
  }
  static std::int32_t get(void* instance, const egw_object_kind* kind, egw_str ns, egw_str name,
                          const egw_object_sink* out, const egw_error_sink* error) {
    return guarded(error, [&] {
      return object_of<Class>(instance).get(ObjectKind(read_struct(kind)), view(ns), view(name),
                                            ObjectSink(*out));
    });
  }
  static std::int32_t list(void* instance, const egw_query* query, const egw_object_sink* out,
                           const egw_error_sink* error) {
    return guarded(error, [&] {
      return object_of<Class>(instance).list(Query(read_struct(query)), ObjectSink(*out));
    });
  }
  static std::int32_t write(void* instance, const egw_write* request, const egw_object_sink* out,
                            const egw_error_sink* error) {
    return guarded(error, [&] {
      return object_of<Class>(instance).write(Write(read_struct(request)), ObjectSink(*out));
    });
  }
  static std::int32_t health(void* instance, const egw_error_sink* error) {
    return guarded(error, [&] { return object_of<Class>(instance).health(); });
  }
  static constexpr egw_state_store_ops kOps{sizeof(egw_state_store_ops),
                                            0,
                                            open,
                                            detail::close<Class>,
                                            subscribe,
                                            unsubscribe,
                                            get,
                                            list,
                                            write,
                                            health};
};

}  // namespace detail
}  // namespace egw::sdk

// name: as in the file name egw-statestore-<name>.so. schema: JSON Schema of the configuration, ""
// when there is none. All three are string literals or constexpr std::string_view.
#define EGW_STATE_STORE_PLUGIN(Class, name, version, schema)                                      \
  EGW_SDK_ENTRY(Class, EGW_KIND_STATE_STORE, ::egw::sdk::detail::StateStoreThunks, name, version, \
                schema, ::egw::sdk::detail::capabilities_of<Class>())
