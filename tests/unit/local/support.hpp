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
#include "support/store_kit.hpp"

namespace egw::local::test {

using nlohmann::json;
using namespace std::chrono_literals;
using store_kit::Answer;
using store_kit::event;
using store_kit::gateway;
using store_kit::node;
using store_kit::pod;
using store_kit::policy;
using store_kit::Recorder;
using store_kit::TestHost;

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

// A store with a host around it and the calls that tests make.
class TestStore : public store_kit::Calls {
 public:
  explicit TestStore(const std::string& path, json more = json::object());

  TestHost host;
  LocalStore store;
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
