// A TLS client that sends whatever it is told, for tests of the webhook's server.
#pragma once

#include <chrono>
#include <memory>
#include <string>

#include "certificate.hpp"

namespace egw::kube::test {

class TlsClient {
 public:
  // Connects and shakes hands, trusting these authorities (empty: anybody). Throws
  // std::runtime_error. newest: of TLS, as OpenSSL numbers it; 0: what there is.
  explicit TlsClient(std::uint16_t port, const std::string& authorities = "", int newest = 0);
  ~TlsClient();
  TlsClient(const TlsClient&) = delete;
  TlsClient& operator=(const TlsClient&) = delete;

  // Whether all of it went.
  bool send(const std::string& bytes);
  // What comes until the server closes, a whole answer is there or the time is over.
  std::string receive(std::chrono::milliseconds time = std::chrono::seconds(5));
  // Whether the server closes within the time.
  bool closed_within(std::chrono::milliseconds time);
  [[nodiscard]] std::string certificate() const;  // PEM, the server's

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// "POST /path HTTP/1.1 ..." with the body.
std::string post(const std::string& target, const std::string& body);
// The PEM of a self-made certificate for 127.0.0.1.
Material loopback_material();

}  // namespace egw::kube::test
