// See webhook_server.hpp.
#include "webhook_server.hpp"

#include <pthread.h>
#include <signal.h>

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/ip/v6_only.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/ssl.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/thread_pool.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/core/tcp_stream.hpp>
#include <boost/beast/http.hpp>
#include <boost/beast/ssl/ssl_stream.hpp>
#include <future>
#include <list>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <utility>

namespace egw::kube {
namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = boost::beast::http;
namespace ssl = boost::asio::ssl;
using asio::ip::tcp;
using boost::system::error_code;
using std::chrono::steady_clock;

namespace {

constexpr std::size_t kThreads = 4;
constexpr std::uint32_t kMaxHeader = 16 * 1024;
constexpr std::size_t kBuffer = 64UL * 1024;  // read at once
constexpr std::chrono::seconds kTellAgain{60};
constexpr std::chrono::seconds kFarewell{1};
constexpr std::chrono::milliseconds kPause{100};  // where no connection can be taken
constexpr auto kAwait = asio::as_tuple(asio::use_awaitable);

using TlsContext = std::shared_ptr<ssl::context>;

TlsContext make_context(const KeyPair& pair) {
  auto context = std::make_shared<ssl::context>(ssl::context::tls_server);
  context->set_options(ssl::context::default_workarounds | ssl::context::no_sslv2 |
                       ssl::context::no_sslv3 | ssl::context::no_tlsv1 | ssl::context::no_tlsv1_1 |
                       SSL_OP_NO_RENEGOTIATION);
  error_code error;
  context->use_certificate_chain(asio::buffer(pair.certificate), error);
  if (!error) {
    context->use_private_key(asio::buffer(pair.key), ssl::context::pem, error);
  }
  if (!error) return context;
  throw sdk::Failure(sdk::Code::kInvalid,
                     "OpenSSL does not take the certificate and its key: " + error.message(),
                     "webhook");
}

// One connection. Everything but `context` is its thread's alone.
struct Session {
  Session(tcp::socket socket, TlsContext the_context)
      : context(std::move(the_context)), stream(std::move(socket), *context) {}
  void close() { beast::get_lowest_layer(stream).close(); }

  TlsContext context;
  beast::ssl_stream<beast::tcp_stream> stream;
  beast::flat_buffer buffer{kBuffer};
  std::size_t reserved = 0;  // bytes of its body
  bool answering = false;
  bool closed = false;
};

// Adds one for as long as it lives.
class Counted {
 public:
  explicit Counted(std::size_t& count) : count_(count) { ++count_; }
  ~Counted() { --count_; }
  Counted(const Counted&) = delete;
  Counted& operator=(const Counted&) = delete;

 private:
  std::size_t& count_;
};

// Whether it is time to say it again: anybody may knock as often as he likes.
class OnceAMinute {
 public:
  bool due() {
    const auto now = steady_clock::now();
    if (told_ && now - *told_ < kTellAgain) return false;
    told_ = now;
    return true;
  }

 private:
  std::optional<steady_clock::time_point> told_;
};

http::response<http::string_body> make_response(WebhookResponse answer, bool keep_alive) {
  http::response<http::string_body> response;
  response.version(11);
  response.result(answer.status);
  response.set(http::field::content_type, answer.content_type);
  response.set(http::field::server, "egw");
  if (answer.status == 503) response.set(http::field::retry_after, "1");
  response.keep_alive(keep_alive);
  response.body() = std::move(answer.body);
  response.prepare_payload();
  return response;
}

WebhookResponse refusal(unsigned status) {
  WebhookResponse out;
  out.status = status;
  switch (status) {
    case 413:
      out.body = "the body is too long\n";
      break;
    case 500:
      out.body = "the question could not be answered\n";
      break;
    case 503:
      out.body = "too many requests at once\n";
      break;
    default:
      out.body = "no HTTP request\n";
  }
  return out;
}

// What a failed read is answered with; 0: there is nobody to answer.
unsigned status_for(const error_code& error) {
  if (error == http::error::body_limit) return 413;
  if (error == http::error::end_of_stream || error == http::error::partial_message) return 0;
  const error_code http_error = http::error::bad_method;
  return error.category() == http_error.category() ? 400 : 0;
}

}  // namespace

// What connections share. But for `context`, `handler` and the pools, the thread's of the
// connections.
struct WebhookServer::Shared {
  using Ptr = std::shared_ptr<Shared>;
  Shared(Handler the_handler, sdk::Host the_host, WebhookLimits the_limits)
      : acceptor(loop), handler(std::move(the_handler)), host(the_host), limits(the_limits) {}

  [[nodiscard]] TlsContext current_context() {
    const std::lock_guard lock(mutex);
    return context;
  }
  bool close_oldest(const Session* but, bool with_body);
  bool reserve(Session& session, std::size_t bytes);
  void release(Session& session) { bodies -= std::exchange(session.reserved, 0); }
  void tell_handshake(const error_code& error);

  class Place;
  static asio::awaitable<void> accept(Ptr shared);
  static asio::awaitable<bool> accept_one(Ptr shared, bool pause);
  static asio::awaitable<void> serve(Ptr shared, tcp::socket socket);
  static asio::awaitable<bool> exchange(Ptr shared, Session& session, bool first);
  static asio::awaitable<bool> send(Ptr shared, Session& session, WebhookResponse answer,
                                    bool keep_alive);
  static asio::awaitable<bool> refuse(Ptr shared, Session& session, unsigned status) {
    return send(std::move(shared), session, refusal(status), false);
  }
  static asio::awaitable<WebhookResponse> handle(Ptr shared, WebhookRequest request);
  static asio::awaitable<WebhookResponse> ask(Ptr shared, WebhookRequest request);

  asio::io_context loop{1};
  asio::thread_pool pool{kThreads}, large_pool{1};
  tcp::acceptor acceptor;
  const Handler handler;
  const sdk::Host host;
  const WebhookLimits limits;
  std::list<Session*> open;  // whoever has done nothing for longest comes first
  std::size_t bodies = 0, waiting = 0;
  bool ended = false;
  OnceAMinute handshakes, failures;  // told of
  std::mutex mutex;
  TlsContext context;
};

// A session's among the open ones, however it ends.
class WebhookServer::Shared::Place {
 public:
  Place(Shared& shared, Session& session)
      : shared_(shared), session_(session), at_(shared.open.insert(shared.open.end(), &session)) {}
  ~Place() {
    shared_.release(session_);
    shared_.open.erase(at_);
  }
  Place(const Place&) = delete;
  Place& operator=(const Place&) = delete;
  void to_the_end() { shared_.open.splice(shared_.open.end(), shared_.open, at_); }

 private:
  Shared& shared_;
  Session& session_;
  const std::list<Session*>::iterator at_;
};

struct WebhookServer::Threads {
  std::thread loop;
};

// Whether one was closed. with_body: only one that has bytes reserved.
bool WebhookServer::Shared::close_oldest(const Session* but, bool with_body) {
  for (Session* session : open) {
    if (session == but || session->answering || session->closed) continue;
    if (with_body && session->reserved == 0) continue;
    release(*session);
    session->closed = true;
    session->close();
    return true;
  }
  return false;
}

bool WebhookServer::Shared::reserve(Session& session, std::size_t bytes) {
  while (bodies + bytes > limits.bodies) {
    if (!close_oldest(&session, true)) return false;
  }
  bodies += bytes;
  session.reserved = bytes;
  return true;
}

// That the API server does not trust the certificate is heard here and nowhere else.
void WebhookServer::Shared::tell_handshake(const error_code& error) {
  if (ended || error.category() != asio::error::get_ssl_category() || !handshakes.due()) return;
  host.warn("webhook: a TLS handshake has failed: " + error.message() +
            "; if the client was the API server, caBundle of the webhook configurations does not "
            "fit the certificate");
}

asio::awaitable<WebhookResponse> WebhookServer::Shared::handle(Ptr shared, WebhookRequest request) {
  try {
    co_return shared->handler(request);
  } catch (const std::exception& e) {
    shared->host.error(std::string("webhook: a question could not be answered: ") + e.what());
  } catch (...) {
    shared->host.error("webhook: a question could not be answered");
  }
  co_return refusal(500);
}

asio::awaitable<WebhookResponse> WebhookServer::Shared::ask(Ptr shared, WebhookRequest request) {
  if (shared->waiting >= shared->limits.waiting + kThreads) co_return refusal(503);
  const Counted waits(shared->waiting);
  auto& pool = request.body.size() > shared->limits.large ? shared->large_pool : shared->pool;
  auto work = handle(shared, std::move(request));
  co_return co_await asio::co_spawn(pool.get_executor(), std::move(work), asio::use_awaitable);
}

asio::awaitable<bool> WebhookServer::Shared::send(Ptr shared, Session& session,
                                                  WebhookResponse answer, bool keep_alive) {
  auto response = make_response(std::move(answer), keep_alive);
  beast::get_lowest_layer(session.stream).expires_after(shared->limits.request);
  const auto [error, bytes] = co_await http::async_write(session.stream, response, kAwait);
  co_return !error && keep_alive && !shared->ended;
}

// One request and its answer; whether there may be another.
asio::awaitable<bool> WebhookServer::Shared::exchange(Ptr shared, Session& session, bool first) {
  const WebhookLimits& limits = shared->limits;
  auto& tcp_stream = beast::get_lowest_layer(session.stream);
  http::request_parser<http::string_body> parser;
  parser.header_limit(kMaxHeader);
  parser.body_limit(limits.body);
  tcp_stream.expires_after(first ? limits.request : limits.idle);
  const auto [header_error, header_bytes] =
      co_await http::async_read_header(session.stream, session.buffer, parser, kAwait);
  if (const unsigned status = status_for(header_error); status != 0) {
    co_return co_await refuse(shared, session, status);
  }
  if (header_error || session.closed || shared->ended) co_return false;
  WebhookRequest request;
  request.arrived = steady_clock::now();
  const auto length = parser.content_length();
  const std::size_t bytes = length             ? static_cast<std::size_t>(*length)
                            : parser.chunked() ? limits.body
                                               : 0;
  if (!shared->reserve(session, bytes)) {
    co_return co_await refuse(shared, session, 503);
  }
  tcp_stream.expires_after(limits.request);
  const auto [body_error, body_bytes] =
      co_await http::async_read(session.stream, session.buffer, parser, kAwait);
  if (const unsigned status = status_for(body_error); status != 0) {
    co_return co_await refuse(shared, session, status);
  }
  if (body_error || session.closed || shared->ended) co_return false;
  const bool keep_alive = parser.get().keep_alive();
  request.method = std::string(parser.get().method_string());
  request.target = std::string(parser.get().target());
  request.body = std::move(parser.get().body());
  session.answering = true;
  WebhookResponse answer = co_await ask(shared, std::move(request));
  shared->release(session);
  const bool more = co_await send(shared, session, std::move(answer), keep_alive);
  session.answering = false;
  co_return more;
}

asio::awaitable<void> WebhookServer::Shared::serve(Ptr shared, tcp::socket socket) {
  Session session(std::move(socket), shared->current_context());
  Place place(*shared, session);
  auto& tcp_stream = beast::get_lowest_layer(session.stream);
  tcp_stream.expires_after(shared->limits.request);
  const auto [error] = co_await session.stream.async_handshake(ssl::stream_base::server, kAwait);
  if (error) shared->tell_handshake(error);
  bool again = !error && !session.closed && !shared->ended;
  for (bool first = true; again; first = false) {
    again = co_await exchange(shared, session, first);
    shared->release(session);
    place.to_the_end();
    again = again && !session.closed;
  }
  if (!error && !session.closed) {
    tcp_stream.expires_after(kFarewell);
    (void)co_await session.stream.async_shutdown(kAwait);
  }
}

// Whether it could; pause: it could not before.
asio::awaitable<bool> WebhookServer::Shared::accept_one(Ptr shared, bool pause) {
  if (pause) {  // out of descriptors or of memory, most likely: let some be closed first
    shared->close_oldest(nullptr, false);
    asio::steady_timer timer(shared->loop, kPause);
    co_await timer.async_wait(kAwait);
  }
  tcp::socket socket(shared->loop);
  const auto [error] = co_await shared->acceptor.async_accept(socket, kAwait);
  if (error || shared->ended) co_return !error;
  // One that is closed leaves the list a moment later.
  const std::size_t most = shared->limits.connections;
  if (shared->open.size() >= most && !shared->close_oldest(nullptr, false)) co_return true;
  auto session = serve(shared, std::move(socket));
  asio::co_spawn(shared->loop, std::move(session), asio::detached);
  co_return true;
}

asio::awaitable<void> WebhookServer::Shared::accept(Ptr shared) {
  for (bool well = true; !shared->ended;) {
    try {
      well = co_await accept_one(shared, !well);
    } catch (const std::exception& e) {
      well = false;
      if (shared->failures.due()) {
        shared->host.error(std::string("webhook: a connection could not be taken: ") + e.what());
      }
    }
  }
}

namespace {

// Threads that are begun while this lives take no signals: those are the host's.
class SignalsBlocked {
 public:
  SignalsBlocked() {
    sigset_t all;
    ::sigfillset(&all);
    ::pthread_sigmask(SIG_BLOCK, &all, &before_);
  }
  ~SignalsBlocked() { ::pthread_sigmask(SIG_SETMASK, &before_, nullptr); }
  SignalsBlocked(const SignalsBlocked&) = delete;
  SignalsBlocked& operator=(const SignalsBlocked&) = delete;

 private:
  sigset_t before_{};
};

}  // namespace

WebhookServer::WebhookServer(const std::string& address, std::uint16_t port, const KeyPair& pair,
                             Handler handler, sdk::Host host, WebhookLimits limits) {
  const SignalsBlocked blocked;
  shared_ = std::make_shared<Shared>(std::move(handler), host, limits);
  use(pair);
  error_code error;
  const tcp::endpoint endpoint(asio::ip::make_address(address, error), port);
  auto& acceptor = shared_->acceptor;
  if (!error) acceptor.open(endpoint.protocol(), error);
  if (!error) acceptor.set_option(asio::socket_base::reuse_address(true), error);
  if (!error && endpoint.address().is_v6()) {
    acceptor.set_option(asio::ip::v6_only(false), error);
  }
  if (!error) acceptor.bind(endpoint, error);
  if (!error) acceptor.listen(asio::socket_base::max_listen_connections, error);
  if (error) {
    throw sdk::Failure(sdk::Code::kUnavailable,
                       "cannot listen on " + address + " port " + std::to_string(port) +
                           ": choose others with webhook.address and webhook.port",
                       "webhook", error.value());
  }
  asio::co_spawn(shared_->loop, Shared::accept(shared_), asio::detached);
  threads_ = std::make_unique<Threads>();
  threads_->loop = std::thread([shared = shared_.get()] { shared->loop.run(); });
}

WebhookServer::~WebhookServer() {
  if (threads_ == nullptr) return;
  Shared* shared = shared_.get();
  // An answer under way is still given; nothing comes to the pool once `ended` is set.
  std::promise<void> told;
  asio::post(shared->loop, [shared, &told] {
    shared->ended = true;
    error_code ignored;
    shared->acceptor.close(ignored);
    while (shared->close_oldest(nullptr, false)) {
    }
    told.set_value();
  });
  told.get_future().wait();
  shared->pool.join();
  shared->large_pool.join();
  asio::post(shared->loop, [shared] {
    for (Session* session : shared->open) session->close();
  });
  threads_->loop.join();
}

void WebhookServer::use(const KeyPair& pair) {
  TlsContext context = make_context(pair);
  const std::lock_guard lock(shared_->mutex);
  shared_->context = std::move(context);
}

std::uint16_t WebhookServer::port() const {
  error_code error;
  return shared_->acceptor.local_endpoint(error).port();
}

}  // namespace egw::kube
