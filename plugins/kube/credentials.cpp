// See credentials.hpp.
#include "credentials.hpp"

#include <pthread.h>
#include <signal.h>
#include <sys/stat.h>

#include <ctime>
#include <limits>
#include <system_error>

namespace egw::kube {

using sdk::Code;

namespace {
constexpr std::int64_t kEarly = 10;  // seconds before the end of a credential to renew it

// Left out: what a header cannot hold. A token file often ends in a newline.
std::string as_token(std::string text) {
  while (!text.empty() && static_cast<unsigned char>(text.back()) <= ' ') text.pop_back();
  for (const char c : text) {
    if (static_cast<unsigned char>(c) <= ' ' || c == 127) return {};
  }
  return text;
}
}  // namespace

CredentialSource::~CredentialSource() {
  if (runner_.joinable()) runner_.join();
}

const std::string& CredentialSource::content(const std::string& path) {
  struct stat now {};
  if (::stat(path.c_str(), &now) != 0) {
    throw sdk::Failure(Code::kUnavailable, "cannot be read", path, errno);
  }
  File& file = files_[path];
  const std::int64_t modified =
      std::int64_t{now.st_mtim.tv_sec} * 1'000'000'000 + now.st_mtim.tv_nsec;
  if (file.size != now.st_size || file.modified_ns != modified || file.inode != now.st_ino) {
    file.content = read_file(path);
    file.size = now.st_size;
    file.modified_ns = modified;
    file.inode = now.st_ino;
  }
  return file.content;
}

sdk::Outcome<Credentials> CredentialSource::get(Time until) {
  std::unique_lock lock(mutex_);
  try {
    Credentials out;
    const std::string ca = authorities();
    if (access_.exec) {
      auto made = of_program(lock, ca, until);
      if (!made.ok()) return made;
      out = *made;
    }
    out.ca = ca;
    const bool has_token = !access_.token.empty() || !access_.token_file.empty();
    if (has_token) {
      out.token =
          as_token(access_.token_file.empty() ? access_.token : content(access_.token_file));
      if (out.token.empty()) {
        return sdk::fail(Code::kUnavailable, "there is no token in it",
                         access_.token_file.empty() ? access_.origin : access_.token_file);
      }
    }
    if (!access_.certificate.empty()) out.certificate = access_.certificate;
    if (!access_.certificate_file.empty()) out.certificate = content(access_.certificate_file);
    if (!access_.key.empty()) out.key = access_.key;
    if (!access_.key_file.empty()) out.key = content(access_.key_file);
    return out;
  } catch (const sdk::Failure& failure) {
    sdk::Status status = failure.status();
    status.code = Code::kUnavailable;
    return status;
  }
}

// Of the file; without one the Server's count. A file in which there is none must not mean that the
// system's are believed.
std::string CredentialSource::authorities() {
  if (access_.ca_file.empty()) return {};
  const std::string& pem = content(access_.ca_file);
  if (pem.find("-----BEGIN") != std::string::npos) return pem;
  throw sdk::Failure(Code::kUnavailable, "there is no certificate in it", access_.ca_file);
}

sdk::Outcome<Credentials> CredentialSource::of_program(std::unique_lock<std::mutex>& lock,
                                                       const std::string& ca, Time until) {
  const std::int64_t time = std::time(nullptr);
  if (time + kEarly < runs_out_) return made_;
  // Many ask for credentials: a program that has failed is left alone for a while.
  const bool rests = !failure_.ok() && std::chrono::steady_clock::now() < again_;
  if (!running_ && !rests) {
    Server server = access_.server;
    if (!ca.empty()) server.ca = ca;
    if (runner_.joinable()) runner_.join();
    try {
      runner_ = std::thread([this, server = std::move(server)] { run_program(server); });
    } catch (const std::system_error& error) {
      return sdk::fail(Code::kUnavailable, "no thread can be started that would wait for it",
                       access_.exec->command, error.code().value());
    }
    running_ = true;
  }
  if (time < runs_out_) return made_;
  if (rests) return failure_;
  if (!ended_.wait_until(lock, until, [this] { return !running_; })) {
    return sdk::fail(Code::kUnavailable, "the credential program has not ended yet",
                     access_.exec->command);
  }
  if (!failure_.ok()) return failure_;
  return made_;
}

void CredentialSource::run_program(const Server& server) {
  sigset_t all;
  ::sigfillset(&all);
  ::pthread_sigmask(SIG_BLOCK, &all, nullptr);
  const auto run = [&]() -> sdk::Outcome<ExecAnswer> {
    try {
      return run_exec_plugin(*access_.exec, server);
    } catch (const std::exception& e) {
      return sdk::fail(Code::kUnavailable, e.what(), access_.exec->command);
    }
  };
  const auto answer = run();
  const std::lock_guard lock(mutex_);
  failure_ = answer.status();
  if (answer.ok()) {
    pauses_.reset();
    made_ = answer.value().credentials;
    made_.token = as_token(made_.token);
    const std::int64_t expires = answer.value().expires;
    runs_out_ = expires == 0 ? std::numeric_limits<std::int64_t>::max() : expires;
  } else {
    again_ = std::chrono::steady_clock::now() + pauses_.next();
  }
  running_ = false;
  ended_.notify_all();
}

void CredentialSource::refused() {
  const std::lock_guard lock(mutex_);
  runs_out_ = 0;
  files_.clear();
}

void CredentialSource::refused_again(const Credentials& credentials) {
  const std::lock_guard lock(mutex_);
  if (unwelcome_ == credentials) return;  // held() has begun the next pause
  unwelcome_ = credentials;
  held_until_ = std::chrono::steady_clock::now() + held_for_.next();
}

bool CredentialSource::held(const Credentials& credentials, std::chrono::milliseconds no_longer) {
  const std::lock_guard lock(mutex_);
  if (unwelcome_ != credentials) return false;
  const auto now = std::chrono::steady_clock::now();
  held_until_ = std::min(held_until_, now + no_longer);
  if (now < held_until_) return true;
  held_for_.limit(no_longer);
  held_until_ = now + held_for_.next();
  return false;
}

void CredentialSource::accepted() {
  const std::lock_guard lock(mutex_);
  unwelcome_.reset();
  held_for_.reset();
}

}  // namespace egw::kube
