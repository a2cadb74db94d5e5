// What the ABI tests share: a plugin folder of one's own, and awaiting on one's own io_context.
#pragma once

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <boost/asio/awaitable.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <filesystem>
#include <functional>
#include <mutex>
#include <optional>
#include <string>

#include "egw/host/plugin_host.hpp"

namespace egw::host::test {

namespace fs = std::filesystem;
using std::chrono::milliseconds;

// A folder (0755) that goes with the test.
class Folder {
 public:
  Folder() {
    std::string pattern = (fs::temp_directory_path() / "egw-abi-XXXXXX").string();
    path_ = mkdtemp(pattern.data());
    chmod(path_.c_str(), 0755);
  }
  ~Folder() {
    std::error_code error;
    fs::remove_all(path_, error);
  }
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;
  [[nodiscard]] const fs::path& path() const { return path_; }
  // Copies one of the libraries that tests/abi/CMakeLists.txt builds, e.g. "datapath-plain".
  fs::path add(const std::string& which, const std::string& as = {}) const {
    const fs::path to = path_ / ("egw-" + (as.empty() ? which : as) + ".so");
    fs::copy_file(fs::path(ABI_PLUGINS) / ("egw-" + which + ".so"), to);
    chmod(to.c_str(), 0755);
    return to;
  }

 private:
  fs::path path_;
};

// Short deadlines: a test that waits for one waits for 150 ms.
inline Deadlines quick() {
  Deadlines d;
  d.apply = d.call = milliseconds(150);
  d.open = milliseconds(300);
  d.close = milliseconds(300);
  d.entry = milliseconds(1000);
  return d;
}

class Bench {
 public:
  explicit Bench(Deadlines deadlines = {})
      : host_(
            folder_.path(), io_.get_executor(),
            [this](int, std::string_view plugin, std::string_view message) {
              const std::scoped_lock lock(mutex_);
              log_ += std::string(plugin) + ": " + std::string(message) + "\n";
            },
            deadlines) {}

  [[nodiscard]] Folder& folder() { return folder_; }
  [[nodiscard]] PluginHost& host() { return host_; }
  [[nodiscard]] boost::asio::io_context& io() { return io_; }
  [[nodiscard]] std::string log() {
    const std::scoped_lock lock(mutex_);
    return log_;
  }

  // Runs the io_context until `done`; false: 20 s have passed.
  bool until(const std::function<bool()>& done) {
    const auto guard = boost::asio::make_work_guard(io_);
    const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(20);
    io_.restart();
    while (!done()) {
      if (std::chrono::steady_clock::now() > end) return false;
      io_.run_one_for(milliseconds(100));
    }
    return true;
  }
  template <class T>
  T await(boost::asio::awaitable<T> work) {
    const auto answer = std::make_shared<std::optional<T>>();
    boost::asio::co_spawn(io_, std::move(work), [answer](std::exception_ptr error, T value) {
      EXPECT_FALSE(error) << "the coroutine threw";
      *answer = std::move(value);
    });
    if (!until([&] { return answer->has_value(); })) throw std::runtime_error("no answer in 20 s");
    return std::move(**answer);
  }
  void await(boost::asio::awaitable<void> work) {
    const auto done = std::make_shared<bool>(false);
    boost::asio::co_spawn(io_, std::move(work), [done](std::exception_ptr error) {
      EXPECT_FALSE(error) << "the coroutine threw";
      *done = true;
    });
    if (!until([&] { return *done; })) throw std::runtime_error("no answer in 20 s");
  }

 private:
  Folder folder_;
  std::mutex mutex_;
  std::string log_;
  boost::asio::io_context io_;
  PluginHost host_;
};

}  // namespace egw::host::test
