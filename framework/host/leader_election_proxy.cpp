// A leader election plugin as host::LeaderElection.
#include <atomic>

#include "egw/abi/leader_election.h"
#include "egw/host/convert.hpp"
#include "egw/host/instance.hpp"
#include "egw/host/proxies.hpp"

namespace egw::host {
namespace {

using boost::asio::awaitable;
using Ops = egw_leader_election_ops;

// Core's side of a campaign.
struct Listener {
  ElectionEvents events;
  bool alive = true;
};

// The plugin's side: kept by the worker, refers to the core weakly.
struct Campaign {
  Worker* worker = nullptr;
  std::weak_ptr<Listener> listener;
  std::atomic<bool> over{false};

  template <class Notice>
  void post(Notice notice) noexcept {
    if (over) return;
    try {
      worker->post([weak = listener, notice = std::move(notice)] {
        const auto l = weak.lock();
        if (l && l->alive) notice(l->events);
      });
    } catch (...) {
      worker->log(EGW_LOG_ERROR, "no memory for an election event");
    }
  }
  static void elected(void* ctx, std::uint64_t epoch) noexcept {
    static_cast<Campaign*>(ctx)->post([epoch](const ElectionEvents& events) {
      if (events.elected) events.elected(epoch);
    });
  }
  static void lost(void* ctx, egw_str reason) noexcept {
    static_cast<Campaign*>(ctx)->post(
        [text = plain_text(reason, 512)](const ElectionEvents& events) {
          if (events.lost) events.lost(text);
        });
  }
  static void observed(void* ctx, egw_str holder, std::uint64_t epoch) noexcept {
    static_cast<Campaign*>(ctx)->post(
        [text = plain_text(holder, 256), epoch](const ElectionEvents& events) {
          if (events.observed) events.observed(text, epoch);
        });
  }
};

struct Parts {
  std::shared_ptr<Instance> instance;
  const Ops* ops = nullptr;
  void* handle = nullptr;
  // Of the last campaign; both empty before the first.
  std::shared_ptr<Listener> listener;
  std::shared_ptr<Campaign> campaign;

  void end() {
    if (listener) listener->alive = false;
    if (campaign) campaign->over = true;
    listener.reset();
  }
};

awaitable<Result<void>> campaign(std::shared_ptr<Parts> parts, ElectionEvents events) {
  const std::string label = parts->instance->worker().label();
  if (parts->listener) co_return fail(Errc::kInvalid, label, "a campaign runs already");
  parts->listener = std::make_shared<Listener>();
  parts->listener->events = std::move(events);
  const auto mine = parts->listener;
  const auto context = std::make_shared<Campaign>();
  context->worker = &parts->instance->worker();
  context->listener = mine;
  parts->campaign = context;
  context->worker->keep(context);

  const Ops* ops = parts->ops;
  void* handle = parts->handle;
  std::function<Result<void>()> work = [ops, handle, label,
                                        context = context.get()]() -> Result<void> {
    const egw_election_sink sink{context, Campaign::elected, Campaign::lost, Campaign::observed};
    const ErrorText text(label);
    const std::int32_t status = ops->campaign(handle, &sink, text.sink());
    if (auto error = text.error(status, "campaign")) {
      return tl::unexpected<Error>(std::move(*error));
    }
    return {};
  };
  auto result = co_await call<void>(parts->instance, "campaign", parts->instance->deadlines().call,
                                    std::move(work));
  if (!result && parts->listener == mine) {
    parts->end();
    // It may have begun after all, when it came back too late.
    if (result.error().code == Errc::kTimeout) {
      parts->instance->worker().enqueue("resign", parts->instance->deadlines().call,
                                        [ops, handle] { ops->resign(handle); });
    }
  }
  co_return result;
}

awaitable<void> resign(std::shared_ptr<Parts> parts) {
  const auto mine = parts->listener;
  std::function<Result<void>()> work = [ops = parts->ops,
                                        handle = parts->handle]() -> Result<void> {
    ops->resign(handle);
    return {};
  };
  const auto result = co_await call<void>(parts->instance, "resign",
                                          parts->instance->deadlines().call, std::move(work));
  if (parts->listener == mine) parts->end();
  if (!result) parts->instance->worker().log(EGW_LOG_WARN, result.error().message);
}

awaitable<Result<void>> health(std::shared_ptr<Parts> parts) {
  const auto degraded = parts->instance->degraded();
  std::function<Result<void>()> work = [ops = parts->ops, handle = parts->handle,
                                        label =
                                            parts->instance->worker().label()]() -> Result<void> {
    const ErrorText text(label);
    const std::int32_t status = ops->health(handle, text.sink());
    if (auto error = text.error(status, "health")) return tl::unexpected<Error>(std::move(*error));
    return {};
  };
  auto result = co_await call<void>(parts->instance, "health", parts->instance->deadlines().call,
                                    std::move(work));
  if (result && degraded && parts->instance->degraded()) co_return tl::unexpected<Error>(*degraded);
  co_return result;
}

class PluginLeaderElection final : public LeaderElection {
 public:
  explicit PluginLeaderElection(std::shared_ptr<Parts> parts) : parts_(std::move(parts)) {}
  ~PluginLeaderElection() override {
    parts_->end();
    parts_->instance->close();
  }
  PluginLeaderElection(const PluginLeaderElection&) = delete;
  PluginLeaderElection& operator=(const PluginLeaderElection&) = delete;

  awaitable<Result<void>> campaign(ElectionEvents events) override {
    return host::campaign(parts_, std::move(events));
  }
  awaitable<void> resign() override { return host::resign(parts_); }
  awaitable<Result<void>> health() override { return host::health(parts_); }

 private:
  std::shared_ptr<Parts> parts_;
};

}  // namespace

// An election without a view of its own health has none to complain of.
awaitable<Result<void>> LeaderElection::health() { co_return Result<void>(); }

Result<std::unique_ptr<LeaderElection>> open_leader_election(const Opening& opening,
                                                             const std::string& identity) {
  const auto* ops = static_cast<const Ops*>(opening.ops);
  const auto services = std::make_shared<egw_host>(host_services(*opening.worker));
  opening.worker->keep(services);
  const auto handle = open_instance(
      opening,
      [ops, services = services.get(), config = opening.config, identity](
          void** out, const egw_error_sink* error) {
        return ops->open(to_abi(config), to_abi(identity), services, out, error);
      },
      ops->close);
  if (!handle) return tl::unexpected<Error>(handle.error());
  const auto parts = std::make_shared<Parts>();
  parts->ops = ops;
  parts->handle = *handle;
  parts->instance = std::make_shared<Instance>(opening.worker, opening.executor, opening.deadlines,
                                               [ops, h = *handle] { ops->close(h); });
  return std::make_unique<PluginLeaderElection>(parts);
}

}  // namespace egw::host
