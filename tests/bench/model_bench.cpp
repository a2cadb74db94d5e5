// What reading the store's documents costs: 50,000 pods, a gateway with 5,000 policies in its
// status, admission of a policy.
#include <benchmark/benchmark.h>
#include <fmt/format.h>
#include <malloc.h>

#include <nlohmann/json.hpp>

#include "egw/core/admission.hpp"
#include "egw/model/codec.hpp"

namespace egw {
namespace {

using nlohmann::json;

constexpr int kPods = 50000;

// As a CNI's cluster has them, without managedFields.
std::string pod_text(int i) {
  return fmt::format(R"({{"apiVersion":"v1","kind":"Pod","metadata":{{"name":"web-7d4b9c6f5-{0:05}",
    "namespace":"tenant-{1}","uid":"0b7d5a0e-5d43-4e6b-9c55-{0:012}","resourceVersion":"{0}",
    "creationTimestamp":"2024-05-01T12:00:00Z","labels":{{"app":"web","pod-template-hash":"7d4b9c6f5",
    "tier":"front"}},"annotations":{{"cni.projectcalico.org/podIP":"10.244.1.5/32"}},
    "ownerReferences":[{{"apiVersion":"apps/v1","kind":"ReplicaSet","name":"web-7d4b9c6f5"}}]}},
    "spec":{{"nodeName":"node-{2}","containers":[{{"name":"web","image":"web:1","ports":[
    {{"containerPort":80}}]}}]}},"status":{{"phase":"Running","podIP":"10.244.{3}.{4}",
    "podIPs":[{{"ip":"10.244.{3}.{4}"}},{{"ip":"fd01::{0:x}"}}]}}}})",
                     i, i % 50, i % 100, i / 256, i % 256);
}

void decode_pods(benchmark::State& state) {
  std::vector<json> documents;
  for (int i = 0; i < kPods; ++i) documents.push_back(json::parse(pod_text(i)));
  for (auto _ : state) {
    std::vector<model::Pod> pods;
    pods.reserve(kPods);
    const auto before = mallinfo2().uordblks;
    for (const json& d : documents) pods.push_back(model::decode<model::Pod>(d).value());
    state.counters["heap_bytes_per_pod"] =
        static_cast<double>(mallinfo2().uordblks - before) / kPods;
    benchmark::DoNotOptimize(pods);
  }
  state.counters["sizeof"] = sizeof(model::Pod);
}
BENCHMARK(decode_pods)->Unit(benchmark::kMillisecond);

void parse_and_decode_pods(benchmark::State& state) {
  std::vector<std::string> texts;
  for (int i = 0; i < kPods; ++i) texts.push_back(pod_text(i));
  for (auto _ : state) {
    for (const std::string& t : texts) {
      benchmark::DoNotOptimize(model::decode<model::Pod>(json::parse(t)).value());
    }
  }
}
BENCHMARK(parse_and_decode_pods)->Unit(benchmark::kMillisecond);

json full_gateway() {
  json gateway = json::parse(R"({"kind": "EgressGateway", "metadata": {"name": "egw1"},
    "spec": {"clusterDefault": true, "nodeSelector": {"selector": {"matchLabels": {"a": "b"}}},
      "ippools": {"ipv4": ["10.6.0.0/16"], "ipv4DefaultEIP": "10.6.0.1"}},
    "status": {"nodeList": [{"name": "n1", "eips": []}]}})");
  for (int e = 0; e < 100; ++e) {
    json eip{{"ipv4", fmt::format("10.6.1.{}", e)}, {"id", e + 1}};
    for (int p = 0; p < 50; ++p) {
      eip["policies"].push_back({{"name", fmt::format("policy-{}", p)}, {"namespace", "shop"}});
    }
    gateway["status"]["nodeList"][0]["eips"].push_back(std::move(eip));
  }
  return gateway;
}

void decode_gateway_of_5000_policies(benchmark::State& state) {
  const json gateway = full_gateway();
  for (auto _ : state) benchmark::DoNotOptimize(model::decode<model::EgressGateway>(gateway));
}
BENCHMARK(decode_gateway_of_5000_policies)->Unit(benchmark::kMicrosecond);

void admit_policy(benchmark::State& state) {
  const auto gateway = std::make_shared<const json>(full_gateway());
  core::ObjectReader reader;
  reader.get = [&](model::Kind kind, const model::Key&) {
    return kind == model::Kind::kEgressGateway ? gateway : nullptr;
  };
  reader.each = [](model::Kind, const core::ObjectReader::Visit&) {};
  const json policy = json::parse(R"({"kind": "EgressPolicy",
    "metadata": {"name": "web", "namespace": "shop"}, "spec": {"egressGatewayName": "egw1",
      "egressIP": {"ipv4": "10.6.1.7"}, "appliedTo": {"podSelector": {"matchLabels": {"a": "b"}}},
      "destSubnet": ["1.0.0.0/8", "2.0.0.0/8"]}})");
  const model::Settings settings;
  json object;
  for (auto _ : state) {
    const auto answer = core::admit(core::AdmitOp::kCreate, model::Kind::kEgressPolicy, nullptr,
                                    policy, reader, settings, object);
    if (!answer.admitted) state.SkipWithError(answer.denials[0].c_str());
  }
}
BENCHMARK(admit_policy)->Unit(benchmark::kMicrosecond);

}  // namespace
}  // namespace egw

BENCHMARK_MAIN();
