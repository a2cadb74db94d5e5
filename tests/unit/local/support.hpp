// What the tests of the local store share: a folder of their own, a store with a host around it,
// recorded events, and real processes: this executable started again with a role.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "store.hpp"

namespace egw::local::test {

using nlohmann::json;
using namespace std::chrono_literals;

// Removed with everything in it at the end. In memory where the machine has such a place, else in
// /tmp: most tests are about logic, not about the speed of the disk.
class Folder {
 public:
  explicit Folder(const std::string& parent = in_memory());
  static std::string in_memory();
  ~Folder();
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;
  [[nodiscard]] std::string file(const std::string& name) const { return path_ + "/" + name; }
  [[nodiscard]] std::string db() const { return file("egw.db"); }

 private:
  std::string path_;
};

sdk::ObjectKind gateway();  // cluster-scoped, of our group
sdk::ObjectKind policy();   // namespaced, of our group
sdk::ObjectKind node();     // core
sdk::ObjectKind pod();      // core, namespaced
sdk::ObjectKind event();    // core, namespaced

// The host's side. admit is called for every CREATE, UPDATE and DELETE.
class TestHost {
 public:
  using Admit = std::function<int(std::uint32_t op, const json& before, const json& after,
                                  const egw_reader& reader, const egw_admission_sink& out)>;
  Admit admit;  // empty: admits everything unchanged
  [[nodiscard]] sdk::StoreHost services();
  [[nodiscard]] std::vector<std::string> logged();

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

// A store with the calls that tests make.
class TestStore {
 public:
  explicit TestStore(const std::string& path, json more = json::object());

  struct Options {
    std::uint64_t revision = 0, term = 0;
    bool dry_run = false;
    std::chrono::milliseconds deadline{5000};
  };
  Answer write(sdk::WriteOp op, const sdk::ObjectKind& kind, const std::string& ns,
               const std::string& name, const json& object, Options options);
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
  Answer get(const sdk::ObjectKind& kind, const std::string& ns, const std::string& name);
  Answer list(const sdk::ObjectKind& kind, const std::string& ns = {},
              const std::string& fields = {}, const std::string& labels = {});

  TestHost host;
  LocalStore store;
};

// A subscription that remembers what came.
class Recorder {
 public:
  struct Event {
    int type;
    std::uint64_t revision;
    std::string ns, name, object, message;
    [[nodiscard]] std::string text() const;  // "UPSERT n1", "SNAPSHOT", "DELETE d/p"
  };
  Recorder(LocalStore& store, const sdk::ObjectKind& kind, const std::string& ns = {},
           const std::string& name = {}, const std::string& fields = {},
           const std::string& labels = {});
  ~Recorder();
  Recorder(const Recorder&) = delete;
  Recorder& operator=(const Recorder&) = delete;

  // Waits for an event; false after 5 s.
  bool wait(const std::function<bool(const Event&)>& wanted);
  bool wait(const std::string& text);
  // The text of all events but bookmarks so far; forgets them.
  std::vector<std::string> take();
  std::vector<Event> events();

 private:
  LocalStore& store_;
  std::mutex mutex_;
  std::condition_variable news_;
  std::vector<Event> events_;
  std::size_t looked_at_ = 0;
  std::uint64_t number_ = 0;
};

// A process of its own that runs a role (roles.cpp) of this executable.
class Process {
 public:
  explicit Process(std::vector<std::string> arguments);
  ~Process();  // kill -9 if it lives
  Process(const Process&) = delete;
  Process& operator=(const Process&) = delete;

  // The next line of its standard output; empty at its end or after the time.
  std::string line(std::chrono::milliseconds longest = 10s);
  std::string rest();  // all that is left, until its end
  void say(const std::string& line);
  void signal(int number);
  void stop();  // SIGSTOP; returns when the process stands still
  [[nodiscard]] pid_t pid() const { return pid_; }
  int wait();  // exit code, or 128 + signal

 private:
  pid_t pid_ = -1;
  int out_ = -1, in_ = -1;
  std::string buffer_;
};

int run_role(const std::vector<std::string>& arguments);

double quantile(std::vector<double> values, double q);

}  // namespace egw::local::test
