// A server on a loopback port that answers each connection with what a test scripted, byte by byte:
// malformed, cut short, endless, slow. Plain HTTP/1.1, so that every byte is the test's own.
#pragma once

#include <atomic>
#include <chrono>
#include <functional>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

namespace egw::kube::test {

class HostileServer {
 public:
  // One request on a connection.
  class Exchange {
   public:
    explicit Exchange(int fd, const std::atomic<bool>& over) : fd_(fd), over_(over) {}
    [[nodiscard]] const std::string& request() const { return request_; }
    // "GET /path?query"
    [[nodiscard]] std::string line() const;
    // false: the client has gone, or the test is over.
    bool send(std::string_view bytes) const;
    // Waits until the client closes, or the test is over.
    void hold() const;
    bool pause(std::chrono::milliseconds time) const;  // false: over
    bool receive();

   private:
    int fd_;
    const std::atomic<bool>& over_;
    std::string request_;
  };
  // Called for each request, on a thread of its connection; the connection is closed when it
  // answers false.
  using Script = std::function<bool(Exchange&)>;

  // port: of one that was there before; 0: any.
  explicit HostileServer(Script script, int port = 0);
  ~HostileServer();
  HostileServer(const HostileServer&) = delete;
  HostileServer& operator=(const HostileServer&) = delete;
  [[nodiscard]] std::string url() const { return "http://127.0.0.1:" + std::to_string(port_); }
  [[nodiscard]] int port() const { return port_; }
  [[nodiscard]] int requests() const { return requests_; }

 private:
  void accept_all();
  void serve(int fd);

  const Script script_;
  int listener_ = -1, port_ = 0;
  std::atomic<bool> over_{false};
  std::atomic<int> requests_{0};
  std::vector<std::thread> connections_;
  std::thread acceptor_;
};

// "HTTP/1.1 200 OK" with that body.
std::string ok(std::string_view body);
std::string status(int code, std::string_view body, std::string_view more_headers = "");
std::string chunk(std::string_view bytes);
inline constexpr std::string_view kChunkedHeader =
    "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n";

}  // namespace egw::kube::test
