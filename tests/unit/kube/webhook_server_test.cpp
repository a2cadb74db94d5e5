// The webhook's HTTPS server against clients that mean no good: everything ends within its bound,
// and who behaves is served all the while.
#include "webhook_server.hpp"

#include <gmock/gmock.h>
#include <net/if.h>
#include <openssl/ssl.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <condition_variable>
#include <cstring>
#include <fstream>
#include <future>
#include <mutex>
#include <thread>

#include "http.hpp"
#include "support/store_kit.hpp"
#include "webhook_client.hpp"

namespace egw::kube::test {
namespace {

using namespace std::chrono_literals;
using std::chrono::steady_clock;
using testing::Contains;
using testing::HasSubstr;
using testing::StartsWith;

// Answers with the length of the body; "/wait" waits for open(), "/throw" throws what nobody
// expects,
// "/nonsense" gives an answer that cannot be sent.
class Bench {
 public:
  explicit Bench(WebhookLimits limits = {}) : material(loopback_material()) {
    server = std::make_unique<WebhookServer>(
        "127.0.0.1", std::uint16_t{0}, material.serving,
        [this](const WebhookRequest& request) { return answer(request); }, host.services(), limits);
  }
  ~Bench() { open(); }
  Bench(const Bench&) = delete;
  Bench& operator=(const Bench&) = delete;

  [[nodiscard]] std::uint16_t port() const { return server->port(); }
  std::string ask(TlsClient& client, const std::string& target, const std::string& body = "{}") {
    if (!client.send(post(target, body))) return "not sent";
    return client.receive();
  }
  // A client of its own is served.
  void expect_service() {
    TlsClient client(port(), material.authorities);
    EXPECT_THAT(ask(client, "/x", "12345"), HasSubstr("\r\n\r\n5"));
  }
  void open() {
    const std::lock_guard lock(mutex);
    opened = true;
    changed.notify_all();
  }
  bool waits(int count, std::chrono::milliseconds time = 5s) {
    std::unique_lock lock(mutex);
    return changed.wait_for(lock, time, [&] { return waiting == count; });
  }
  void await_waiting(int count) { ASSERT_TRUE(waits(count)) << count; }

  Material material;
  store_kit::TestHost host;
  std::mutex mutex;
  std::condition_variable changed;
  bool opened = false;
  int waiting = 0;
  std::unique_ptr<WebhookServer> server;  // last: its threads use the others

 private:
  WebhookResponse answer(const WebhookRequest& request) {
    if (request.target == "/wait") {
      std::unique_lock lock(mutex);
      ++waiting;
      changed.notify_all();
      changed.wait(lock, [this] { return opened; });
    }
    if (request.target == "/throw") throw 5;  // NOLINT: no std::exception
    WebhookResponse out;
    if (request.target == "/nonsense") out.status = 1000;
    out.body = std::to_string(request.body.size());
    return out;
  }
};

TEST(KubeWebhookServer, AnswersOverOneConnectionAgainAndAgain) {
  Bench bench;
  TlsClient client(bench.port(), bench.material.authorities);
  for (std::size_t size : {std::size_t{0}, std::size_t{1}, std::size_t{300'000}, std::size_t{7}}) {
    EXPECT_THAT(bench.ask(client, "/x", std::string(size, 'x')),
                HasSubstr("\r\n\r\n" + std::to_string(size)));
  }
}

TEST(KubeWebhookServer, IsWhoItSaysItIsAndIsToldWhenItIsNotBelieved) {
  Bench bench;
  const auto call = [&](const std::string& authorities) {
    HttpClient client(
        {"https://127.0.0.1:" + std::to_string(bench.port()), authorities, "", "", false},
        HttpClient::Speaks::kHttp1);
    HttpRequest request;
    request.method = "POST";
    request.path = "/x";
    request.body = "abc";
    return client.call(request, {}, nullptr);
  };
  const HttpAnswer good = call(bench.material.authorities);
  EXPECT_EQ(good.body, "3") << good.error;
  EXPECT_NE(call(loopback_material().authorities).error, "");
  const auto told = [&] { return bench.host.logged(); };
  const auto until = steady_clock::now() + 5s;
  while (told().empty() && steady_clock::now() < until) std::this_thread::yield();
  EXPECT_THAT(told(), Contains(HasSubstr("caBundle")));
}

TEST(KubeWebhookServer, TlsBefore12IsRefused) {
  Bench bench;
  EXPECT_THROW(TlsClient(bench.port(), "", TLS1_1_VERSION), std::runtime_error);
  EXPECT_NO_THROW(TlsClient(bench.port(), "", TLS1_2_VERSION));
}

TEST(KubeWebhookServer, ANewCertificateIsForNewConnections) {
  Bench bench;
  TlsClient before(bench.port(), bench.material.authorities);
  const Material next = loopback_material();
  bench.server->use(next.serving);
  TlsClient after(bench.port(), next.authorities);
  EXPECT_EQ(after.certificate(), next.serving.certificate);
  EXPECT_THAT(bench.ask(after, "/x"), HasSubstr("\r\n\r\n2"));
  EXPECT_THAT(bench.ask(before, "/x"), HasSubstr("\r\n\r\n2")) << "the old connection goes on";
  EXPECT_THROW(bench.server->use({"no", "thing"}), sdk::Failure);
  EXPECT_NO_THROW(TlsClient(bench.port(), next.authorities)) << "the last good one stays";
}

TEST(KubeWebhookServer, WhatIsNoHttpIsAnsweredWith400) {
  Bench bench;
  for (const std::string& bytes :
       {std::string("\x00\x01\x02\x03\r\n\r\n", 8), std::string("GARBAGE\r\n\r\n"),
        std::string("POST /x HTTP/9.9\r\n\r\n"),
        std::string("POST /x HTTP/1.1\r\nContent-Length: minus one\r\n\r\n"),
        std::string("POST /x HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n"),
        std::string("POST /x HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"),
        "POST /x HTTP/1.1\r\nX: " + std::string(40'000, 'a') + "\r\n\r\n"}) {
    TlsClient client(bench.port());
    client.send(bytes);
    EXPECT_THAT(client.receive(), StartsWith("HTTP/1.1 400")) << bytes.substr(0, 60);
    EXPECT_TRUE(client.closed_within(5s));
  }
  bench.expect_service();
}

TEST(KubeWebhookServer, ABodyThatIsTooLongIsAnsweredWith413) {
  WebhookLimits limits;
  limits.body = 100'000;
  Bench bench(limits);
  TlsClient stated(bench.port());
  stated.send("POST /x HTTP/1.1\r\nContent-Length: 100001\r\n\r\n");
  EXPECT_THAT(stated.receive(), StartsWith("HTTP/1.1 413"));
  TlsClient huge(bench.port());
  huge.send("POST /x HTTP/1.1\r\nContent-Length: 18446744073709551615\r\n\r\n");
  EXPECT_THAT(huge.receive(), StartsWith("HTTP/1.1 413"));
  TlsClient endless(bench.port());
  std::string bytes = "POST /x HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n";
  for (int i = 0; i < 11; ++i) bytes += "2710\r\n" + std::string(10'000, 'x') + "\r\n";
  endless.send(bytes);
  EXPECT_THAT(endless.receive(), StartsWith("HTTP/1.1 413"));
  bench.expect_service();
}

TEST(KubeWebhookServer, TheSlowAreLeftAtTheirDeadline) {
  WebhookLimits limits;
  limits.request = 300ms;
  limits.idle = 400ms;
  Bench bench(limits);
  TlsClient header(bench.port());
  header.send("POST /x HT");
  EXPECT_TRUE(header.closed_within(5s));
  TlsClient body(bench.port());
  body.send("POST /x HTTP/1.1\r\nContent-Length: 10\r\n\r\n12345");
  EXPECT_TRUE(body.closed_within(5s));
  TlsClient idle(bench.port());
  EXPECT_THAT(bench.ask(idle, "/x"), HasSubstr("\r\n\r\n2"));
  EXPECT_TRUE(idle.closed_within(5s));
  bench.expect_service();
}

TEST(KubeWebhookServer, WhoOnlyHoldsAConnectionMakesRoomForTheNext) {
  WebhookLimits limits;
  limits.connections = 4;
  Bench bench(limits);
  TlsClient working(bench.port());
  working.send(post("/wait", "12"));
  bench.await_waiting(1);
  std::vector<std::unique_ptr<TlsClient>> holders;
  for (int i = 0; i < 20; ++i) holders.push_back(std::make_unique<TlsClient>(bench.port()));
  bench.expect_service();
  EXPECT_TRUE(holders.front()->closed_within(5s));
  bench.open();
  EXPECT_THAT(working.receive(), HasSubstr("\r\n\r\n2")) << "who is being answered is left alone";
}

TEST(KubeWebhookServer, BodiesUnderWayHaveABudget) {
  WebhookLimits limits;
  limits.body = 1000;
  limits.bodies = 2500;
  Bench bench(limits);
  std::vector<std::unique_ptr<TlsClient>> holders;
  for (int i = 0; i < 10; ++i) {
    holders.push_back(std::make_unique<TlsClient>(bench.port()));
    holders.back()->send("POST /x HTTP/1.1\r\nContent-Length: 1000\r\n\r\nabc");
  }
  bench.expect_service();
  EXPECT_TRUE(holders.front()->closed_within(5s));
}

// What two large bodies become in memory is not there at the same time; small ones pass by.
TEST(KubeWebhookServer, LargeBodiesAreAnsweredOneAfterTheOther) {
  WebhookLimits limits;
  limits.large = 1000;
  Bench bench(limits);
  TlsClient first(bench.port()), second(bench.port()), small(bench.port());
  const std::string large = post("/wait", std::string(1001, 'x'));
  ASSERT_TRUE(first.send(large));
  bench.await_waiting(1);
  ASSERT_TRUE(second.send(large));
  ASSERT_TRUE(small.send(post("/wait", std::string(1000, 'x'))));
  bench.await_waiting(2);
  EXPECT_FALSE(bench.waits(3, 300ms));
  bench.open();
  for (TlsClient* client : {&first, &second}) {
    EXPECT_THAT(client->receive(), HasSubstr("\r\n\r\n1001"));
  }
  EXPECT_THAT(small.receive(), HasSubstr("\r\n\r\n1000"));
}

// Neither its place among those who wait nor among the connections stays taken.
TEST(KubeWebhookServer, AnExchangeThatFailsLeavesNothingBehind) {
  WebhookLimits limits;
  limits.connections = 4;
  limits.waiting = 0;
  Bench bench(limits);
  for (int i = 0; i < 6; ++i) {
    TlsClient thrown(bench.port()), nonsense(bench.port());
    EXPECT_THAT(bench.ask(thrown, "/throw"), StartsWith("HTTP/1.1 500"));
    ASSERT_TRUE(nonsense.send(post("/nonsense", "{}")));
    EXPECT_TRUE(nonsense.closed_within(5s));
  }
  EXPECT_THAT(bench.host.logged(), Contains(HasSubstr("could not be answered")));
  bench.expect_service();
}

TEST(KubeWebhookServer, MoreQuestionsThanCanWaitAreTurnedAway) {
  WebhookLimits limits;
  limits.waiting = 2;
  Bench bench(limits);
  std::vector<std::unique_ptr<TlsClient>> clients;
  for (int i = 0; i < 6; ++i) {  // four threads, and two that wait
    clients.push_back(std::make_unique<TlsClient>(bench.port()));
    clients.back()->send(post("/wait", "1"));
  }
  bench.await_waiting(4);
  // The two that wait have been read when a seventh has been refused.
  std::string refused;
  const auto until = steady_clock::now() + 5s;
  while (refused.rfind("HTTP/1.1 503", 0) != 0 && steady_clock::now() < until) {
    TlsClient client(bench.port());
    client.send(post("/x", "1"));
    refused = client.receive(100ms);
  }
  EXPECT_THAT(refused, StartsWith("HTTP/1.1 503"));
  bench.open();
  int answered = 0;
  for (const auto& client : clients) answered += client->receive().rfind("HTTP/1.1 200", 0) == 0;
  EXPECT_GE(answered, 4);
  bench.expect_service();
}

TEST(KubeWebhookServer, EndsWithConnectionsOfAllKindsOpen) {
  Bench bench;
  TlsClient idle(bench.port()), half(bench.port()), working(bench.port());
  half.send("POST /x HTTP/1.1\r\nContent-Length: 10\r\n\r\n1");
  working.send(post("/wait", "123"));
  bench.await_waiting(1);
  const auto ended = std::async(std::launch::async, [&] { bench.server.reset(); });
  EXPECT_TRUE(idle.closed_within(5s));
  EXPECT_TRUE(half.closed_within(5s));
  bench.open();
  ended.wait();
  EXPECT_THAT(working.receive(), HasSubstr("\r\n\r\n3")) << "an answer under way is still given";
}

// On a thread with a network of its own, where a socket of `::` would otherwise be for IPv6 alone.
// Empty: a client came in by IPv4; "no": there is no such network here.
std::string served_by_both_families() {
  if (::unshare(CLONE_NEWNET) != 0) return "no";
  std::ofstream("/proc/sys/net/ipv6/bindv6only") << "1";
  std::string only;
  std::ifstream("/proc/sys/net/ipv6/bindv6only") >> only;
  const int fd = ::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  ifreq loopback{};
  std::memcpy(loopback.ifr_name, "lo", 3);
  loopback.ifr_flags = IFF_UP;
  const bool up = ::ioctl(fd, SIOCSIFFLAGS, &loopback) == 0;
  ::close(fd);
  if (only != "1" || !up) return "no";
  try {
    const Material material = loopback_material();
    const WebhookServer server(
        "::", 0, material.serving, [](const WebhookRequest&) { return WebhookResponse(); },
        sdk::Host());
    const TlsClient client(server.port(), material.authorities);
    return "";
  } catch (const std::exception& e) {
    return e.what();
  }
}

TEST(KubeWebhookServer, TheWildcardOfIpv6IsForBothFamilies) {
  if (::geteuid() != 0) GTEST_SKIP() << "needs root to make a namespace";
  std::string trouble;
  std::thread([&trouble] { trouble = served_by_both_families(); }).join();
  if (trouble == "no") GTEST_SKIP() << "needs a network namespace with sysctls that can be written";
  EXPECT_EQ(trouble, "");
}

TEST(KubeWebhookServer, APortThatIsTakenIsSaidByItsKey) {
  Bench bench;
  try {
    const WebhookServer second(
        "127.0.0.1", bench.port(), bench.material.serving,
        [](const WebhookRequest&) { return WebhookResponse(); }, sdk::Host());
    FAIL() << "two servers on one port";
  } catch (const sdk::Failure& failure) {
    EXPECT_THAT(failure.status().text(), HasSubstr("webhook.port"));
    EXPECT_EQ(failure.status().code, sdk::Code::kUnavailable);
  }
}

}  // namespace
}  // namespace egw::kube::test
