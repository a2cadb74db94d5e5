// Client of the admin socket, blocking (admin_client.hpp).
#include "egw/runtime/admin_client.hpp"

#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

namespace egw::runtime {
namespace {

constexpr std::size_t kMaxAnswer = 64U << 20U;

class Fd {
 public:
  explicit Fd(int fd) : fd_(fd) {}
  ~Fd() {
    if (fd_ >= 0) ::close(fd_);
  }
  Fd(const Fd&) = delete;
  Fd& operator=(const Fd&) = delete;
  [[nodiscard]] int get() const { return fd_; }

 private:
  int fd_;
};

Result<void> send_all(int fd, std::string_view text, const std::string& where) {
  while (!text.empty()) {
    const ssize_t sent = ::send(fd, text.data(), text.size(), MSG_NOSIGNAL);
    if (sent < 0 && errno == EINTR) continue;
    if (sent < 0)
      return fail(Errc::kUnavailable, where, "the process there does not answer", errno);
    text.remove_prefix(static_cast<std::size_t>(sent));
  }
  return {};
}

// The request says "Connection: close", so the answer ends where the stream ends.
Result<std::string> read_all(int fd, const std::string& where) {
  std::string answer;
  char chunk[16384];
  for (;;) {
    const ssize_t got = ::recv(fd, chunk, sizeof chunk, 0);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return fail(Errc::kTimeout, where, "the process there does not answer", errno);
    if (got == 0) return answer;
    answer.append(chunk, static_cast<std::size_t>(got));
    if (answer.size() > kMaxAnswer) return fail(Errc::kInvalid, where, "the answer is too long");
  }
}

}  // namespace

std::filesystem::path admin_socket(const std::filesystem::path& state_dir,
                                   const std::string& role) {
  return state_dir / (role + ".sock");
}

Result<std::string> admin_call(const std::filesystem::path& socket, const std::string& target,
                               const std::string& body, std::chrono::milliseconds timeout) {
  const std::string where = socket.string();
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (where.size() >= sizeof address.sun_path) {
    return fail(Errc::kInvalid, where, "is too long for a unix socket (107 bytes)");
  }
  std::memcpy(address.sun_path, where.data(), where.size());
  const Fd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (fd.get() < 0) return fail(Errc::kInternal, where, "cannot make a socket", errno);
  const timeval limit{timeout.count() / 1000, (timeout.count() % 1000) * 1000};
  ::setsockopt(fd.get(), SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
  ::setsockopt(fd.get(), SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
  if (::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
    if (errno == EACCES || errno == EPERM) {
      return fail(Errc::kDenied, where,
                  "the socket is for the user that egw runs as: call this as that user (root, as a "
                  "rule)",
                  errno);
    }
    return fail(Errc::kUnavailable, where,
                "nothing answers there: is egw running on this machine with this state folder?",
                errno);
  }
  std::string request = (body.empty() ? "GET " : "POST ") + target +
                        " HTTP/1.1\r\nHost: egw\r\nConnection: close\r\n";
  if (!body.empty()) request += "Content-Length: " + std::to_string(body.size()) + "\r\n";
  request += "\r\n" + body;
  if (auto sent = send_all(fd.get(), request, where); !sent) return tl::unexpected(sent.error());
  auto answer = read_all(fd.get(), where);
  if (!answer) return answer;
  const auto end_of_head = answer->find("\r\n\r\n");
  if (answer->rfind("HTTP/1.1 ", 0) != 0 || end_of_head == std::string::npos) {
    return fail(Errc::kInternal, where, "the answer is not HTTP");
  }
  std::string content = answer->substr(end_of_head + 4);
  const std::string status = answer->substr(9, 3);
  if (status == "200") return content;
  return fail(status == "404" ? Errc::kNotFound : Errc::kUnavailable, target, content);
}

}  // namespace egw::runtime
