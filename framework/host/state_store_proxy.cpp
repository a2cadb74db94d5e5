// A state store plugin as host::StateStore.
#include <atomic>
#include <mutex>
#include <utility>
#include <vector>

#include "egw/host/convert.hpp"
#include "egw/host/descriptor.hpp"
#include "egw/host/instance.hpp"
#include "egw/host/proxies.hpp"
#include "egw/host/store_admission.hpp"
#include "egw/model/pod_text.hpp"

namespace egw::host {
namespace {

using boost::asio::awaitable;
using Ops = egw_state_store_ops;

constexpr std::size_t kMaxName = 512;
// What the host waits beyond the deadline that it gave the plugin.
constexpr Worker::Milliseconds kGrace{250};

// ---- objects out of get, list, write ----------------------------------------------------------

struct Objects {
  std::vector<StoredObject> objects;
  std::vector<std::string> warnings;
  bool unreadable = false;

  static void object(void* ctx, std::uint64_t revision, egw_str text) noexcept {
    auto* self = static_cast<Objects*>(ctx);
    auto document = parse_json(raw_view(text));
    if (document && document->is_object()) {
      self->objects.push_back({std::move(*document), revision});
    } else {
      self->unreadable = true;
    }
  }
  static void warning(void* ctx, egw_str text) noexcept {
    auto* self = static_cast<Objects*>(ctx);
    if (self->warnings.size() < 128) self->warnings.push_back(plain_text(text));
  }
  [[nodiscard]] egw_object_sink sink() { return {this, object, warning}; }
};

// What crosses for one query; owns the strings that the ABI struct points to.
struct AbiQuery {
  explicit AbiQuery(Query q) : query(std::move(q)) {}
  [[nodiscard]] egw_query abi() const {
    egw_query out{};
    out.struct_size = sizeof(out);
    out.kind = to_abi(query.kind);
    out.namespace_ = to_abi(query.ns);
    out.name = to_abi(query.name);
    out.fields = to_abi(query.fields);
    out.labels = to_abi(query.labels);
    out.metadata_only = query.metadata_only ? 1 : 0;
    return out;
  }
  Query query;
};

// ---- subscriptions ----------------------------------------------------------------------------

// Core's side.
struct Listener {
  std::function<void(StoreEvent)> on_event;
  bool alive = true;
};

// An event on its way to the core.
struct Arrival {
  StoreEvent event{};
  std::optional<std::string> text;  // of its document, if the core makes that
  std::string fault;                // why it cannot be read
};
constexpr const char* kNoObject = "its object is no readable JSON";

// The plugin's side: kept by the worker as long as the plugin may call, refers to the core weakly.
struct Feed : std::enable_shared_from_this<Feed> {
  Worker* worker = nullptr;
  Query query;
  std::weak_ptr<Listener> listener;
  std::atomic<bool> over{false};
  std::atomic<bool> in_snapshot{false};
  std::mutex mutex;  // of what waits
  std::vector<Arrival> waiting;
  // Worker's thread only.
  bool subscribed = false;
  std::uint64_t number = 0;
  // The core's thread only.
  std::uint64_t unreadable = 0;
};

std::optional<StoreEvent::Type> event_type(std::uint32_t type) {
  switch (type) {
    case EGW_EVENT_SNAPSHOT:
      return StoreEvent::Type::kSnapshot;
    case EGW_EVENT_UPSERT:
      return StoreEvent::Type::kUpsert;
    case EGW_EVENT_DELETE:
      return StoreEvent::Type::kDelete;
    case EGW_EVENT_SYNCED:
      return StoreEvent::Type::kSynced;
    case EGW_EVENT_DISCONNECTED:
      return StoreEvent::Type::kDisconnected;
    case EGW_EVENT_REVISION:
      return StoreEvent::Type::kRevision;
    default:
      return std::nullopt;
  }
}

// Of a snapshot the core makes the documents, one by one, while the plugin reads on. A large one
// would hold it up.
bool is_for_core(const Feed& feed, std::string_view text) {
  constexpr std::size_t kMost = 16UL * 1024;
  return feed.in_snapshot && text.size() <= kMost;
}

// False: it is no object.
bool make_document(std::string_view text, StoreEvent& event) {
  auto document = parse_json(text);
  if (!document || !document->is_object()) return false;
  event.document = std::move(*document);
  return true;
}

void read_object(const Feed& feed, std::string_view text, Arrival& out) {
  // A delete says what it has to say by its name.
  if (out.event.type == StoreEvent::Type::kDelete) {
    static_cast<void>(make_document(text, out.event));
    return;
  }
  const Query& query = feed.query;
  std::optional<std::string> part;
  if (text.size() <= kMaxJson) {
    const bool reads = query.pods_read && query.kind == model::Kind::kPod;
    if (reads) out.event.pod = model::read_pod(text);
    if (out.event.pod) return;
    if (query.trim != nullptr) part = query.trim(text);
  }
  if (part) text = *part;
  if (is_for_core(feed, text)) {
    out.text.emplace(text);
  } else if (!make_document(text, out.event)) {
    out.fault = kNoObject;
  }
}

Arrival read_event(const egw_event& e, const Feed& feed) {
  Arrival out;
  out.event.type = StoreEvent::Type::kUpsert;
  out.event.key.name = raw_view(e.name).substr(0, kMaxName);
  const auto type = event_type(e.type);
  if (!type) {
    out.fault = "the type " + std::to_string(e.type) + " is unknown";
    return out;
  }
  out.event.type = *type;
  out.event.revision = e.revision;
  out.event.message = plain_text(e.message);
  out.event.store = plain_text(e.store, 256);
  if (*type != StoreEvent::Type::kUpsert && *type != StoreEvent::Type::kDelete) return out;
  if (e.name.len == 0 || e.name.len > kMaxName || e.namespace_.len > kMaxName) {
    out.fault = "its name or namespace is empty or too long";
    return out;
  }
  out.event.key.ns = raw_view(e.namespace_);
  read_object(feed, raw_view(e.object), out);
  return out;
}

// The first, and then every thousandth: a store gone mad must not fill the disk.
void leave_out(Feed& feed, const std::string& name, const std::string& fault) {
  if (feed.unreadable++ % 1000 != 0) return;
  feed.worker->log(EGW_LOG_ERROR, "an event of " +
                                      std::string(model::info(feed.query.kind).plural) + " (" +
                                      plain_text(name, 256) + ") was left out: " + fault);
}

// On the core's thread.
void deliver(Feed& feed, Listener& listener, Arrival arrival) {
  if (arrival.text && !make_document(*arrival.text, arrival.event)) arrival.fault = kNoObject;
  if (!arrival.fault.empty()) return leave_out(feed, arrival.event.key.name, arrival.fault);
  arrival.text.reset();
  listener.on_event(std::move(arrival.event));
}

// Of a snapshot many at once: nobody acts on it before its end, which goes out with all before it.
void hand_over(Feed& feed, Arrival arrival) {
  constexpr std::size_t kAtOnce = 128;
  const std::lock_guard lock(feed.mutex);
  const auto type = arrival.event.type;
  if (type == StoreEvent::Type::kSnapshot) feed.in_snapshot = true;
  if (type == StoreEvent::Type::kSynced || type == StoreEvent::Type::kDisconnected) {
    feed.in_snapshot = false;
  }
  if (feed.in_snapshot && feed.waiting.empty()) feed.waiting.reserve(kAtOnce);
  feed.waiting.push_back(std::move(arrival));
  if (feed.in_snapshot && feed.waiting.size() < kAtOnce) return;
  feed.worker->post(
      [feed = feed.shared_from_this(), arrivals = std::exchange(feed.waiting, {})]() mutable {
        const auto listener = feed->listener.lock();
        for (Arrival& each : arrivals) {
          if (!listener || !listener->alive) return;
          deliver(*feed, *listener, std::move(each));
        }
      });
}

void on_event(void* ctx, const egw_event* raw) noexcept {
  auto* feed = static_cast<Feed*>(ctx);
  if (feed->over || raw == nullptr) return;
  try {
    hand_over(*feed, read_event(read_struct(raw), *feed));
  } catch (const std::exception& ex) {
    feed->worker->log(EGW_LOG_ERROR, std::string("an event was lost: ") + ex.what());
  }
}

class PluginSubscription final : public Subscription {
 public:
  PluginSubscription(std::shared_ptr<Instance> instance, const Ops* ops, void* handle,
                     const Query& query, std::function<void(StoreEvent)> on_event)
      : instance_(std::move(instance)),
        listener_(std::make_shared<Listener>()),
        feed_(std::make_shared<Feed>()),
        ops_(ops),
        handle_(handle) {
    listener_->on_event = std::move(on_event);
    feed_->worker = &instance_->worker();
    feed_->query = query;
    feed_->listener = listener_;
    feed_->worker->keep(feed_);
  }
  // No callback from here on; the plugin is told when its thread comes to it. A subscribe that came
  // back too late is undone by the same.
  ~PluginSubscription() override {
    listener_->alive = false;
    feed_->over = true;
    instance_->worker().enqueue("unsubscribe", instance_->deadlines().call,
                                [feed = feed_, ops = ops_, handle = handle_] {
                                  if (!feed->subscribed) return;
                                  feed->subscribed = false;
                                  ops->unsubscribe(handle, feed->number);
                                });
  }
  PluginSubscription(const PluginSubscription&) = delete;
  PluginSubscription& operator=(const PluginSubscription&) = delete;

  [[nodiscard]] const std::shared_ptr<Feed>& feed() const { return feed_; }

 private:
  std::shared_ptr<Instance> instance_;
  std::shared_ptr<Listener> listener_;
  std::shared_ptr<Feed> feed_;
  const Ops* ops_;
  void* handle_;
};

awaitable<Result<std::unique_ptr<Subscription>>> subscribe_to(
    std::shared_ptr<Instance> instance, const Ops* ops, void* handle, Query query,
    std::function<void(StoreEvent)> callback) {
  auto subscription =
      std::make_unique<PluginSubscription>(instance, ops, handle, query, std::move(callback));
  std::function<Result<void>()> work = [ops, handle, feed = subscription->feed(),
                                        query = AbiQuery(std::move(query)),
                                        label = instance->worker().label()]() -> Result<void> {
    const egw_query abi = query.abi();
    const egw_event_sink sink{feed.get(), on_event};
    const ErrorText text(label);
    const std::int32_t status = ops->subscribe(handle, &abi, &sink, &feed->number, text.sink());
    if (auto error = text.error(status, "subscribe")) {
      feed->over = true;
      return tl::unexpected<Error>(std::move(*error));
    }
    feed->subscribed = true;
    return {};
  };
  auto result =
      co_await call<void>(instance, "subscribe", instance->deadlines().call, std::move(work));
  if (!result) co_return tl::unexpected<Error>(std::move(result.error()));
  std::unique_ptr<Subscription> out = std::move(subscription);
  co_return std::move(out);
}

// ---- the store --------------------------------------------------------------------------------

std::uint32_t to_abi_op(WriteRequest::Op op) {
  switch (op) {
    case WriteRequest::Op::kCreate:
      return EGW_WRITE_CREATE;
    case WriteRequest::Op::kUpdate:
      return EGW_WRITE_UPDATE;
    case WriteRequest::Op::kUpdateStatus:
      return EGW_WRITE_UPDATE_STATUS;
    case WriteRequest::Op::kDelete:
      break;
  }
  return EGW_WRITE_DELETE;
}

Result<StoredObject> one_object(Objects& out, const std::string& label, const char* operation) {
  if (out.objects.size() != 1 || out.unreadable) {
    return fail(Errc::kInternal, label,
                std::string(operation) + " succeeded and gave no readable object");
  }
  return std::move(out.objects.front());
}

Result<WriteOutcome> write_now(const Ops* ops, void* handle, const std::string& label,
                               const WriteRequest& request) {
  const std::string object =
      request.op == WriteRequest::Op::kDelete ? std::string() : dump_json(request.document);
  egw_write abi{};
  abi.struct_size = sizeof(abi);
  abi.op = to_abi_op(request.op);
  abi.kind = to_abi(request.kind);
  abi.namespace_ = to_abi(request.key.ns);
  abi.name = to_abi(request.key.name);
  abi.object = to_abi(object);
  abi.expected_revision = request.expected_revision;
  abi.term = request.term;
  abi.dry_run = request.dry_run ? 1 : 0;
  abi.deadline_ms = static_cast<std::uint32_t>(request.deadline.count());
  Objects out;
  const egw_object_sink sink = out.sink();
  const ErrorText text(label);
  const std::int32_t status = ops->write(handle, &abi, &sink, text.sink());
  if (auto error = text.error(status, "write")) return tl::unexpected<Error>(std::move(*error));
  auto stored = one_object(out, label, "write");
  if (!stored) return tl::unexpected<Error>(std::move(stored.error()));
  return WriteOutcome{std::move(*stored), std::move(out.warnings)};
}

awaitable<Result<void>> health_of(std::shared_ptr<Instance> instance,
                                  std::function<Result<void>()> work) {
  const auto degraded = instance->degraded();
  Result<void> result =
      co_await call<void>(instance, "health", instance->deadlines().call, std::move(work));
  if (result && degraded && instance->degraded()) co_return tl::unexpected<Error>(*degraded);
  co_return result;
}

class PluginStateStore final : public StateStore {
 public:
  PluginStateStore(std::shared_ptr<Instance> instance, std::shared_ptr<StoreAdmission> context,
                   const Ops* ops, void* handle)
      : instance_(std::move(instance)), context_(std::move(context)), ops_(ops), handle_(handle) {}
  ~PluginStateStore() override {
    instance_->close();
    context_->revoke();
  }
  PluginStateStore(const PluginStateStore&) = delete;
  PluginStateStore& operator=(const PluginStateStore&) = delete;

  awaitable<Result<std::unique_ptr<Subscription>>> subscribe(
      Query query, std::function<void(StoreEvent)> callback) override {
    return subscribe_to(instance_, ops_, handle_, std::move(query), std::move(callback));
  }

  awaitable<Result<StoredObject>> get(model::Kind kind, model::Key key) override {
    std::function<Result<StoredObject>()> work = [ops = ops_, handle = handle_, label = label(),
                                                  kind,
                                                  key = std::move(key)]() -> Result<StoredObject> {
      const egw_object_kind abi = to_abi(kind);
      Objects out;
      const egw_object_sink sink = out.sink();
      const ErrorText text(label);
      const std::int32_t status =
          ops->get(handle, &abi, to_abi(key.ns), to_abi(key.name), &sink, text.sink());
      if (auto error = text.error(status, "get")) return tl::unexpected<Error>(std::move(*error));
      return one_object(out, label, "get");
    };
    return call<StoredObject>(instance_, "get", instance_->deadlines().call, std::move(work));
  }

  awaitable<Result<std::vector<StoredObject>>> list(Query query) override {
    using Answer = Result<std::vector<StoredObject>>;
    std::function<Answer()> work = [ops = ops_, handle = handle_, label = label(),
                                    query = AbiQuery(std::move(query))]() -> Answer {
      const egw_query abi = query.abi();
      Objects out;
      const egw_object_sink sink = out.sink();
      const ErrorText text(label);
      const std::int32_t status = ops->list(handle, &abi, &sink, text.sink());
      if (auto error = text.error(status, "list")) return tl::unexpected<Error>(std::move(*error));
      if (out.unreadable) {
        return fail(Errc::kInternal, label, "list gave an object that is no readable JSON");
      }
      return std::move(out.objects);
    };
    return call<std::vector<StoredObject>>(instance_, "list", instance_->deadlines().call,
                                           std::move(work));
  }

  awaitable<Result<WriteOutcome>> write(WriteRequest request) override {
    const auto deadline = request.deadline + kGrace;
    std::function<Result<WriteOutcome>()> work = [ops = ops_, handle = handle_, label = label(),
                                                  request = std::move(request)] {
      return write_now(ops, handle, label, request);
    };
    return call<WriteOutcome>(instance_, "write", deadline, std::move(work));
  }

  awaitable<Result<void>> health() override {
    std::function<Result<void>()> work = [ops = ops_, handle = handle_,
                                          label = label()]() -> Result<void> {
      const ErrorText text(label);
      const std::int32_t status = ops->health(handle, text.sink());
      if (auto error = text.error(status, "health")) {
        return tl::unexpected<Error>(std::move(*error));
      }
      return {};
    };
    return health_of(instance_, std::move(work));
  }

 private:
  [[nodiscard]] std::string label() const { return instance_->worker().label(); }

  std::shared_ptr<Instance> instance_;
  std::shared_ptr<StoreAdmission> context_;
  const Ops* ops_;
  void* handle_;
};

}  // namespace

Result<std::unique_ptr<StateStore>> open_state_store(const Opening& opening, AdmitFn admit,
                                                     StoreUse use) {
  const auto* ops = static_cast<const Ops*>(opening.ops);
  const auto context = std::make_shared<StoreAdmission>();
  context->offer(std::move(admit));
  context->host.struct_size = sizeof(context->host);
  context->host.serves_admission = use == StoreUse::kServes ? 1 : 0;
  context->host.existing_only = use == StoreUse::kLooks ? 1 : 0;
  context->host.base = host_services(*opening.worker);
  context->host.admit = StoreAdmission::on_admit;
  context->host.admit_ctx = context.get();
  opening.worker->keep(context);
  const auto handle = open_instance(
      opening,
      [ops, context = context.get(), config = opening.config](void** out,
                                                              const egw_error_sink* error) {
        return ops->open(to_abi(config), &context->host, out, error);
      },
      ops->close);
  if (!handle) {
    context->revoke();
    return tl::unexpected<Error>(handle.error());
  }
  auto instance = std::make_shared<Instance>(opening.worker, opening.executor, opening.deadlines,
                                             [ops, h = *handle] { ops->close(h); });
  return std::make_unique<PluginStateStore>(std::move(instance), context, ops, *handle);
}

}  // namespace egw::host
