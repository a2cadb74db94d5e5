// HTTP server on Boost.Beast (http_server.hpp).
#include "egw/runtime/http_server.hpp"

#include <sys/stat.h>

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/local/stream_protocol.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/beast/core/basic_stream.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http.hpp>
#include <chrono>
#include <map>
#include <utility>

namespace egw::runtime {
namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = boost::beast::http;

namespace {

constexpr std::size_t kMaxConnections = 64;
constexpr std::size_t kMaxHeader = 8UL * 1024;
constexpr std::size_t kMaxBody = 64UL * 1024;
constexpr std::chrono::seconds kRequestTime{10};
constexpr auto kAwait = asio::as_tuple(asio::use_awaitable);

template <class Protocol>
using Stream = beast::basic_stream<Protocol, asio::any_io_executor>;

// Shared by the acceptor and its sessions, so that either may end first.
template <class Protocol>
struct Shared {
  Shared(asio::any_io_executor executor, std::shared_ptr<HttpHandler> the_handler)
      : acceptor(std::move(executor)), handler(std::move(the_handler)) {}

  // Closes the connection that has waited longest for its client: whoever connects and says nothing
  // keeps nobody else out, e.g. no probe. False: each has a request that is being handled.
  bool make_room() {
    auto longest = open.end();
    for (auto it = open.begin(); it != open.end(); ++it) {
      if (it->second == 0) continue;
      if (longest == open.end() || it->second < longest->second) longest = it;
    }
    if (longest == open.end()) return false;
    longest->first->close();
    open.erase(longest);
    return true;
  }

  asio::basic_socket_acceptor<Protocol, asio::any_io_executor> acceptor;
  std::shared_ptr<HttpHandler> handler;
  std::map<Stream<Protocol>*, std::uint64_t> open;  // the turn of its wait; 0: it does not wait
  std::uint64_t turns = 0;
  bool closed = false;
};

// Keeps a session in the list of open ones for as long as it lives.
template <class Protocol>
class Listed {
 public:
  Listed(std::shared_ptr<Shared<Protocol>> shared, Stream<Protocol>* stream)
      : shared_(std::move(shared)), stream_(stream) {
    shared_->open.emplace(stream_, ++shared_->turns);
  }
  ~Listed() { shared_->open.erase(stream_); }
  Listed(const Listed&) = delete;
  Listed& operator=(const Listed&) = delete;

  // For its client. One that had to make room is listed no more.
  void waits(bool on) {
    const auto it = shared_->open.find(stream_);
    if (it != shared_->open.end()) it->second = on ? ++shared_->turns : 0;
  }

 private:
  std::shared_ptr<Shared<Protocol>> shared_;
  Stream<Protocol>* stream_;
};

http::response<http::string_body> make_response(const HttpResponse& answer, bool keep_alive) {
  http::response<http::string_body> response;
  response.version(11);
  response.result(answer.status);
  response.set(http::field::content_type, answer.content_type);
  response.set(http::field::server, "egw");
  response.keep_alive(keep_alive);
  response.body() = answer.body;
  response.prepare_payload();
  return response;
}

template <class Protocol>
asio::awaitable<void> session(std::shared_ptr<Shared<Protocol>> shared,
                              asio::basic_stream_socket<Protocol, asio::any_io_executor> socket) {
  Stream<Protocol> stream(std::move(socket));
  Listed<Protocol> listed(shared, &stream);
  beast::flat_buffer buffer(kMaxHeader + kMaxBody);
  while (!shared->closed) {
    http::request_parser<http::string_body> parser;
    parser.header_limit(kMaxHeader);
    parser.body_limit(kMaxBody);
    stream.expires_after(kRequestTime);
    listed.waits(true);
    const auto [read_error, read_bytes] = co_await http::async_read(stream, buffer, parser, kAwait);
    if (read_error) co_return;
    listed.waits(false);
    const auto& message = parser.get();
    HttpRequest request;
    request.method = std::string(message.method_string());
    request.target = std::string(message.target());
    request.body = message.body();
    const bool keep_alive = message.keep_alive();
    HttpResponse answer = co_await shared->handler->handle(std::move(request));
    auto response = make_response(answer, keep_alive);
    stream.expires_after(kRequestTime);
    listed.waits(true);
    const auto [write_error, written] = co_await http::async_write(stream, response, kAwait);
    if (write_error || !keep_alive) co_return;
  }
}

template <class Protocol>
asio::awaitable<void> accept_loop(std::shared_ptr<Shared<Protocol>> shared) {
  while (!shared->closed) {
    asio::basic_stream_socket<Protocol, asio::any_io_executor> socket(
        shared->acceptor.get_executor());
    const auto [error] = co_await shared->acceptor.async_accept(socket, kAwait);
    if (shared->closed) co_return;
    if (error) {  // out of descriptors, most likely: let some be closed first
      asio::steady_timer pause(shared->acceptor.get_executor(), std::chrono::milliseconds(100));
      co_await pause.async_wait(kAwait);
      continue;
    }
    if (shared->open.size() >= kMaxConnections && !shared->make_room()) continue;
    asio::co_spawn(shared->acceptor.get_executor(), session<Protocol>(shared, std::move(socket)),
                   asio::detached);
  }
}

template <class Protocol>
class Server final : public HttpServer {
 public:
  Server(std::shared_ptr<Shared<Protocol>> shared, std::uint16_t port, std::filesystem::path path)
      : shared_(std::move(shared)), port_(port), path_(std::move(path)) {
    asio::co_spawn(shared_->acceptor.get_executor(), accept_loop<Protocol>(shared_),
                   asio::detached);
  }
  ~Server() override {
    shared_->closed = true;
    boost::system::error_code ignored;
    shared_->acceptor.close(ignored);
    for (const auto& [stream, turn] : shared_->open) stream->close();
    std::error_code no_file;
    if (!path_.empty()) std::filesystem::remove(path_, no_file);
  }
  [[nodiscard]] std::uint16_t port() const override { return port_; }

 private:
  std::shared_ptr<Shared<Protocol>> shared_;
  std::uint16_t port_;
  std::filesystem::path path_;
};

}  // namespace

Result<std::unique_ptr<HttpServer>> serve_tcp(asio::any_io_executor executor,
                                              const std::string& address, std::uint16_t port,
                                              std::shared_ptr<HttpHandler> handler) {
  const std::string where = address + ":" + std::to_string(port);
  boost::system::error_code error;
  const auto ip = asio::ip::make_address(address, error);
  if (error) {
    return fail(Errc::kInvalid, where, "is not an IP address to listen on: give IPv4 or IPv6");
  }
  auto shared = std::make_shared<Shared<asio::ip::tcp>>(std::move(executor), std::move(handler));
  const asio::ip::tcp::endpoint endpoint(ip, port);
  auto& acceptor = shared->acceptor;
  acceptor.open(endpoint.protocol(), error);
  if (!error) acceptor.set_option(asio::socket_base::reuse_address(true), error);
  if (!error) acceptor.bind(endpoint, error);
  if (!error) acceptor.listen(asio::socket_base::max_listen_connections, error);
  if (error) {
    return fail(
        Errc::kUnavailable, where,
        "cannot listen: choose another address or port, or set the port to 0 to switch it off",
        error.value());
  }
  const std::uint16_t bound = acceptor.local_endpoint(error).port();
  return std::make_unique<Server<asio::ip::tcp>>(std::move(shared), bound, std::filesystem::path{});
}

Result<std::unique_ptr<HttpServer>> serve_unix(asio::any_io_executor executor,
                                               const std::filesystem::path& path,
                                               std::shared_ptr<HttpHandler> handler) {
  using Local = asio::local::stream_protocol;
  if (path.native().size() >= 108) {  // sun_path, unix(7)
    return fail(Errc::kInvalid, path.string(),
                "is too long for a unix socket (107 bytes): choose a shorter state folder");
  }
  auto shared = std::make_shared<Shared<Local>>(std::move(executor), std::move(handler));
  auto& acceptor = shared->acceptor;
  std::error_code no_file;
  std::filesystem::remove(path, no_file);
  boost::system::error_code error;
  acceptor.open(Local(), error);
  // Linux gives the file the mode of the unbound socket (net/unix/af_unix.c, unix_bind_bsd).
  if (!error && ::fchmod(acceptor.native_handle(), 0600) != 0) {
    error.assign(errno, boost::system::system_category());
  }
  if (!error) acceptor.bind(Local::endpoint(path.string()), error);
  if (!error) acceptor.listen(asio::socket_base::max_listen_connections, error);
  if (error) {
    return fail(Errc::kUnavailable, path.string(), "cannot serve the admin API there",
                error.value());
  }
  return std::make_unique<Server<Local>>(std::move(shared), std::uint16_t{0}, path);
}

}  // namespace egw::runtime
