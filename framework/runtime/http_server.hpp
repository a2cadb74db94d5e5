// A small HTTP/1.1 server on the process's event loop: health and metrics on TCP, the admin API on
// a unix socket. Called by process.cpp; what is served is in endpoints.hpp.
//
// Bounds: 64 connections, 8 KiB of header, 64 KiB of body, 10 s per request; what exceeds them is
// closed. Of connections, that is the one that has waited longest for its client, not the new one.
#pragma once

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/awaitable.hpp>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>

#include "egw/model/result.hpp"

namespace egw::runtime {

struct HttpRequest {
  std::string method;  // "GET"
  std::string target;  // "/metrics", with the query if there is one
  std::string body;
};

struct HttpResponse {
  unsigned status = 200;
  std::string content_type = "text/plain; charset=utf-8";
  std::string body;
};

class HttpHandler {
 public:
  virtual ~HttpHandler() = default;
  virtual boost::asio::awaitable<HttpResponse> handle(HttpRequest request) = 0;
};

// Destroyed: no longer listens, open connections are closed.
class HttpServer {
 public:
  virtual ~HttpServer() = default;
  [[nodiscard]] virtual std::uint16_t port() const = 0;  // the one in use; 0 for a unix socket
};

// address: IPv4 or IPv6; port 0: any free one. Errors name the address and what to change.
[[nodiscard]] Result<std::unique_ptr<HttpServer>> serve_tcp(boost::asio::any_io_executor executor,
                                                            const std::string& address,
                                                            std::uint16_t port,
                                                            std::shared_ptr<HttpHandler> handler);
// The socket has mode 0600 from the first moment. What lies at `path` is replaced: the caller makes
// sure that nobody else serves it.
[[nodiscard]] Result<std::unique_ptr<HttpServer>> serve_unix(boost::asio::any_io_executor executor,
                                                             const std::filesystem::path& path,
                                                             std::shared_ptr<HttpHandler> handler);

}  // namespace egw::runtime
