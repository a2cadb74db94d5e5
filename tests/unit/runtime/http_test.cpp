// The HTTP servers over real sockets, with the client that `egw status --local` uses.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <filesystem>
#include <fstream>
#include <thread>
#include <vector>

#include "egw/runtime/admin_client.hpp"
#include "egw/runtime/endpoints.hpp"
#include "egw/runtime/http_server.hpp"

namespace egw::runtime {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;
using testing::StartsWith;

class Echo final : public HttpHandler {
 public:
  boost::asio::awaitable<HttpResponse> handle(HttpRequest request) override {
    HttpResponse response;
    if (request.target == "/none") response.status = 404;
    response.body = request.method + " " + request.target + " " + request.body;
    co_return response;
  }
};

class HttpTest : public testing::Test {
 protected:
  HttpTest() {
    std::string pattern = fs::temp_directory_path() / "egw-http-XXXXXX";
    folder = ::mkdtemp(pattern.data());
    thread = std::thread([this] { io.run(); });
  }
  ~HttpTest() override {
    io.stop();
    thread.join();
    server.reset();
    fs::remove_all(folder);
  }
  // Makes the server before the loop's thread can touch it.
  void serve_folder(std::shared_ptr<HttpHandler> handler) {
    auto made = serve_unix(io.get_executor(), folder / "x.sock", std::move(handler));
    ASSERT_TRUE(made) << made.error().to_string();
    server = std::move(*made);
  }
  static int connect_to(std::uint16_t port) {
    const int fd = ::socket(AF_INET, SOCK_STREAM, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(port);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    EXPECT_EQ(::connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
    return fd;
  }
  // One raw exchange over TCP.
  static std::string exchange(std::uint16_t port, const std::string& request) {
    const int fd = connect_to(port);
    EXPECT_EQ(::send(fd, request.data(), request.size(), MSG_NOSIGNAL),
              static_cast<ssize_t>(request.size()));
    std::string answer;
    char chunk[4096];
    for (ssize_t got = 0; (got = ::recv(fd, chunk, sizeof chunk, 0)) > 0;) {
      answer.append(chunk, static_cast<std::size_t>(got));
    }
    ::close(fd);
    return answer;
  }

  fs::path folder;
  boost::asio::io_context io{1};
  boost::asio::executor_work_guard<boost::asio::io_context::executor_type> work{io.get_executor()};
  std::thread thread;
  std::unique_ptr<HttpServer> server;
};

TEST_F(HttpTest, UnixSocketIsPrivateAndServes) {
  serve_folder(std::make_shared<Echo>());
  struct stat info {};
  ASSERT_EQ(::stat((folder / "x.sock").c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777U, 0600U);
  EXPECT_EQ(admin_call(folder / "x.sock", "/state").value(), "GET /state ");
  EXPECT_EQ(admin_call(folder / "x.sock", "/log-level", "debug").value(), "POST /log-level debug");
  const auto missing = admin_call(folder / "x.sock", "/none");
  ASSERT_FALSE(missing);
  EXPECT_EQ(missing.error().code, Errc::kNotFound);
}

TEST_F(HttpTest, NobodyThereIsSaid) {
  const auto answer = admin_call(folder / "x.sock", "/state");
  ASSERT_FALSE(answer);
  EXPECT_EQ(answer.error().code, Errc::kUnavailable);
  EXPECT_THAT(answer.error().to_string(), HasSubstr((folder / "x.sock").string()));
}

TEST_F(HttpTest, AStaleSocketFileIsReplaced) {
  std::ofstream(folder / "x.sock") << "left behind";
  serve_folder(std::make_shared<Echo>());
  EXPECT_TRUE(admin_call(folder / "x.sock", "/state"));
}

TEST_F(HttpTest, HealthOverTcp) {
  std::atomic<bool> ready{false};
  HealthChecks checks;
  checks.ready = [&ready] { return ready.load(); };
  checks.started = [] { return true; };
  auto made = serve_tcp(io.get_executor(), "127.0.0.1", 0, health_endpoints(std::move(checks)));
  ASSERT_TRUE(made);
  server = std::move(*made);
  const auto get = [&](const std::string& path) {
    return exchange(server->port(),
                    "GET " + path + " HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
  };
  EXPECT_THAT(get("/healthz"), StartsWith("HTTP/1.1 200"));
  EXPECT_THAT(get("/startupz"), StartsWith("HTTP/1.1 200"));
  EXPECT_THAT(get("/readyz"), StartsWith("HTTP/1.1 503"));
  ready = true;
  EXPECT_THAT(get("/readyz"), StartsWith("HTTP/1.1 200"));
  EXPECT_THAT(get("/other"), StartsWith("HTTP/1.1 404"));
}

TEST_F(HttpTest, BoundsAreKept) {
  auto made = serve_tcp(io.get_executor(), "127.0.0.1", 0, std::make_shared<Echo>());
  ASSERT_TRUE(made);
  server = std::move(*made);
  // Too long a header, too long a body, no HTTP at all: closed without an answer, and the next one
  // is served.
  EXPECT_EQ(exchange(server->port(), "GET /" + std::string(9000, 'a')), "");
  EXPECT_EQ(exchange(server->port(), "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 70000\r\n\r\n"),
            "");
  EXPECT_EQ(exchange(server->port(), "\x16\x03\x01 hello\r\n\r\n"), "");
  EXPECT_THAT(exchange(server->port(), "GET /x HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"),
              HasSubstr("GET /x "));
}

TEST_F(HttpTest, SilentConnectionsKeepNobodyOut) {
  auto made = serve_tcp(io.get_executor(), "127.0.0.1", 0, std::make_shared<Echo>());
  ASSERT_TRUE(made);
  server = std::move(*made);
  std::vector<int> silent;
  for (int i = 0; i < 64; ++i) silent.push_back(connect_to(server->port()));
  EXPECT_THAT(
      exchange(server->port(), "GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"),
      StartsWith("HTTP/1.1 200"));
  char byte = 0;
  EXPECT_EQ(::recv(silent[0], &byte, 1, 0), 0) << "the oldest was closed";
  EXPECT_EQ(::recv(silent[1], &byte, 1, MSG_DONTWAIT), -1) << "the others were not";
  for (const int fd : silent) ::close(fd);
}

TEST_F(HttpTest, AnAddressThatCannotBeBoundIsNamed) {
  auto first = serve_tcp(io.get_executor(), "127.0.0.1", 0, std::make_shared<Echo>());
  ASSERT_TRUE(first);
  server = std::move(*first);
  const auto second =
      serve_tcp(io.get_executor(), "127.0.0.1", server->port(), std::make_shared<Echo>());
  ASSERT_FALSE(second);
  EXPECT_THAT(second.error().to_string(), HasSubstr(std::to_string(server->port())));
  EXPECT_FALSE(serve_tcp(io.get_executor(), "localhost", 0, std::make_shared<Echo>()));
}

TEST(Logger, OneLineWhateverTheMessage) {
  testing::internal::CaptureStderr();
  {
    Logger text(LogFormat::kText, LogLevel::kInfo);
    text.debug("not shown");
    text.info("two\nlines", {{"key", "a b"}, {"plain", "x"}});
    Logger json(LogFormat::kJson, LogLevel::kWarn);
    json.info("not shown");
    json.warn("said \"so\"", {{"node", "n1\xff"}});
    json.set_level(LogLevel::kDebug);
    json.debug("now shown");
    EXPECT_EQ(json.level(), LogLevel::kDebug);
  }
  const std::string out = testing::internal::GetCapturedStderr();
  EXPECT_THAT(out, HasSubstr("INFO two lines key=\"a b\" plain=x\n"));
  EXPECT_EQ(std::count(out.begin(), out.end(), '\n'), 3);
  const auto start = out.find('{');
  const auto line = nlohmann::json::parse(out.substr(start, out.find('\n', start) - start));
  EXPECT_EQ(line["level"], "warn");
  EXPECT_EQ(line["msg"], "said \"so\"");
}

}  // namespace
}  // namespace egw::runtime
