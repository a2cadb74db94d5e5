// A datapath plugin as host::Datapath.
#include <algorithm>
#include <atomic>

#include "egw/host/convert.hpp"
#include "egw/host/descriptor.hpp"
#include "egw/host/instance.hpp"
#include "egw/host/probe_trial.hpp"
#include "egw/host/proxies.hpp"

namespace egw::host {
namespace {

using boost::asio::awaitable;
using Ops = egw_datapath_ops;

constexpr std::size_t kMaxReports = 1000;  // failures and findings kept of one call
// Packets and bytes of every egress id, and of the classes of two families, with room beside them.
constexpr std::size_t kMaxCounters = 131072;

// Core's side of drift; the plugin's side refers to it weakly.
struct DriftListener {
  std::function<void(std::string)> callback;
};

struct HostContext {
  Worker* worker = nullptr;
  std::weak_ptr<DriftListener> listener;
  std::atomic<bool> posted{false};  // one notice at a time: a full apply answers for all
  std::string layout_dir;
  egw_datapath_host host{};
};

void on_drifted(void* ctx, egw_str what) noexcept {
  auto* self = static_cast<HostContext*>(ctx);
  if (self->posted.exchange(true)) return;
  try {
    std::string text = plain_text(what, 256);
    // A listener that lives means a proxy that lives, and so do the worker and this context.
    self->worker->post([self, weak = self->listener, text = std::move(text)] {
      if (const auto listener = weak.lock()) {
        self->posted = false;
        const auto callback = listener->callback;  // it may replace itself
        if (callback) callback(text);
      }
    });
  } catch (...) {
    self->posted = false;
  }
}

std::string object_name(std::uint32_t type, const std::string& key) {
  switch (type) {
    case EGW_OBJECT_NODE:
      return "node " + key;
    case EGW_OBJECT_PEER:
      return "peer " + key;
    case EGW_OBJECT_EGRESS:
      return "egress " + key;
    case EGW_OBJECT_CLASS:
      return "class " + key;
    case EGW_OBJECT_ENDPOINT:
      return "endpoint " + key;
    default:
      return "object " + key;
  }
}

struct Report {
  ApplyOutcome outcome;
  std::size_t left_out = 0;
  static void failed(void* ctx, std::uint32_t type, egw_str key, std::int32_t sys_errno,
                     egw_str message) noexcept {
    auto* self = static_cast<Report*>(ctx);
    if (self->outcome.failures.size() >= kMaxReports) {
      ++self->left_out;
      return;
    }
    self->outcome.failures.push_back(
        {object_name(type, plain_text(key, 256)), sys_errno, plain_text(message, 512)});
  }
  static void repaired(void* ctx, egw_str what, std::uint64_t count) noexcept {
    auto* self = static_cast<Report*>(ctx);
    if (self->outcome.repaired.size() < kMaxReports) {
      self->outcome.repaired.emplace_back(plain_text(what, 64), count);
    }
  }
};

Result<ApplyOutcome> apply_now(const Ops* ops, void* handle, const std::string& label,
                               const model::Change& change) {
  const auto began = std::chrono::steady_clock::now();
  const AbiChange abi(change);
  Report report;
  const egw_apply_report sink{&report, Report::failed, Report::repaired};
  const ErrorText text(label);
  const std::int32_t status = ops->apply(handle, abi.get(), &sink, text.sink());
  report.outcome.took = std::chrono::duration_cast<std::chrono::microseconds>(
      std::chrono::steady_clock::now() - began);
  if (report.left_out > 0) {
    report.outcome.failures.push_back(
        {"further objects", 0, std::to_string(report.left_out) + " more could not be programmed"});
  }
  if (status == EGW_NEED_FULL) {
    if (change.full) {
      return fail(Errc::kInternal, label,
                  "apply asked for everything when it was given everything");
    }
    report.outcome.need_full = true;
    return std::move(report.outcome);
  }
  if (status == EGW_PARTIAL && report.outcome.failures.empty()) {
    report.outcome.failures.push_back({label, 0, "apply was partial and named no object"});
  }
  if (status != EGW_PARTIAL) {
    if (auto error = text.error(status, "apply")) return tl::unexpected<Error>(std::move(*error));
  }
  return std::move(report.outcome);
}

template <class T>
constexpr std::size_t kMost = kMaxReports;
template <>
constexpr std::size_t kMost<CounterValue> = kMaxCounters;

template <class T>
struct Collected {
  std::vector<T> items;
  void add(T item) {
    if (items.size() < kMost<T>) items.push_back(std::move(item));
  }
};

void take_finding(void* ctx, std::uint32_t ok, egw_str code, egw_str message) noexcept {
  static_cast<Collected<ProbeFinding>*>(ctx)->add(
      {ok != 0, plain_text(code, 64), plain_text(message)});
}

void take_sysctl(void* ctx, egw_str key, egw_str value, std::uint32_t forwarding,
                 egw_str why) noexcept {
  static_cast<Collected<SysctlNeed>*>(ctx)->add(
      {plain_text(key, 256), plain_text(value, 256), plain_text(why, 512), forwarding != 0});
}

void take_counter(void* ctx, egw_str name, egw_str labels, std::uint64_t value) noexcept {
  static_cast<Collected<CounterValue>*>(ctx)->add(
      {plain_text(name, 128), plain_text(labels, 256), value});
}

// What is too long to be a JSON document is not copied.
void take_text(void* ctx, egw_str text) noexcept {
  auto* out = static_cast<std::optional<std::string>*>(ctx);
  out->reset();
  if (text.len <= kMaxJson) out->emplace(raw_view(text));
}

awaitable<Result<ApplyOutcome>> need_full() {
  ApplyOutcome outcome;
  outcome.need_full = true;
  co_return outcome;
}

awaitable<Result<void>> health_of(std::shared_ptr<Instance> instance,
                                  std::function<Result<void>()> work) {
  auto degraded = instance->degraded();
  Result<void> result =
      co_await call<void>(instance, "health", instance->deadlines().call, std::move(work));
  if (result && degraded && instance->degraded()) co_return tl::unexpected<Error>(*degraded);
  co_return result;
}

class PluginDatapath final : public Datapath {
 public:
  PluginDatapath(std::shared_ptr<Instance> instance, std::shared_ptr<DriftListener> listener,
                 const Ops* ops, void* handle, std::string config, DatapathOpening opened)
      : instance_(std::move(instance)),
        listener_(std::move(listener)),
        ops_(ops),
        handle_(handle),
        config_(std::move(config)),
        layout_(std::move(opened.layout)),
        delta_(opened.delta) {}
  ~PluginDatapath() override {
    listener_->callback = nullptr;
    instance_->close();
  }
  PluginDatapath(const PluginDatapath&) = delete;
  PluginDatapath& operator=(const PluginDatapath&) = delete;

  awaitable<Result<std::vector<ProbeFinding>>> probe(model::NodeConfig node) override {
    std::function<Result<std::vector<ProbeFinding>>()> work =
        [ops = ops_, config = config_, label = label(),
         node = std::move(node)]() -> Result<std::vector<ProbeFinding>> {
      const AbiNode abi(node);
      Collected<ProbeFinding> found;
      const egw_probe_sink sink{&found, take_finding};
      const ErrorText text(label);
      const std::int32_t status = ops->probe(to_abi(config), abi.get(), &sink, text.sink());
      if (auto error = text.error(status, "probe")) {
        // The findings say more than the status that sums them up.
        const bool explained = std::any_of(found.items.begin(), found.items.end(),
                                           [](const ProbeFinding& f) { return !f.ok; });
        if (status != EGW_UNSUPPORTED || !explained) {
          return tl::unexpected<Error>(std::move(*error));
        }
      } else {
        for (ProbeFinding& f : found.items) f.advisory = !f.ok;
      }
      return std::move(found.items);
    };
    return call<std::vector<ProbeFinding>>(instance_, "probe", instance_->deadlines().call,
                                           first_in_a_child(std::move(work)));
  }

  awaitable<Result<ApplyOutcome>> apply(model::Change change) override {
    if (!delta_ && !change.full) return need_full();
    std::function<Result<ApplyOutcome>()> work = [ops = ops_, handle = handle_, label = label(),
                                                  change = std::move(change)] {
      return apply_now(ops, handle, label, change);
    };
    return call<ApplyOutcome>(instance_, "apply", instance_->deadlines().apply, std::move(work));
  }

  awaitable<Result<std::vector<SysctlNeed>>> sysctls() override {
    return collect<SysctlNeed>(
        "sysctls", [](const Ops* ops, void* handle, void* out, const egw_error_sink* error) {
          const egw_sysctl_sink sink{out, take_sysctl};
          return ops->sysctls(handle, &sink, error);
        });
  }

  awaitable<Result<std::vector<CounterValue>>> counters() override {
    return collect<CounterValue>(
        "counters", [](const Ops* ops, void* handle, void* out, const egw_error_sink* error) {
          const egw_counter_sink sink{out, take_counter};
          return ops->counters(handle, &sink, error);
        });
  }

  awaitable<Result<nlohmann::json>> observe() override {
    std::function<Result<nlohmann::json>()> work = [ops = ops_, handle = handle_,
                                                    label = label()]() -> Result<nlohmann::json> {
      std::optional<std::string> json;
      const egw_text_sink sink{&json, take_text};
      const ErrorText text(label);
      const std::int32_t status = ops->observe(handle, &sink, text.sink());
      if (auto error = text.error(status, "observe")) {
        return tl::unexpected<Error>(std::move(*error));
      }
      auto document = json ? parse_json(*json) : std::nullopt;
      if (!document) return fail(Errc::kInternal, label, "observe gave no readable JSON");
      return std::move(*document);
    };
    return call<nlohmann::json>(instance_, "observe", instance_->deadlines().call, std::move(work));
  }

  awaitable<Result<void>> health() override {
    std::function<Result<void>()> work =
        simple("health", [](const Ops* ops, void* handle, const egw_error_sink* error) {
          return ops->health(handle, error);
        });
    return health_of(instance_, std::move(work));
  }

  awaitable<Result<void>> forget(model::Address eip) override {
    std::function<Result<void>()> work = [ops = ops_, handle = handle_, label = label(),
                                          eip = to_abi(eip)]() -> Result<void> {
      const ErrorText text(label);
      const std::int32_t status = ops->forget(handle, &eip, text.sink());
      if (auto error = text.error(status, "forget")) {
        return tl::unexpected<Error>(std::move(*error));
      }
      return {};
    };
    return call<void>(instance_, "forget", instance_->deadlines().call, std::move(work));
  }

  awaitable<Result<void>> purge() override {
    std::function<Result<void>()> work =
        simple("purge", [](const Ops* ops, void* handle, const egw_error_sink* error) {
          return ops->purge(handle, error);
        });
    return call<void>(instance_, "purge", instance_->deadlines().apply, std::move(work));
  }

  [[nodiscard]] std::string layout() const override { return layout_; }
  [[nodiscard]] bool hands_over_to(const std::string& layout) const override {
    return !layout.empty() && layout == layout_ && read_struct(ops_).hand_over != nullptr;
  }
  awaitable<Result<void>> hand_over(model::NodeConfig node) override {
    const auto operation = read_struct(ops_).hand_over;
    if (operation == nullptr) return purge();
    std::function<Result<void>()> work = [operation, handle = handle_, label = label(),
                                          node = std::move(node)]() -> Result<void> {
      const AbiNode abi(node);
      const ErrorText text(label);
      const std::int32_t status = operation(handle, abi.get(), text.sink());
      if (auto error = text.error(status, "hand_over")) {
        return tl::unexpected<Error>(std::move(*error));
      }
      return {};
    };
    return call<void>(instance_, "hand_over", instance_->deadlines().apply, std::move(work));
  }

  void on_drift(std::function<void(std::string)> callback) override {
    listener_->callback = std::move(callback);
  }

  [[nodiscard]] unsigned missed_deadlines() const override { return instance_->missed_deadlines(); }

 private:
  [[nodiscard]] std::string label() const { return instance_->worker().label(); }

  // Until a probe has come back whole, its code is run where it can harm nobody; a little earlier
  // than its deadline, so that the one who hangs there is named and not this instance's thread.
  std::function<ProbeAnswer()> first_in_a_child(std::function<ProbeAnswer()> work) const {
    const auto patience = instance_->deadlines().call * 9 / 10;
    return [work = std::move(work), tried = probe_tried_, label = label(), patience] {
      if (*tried) return work();
      ProbeAnswer answer = probe_in_child(work, label, patience);
      *tried = answer.has_value();
      return answer;
    };
  }

  std::function<Result<void>()> simple(const char* name,
                                       std::int32_t (*operation)(const Ops*, void*,
                                                                 const egw_error_sink*)) const {
    return [ops = ops_, handle = handle_, label = label(), name, operation]() -> Result<void> {
      const ErrorText text(label);
      const std::int32_t status = operation(ops, handle, text.sink());
      if (auto error = text.error(status, name)) return tl::unexpected<Error>(std::move(*error));
      return {};
    };
  }

  template <class T>
  awaitable<Result<std::vector<T>>> collect(const char* name,
                                            std::int32_t (*operation)(const Ops*, void*, void*,
                                                                      const egw_error_sink*)) {
    std::function<Result<std::vector<T>>()> work = [ops = ops_, handle = handle_, label = label(),
                                                    name, operation]() -> Result<std::vector<T>> {
      Collected<T> out;
      const ErrorText text(label);
      const std::int32_t status = operation(ops, handle, &out, text.sink());
      if (auto error = text.error(status, name)) return tl::unexpected<Error>(std::move(*error));
      return std::move(out.items);
    };
    return call<std::vector<T>>(instance_, name, instance_->deadlines().call, std::move(work));
  }

  std::shared_ptr<Instance> instance_;
  std::shared_ptr<DriftListener> listener_;
  const Ops* ops_;
  void* handle_;
  std::string config_;
  std::string layout_;
  bool delta_;
  const std::shared_ptr<bool> probe_tried_ = std::make_shared<bool>(false);  // the worker's thread
};

}  // namespace

Result<std::unique_ptr<Datapath>> open_datapath(const Opening& opening,
                                                const DatapathOpening& datapath) {
  const auto* ops = static_cast<const Ops*>(opening.ops);
  const auto listener = std::make_shared<DriftListener>();
  const auto context = std::make_shared<HostContext>();
  context->worker = opening.worker.get();
  context->listener = listener;
  context->host.struct_size = sizeof(context->host);
  context->host.base = host_services(*opening.worker);
  context->host.drifted = on_drifted;
  context->host.drifted_ctx = context.get();
  context->layout_dir = datapath.layout_dir;
  context->host.layout_dir = to_abi(context->layout_dir);
  opening.worker->keep(context);

  const auto handle = open_instance(
      opening,
      [ops, context = context.get(), config = opening.config, state_dir = datapath.state_dir](
          void** out, const egw_error_sink* error) {
        return ops->open(to_abi(config), to_abi(state_dir), &context->host, out, error);
      },
      ops->close);
  if (!handle) return tl::unexpected<Error>(handle.error());
  auto instance = std::make_shared<Instance>(opening.worker, opening.executor, opening.deadlines,
                                             [ops, h = *handle] { ops->close(h); });
  return std::make_unique<PluginDatapath>(std::move(instance), listener, ops, *handle,
                                          opening.config, datapath);
}

}  // namespace egw::host
