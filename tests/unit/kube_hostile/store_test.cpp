// Answers that no API server gives: nothing crashes, nothing takes longer than its deadline, and
// each failure is one line.
#include <gmock/gmock.h>

#include <future>
#include <thread>
#include <utility>
#include <vector>

#include "hostile_server.hpp"
#include "hostile_store.hpp"

namespace egw::kube::test {
namespace {

using namespace std::chrono_literals;
using sdk::Code;
using std::chrono::steady_clock;
using store_kit::Answer;
using store_kit::gateway;
using store_kit::Recorder;
using testing::AllOf;
using testing::AnyOf;
using testing::ElementsAre;
using testing::Ge;
using testing::HasSubstr;
using testing::Le;
using testing::Not;
using Exchange = HostileServer::Exchange;

// A get that such a server answers.
Answer get_from(const HostileServer::Script& script) {
  HostileServer server(script);
  Store s(server.url());
  const auto begin = steady_clock::now();
  Answer a = s.calls.get(gateway(), "", "g");
  EXPECT_LT(steady_clock::now() - begin, 1500ms);
  EXPECT_THAT(a.status.text(), Not(HasSubstr("\n")));
  return a;
}

HostileServer::Script sends(std::string bytes) {
  return [bytes = std::move(bytes)](Exchange& e) {
    e.send(bytes);
    return false;
  };
}

constexpr std::string_view kObject =
    R"({"apiVersion":"egressgateway.spidernet.io/v1beta1","kind":"EgressGateway",)"
    R"("metadata":{"name":"g","resourceVersion":"7","managedFields":[{}]},"spec":{}})";

TEST(KubeHostile, AGoodAnswerIsTaken) {
  const Answer a = get_from(sends(ok(kObject)));
  ASSERT_TRUE(a.ok()) << a.status.text();
  EXPECT_EQ(a.revision, 7U);
  EXPECT_FALSE(a.object["metadata"].contains("managedFields"));
}

TEST(KubeHostile, MalformedAnswers) {
  const std::vector<std::string> all = {
      "",
      "nonsense\r\n\r\n",
      "HTTP/1.1 200 OK\r\n",
      "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{",
      "HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n{}",
      "HTTP/1.1 999999 OK\r\n\r\n",
      "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n",
      "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n{}",
      "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{}\r\n0\r\n\r\n",
      "HTTP/1.1 301 Moved\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n",
      ok(""),
      ok("{"),
      ok("null"),
      ok("[1]"),
      ok("\"text\""),
      ok(std::string("{\"a\":\"\0\xff\xfe\"}", 12)),
      ok(std::string(100000, '[')),
      ok("{\"a\":" + std::string(100000, '{')),
      status(404, "404 page not found"),
      status(404, "{\"kind\":\"Status\",\"details\":[]}"),
      status(500, std::string(5000, 'x') + "\n\n\x01"),
      status(401, "{}"),
      status(403, "{\"message\":{}}"),
      status(204, ""),
  };
  for (const std::string& bytes : all) {
    const Answer a = get_from(sends(bytes));
    EXPECT_FALSE(a.ok()) << bytes.substr(0, 100);
    EXPECT_FALSE(a.status.text().empty());
    EXPECT_NE(a.status.code, Code::kNotFound) << bytes.substr(0, 100);
    EXPECT_LT(a.status.text().size(), 1200U);
  }
}

TEST(KubeHostile, ObjectsWithoutWhatTheyMustHave) {
  for (const char* body : {"{}", R"({"metadata":[]})", R"({"metadata":{"resourceVersion":5}})",
                           R"({"metadata":{"resourceVersion":"99999999999999999999999"}})"}) {
    const Answer a = get_from(sends(ok(body)));
    EXPECT_TRUE(a.ok()) << body;
    EXPECT_EQ(a.revision, 0U) << body;
  }
}

TEST(KubeHostile, EndlessAnswersAreCutOff) {
  const auto endless = [](std::string head, std::string again) {
    return [head, again](Exchange& e) {
      if (!e.send(head)) return false;
      while (e.send(again)) {
      }
      return false;
    };
  };
  const std::string block(65536, 'x');
  EXPECT_EQ(get_from(endless("HTTP/1.1 200 OK\r\n", "X-Y: " + block.substr(0, 8000) + "\r\n"))
                .status.code,
            Code::kUnavailable);
  EXPECT_EQ(get_from(endless("HTTP/1.1 200 OK\r\n\r\n", block)).status.code, Code::kUnavailable);
  EXPECT_EQ(get_from(endless(std::string(kChunkedHeader), chunk(block))).status.code,
            Code::kUnavailable);
  EXPECT_EQ(get_from(endless("", block)).status.code, Code::kUnavailable);
}

TEST(KubeHostile, SlowAnswersEndAtTheDeadline) {
  const auto slow = [](std::string text) {
    return [text](Exchange& e) {
      for (const char c : text) {
        if (!e.send({&c, 1}) || !e.pause(50ms)) return false;
      }
      return false;
    };
  };
  for (const std::string& text : {ok(kObject), std::string("HTTP/1.1 200 OK\r\n\r\n{}")}) {
    const Answer a = get_from(slow(text));
    EXPECT_EQ(a.status.code, Code::kUnavailable);
    EXPECT_THAT(a.status.text(), HasSubstr("within 500 ms"));
  }
  const Answer silent = get_from([](Exchange& e) {
    e.hold();
    return false;
  });
  EXPECT_EQ(silent.status.code, Code::kUnavailable);
}

TEST(KubeHostile, NoServerAtAll) {
  std::string url;
  {
    url = HostileServer([](Exchange&) { return false; }).url();
  }
  Store s(url);
  const Answer a = s.calls.get(gateway(), "", "g");
  EXPECT_EQ(a.status.code, Code::kUnavailable);
  EXPECT_THAT(a.status.text(), HasSubstr("connect"));
  Recorder r(s.store, gateway());
  EXPECT_TRUE(r.wait("DISCONNECTED"));
}

TEST(KubeHostile, TlsToAServerThatSpeaksNone) {
  HostileServer server(sends("HTTP/1.1 400 Bad Request\r\n\r\n"));
  std::string url = server.url();
  Store s(url.replace(0, 4, "https"));
  const Answer a = s.calls.get(gateway(), "", "g");
  EXPECT_EQ(a.status.code, Code::kUnavailable);
  EXPECT_THAT(a.status.text(), AnyOf(HasSubstr("SSL"), HasSubstr("within 500 ms")));
}

TEST(KubeHostile, TooManyRequestsAreRepeatedAfterTheTimeThatTheServerAsksFor) {
  std::atomic<int> asked{0};
  HostileServer server(
      [&](Exchange& e) { return e.send(++asked < 3 ? status(429, "{}") : ok(kObject)); });
  Store s(server.url());
  EXPECT_TRUE(s.calls.get(gateway(), "", "g").ok());
  EXPECT_EQ(asked, 3);
  // Longer than the call may take: the answer is given at once.
  HostileServer busy([](Exchange& e) { return e.send(status(429, "{}", "Retry-After: 30\r\n")); });
  Store t(busy.url());
  const auto begin = steady_clock::now();
  EXPECT_EQ(t.calls.get(gateway(), "", "g").status.code, Code::kUnavailable);
  EXPECT_LT(steady_clock::now() - begin, 400ms);
  EXPECT_EQ(busy.requests(), 1);
}

TEST(KubeHostile, AWriteWhoseAnswerIsLostIsNotRepeated) {
  HostileServer server([](Exchange&) { return false; });
  Store s(server.url());
  EXPECT_EQ(s.calls.create(gateway(), "", "g", {{"spec", {{"x", 1}}}}).status.code,
            Code::kUnavailable);
  EXPECT_EQ(server.requests(), 1);
}

// Agents whose account is made anew ask the server a few times, not at each heartbeat and each look
// at their health; a new token counts at once, and an old one that is taken again soon.
TEST(KubeHostile, RefusedCredentialsAreSentSeldomAndOthersAtOnce) {
  std::atomic<bool> forgiving{false};
  HostileServer server([&](Exchange& e) {
    const bool good = e.request().find("Bearer good") != std::string::npos;
    return e.send(good || forgiving ? ok(kObject) : status(401, "{}"));
  });
  const Kubeconfig folder(server.url());
  const std::string token = folder.path() + ".token";
  std::ofstream(token) << "junk";
  Store s(server.url(), "tokenFile: \"" + token + "\"");
  const auto ask_until = [&](steady_clock::time_point end) {
    while (steady_clock::now() < end) {
      const Answer a = s.calls.get(gateway(), "", "g");
      if (a.ok()) return true;
      EXPECT_THAT(a.status.text(), HasSubstr("401"));
      EXPECT_FALSE(s.store.health().ok());
      std::this_thread::sleep_for(20ms);
    }
    return false;
  };
  EXPECT_FALSE(ask_until(steady_clock::now() + 3s));
  EXPECT_THAT(server.requests(), AllOf(Ge(3), Le(6)));
  std::ofstream(token) << "good";
  EXPECT_TRUE(s.calls.get(gateway(), "", "g").ok());
  EXPECT_TRUE(s.store.health().ok());

  std::ofstream(token) << "junk2";
  const int before = server.requests();
  EXPECT_FALSE(ask_until(steady_clock::now() + 500ms));
  EXPECT_THAT(server.requests() - before, AllOf(Ge(1), Le(3)));
  forgiving = true;
  EXPECT_TRUE(ask_until(steady_clock::now() + 3s));
}

// A heartbeat or a renewal of the Lease must not wait for it.
TEST(KubeHostile, ASlowCredentialProgramKeepsNobodyBeyondTheDeadline) {
  HostileServer server([](Exchange& e) {
    const bool good = e.request().find("Bearer good") != std::string::npos;
    return e.send(good ? ok(kObject) : status(401, "{}"));
  });
  const Kubeconfig folder(server.url());
  const std::string program = folder.path() + ".program", runs = folder.path() + ".runs";
  std::ofstream(program) << "#!/bin/sh\necho run >>" << runs
                         << "\nsleep 2\necho '{\"status\":{\"token\":\"good\"}}'\n";
  std::filesystem::permissions(program, std::filesystem::perms::owner_all);
  Store s(server.url(),
          "exec: {apiVersion: client.authentication.k8s.io/v1, command: \"" + program + "\"}");
  const auto begin = steady_clock::now();
  Answer a = s.calls.get(gateway(), "", "g");
  EXPECT_LT(steady_clock::now() - begin, 1500ms);
  EXPECT_THAT(a.status.text(), HasSubstr(program + ": the credential program has not ended yet"));
  while (!a.ok() && steady_clock::now() - begin < 10s) a = s.calls.get(gateway(), "", "g");
  EXPECT_TRUE(a.ok()) << a.status.text();
  EXPECT_EQ(read_file(runs), "run\n");
}

// ---- watches -----------------------------------------------------------------------------------

std::string event(const char* type, const char* name, int revision) {
  return std::string(R"({"type":")") + type + R"(","object":{"metadata":{"name":")" + name +
         R"(","uid":"u)" + name + R"(","resourceVersion":")" + std::to_string(revision) + "\"}}}\n";
}
std::string initial_end(int revision) {
  return R"({"type":"BOOKMARK","object":{"metadata":{"resourceVersion":")" +
         std::to_string(revision) + R"(","annotations":{"k8s.io/initial-events-end":"true"}}}})" +
         "\n";
}
bool is_initial(const Exchange& e) {
  return e.line().find("sendInitialEvents=true") != std::string::npos;
}
bool is_watch(const Exchange& e) { return e.line().find("watch=1") != std::string::npos; }

TEST(KubeHostile, EventsCutAnywhereAreTheSame) {
  HostileServer server([](Exchange& e) {
    e.send(kChunkedHeader);
    const std::string all = event("ADDED", "a", 1) + "\n" + event("ADDED", "b", 2) +
                            initial_end(2) + event("MODIFIED", "a", 3) + event("DELETED", "b", 4);
    for (const char c : all) {
      if (!e.send(chunk({&c, 1}))) return false;
    }
    e.hold();
    return false;
  });
  Store s(server.url());
  Recorder r(s.store, gateway());
  ASSERT_TRUE(r.wait("DELETE b"));
  EXPECT_THAT(r.take(),
              ElementsAre("SNAPSHOT", "UPSERT a", "UPSERT b", "SYNCED", "UPSERT a", "DELETE b"));
}

// An old revision: first by an event, then by the answer's code. The subscriber stays connected and
// gets the difference: what changed, what is new, what is gone, and what was made anew.
TEST(KubeHostile, AnExpiredRevisionBecomesADifference) {
  std::atomic<int> listed{0};
  HostileServer server([&](Exchange& e) {
    if (!is_initial(e)) {
      return e.line().find("resourceVersion=50") != std::string::npos ? e.send(status(410, "{}"))
                                                                      : (e.hold(), false);
    }
    e.send(kChunkedHeader);
    if (++listed == 1) {
      e.send(chunk(event("ADDED", "kept", 1) + event("ADDED", "changed", 2) +
                   event("ADDED", "gone", 3) + event("ADDED", "anew", 4) + initial_end(5)));
      e.pause(1100ms);
      e.send(chunk(R"({"type":"ERROR","object":{"code":410,"reason":"Expired"}})"
                   "\n"));
      e.send(chunk(""));
      return true;
    }
    std::string anew = event("ADDED", "anew", 12);
    anew.replace(anew.find("uanew"), 5, "other");
    e.send(chunk(event("ADDED", "kept", 1) + event("ADDED", "changed", 10) + anew +
                 event("ADDED", "new", 11) + initial_end(listed == 2 ? 50 : 60)));
    if (listed == 2) {
      e.pause(1100ms);
      e.send(chunk(""));  // the watch ends as it ought to
      return true;
    }
    e.send(chunk(event("ADDED", "last", 61)));
    e.hold();
    return false;
  });
  Store s(server.url());
  Recorder r(s.store, gateway());
  ASSERT_TRUE(r.wait("UPSERT last", 10s));
  EXPECT_EQ(listed, 3);
  EXPECT_THAT(r.take(), ElementsAre("SNAPSHOT", "UPSERT kept", "UPSERT changed", "UPSERT gone",
                                    "UPSERT anew", "SYNCED", "UPSERT changed", "DELETE anew",
                                    "UPSERT anew", "UPSERT new", "DELETE gone", "UPSERT last"));
}

TEST(KubeHostile, AServerWithoutStreamingListsIsListedInPages) {
  std::atomic<int> pages{0};
  HostileServer server([&](Exchange& e) {
    if (is_initial(e)) {
      return e.send(
          status(422, R"({"reason":"Invalid","message":"sendInitialEvents is forbidden"})"));
    }
    if (is_watch(e)) {
      EXPECT_THAT(e.line(), HasSubstr("resourceVersion=9"));
      e.send(kChunkedHeader);
      e.send(chunk(event("ADDED", "c", 10)));
      e.hold();
      return false;
    }
    ++pages;
    if (e.line().find("continue=more") == std::string::npos) {
      return e.send(ok(R"({"metadata":{"continue":"more","resourceVersion":"9"},)"
                       R"("items":[{"metadata":{"name":"a","resourceVersion":"1"}}]})"));
    }
    return e.send(ok(R"({"metadata":{"resourceVersion":"9"},)"
                     R"("items":[{"metadata":{"name":"b","resourceVersion":"2"}}]})"));
  });
  Store s(server.url());
  Recorder r(s.store, gateway());
  ASSERT_TRUE(r.wait("UPSERT c"));
  EXPECT_THAT(r.take(), ElementsAre("SNAPSHOT", "UPSERT a", "UPSERT b", "SYNCED", "UPSERT c"));
  EXPECT_EQ(pages, 2);
}

TEST(KubeHostile, ABrokenWatchGoesOnWhereItWas) {
  std::atomic<int> watches{0};
  HostileServer server([&](Exchange& e) {
    e.send(kChunkedHeader);
    if (is_initial(e)) {
      e.send(chunk(event("ADDED", "a", 1) + initial_end(5) + event("ADDED", "b", 6)));
      return false;  // in the middle of the stream
    }
    EXPECT_THAT(e.line(), HasSubstr("resourceVersion=6"));
    if (++watches == 1) {
      e.send("5\r\n{\"ty");
      return false;
    }
    e.send(chunk(event("ADDED", "c", 7)));
    e.hold();
    return false;
  });
  Store s(server.url());
  Recorder r(s.store, gateway());
  ASSERT_TRUE(r.wait("UPSERT c"));
  EXPECT_THAT(r.take(), ElementsAre("SNAPSHOT", "UPSERT a", "SYNCED", "UPSERT b", "UPSERT c"));
}

// Nothing had changed since it began, which is no reason to list everything.
TEST(KubeHostile, AQuietWatchThatBreaksGoesOnWhereItWas) {
  std::atomic<int> watches{0};
  HostileServer server([&](Exchange& e) {
    e.send(kChunkedHeader);
    if (is_initial(e)) {
      e.send(chunk(event("ADDED", "a", 1) + initial_end(5)));
      return false;
    }
    EXPECT_THAT(e.line(), HasSubstr("resourceVersion=5"));
    if (++watches == 1) return false;
    e.send(chunk(event("ADDED", "c", 7)));
    e.hold();
    return false;
  });
  Store s(server.url());
  Recorder r(s.store, gateway());
  ASSERT_TRUE(r.wait("UPSERT c"));
  EXPECT_THAT(r.take(), ElementsAre("SNAPSHOT", "UPSERT a", "SYNCED", "UPSERT c"));
}

// It may be quiet for long, and then say nothing of those who wait to be let in.
TEST(KubeHostile, AWatchThatBeginsShowsThatCredentialsAreTaken) {
  std::atomic<bool> forgiving{false}, watched{false};
  HostileServer server([&](Exchange& e) {
    if (!forgiving) return e.send(status(401, "{}"));
    if (!is_watch(e)) return e.send(ok(kObject));
    e.send(kChunkedHeader);
    watched = true;
    e.hold();
    return false;
  });
  Store s(server.url());
  for (const auto begin = steady_clock::now(); steady_clock::now() - begin < 3s;) {
    EXPECT_FALSE(s.calls.get(gateway(), "", "g").ok());
    std::this_thread::sleep_for(20ms);
  }
  forgiving = true;
  Recorder r(s.store, gateway());
  for (int i = 0; i < 1000 && !watched; ++i) std::this_thread::sleep_for(10ms);
  ASSERT_TRUE(watched);
  // The pause before the next attempt would be 2 s or more.
  const auto begin = steady_clock::now();
  while (!s.calls.get(gateway(), "", "g").ok()) {
    ASSERT_LT(steady_clock::now() - begin, 1s);
    std::this_thread::sleep_for(20ms);
  }
}

// What the first list named and the second does not has gone.
TEST(KubeHostile, AListThatExpiresBeginsAnew) {
  std::atomic<int> lists{0};
  HostileServer server([&](Exchange& e) {
    e.send(kChunkedHeader);
    if (++lists == 1) {
      e.send(chunk(event("ADDED", "a", 1) + event("ADDED", "b", 2) +
                   "{\"type\":\"ERROR\",\"object\":{\"code\":410}}\n"));
      return false;
    }
    EXPECT_TRUE(is_initial(e));
    e.send(chunk(event("ADDED", "b", 2) + initial_end(5)));
    e.hold();
    return false;
  });
  Store s(server.url());
  Recorder r(s.store, gateway());
  ASSERT_TRUE(r.wait("SYNCED"));
  EXPECT_THAT(r.take(),
              ElementsAre("SNAPSHOT", "UPSERT a", "UPSERT b", "SNAPSHOT", "UPSERT b", "SYNCED"));
}

// The next watch would begin anywhere.
TEST(KubeHostile, AnEventWithoutARevisionIsADisconnection) {
  std::atomic<int> lists{0};
  HostileServer server([&](Exchange& e) {
    EXPECT_TRUE(is_initial(e)) << e.line();
    const int list = ++lists;  // before anybody can have seen it
    e.send(kChunkedHeader);
    e.send(chunk(event("ADDED", "a", 1) + initial_end(5)));
    if (list == 1) {
      e.send(chunk("{\"type\":\"ADDED\",\"object\":{\"metadata\":{\"name\":\"b\"}}}\n"));
    }
    e.hold();
    return false;
  });
  Store s(server.url());
  Recorder r(s.store, gateway());
  ASSERT_TRUE(r.wait("DISCONNECTED"));
  ASSERT_TRUE(r.wait("SYNCED"));
  EXPECT_EQ(lists, 2);
}

TEST(KubeHostile, GarbageInAWatchIsADisconnectionAndAsksSlowly) {
  const std::vector<std::string> all = {
      "garbage\n",
      "{}\n",
      "[]\n",
      "{\"type\":\"ADDED\"}\n",
      "{\"type\":\"NEW\",\"object\":{}}\n",
      "{\"type\":\"ADDED\",\"object\":{}}\n",
      "{\"type\":\"ADDED\",\"object\":{\"metadata\":{\"name\":5}}}\n",
      "{\"type\":\"ERROR\",\"object\":{\"code\":500,\"message\":\"etcd\\nfailed\"}}\n",
      "{\"type\":\"ERROR\",\"object\":{\"code\":\"x\"}}\n",
      std::string(100000, '{') + "\n",
      std::string(9 << 20, 'x'),
  };
  for (const std::string& bytes : all) {
    HostileServer server([&](Exchange& e) {
      e.send(kChunkedHeader);
      if (is_initial(e)) e.send(chunk(event("ADDED", "a", 1) + initial_end(5)));
      e.send(chunk(bytes));
      e.hold();
      return false;
    });
    Store s(server.url());
    Recorder r(s.store, gateway());
    ASSERT_TRUE(r.wait("SYNCED")) << bytes.substr(0, 60);
    ASSERT_TRUE(r.wait([](const Recorder::Event& e) {
      return e.type == EGW_EVENT_DISCONNECTED && e.message.find('\n') == std::string::npos &&
             e.message.find("egressgateways") != std::string::npos;
    })) << bytes.substr(0, 60);
    EXPECT_LT(server.requests(), 6) << bytes.substr(0, 60);
  }
}

TEST(KubeHostile, AWatchThatEndsAtOnceIsNotAskedForWithoutPause) {
  HostileServer server([&](Exchange& e) {
    e.send(kChunkedHeader);
    if (is_initial(e)) e.send(chunk(event("ADDED", "a", 1) + initial_end(5)));
    return e.send(chunk(""));
  });
  Store s(server.url());
  Recorder r(s.store, gateway());
  ASSERT_TRUE(r.wait("SYNCED"));
  EXPECT_FALSE(r.wait("DISCONNECTED", 1500ms));
  EXPECT_LT(server.requests(), 10);
}

HttpAnswer ask(HttpClient& client, std::chrono::milliseconds deadline) {
  HttpRequest request;
  request.path = "/";
  request.deadline = deadline;
  return client.call(request, {}, nullptr);
}

// Whoever asks while a dead connection is given up is heard: the second request of the impatient
// one comes while those of the others are still being ended.
TEST(KubeHostile, ARequestIsNotForgottenWhileAConnectionIsGivenUp) {
  HostileServer server([](Exchange& e) {
    e.hold();
    return false;
  });
  HttpClient client(Server{server.url(), "", "", "", false}, HttpClient::Speaks::kHttp1);
  for (int round = 0; round < 3; ++round) {
    std::vector<std::thread> patient;
    for (int i = 0; i < 30; ++i) patient.emplace_back([&] { (void)ask(client, 10s); });
    (void)ask(client, 1s);
    const auto begin = steady_clock::now();
    (void)ask(client, 30ms);
    const auto took = steady_clock::now() - begin;
    (void)ask(client, 1ms);  // wakes the client, in whatever state it is
    for (std::thread& t : patient) t.join();
    ASSERT_LT(took, 1s) << "round " << round;
  }
}

// Who had no time for an answer knows nothing about the connection.
TEST(KubeHostile, AnImpatientRequestDoesNotEndTheOthers) {
  HostileServer server([](Exchange& e) {
    if (is_watch(e)) {
      e.send(kChunkedHeader);
      e.send(chunk("{}\n"));
      e.hold();
      return false;
    }
    return e.pause(200ms) && e.send(ok(kObject));
  });
  HttpClient client(Server{server.url(), "", "", "", false}, HttpClient::Speaks::kHttp1);
  std::promise<void> begun;
  HttpRequest watch;
  watch.path = "/?watch=1";
  watch.longest = 60s;
  watch.on_data = [&begun, told = false](std::string_view) mutable {
    if (!std::exchange(told, true)) begun.set_value();
    return true;
  };
  Stop stop;
  auto ended = std::async(std::launch::async, [&] { return client.call(watch, {}, &stop); });
  ASSERT_EQ(begun.get_future().wait_for(5s), std::future_status::ready);
  EXPECT_THAT(ask(client, 20ms).error, HasSubstr("within 20 ms"));
  // Begun after whatever the client has done about that.
  EXPECT_EQ(ask(client, 5s).code, 200);
  EXPECT_EQ(ended.wait_for(0s), std::future_status::timeout);
  stop.request();
  client.wake();
  const HttpAnswer answer = ended.get();
  EXPECT_TRUE(answer.stopped) << answer.error;
}

TEST(KubeHostile, ClosingDoesNotWaitForASilentServer) {
  HostileServer server([](Exchange& e) {
    e.hold();
    return false;
  });
  auto s = std::make_unique<Store>(server.url());
  auto r = std::make_unique<Recorder>(s->store, gateway());
  auto q = std::make_unique<Recorder>(s->store, store_kit::policy());
  const auto begin = steady_clock::now();
  r.reset();
  q.reset();
  s.reset();
  EXPECT_LT(steady_clock::now() - begin, 500ms);
}

}  // namespace
}  // namespace egw::kube::test
