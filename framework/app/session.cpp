// A verb's connection to the configured state store (session.hpp).
#include "egw/app/session.hpp"

#include <fmt/format.h>
#include <sys/epoll.h>
#include <unistd.h>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/signal_set.hpp>
#include <boost/asio/steady_timer.hpp>
#include <csignal>
#include <mutex>
#include <optional>

#include "egw/host/plugin_host.hpp"
#include "egw/runtime/process.hpp"

namespace egw::app {
namespace {

namespace asio = boost::asio;

// Messages of plugins, for people: warnings and errors, more only when --log-level asks for it.
host::LogFn log_to(const Config& config) {
  const int lowest = config.runtime.log_level < runtime::LogLevel::kInfo
                         ? static_cast<int>(config.runtime.log_level)
                         : std::max(static_cast<int>(config.runtime.log_level),
                                    static_cast<int>(runtime::LogLevel::kWarn));
  auto mutex = std::make_shared<std::mutex>();
  return [lowest, mutex](int level, std::string_view plugin, std::string_view message) {
    if (level < lowest) return;
    const std::lock_guard lock(*mutex);
    const auto name = runtime::to_string(static_cast<runtime::LogLevel>(std::min(level, 3)));
    // Not through Console: this may be another thread.
    const std::string line = fmt::format("{}: {}: {}\n", name, plugin, message);
    (void)!::write(STDERR_FILENO, line.data(), line.size());
  };
}

}  // namespace

struct Session::Impl {
  asio::io_context io{1};
  asio::executor_work_guard<asio::io_context::executor_type> work{io.get_executor()};
  std::unique_ptr<host::PluginHost> host;
  std::unique_ptr<host::StateStore> store;
  int out_fd = STDOUT_FILENO;

  // Runs the loop until the operation is done.
  template <class T>
  T run(asio::awaitable<T> operation) {
    std::optional<T> result;
    std::exception_ptr thrown;
    asio::co_spawn(io, std::move(operation), [&](std::exception_ptr e, T value) {
      thrown = e;
      result.emplace(std::move(value));
      io.stop();
    });
    while (!result) {  // a watch that ends meanwhile stops the loop, too
      io.restart();
      io.run();
    }
    if (thrown) std::rethrow_exception(thrown);
    return *std::move(result);
  }
};

Session::Session() : impl_(std::make_unique<Impl>()) {}
Session::~Session() {
  impl_->store.reset();
  impl_->host.reset();
}

Result<std::unique_ptr<Session>> Session::open(const Config& config, Console& console,
                                               host::StoreUse use) {
  std::unique_ptr<Session> session(new Session());
  Impl& impl = *session->impl_;
  const auto& rt = config.runtime;
  impl.out_fd = console.out_fd();
  impl.host =
      std::make_unique<host::PluginHost>(rt.plugin_dir, impl.io.get_executor(), log_to(config));
  auto admit = [settings = rt.settings](const host::AdmitRequest& request) {
    return runtime::admit_with(settings, request);
  };
  auto store = impl.host->open_state_store(rt.state_store.name, rt.state_store.config,
                                           std::move(admit), use);
  if (!store) return tl::unexpected(std::move(store.error()));
  impl.store = *std::move(store);
  return session;
}

Result<void> Session::led(const Config& config) {
  const auto& choice = config.runtime.leader_election;
  auto election = impl_->host->open_leader_election(choice.name, choice.config,
                                                    "egw-status-" + std::to_string(::getpid()));
  // What is missing here is no word on the office.
  if (!election) return fail(Errc::kUnavailable, "leader election", election.error().to_string());
  return impl_->run((*election)->health());
}

Result<host::StoredObject> Session::get(model::Kind kind, model::Key key) {
  return impl_->run(impl_->store->get(kind, std::move(key)));
}

Result<std::vector<host::StoredObject>> Session::list(host::Query query) {
  return impl_->run(impl_->store->list(std::move(query)));
}

Result<host::WriteOutcome> Session::write(host::WriteRequest request) {
  return impl_->run(impl_->store->write(std::move(request)));
}

namespace {

// set: becomes readable when whoever reads fd has gone. A file cannot be waited for: then it stays
// closed. Not by Asio alone, which would make fd non-blocking for all who share it, for ever.
void watch_for_end(int fd, asio::posix::stream_descriptor& set) {
  const int epoll = ::epoll_create1(EPOLL_CLOEXEC);
  if (epoll < 0) return;
  epoll_event nothing{};  // but errors, which are told unasked
  boost::system::error_code error;
  if (::epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &nothing) == 0) set.assign(epoll, error);
  if (!set.is_open()) ::close(epoll);
}

}  // namespace

Result<WatchEnd> Session::watch(
    std::vector<host::Query> queries,
    std::function<bool(std::size_t index, const host::StoreEvent&)> on_event,
    std::chrono::milliseconds limit) {
  Impl& impl = *impl_;
  std::vector<std::unique_ptr<host::Subscription>> subscriptions;
  std::optional<WatchEnd> ended;
  const auto end = [&](WatchEnd why) {
    if (!ended) ended = why;
    impl.io.stop();
  };
  asio::signal_set signals(impl.io, SIGINT, SIGTERM);
  signals.async_wait([&](boost::system::error_code error, int) {
    if (!error) end(WatchEnd::kInterrupted);
  });
  asio::steady_timer timer(impl.io);
  if (limit.count() > 0) {
    timer.expires_after(limit);
    timer.async_wait([&](boost::system::error_code error) {
      if (!error) end(WatchEnd::kTimeOver);
    });
  }
  asio::posix::stream_descriptor out(impl.io);
  watch_for_end(impl.out_fd, out);
  if (out.is_open()) {
    out.async_wait(asio::posix::stream_descriptor::wait_read, [&](boost::system::error_code error) {
      if (!error) end(WatchEnd::kInterrupted);
    });
  }
  for (std::size_t i = 0; i < queries.size() && !ended; ++i) {
    auto handler = [&on_event, &end, &ended, i](const host::StoreEvent& event) {
      if (!ended && !on_event(i, event)) end(WatchEnd::kSeen);
    };
    auto subscription = impl.run(impl.store->subscribe(std::move(queries[i]), std::move(handler)));
    if (!subscription) return tl::unexpected(std::move(subscription.error()));
    subscriptions.push_back(*std::move(subscription));
  }
  if (!ended) {
    impl.io.restart();
    impl.io.run();
  }
  subscriptions.clear();
  return ended.value_or(WatchEnd::kInterrupted);
}

struct PluginFolder::Impl {
  asio::io_context io{1};
  std::unique_ptr<host::PluginHost> host;
};

PluginFolder::PluginFolder(const Config& config) : impl_(std::make_unique<Impl>()) {
  impl_->host = std::make_unique<host::PluginHost>(config.runtime.plugin_dir,
                                                   impl_->io.get_executor(), log_to(config));
}
PluginFolder::~PluginFolder() { impl_->host.reset(); }
const host::PluginHost& PluginFolder::host() const { return *impl_->host; }

int exit_code_of(const Error& opening) {
  switch (opening.code) {
    case Errc::kUnavailable:
    case Errc::kTimeout:
    case Errc::kConflict:
      return 1;
    default:
      return 2;
  }
}

}  // namespace egw::app
