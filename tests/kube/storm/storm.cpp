// Writes many objects as fast as an API server takes them, for test_storm.py: namespaces, gateways,
// policies, and pods of many nodes. Everything goes over one HTTP/2 connection, many requests at a
// time; a pod is two of them, since its address is in its status.
//
// usage: kube_storm KUBECONFIG '{"namespaces": N, "gateways": N, "policies": N, "pods": N,
//                                "nodes": [name...], "threads": N}'
// Pod k has the policy k modulo policies and the node k modulo the number of nodes. Prints one line
// of JSON: the seconds that policies and pods took, and the newest revision of each.
#include <algorithm>
#include <atomic>
#include <cstdint>
#include <functional>
#include <iostream>
#include <mutex>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "access.hpp"
#include "answer.hpp"
#include "api.hpp"

namespace {

using namespace egw::kube;  // NOLINT: a program of one file
using nlohmann::json;
using std::chrono::steady_clock;
using namespace std::chrono_literals;

constexpr const char* kGroup = "egressgateway.spidernet.io/v1beta1";

class Storm {
 public:
  Storm(const std::string& kubeconfig, const json& plan)
      : api_(read_kubeconfig(kubeconfig, ""), egw::sdk::Host()),
        namespaces_(plan.at("namespaces")),
        gateways_(plan.at("gateways")),
        policies_(plan.at("policies")),
        pods_(plan.at("pods")),
        threads_(plan.at("threads")),
        nodes_(plan.at("nodes").get<std::vector<std::string>>()) {}

  json run() {
    all(namespaces_, [this](int i) {
      send("POST", "/api/v1/namespaces", {{"metadata", {{"name", space(i)}}}});
    });
    all(gateways_, [this](int i) { make_gateway(i); });
    json out;
    out["policies_s"] = all(policies_, [this](int i) { make_policy(i); });
    out["policies_revision"] = newest_.exchange(0);
    out["pods_s"] = all(pods_, [this](int i) { make_pod(i); });
    out["pods_revision"] = newest_.load();
    return out;
  }

 private:
  static std::string number(int i) { return std::to_string(i); }
  [[nodiscard]] std::string space(int i) const { return "storm-" + number(i % namespaces_); }
  // Answers the seconds that it took.
  double all(int count, const std::function<void(int)>& one) {
    const auto begin = steady_clock::now();
    std::atomic<int> next{0};
    std::mutex mutex;
    std::string trouble;
    std::vector<std::thread> threads;
    for (int t = 0; t < threads_; ++t) {
      threads.emplace_back([&] {
        try {
          for (int i = next++; i < count; i = next++) one(i);
        } catch (const std::exception& e) {
          next = count;
          const std::lock_guard lock(mutex);
          trouble = e.what();
        }
      });
    }
    for (std::thread& t : threads) t.join();
    if (!trouble.empty()) throw std::runtime_error(trouble);
    return std::chrono::duration<double>(steady_clock::now() - begin).count();
  }

  void send(const char* method, const std::string& path, const json& body) {
    HttpRequest request;
    request.method = method;
    request.path = path;
    request.deadline = 60s;
    request.body = body.dump();
    request.content_type =
        request.method == "PATCH" ? "application/merge-patch+json" : "application/json";
    const auto made = api_.object(request, {method, path, ""});
    if (!made.ok()) throw std::runtime_error(made.status().text());
    const std::uint64_t revision = revision_of(made.value());
    for (std::uint64_t known = newest_; known < revision;) {
      if (newest_.compare_exchange_weak(known, revision)) break;
    }
  }

  void make_gateway(int i) {
    const std::string first = "10.7." + number(i) + ".1", last = "10.7." + number(i) + ".250";
    json gateway = {{"apiVersion", kGroup}, {"kind", "EgressGateway"}};
    gateway["metadata"] = {{"name", "storm-" + number(i)}};
    gateway["spec"] = {{"ippools", {{"ipv4", {first + "-" + last}}}},
                       {"nodeSelector", {{"selector", {{"matchLabels", {{"egress", "true"}}}}}}}};
    send("POST", std::string("/apis/") + kGroup + "/egressgateways", gateway);
  }

  void make_policy(int i) {
    const std::string ns = space(i);
    json policy = {{"apiVersion", kGroup}, {"kind", "EgressPolicy"}};
    policy["metadata"] = {{"name", "p" + number(i)}, {"namespace", ns}};
    policy["spec"] = {
        {"egressGatewayName", "storm-" + number(i % gateways_)},
        {"egressIP",
         {{"ipv4", "10.7." + number(i % gateways_) + "." + number(1 + i / gateways_ % 250)}}},
        {"appliedTo", {{"podSelector", {{"matchLabels", {{"app", "p" + number(i)}}}}}}},
        {"destSubnet", {"198.51.100.0/24"}}};
    send("POST", std::string("/apis/") + kGroup + "/namespaces/" + ns + "/egresspolicies", policy);
  }

  void make_pod(int k) {
    const int of = k % policies_;
    const std::string path = "/api/v1/namespaces/" + space(of) + "/pods", name = "pod" + number(k);
    const auto node = static_cast<std::size_t>(k) % nodes_.size();
    json pod = {{"apiVersion", "v1"}, {"kind", "Pod"}};
    pod["metadata"] = {{"name", name}, {"labels", {{"app", "p" + number(of)}}}};
    pod["spec"] = {{"nodeName", nodes_[node]},
                   {"containers", {{{"name", "c"}, {"image", "registry.example/shop:1"}}}}};
    send("POST", path, pod);
    const std::string ip =
        "10." + number(130 + (k >> 16)) + "." + number(k >> 8 & 255) + "." + number(k & 255);
    const json status = {{"phase", "Running"}, {"podIP", ip}, {"podIPs", {{{"ip", ip}}}}};
    send("PATCH", path + "/" + name + "/status", {{"status", status}});
  }

  Api api_;
  const int namespaces_, gateways_, policies_, pods_, threads_;
  const std::vector<std::string> nodes_;
  std::atomic<std::uint64_t> newest_{0};
};

}  // namespace

int main(int argc, char** argv) {
  try {
    if (argc != 3) throw std::runtime_error("usage: kube_storm KUBECONFIG PLAN");
    std::cout << Storm(argv[1], json::parse(argv[2])).run().dump() << std::endl;
    return 0;
  } catch (const std::exception& e) {
    std::cerr << "kube_storm: " << e.what() << "\n";
    return 1;
  }
}
