// HTTPS server of the webhook, on Boost.Beast and OpenSSL: TLS 1.2 and later, HTTP/1.1. Used by
// webhook.cpp.
//
// Whoever reaches the port may speak to it, so everything has a bound: connections, bytes of bodies
// under way, and the time of a handshake, a header, a body. Where a bound is reached the oldest
// connection that still owes us its request makes room; one that is being answered is left alone.
//
// Threads: one for all connections, four on which the handler runs, and one more on which it takes
// the requests with large bodies one after the other: what they become in memory is there once.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "certificate.hpp"
#include "egw/sdk/plugin.hpp"

namespace egw::kube {

struct WebhookRequest {
  std::string method, target, body;
  // When its header was there: until the handler takes it, it may have waited.
  std::chrono::steady_clock::time_point arrived{};
};
struct WebhookResponse {
  unsigned status = 200;
  std::string body;
  std::string content_type = "text/plain; charset=utf-8";
};

struct WebhookLimits {
  std::size_t connections = 128;
  std::size_t body = std::size_t{8} << 20;     // of one request; an object and its old self
  std::size_t bodies = std::size_t{24} << 20;  // of all requests under way
  std::size_t large = std::size_t{256} << 10;  // a body of more than that is
  std::size_t waiting = 64;                    // requests that wait for a thread
  std::chrono::milliseconds request{10'000};   // for a handshake, and for a request
  std::chrono::milliseconds idle{120'000};     // between requests; longer than the API server waits
};

class WebhookServer {
 public:
  using Handler = std::function<WebhookResponse(const WebhookRequest&)>;

  // Listens from now on; on `::` for both families, whatever net.ipv6.bindv6only says. Throws
  // sdk::Failure (kUnavailable) when it cannot. The handler is called on several threads; what it
  // throws is logged and answered with 500.
  WebhookServer(const std::string& address, std::uint16_t port, const KeyPair& pair,
                Handler handler, sdk::Host host, WebhookLimits limits = {});
  ~WebhookServer();  // waits for the handlers under way
  WebhookServer(const WebhookServer&) = delete;
  WebhookServer& operator=(const WebhookServer&) = delete;

  // For connections that come from now on. Throws sdk::Failure (kInvalid).
  void use(const KeyPair& pair);
  [[nodiscard]] std::uint16_t port() const;

 private:
  struct Shared;
  struct Threads;
  std::shared_ptr<Shared> shared_;
  std::unique_ptr<Threads> threads_;
};

}  // namespace egw::kube
