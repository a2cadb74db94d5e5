// The credentials of the next request: from the texts and files of an Access, or from the program
// that it names. Files are looked at for each request, because tokens and authorities rotate; a
// program is run when what it gave is about to run out or was refused, on a thread of its own: no
// request waits for it longer than its own deadline, and none while what it gave before is good.
// Used by api.cpp; any thread.
#pragma once

#include <chrono>
#include <condition_variable>
#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <thread>

#include "access.hpp"
#include "back_off.hpp"

namespace egw::kube {

class CredentialSource {
 public:
  using Time = std::chrono::steady_clock::time_point;
  explicit CredentialSource(const Access& access) : access_(access) {}
  ~CredentialSource();  // waits for a program that runs
  CredentialSource(const CredentialSource&) = delete;
  CredentialSource& operator=(const CredentialSource&) = delete;

  // until: a program that has not ended by then goes on, for whoever asks next.
  [[nodiscard]] sdk::Outcome<Credentials> get(Time until);
  // The server did not accept what get() gave: they are looked for anew.
  void refused();
  // Nor the next ones, or there are no others: until a growing pause is over, held() says so of
  // them, whoever asks; then one attempt may find out. Others pass at once.
  void refused_again(const Credentials& credentials);
  // no_longer: than this is the pause.
  [[nodiscard]] bool held(const Credentials& credentials, std::chrono::milliseconds no_longer);
  // The server knows us.
  void accepted();

 private:
  // The content of the file, read again when it has changed.
  const std::string& content(const std::string& path);
  std::string authorities();
  sdk::Outcome<Credentials> of_program(std::unique_lock<std::mutex>& lock, const std::string& ca,
                                       Time until);
  void run_program(const Server& server);  // on runner_

  struct File {
    std::string content;
    std::int64_t modified_ns = 0, size = -1;
    std::uint64_t inode = 0;
  };
  const Access& access_;
  std::mutex mutex_;  // guards the rest
  std::map<std::string, File> files_;
  Credentials made_;           // by the program
  std::int64_t runs_out_ = 0;  // Unix seconds; 0: not made yet
  sdk::Status failure_;        // of the program, the last time
  Time again_{};
  bool running_ = false;
  std::condition_variable ended_;  // running_ is false
  std::thread runner_;
  BackOff pauses_{std::chrono::seconds(1), std::chrono::seconds(30)};
  std::optional<Credentials> unwelcome_;  // those that were refused last
  Time held_until_{};
  BackOff held_for_{std::chrono::milliseconds(500), std::chrono::seconds(5)};
};

// What an ExecPlugin printed. expires: Unix seconds, 0 where it does not say.
struct ExecAnswer {
  Credentials credentials;
  std::int64_t expires = 0;
};
[[nodiscard]] sdk::Outcome<ExecAnswer> run_exec_plugin(const ExecPlugin& plugin,
                                                       const Server& server);

}  // namespace egw::kube
