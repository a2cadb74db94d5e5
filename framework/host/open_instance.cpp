#include <atomic>
#include <future>

#include "egw/host/convert.hpp"
#include "egw/host/instance.hpp"
#include "egw/host/proxies.hpp"

namespace egw::host {
namespace {

void take_log(void* ctx, std::int32_t level, egw_str message) noexcept {
  try {
    static_cast<Worker*>(ctx)->plugin_log(
        std::clamp<std::int32_t>(level, EGW_LOG_DEBUG, EGW_LOG_ERROR), plain_text(message));
  } catch (...) {  // a log line that cannot be made is lost; the plugin's work goes on
  }
}

struct Attempt {
  enum State : int { kPending, kDone, kAbandoned };
  std::atomic<int> state{kPending};
  std::promise<Result<void*>> answer;
};

}  // namespace

egw_host host_services(Worker& worker) {
  egw_host host{};
  host.struct_size = sizeof(host);
  host.ctx = &worker;
  host.log = take_log;
  return host;
}

Result<void*> open_instance(const Opening& opening,
                            const std::function<std::int32_t(void**, const egw_error_sink*)>& open,
                            void (*close)(void*)) {
  const auto& worker = opening.worker;
  const auto patience = opening.deadlines.open;
  const auto attempt = std::make_shared<Attempt>();
  auto answer = attempt->answer.get_future();
  const std::string label = worker->label();
  worker->enqueue("open", patience, [attempt, open, close, label] {
    void* handle = nullptr;
    Result<void*> result;
    const auto done = [&] {
      int pending = Attempt::kPending;
      if (attempt->state.compare_exchange_strong(pending, Attempt::kDone)) {
        attempt->answer.set_value(std::move(result));
      } else if (result) {
        close(*result);
      }
    };
    try {
      const ErrorText text(label);
      const std::int32_t status = open(&handle, text.sink());
      if (auto error = text.error(status, "open")) {
        result = tl::unexpected<Error>(std::move(*error));
      } else if (handle == nullptr) {
        result = fail(Errc::kInternal, label, "open succeeded and gave no instance");
      } else {
        result = handle;
      }
    } catch (const std::exception& e) {
      result = fail(Errc::kInternal, label, std::string("open threw an exception: ") + e.what());
    } catch (...) {
      if (unwinds_to_end()) {
        result = fail(Errc::kInternal, label, "open ended its thread (pthread_exit)");
        done();
        throw;
      }
      result = fail(Errc::kInternal, label, "open threw what is no std::exception");
    }
    done();
  });
  if (answer.wait_for(patience) != std::future_status::ready) {
    int pending = Attempt::kPending;
    if (attempt->state.compare_exchange_strong(pending, Attempt::kAbandoned)) {
      worker->close(nullptr, Worker::Milliseconds(0));
      return fail(Errc::kTimeout, label,
                  "open did not come back within " + duration_text(patience));
    }
  }
  Result<void*> result = answer.get();
  if (!result) worker->close(nullptr, opening.deadlines.close);
  return result;
}

}  // namespace egw::host
