// A server that was away and is not quite itself at first: all subscriptions are back soon, and
// while it is away it is one question that asks after it.
#include <gmock/gmock.h>

#include <atomic>
#include <list>
#include <memory>
#include <thread>

#include "hostile_server.hpp"
#include "hostile_store.hpp"

namespace egw::kube::test {
namespace {

using namespace std::chrono_literals;
using std::chrono::steady_clock;
using store_kit::gateway;
using store_kit::node;
using store_kit::pod;
using store_kit::policy;
using store_kit::Recorder;
using testing::Gt;
using testing::Lt;
using Exchange = HostileServer::Exchange;

constexpr std::string_view kInitialEnd =
    R"({"type":"BOOKMARK","object":{"metadata":{"resourceVersion":"10",)"
    R"("annotations":{"k8s.io/initial-events-end":"true"}}}})"
    "\n";

bool serve_watch(Exchange& e) {
  if (e.line().find("watch=1") == std::string::npos) return e.send(ok("{}"));
  if (e.send(kChunkedHeader) && e.send(chunk(kInitialEnd))) e.hold();
  return false;
}

// The port of a server that was there.
int free_port() {
  return HostileServer([](Exchange&) { return false; }).port();
}

class KubeOutage : public testing::Test {
 protected:
  const int port = free_port();
  Store s{"http://127.0.0.1:" + std::to_string(port)};
  std::list<Recorder> recorders;

  void subscribe_all() {
    for (int i = 0; i < 3; ++i) {
      for (const auto& kind : {gateway(), policy(), pod(), node()}) {
        recorders.emplace_back(s.store, kind);
      }
    }
  }
};

// As kube-apiserver does: 403 before it has read its roles, then 429 before it has read a kind. And
// while it cannot serve, a thousand agents with a dozen watches each must not be twelve thousand
// questions a second: one asks for all.
TEST_F(KubeOutage, AServerThatComesUpSlowlyIsAskedByOneAndAllAreBackSoon) {
  std::atomic<int> probes{0}, watches{0};
  const auto counted = steady_clock::now() + 2500ms;
  const auto back = counted + 3s;
  const HostileServer server(
      [&](Exchange& e) {
        const auto now = steady_clock::now();
        if (now < back) {
          if (now > counted) ++(e.line() == "GET /readyz" ? probes : watches);
          return e.send(status(503, R"({"message":"not now"})"));
        }
        if (now < back + 400ms) return e.send(status(403, R"({"message":"no roles yet"})"));
        if (now < back + 900ms) {
          return e.send(
              status(429, R"({"message":"storage is (re)initializing"})", "Retry-After: 1\r\n"));
        }
        return serve_watch(e);
      },
      port);
  subscribe_all();
  for (Recorder& r : recorders) EXPECT_TRUE(r.wait("SYNCED", 15s));
  EXPECT_LT(steady_clock::now() - back, 3500ms);
  EXPECT_THAT(probes.load(), testing::AllOf(Gt(1), Lt(8)));
  EXPECT_LT(watches.load(), 12 * 3);
}

TEST_F(KubeOutage, AnAnswerToAnybodyWakesAll) {
  subscribe_all();
  for (Recorder& r : recorders) ASSERT_TRUE(r.wait("DISCONNECTED", 5s));
  std::this_thread::sleep_for(3s);  // the pauses have grown
  const HostileServer server(serve_watch, port);
  const auto back = steady_clock::now();
  EXPECT_TRUE(s.calls.get(gateway(), "", "g").ok());
  for (Recorder& r : recorders) EXPECT_TRUE(r.wait("SYNCED", 10s));
  EXPECT_LT(steady_clock::now() - back, 500ms);
}

// One object each second, for ever, and never the end of the list.
TEST_F(KubeOutage, AListThatDripsIsEndedAndTold) {
  const HostileServer server(
      [](Exchange& e) {
        if (!e.send(kChunkedHeader)) return false;
        for (int i = 0; e.send(chunk(R"({"type":"ADDED","object":{"metadata":{"name":"g)" +
                                     std::to_string(i) + R"(","resourceVersion":"9"}}})" + "\n")) &&
                        e.pause(1s);
             ++i) {
        }
        return false;
      },
      port);
  recorders.emplace_back(s.store, gateway());
  EXPECT_TRUE(recorders.front().wait(
      [](const Recorder::Event& e) {
        return e.type == EGW_EVENT_DISCONNECTED &&
               e.message.find("the list does not end") != std::string::npos;
      },
      20s));
}

}  // namespace
}  // namespace egw::kube::test
