// Subscriptions over a real API server: pages, old revisions, a server that stops, dies and comes
// back.
#include <gmock/gmock.h>

#include <atomic>
#include <cstdlib>
#include <fstream>
#include <map>
#include <memory>
#include <set>
#include <sstream>
#include <string_view>
#include <thread>

#include "kube/support/backend.hpp"

namespace egw::kube::test {
namespace {

using namespace std::chrono_literals;
using store_kit::Calls;
using store_kit::gateway;
using store_kit::node;
using store_kit::pod;
using store_kit::policy;
using store_kit::Recorder;
using testing::AnyOf;
using testing::Each;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;

struct StoreOf {
  explicit StoreOf(const json& config) : store(config.dump(), host.services()) {}
  store_kit::TestHost host;
  KubeStore store;
  Calls calls{store};
};

class KubeWatch : public testing::Test {
 protected:
  KubeBackend backend;
  ApiServer& server = backend.server;
  Calls s{backend.store()};
};

TEST_F(KubeWatch, PodsOfOneNodeByFieldSelector) {
  const auto pod_on = [](const char* name, const char* on) {
    return json{{"metadata", {{"name", name}}},
                {"spec", {{"nodeName", on}, {"containers", {{{"name", "c"}, {"image", "i"}}}}}}};
  };
  server.request("POST", "/api/v1/namespaces/d/pods", pod_on("p1", "n1"));
  server.request("POST", "/api/v1/namespaces/d/pods", pod_on("p2", "n2"));
  Recorder r(backend.store(), pod(), "", "", "spec.nodeName=n1");
  ASSERT_TRUE(r.wait("SYNCED"));
  server.request("POST", "/api/v1/namespaces/x/pods", pod_on("p3", "n2"));
  server.request("POST", "/api/v1/namespaces/x/pods", pod_on("p4", "n1"));
  ASSERT_TRUE(r.wait([](const Recorder::Event& e) {
    const json object = e.object.empty() ? json() : json::parse(e.object);
    return e.text() == "UPSERT x/p4" && object["kind"] == "Pod" && object["apiVersion"] == "v1" &&
           !object["metadata"].contains("managedFields");
  }));
  server.request("DELETE", "/api/v1/namespaces/d/pods/p1", {{"gracePeriodSeconds", 0}});
  ASSERT_TRUE(r.wait("DELETE d/p1"));
  // A pod's delete may be an update first.
  EXPECT_THAT(r.take(),
              Each(AnyOf("SNAPSHOT", "UPSERT d/p1", "SYNCED", "UPSERT x/p4", "DELETE d/p1")));
  EXPECT_EQ(s.list(pod(), "", "spec.nodeName=n1").objects.at(0)["kind"], "Pod");
}

TEST_F(KubeWatch, ManyObjectsComeInPagesAndAsAStream) {
  std::set<std::string> names;
  for (int i = 0; i < 1100; ++i) {
    names.insert("p" + std::to_string(i));
    ASSERT_TRUE(s.create(policy(), "d", "p" + std::to_string(i), json::object()).ok());
  }
  EXPECT_EQ(s.list(policy()).objects.size(), names.size());
  Recorder r(backend.store(), policy());
  ASSERT_TRUE(r.wait("SYNCED", 10s));
  std::set<std::string> seen;
  for (const auto& e : r.events()) {
    if (e.type != EGW_EVENT_UPSERT) continue;
    EXPECT_TRUE(seen.insert(e.name).second) << e.name;
  }
  EXPECT_EQ(seen, names);
}

// Connections of this machine to a loopback port, as the kernel counts them.
int connections_to(const std::string& url) {
  const int port = std::stoi(url.substr(url.rfind(':') + 1));
  std::ifstream table("/proc/self/net/tcp");
  int count = 0;
  for (std::string line; std::getline(table, line);) {
    std::istringstream words(line);
    std::string number, from, to, state;
    words >> number >> from >> to >> state;
    const auto colon = to.rfind(':');
    if (colon == std::string::npos || state != "01") continue;
    if (std::stoi(to.substr(colon + 1), nullptr, 16) == port) ++count;
  }
  return count;
}

// libcurl keeps one list of connections to a server: a watch that began while requests came and
// went could be put on one of theirs and read the rest of another's answer.
TEST_F(KubeWatch, WatchesThatBeginAmongRequestsHaveOneConnectionOfTheirOwn) {
  ASSERT_TRUE(s.create(gateway(), "", "g", json::object()).ok());
  const int readers = 4;
  const char* gates = std::getenv("EGW_TEST_FEATURE_GATES");
  const bool streams =
      gates == nullptr || std::string_view(gates).find("WatchList=false") == std::string_view::npos;
  const int lists = streams ? 0 : 12;
  for (int round = 0; round < 20; ++round) {
    const int before = connections_to(server.url());
    StoreOf fresh(json{{"kubeconfig", server.kubeconfig("admin")}});
    std::atomic<bool> enough{false};
    std::vector<std::thread> threads;
    for (int i = 0; i < readers; ++i) {
      threads.emplace_back([&] {
        while (!enough) EXPECT_TRUE(fresh.calls.get(gateway(), "", "g").status.ok());
      });
    }
    std::vector<std::unique_ptr<Recorder>> watches;
    for (int i = 0; i < 3; ++i) {
      for (const auto& kind : {gateway(), policy(), pod(), node()}) {
        watches.push_back(std::make_unique<Recorder>(fresh.store, kind));
      }
    }
    for (const auto& watch : watches) {
      EXPECT_TRUE(watch->wait("SYNCED", 10s));
      EXPECT_FALSE(watch->wait("DISCONNECTED", 0s));
    }
    // Where the server streams no lists, each watch began with a request.
    EXPECT_LE(connections_to(server.url()) - before, readers + 1 + lists) << "round " << round;
    enough = true;
    for (std::thread& t : threads) t.join();
    for (const std::string& line : fresh.host.logged()) {
      EXPECT_THAT(line, HasSubstr("API server http"));  // by what it was found, no trouble
    }
    if (HasFailure()) return;
  }
}

// What a subscriber holds after its events.
std::map<std::string, std::uint64_t> held(const std::vector<Recorder::Event>& events) {
  std::map<std::string, std::uint64_t> out;
  for (const auto& e : events) {
    if (e.type == EGW_EVENT_SNAPSHOT) out.clear();
    if (e.type == EGW_EVENT_UPSERT) out[e.name] = e.revision;
    if (e.type == EGW_EVENT_DELETE) out.erase(e.name);
  }
  return out;
}

TEST_F(KubeWatch, ARestartedServerIsWatchedAgainAndNothingIsLost) {
  for (const char* name : {"kept", "changed", "gone", "replaced"}) {
    ASSERT_TRUE(s.create(gateway(), "", name, json::object()).ok());
  }
  Recorder r(backend.store(), gateway());
  ASSERT_TRUE(r.wait("SYNCED"));
  server.kill();
  ASSERT_TRUE(r.wait("DISCONNECTED"));
  EXPECT_EQ(s.get(gateway(), "", "kept").status.code, sdk::Code::kUnavailable);
  server.start_again();
  {
    const auto second = backend.another();
    Calls writer(*second);
    ASSERT_TRUE(writer.update(gateway(), "", "changed", {{"spec", {{"x", 1}}}}).ok());
    ASSERT_TRUE(writer.remove(gateway(), "", "gone").ok());
    ASSERT_TRUE(writer.remove(gateway(), "", "replaced").ok());
    ASSERT_TRUE(writer.create(gateway(), "", "replaced", json::object()).ok());
    ASSERT_TRUE(writer.create(gateway(), "", "new", json::object()).ok());
  }
  ASSERT_TRUE(r.wait("SYNCED", 10s));
  ASSERT_TRUE(s.create(gateway(), "", "last", json::object()).ok());
  ASSERT_TRUE(r.wait("UPSERT last"));
  std::map<std::string, std::uint64_t> stored;
  for (const json& g : s.list(gateway()).objects) {
    stored[g["metadata"]["name"]] =
        std::stoull(g["metadata"]["resourceVersion"].get<std::string>());
  }
  EXPECT_EQ(held(r.events()), stored);
  EXPECT_EQ(stored.size(), 5U);
}

TEST_F(KubeWatch, AServerThatStandsStillIsNoticedByAWriteAndGoesOn) {
  ASSERT_TRUE(s.create(gateway(), "", "g", json::object()).ok());
  Recorder r(backend.store(), gateway());
  ASSERT_TRUE(r.wait("SYNCED"));
  server.stop();
  Calls::Options quick;
  quick.deadline = 1s;
  const auto begin = std::chrono::steady_clock::now();
  const auto a =
      s.write(sdk::WriteOp::kUpdateStatus, gateway(), "", "g", {{"status", {{"x", 1}}}}, quick);
  EXPECT_LT(std::chrono::steady_clock::now() - begin, 1500ms);
  EXPECT_EQ(a.status.code, sdk::Code::kUnavailable);
  EXPECT_THAT(a.status.text(), HasSubstr("EgressGateway g"));
  // The watch's connection is given up with it, and a new one cannot be had.
  EXPECT_TRUE(r.wait("DISCONNECTED", 10s));
  EXPECT_EQ(backend.store().health().code, sdk::Code::kUnavailable);
  server.go_on();
  ASSERT_TRUE(r.wait("SYNCED", 20s));
  ASSERT_TRUE(s.update(gateway(), "", "g", {{"spec", {{"x", 2}}}}).ok());
  EXPECT_TRUE(r.wait([](const Recorder::Event& e) {
    return e.text() == "UPSERT g" && json::parse(e.object)["spec"]["x"] == 2;
  }));
}

// As 1.33 by default, and all before 1.32.
TEST(KubeWatchOld, AServerWithoutStreamingListsIsListedAndWatched) {
  ApiServer server(open_crds(), {"--feature-gates=WatchList=false"});
  StoreOf s(json{{"kubeconfig", server.kubeconfig("admin")}});
  ASSERT_TRUE(s.calls.create(gateway(), "", "a", json::object()).ok());
  Recorder r(s.store, gateway());
  ASSERT_TRUE(r.wait("SYNCED"));
  ASSERT_TRUE(s.calls.create(gateway(), "", "b", json::object()).ok());
  ASSERT_TRUE(r.wait("UPSERT b"));
  EXPECT_THAT(r.take(), ElementsAre("SNAPSHOT", "UPSERT a", "SYNCED", "UPSERT b"));
}

// The API server's history goes with a restart and etcd's with a compaction: the revision to go on
// from is too old, and what happened in between must be found out by a list.
TEST_F(KubeWatch, ACompactedHistoryIsNoLoss) {
  for (const char* name : {"kept", "gone"}) {
    ASSERT_TRUE(s.create(gateway(), "", name, json::object()).ok());
  }
  Recorder r(backend.store(), gateway());
  ASSERT_TRUE(r.wait("SYNCED"));
  server.kill();
  server.start_again();
  ASSERT_TRUE(s.remove(gateway(), "", "gone").ok());
  ASSERT_TRUE(s.create(gateway(), "", "new", json::object()).ok());
  server.compact();
  server.kill();
  server.start_again();
  // The last in the order of a list, too.
  ASSERT_TRUE(s.create(gateway(), "", "z-last", json::object()).ok());
  ASSERT_TRUE(r.wait("UPSERT z-last", 20s));
  std::set<std::string> names;
  for (const auto& [name, revision] : held(r.events())) names.insert(name);
  EXPECT_THAT(names, ElementsAre("kept", "new", "z-last"));
}

TEST_F(KubeWatch, AForbiddenVerbIsOneClearLine) {
  const auto nobody = backend.another("nobody");
  Calls calls(*nobody);
  const auto a = calls.create(gateway(), "", "g", json::object());
  EXPECT_EQ(a.status.code, sdk::Code::kDenied);
  EXPECT_THAT(a.status.text(), HasSubstr("no permission to create egressgateways"));
  EXPECT_THAT(a.status.text(), HasSubstr("403"));
  EXPECT_THAT(a.status.text(), Not(HasSubstr("\n")));
  Recorder r(*nobody, gateway());
  EXPECT_TRUE(r.wait([](const Recorder::Event& e) {
    return e.type == EGW_EVENT_DISCONNECTED &&
           e.message.find("no permission to watch egressgateways") != std::string::npos;
  }));
}

TEST_F(KubeWatch, AnUnknownTokenIsOneClearLine) {
  StoreOf unknown(json{{"kubeconfig", server.kubeconfig("stranger", "no-such-token")}});
  const auto a = unknown.calls.get(gateway(), "", "g");
  EXPECT_EQ(a.status.code, sdk::Code::kUnavailable);
  EXPECT_THAT(a.status.text(), HasSubstr("401"));
  EXPECT_EQ(unknown.store.health().code, sdk::Code::kUnavailable);
}

TEST_F(KubeWatch, AMissingCrdIsOneClearLineUntilItIsThere) {
  const auto kind =
      store_kit::kind_of("late.egressgateway.spidernet.io", "v1beta1", "Late", "lates", false);
  const auto a = s.get(kind, "", "g");
  EXPECT_EQ(a.status.code, sdk::Code::kUnavailable);
  EXPECT_THAT(a.status.text(), HasSubstr("CustomResourceDefinition is missing"));
  EXPECT_EQ(s.list(kind).status.code, sdk::Code::kUnavailable);
  Recorder r(backend.store(), kind);
  ASSERT_TRUE(r.wait([](const Recorder::Event& e) {
    return e.type == EGW_EVENT_DISCONNECTED &&
           e.message.find("lates.late.egressgateway.spidernet.io/v1beta1") != std::string::npos;
  }));
  json late = open_crds().front();
  late["spec"]["names"] = {{"kind", "Late"}, {"singular", "late"}, {"plural", "lates"}};
  late = of_group(std::move(late), "late.egressgateway.spidernet.io");
  const std::string crds = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
  server.request("POST", crds, late);
  EXPECT_TRUE(r.wait("SYNCED", 15s));
  server.request("DELETE", crds + "/lates.late.egressgateway.spidernet.io");
}

TEST_F(KubeWatch, AServerOfAnotherAuthorityIsRefused) {
  json config = json::parse(std::ifstream(server.kubeconfig("admin")));
  config["clusters"][0]["cluster"].erase("certificate-authority");
  std::ofstream(server.file("no-ca.kubeconfig")) << config.dump();
  StoreOf store(json{{"kubeconfig", server.file("no-ca.kubeconfig")}});
  const auto a = store.calls.get(gateway(), "", "g");
  EXPECT_EQ(a.status.code, sdk::Code::kUnavailable);
  EXPECT_THAT(a.status.text(), HasSubstr("certificate is not accepted"));
}

}  // namespace
}  // namespace egw::kube::test
