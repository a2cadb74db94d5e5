// The webhook of a store whose API server is away: who serves, with what, and what is answered when
// nothing can be read. With an API server: tests/kube/test_webhook.py.
#include "webhook.hpp"

#include <gmock/gmock.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <condition_variable>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <future>
#include <mutex>
#include <thread>
#include <vector>

#include "store.hpp"
#include "support/store_kit.hpp"
#include "webhook_client.hpp"

namespace egw::kube::test {
namespace {

using nlohmann::json;
using namespace std::chrono_literals;
using std::chrono::steady_clock;
using testing::AllOf;
using testing::HasSubstr;
using testing::StartsWith;

// A port that nobody listens on now.
int free_port() {
  const int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t length = sizeof(address);
  ::bind(fd, reinterpret_cast<sockaddr*>(&address), length);
  ::getsockname(fd, reinterpret_cast<sockaddr*>(&address), &length);
  ::close(fd);
  return ntohs(address.sin_port);
}

void write(const std::filesystem::path& file, const std::string& text) {
  std::ofstream(file) << text;
}

// A store with a provided certificate and an API server that nobody reaches.
class Bench {
 public:
  explicit Bench(const json& more = json::object()) {
    std::string name = "/tmp/egw-webhook-XXXXXX";
    folder = ::mkdtemp(name.data());
    provide(material);
    write(folder / "config",
          "current-context: x\ncontexts: [{name: x, context: {cluster: c, user: u}}]\n"
          "users: [{name: u, user: {token: t}}]\n"
          "clusters: [{name: c, cluster: {server: \"http://127.0.0.1:" +
              std::to_string(free_port()) + "\"}}]\n");
    config = {{"kubeconfig", (folder / "config").string()},
              {"webhook",
               {{"enabled", true},
                {"address", "127.0.0.1"},
                {"port", port},
                {"certificate", "provided"},
                {"folder", folder.string()},
                {"names", {"127.0.0.1"}}}}};
    config["webhook"].update(more);
  }
  ~Bench() {
    store.reset();
    std::filesystem::remove_all(folder);
  }
  Bench(const Bench&) = delete;
  Bench& operator=(const Bench&) = delete;

  void provide(const Material& wanted) const {
    write(folder / "tls.crt", wanted.serving.certificate);
    write(folder / "tls.key", wanted.serving.key);
  }
  void open(bool serves_admission) {
    host.serves_admission = serves_admission;
    store = std::make_unique<KubeStore>(config.dump(), host.services());
  }
  // The first thing that the port answers.
  std::string ask(const std::string& target, const std::string& body) const {
    const auto until = steady_clock::now() + 5s;
    for (;;) {
      try {
        TlsClient client(static_cast<std::uint16_t>(port), material.authorities);
        client.send(post(target, body));
        return client.receive();
      } catch (const std::exception& e) {
        if (steady_clock::now() > until) return e.what();
        std::this_thread::sleep_for(10ms);
      }
    }
  }

  const Material material = loopback_material();
  const int port = free_port();
  std::filesystem::path folder;
  json config;
  store_kit::TestHost host;
  std::unique_ptr<KubeStore> store;
};

// A webhook without a store around it.
struct Alone {
  explicit Alone(Bench& bench)
      : api(read_kubeconfig(bench.config["kubeconfig"], ""), bench.host.services()),
        webhook(api, parse_store_config(bench.config.dump(), true).webhook, "egw",
                bench.host.services()) {}
  std::string well_within(std::chrono::milliseconds time) {
    const auto until = steady_clock::now() + time;
    sdk::Status status = webhook.health();
    while (!status.ok() && steady_clock::now() < until) {
      std::this_thread::sleep_for(10ms);
      status = webhook.health();
    }
    return status.text();
  }
  Api api;
  Webhook webhook;
};

std::string review(const std::string& operation) {
  json request = {{"uid", "u"},
                  {"operation", operation},
                  {"kind", {{"group", "g"}, {"version", "v1"}, {"kind", "Thing"}}},
                  {"resource", {{"group", "g"}, {"version", "v1"}, {"resource", "things"}}},
                  {"name", "t"},
                  {"object", {{"metadata", {{"name", "t"}}}, {"spec", {{"a", 1}}}}}};
  return json{
      {"apiVersion", "admission.k8s.io/v1"}, {"kind", "AdmissionReview"}, {"request", request}}
      .dump();
}

TEST(KubeWebhook, OnlyAControllerServes) {
  Bench bench;
  bench.open(false);
  (void)bench.store->health();  // of one that serves, this waits until it has begun
  EXPECT_THROW(TlsClient(static_cast<std::uint16_t>(bench.port)), std::exception);
  bench.open(true);
  EXPECT_THAT(bench.ask("/validate", review("CREATE")),
              AllOf(StartsWith("HTTP/1.1 200"), HasSubstr("\"allowed\":true")));
  EXPECT_EQ(bench.store->health().text(), "") << "although the API server is away";
}

TEST(KubeWebhook, WrongQuestionsGetTheirStatus) {
  Bench bench;
  bench.open(true);
  EXPECT_THAT(bench.ask("/validate", "{}"), AllOf(StartsWith("HTTP/1.1 400"), HasSubstr("kind")));
  EXPECT_THAT(bench.ask("/validate", review("PATCH")),
              AllOf(StartsWith("HTTP/1.1 400"), HasSubstr("request.operation")));
  EXPECT_THAT(bench.ask("/", review("CREATE")), StartsWith("HTTP/1.1 404"));
  TlsClient client(static_cast<std::uint16_t>(bench.port));
  client.send("GET /validate HTTP/1.1\r\nHost: x\r\n\r\n");
  EXPECT_THAT(client.receive(), StartsWith("HTTP/1.1 405"));
}

TEST(KubeWebhook, WhatCannotBeReadIsNotJudged) {
  Bench bench;
  bench.host.admit = [](std::uint32_t, const json&, const json& after, const egw_reader& reader,
                        const egw_admission_sink& out) {
    const egw_object_kind kind = store_kit::gateway().abi();
    store_kit::Answer answer;
    const egw_object_sink sink{&answer, [](void*, std::uint64_t, egw_str) {}, nullptr};
    (void)reader.get(reader.ctx, &kind, {}, sdk::str(std::string_view("web")), &sink);
    const std::string text = after.dump();
    out.object(out.ctx, sdk::str(text));
    return static_cast<int>(EGW_OK);
  };
  bench.open(true);
  for (const char* path : {"/validate?timeout=1s", "/mutate?timeout=1s"}) {
    const auto begin = steady_clock::now();
    const std::string answer = bench.ask(path, review("CREATE"));
    EXPECT_LT(steady_clock::now() - begin, 3s);
    EXPECT_THAT(answer, AllOf(StartsWith("HTTP/1.1 200"), HasSubstr("\"allowed\":false"),
                              HasSubstr("\"code\":503"), HasSubstr("EgressGateway web")));
  }
}

// It is turned away before anything is done for it: whoever asked has gone.
TEST(KubeWebhook, AQuestionThatHasWaitedForTooLongIsNotAsked) {
  Bench bench;
  std::mutex mutex;
  std::condition_variable changed;
  int asked = 0;
  bool opened = false;
  bench.host.admit = [&](std::uint32_t, const json&, const json& after, const egw_reader&,
                         const egw_admission_sink& out) {
    std::unique_lock lock(mutex);
    ++asked;
    changed.notify_all();
    changed.wait(lock, [&] { return opened; });
    const std::string text = after.dump();
    out.object(out.ctx, sdk::str(text));
    return static_cast<int>(EGW_OK);
  };
  bench.open(true);
  EXPECT_THAT(bench.ask("/", ""), StartsWith("HTTP/1.1 404")) << "it serves";
  std::vector<std::unique_ptr<TlsClient>> clients;
  const auto send = [&](const char* target) {
    clients.push_back(std::make_unique<TlsClient>(static_cast<std::uint16_t>(bench.port)));
    ASSERT_TRUE(clients.back()->send(post(target, review("CREATE"))));
  };
  for (int i = 0; i < 4; ++i) send("/validate?timeout=30s");
  std::unique_lock lock(mutex);
  ASSERT_TRUE(changed.wait_for(lock, 5s, [&] { return asked == 4; }));
  lock.unlock();
  send("/validate?timeout=1s");
  EXPECT_EQ(clients.back()->receive(2s), "") << "all threads are busy";
  lock.lock();
  opened = true;
  lock.unlock();
  changed.notify_all();
  EXPECT_THAT(clients.back()->receive(), StartsWith("HTTP/1.1 503"));
  clients.pop_back();
  for (const auto& client : clients) {
    EXPECT_THAT(client->receive(), AllOf(StartsWith("HTTP/1.1 200"), HasSubstr("allowed\":true")));
  }
  lock.lock();
  EXPECT_EQ(asked, 4);
}

// From /proc/self/status, in MiB.
long memory(const char* key) {
  std::ifstream in("/proc/self/status");
  for (std::string line; std::getline(in, line);) {
    if (line.rfind(key, 0) == 0) return std::stol(line.substr(std::strlen(key) + 1)) / 1024;
  }
  return -1;
}

// Answers to four of them at once: the first digit of each, ordered; '-': none.
std::string asked_at_once(const Bench& bench, const std::string& request) {
  std::vector<std::future<std::string>> all;
  for (int i = 0; i < 4; ++i) {
    all.push_back(std::async(std::launch::async, [&] {
      try {
        TlsClient client(static_cast<std::uint16_t>(bench.port), bench.material.authorities);
        client.send(request);
        return client.receive(20s);
      } catch (const std::exception&) {
        return std::string();  // another has made it give way
      }
    }));
  }
  std::string out;
  for (auto& one : all) {
    const std::string answer = one.get();
    out += answer.size() > 9 ? answer[9] : '-';
  }
  std::sort(out.begin(), out.end());
  return out;
}

// The longest bodies, of as many values as they can hold and of as many as are taken.
TEST(KubeWebhook, ItsMemoryHasABound) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  GTEST_SKIP() << "not with a sanitizer: it has memory of its own";
#endif
  constexpr std::size_t kBody = std::size_t{8} << 20;
  constexpr long kMost = 150;
  Bench bench;
  bench.open(true);
  EXPECT_THAT(bench.ask("/", ""), StartsWith("HTTP/1.1 404")) << "it serves";
  const auto with = [](const char* value, std::size_t count, std::size_t padding) {
    std::string values;
    for (std::size_t i = 0; i < count; ++i) values += value;
    std::string body = review("CREATE");
    body.insert(body.find("{\"a\":1") + 1,
                "\"many\":[" + values + "1],\"long\":\"" + std::string(padding, 'x') + "\",");
    return post("/validate?timeout=20s", body);
  };
  const std::string endless = with("[],", kBody / 3 - 500, 0);
  constexpr std::size_t kCount = 65'000;  // times three
  const std::string taken = with("{\"a\":{\"b\":1}},", kCount, kBody - kCount * 14 - 2000);
  // The highest since then; where that cannot be reset, since the beginning.
  std::ofstream("/proc/self/clear_refs") << "5";
  const long before = memory("VmRSS:");
  EXPECT_THAT(asked_at_once(bench, endless), HasSubstr("4"));
  EXPECT_LT(memory("VmHWM:") - before, kMost);
  EXPECT_THAT(asked_at_once(bench, taken), HasSubstr("2"));
  EXPECT_LT(memory("VmHWM:") - before, kMost);
}

TEST(KubeWebhook, AHostThatThrowsIsAnsweredWith500) {
  Bench bench;
  bench.host.admit = [](std::uint32_t, const json&, const json&, const egw_reader&,
                        const egw_admission_sink&) -> int { throw std::runtime_error("no"); };
  bench.open(true);
  EXPECT_THAT(bench.ask("/validate", review("CREATE")), StartsWith("HTTP/1.1 500"));
}

TEST(KubeWebhook, ItIsWellFromWhenItServes) {
  Bench bench;
  std::filesystem::remove(bench.folder / "tls.key");
  Alone alone(bench);
  EXPECT_THAT(alone.webhook.health().text(), HasSubstr("tls.key"));
  bench.provide(bench.material);
  EXPECT_EQ(alone.well_within(5s), "");
  EXPECT_THAT(bench.ask("/validate", review("CREATE")), StartsWith("HTTP/1.1 200"));
}

TEST(KubeWebhook, APortThatIsTakenIsTriedAgain) {
  Bench bench;
  auto other = std::make_unique<WebhookServer>(
      "127.0.0.1", static_cast<std::uint16_t>(bench.port), bench.material.serving,
      [](const WebhookRequest&) { return WebhookResponse(); }, sdk::Host());
  Alone alone(bench);
  EXPECT_THAT(alone.webhook.health().text(), HasSubstr("webhook.port"));
  other.reset();
  EXPECT_EQ(alone.well_within(5s), "");
}

TEST(KubeWebhook, ItsConfigurationIsCheckedByKey) {
  const auto refused = [](const json& webhook, bool serves = true) {
    try {
      (void)parse_store_config(json{{"webhook", webhook}}.dump(), serves);
      return std::string("taken");
    } catch (const sdk::Failure& failure) {
      return failure.status().text();
    }
  };
  EXPECT_EQ(refused({{"enabled", true}, {"names", {"egw.example.org", "fd00::1"}}}), "taken");
  EXPECT_THAT(refused({{"certificate", "provided"}}), HasSubstr("config.webhook.folder"));
  EXPECT_THAT(refused({{"folder", "/x"}}), HasSubstr("config.webhook.folder"));
  EXPECT_THAT(refused({{"certificate", "bought"}}), HasSubstr("config.webhook.certificate"));
  EXPECT_THAT(refused({{"address", "localhost"}}), HasSubstr("config.webhook.address"));
  EXPECT_THAT(refused({{"port", 0}}), HasSubstr("config.webhook.port"));
  EXPECT_THAT(refused({{"service", "a,b"}}), HasSubstr("config.webhook.service"));
  // Text that would be more than a name inside a certificate.
  for (const char* name :
       {"a,DNS:evil", "a b", "", "*", "*.", "*.1.2.3.4", "a.*.b", "1.2.3", "UPPER"}) {
    EXPECT_THAT(refused({{"names", {name}}}), HasSubstr("config.webhook.names")) << name;
  }
  EXPECT_THAT(refused({{"prot", 5}}), HasSubstr("config.webhook.prot"));
  EXPECT_EQ(refused({{"names", {"*.example.org"}}}), "taken");
  // An agent, or a verb, does not end over what it does not do.
  EXPECT_EQ(refused({{"names", {"UPPER"}}}, false), "taken");
}

}  // namespace
}  // namespace egw::kube::test
