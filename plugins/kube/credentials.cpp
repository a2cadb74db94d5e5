// See credentials.hpp.
#include "credentials.hpp"

#include <sys/stat.h>

#include <ctime>
#include <limits>

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

sdk::Outcome<Credentials> CredentialSource::get() {
  const std::lock_guard lock(mutex_);
  try {
    Credentials out;
    const std::string ca = authorities();
    if (access_.exec) {
      auto made = run_program(ca);
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

sdk::Outcome<Credentials> CredentialSource::run_program(const std::string& ca) {
  if (runs_out_ != 0 && std::time(nullptr) + kEarly < runs_out_) return made_;
  Server server = access_.server;
  if (!ca.empty()) server.ca = ca;
  // Many ask for credentials: a program that has failed is left alone for a while.
  const auto now = std::chrono::steady_clock::now();
  if (!failure_.ok() && now < again_) return failure_;
  const auto answer = run_exec_plugin(*access_.exec, server);
  failure_ = answer.status();
  if (!answer.ok()) {
    again_ = std::chrono::steady_clock::now() + pauses_.next();
    return failure_;
  }
  pauses_.reset();
  made_ = answer.value().credentials;
  made_.token = as_token(made_.token);
  const std::int64_t expires = answer.value().expires;
  runs_out_ = expires == 0 ? std::numeric_limits<std::int64_t>::max() : expires;
  return made_;
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
