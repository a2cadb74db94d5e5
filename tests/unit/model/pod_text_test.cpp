// A Pod from its text is the Pod from its tree, or none: for documents as clusters have them, and
// for generated and spoilt ones.
#include "egw/model/pod_text.hpp"

#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <nlohmann/json.hpp>
#include <tuple>

#include "egw/model/codec.hpp"
#include "egw/model/json_text.hpp"

namespace egw::model {
namespace {

using nlohmann::json;

auto parts(const Pod& p) {
  const ObjectMeta& m = p.meta;
  return std::tie(m.name, m.ns, m.uid, m.revision, m.generation, m.created_ms, m.deleted_ms,
                  m.labels, m.annotations, m.finalizers, p.node_name, p.host_network, p.finished,
                  p.ips);
}

// What the tree says; nullopt: it is no JSON, too deep, or has a fault.
std::optional<Pod> by_tree(const std::string& text) {
  const json document = json::parse(text, nullptr, false);
  if (document.is_discarded()) return std::nullopt;
  auto pod = decode<Pod>(document);
  if (!pod) return std::nullopt;
  return std::move(*pod);
}

bool agrees(const std::string& text) {
  const auto quick = read_pod(text);
  if (!quick) return true;
  const auto slow = by_tree(text);
  return slow && parts(*quick) == parts(*slow);
}

const char* const kOfCluster = R"({"apiVersion": "v1", "kind": "Pod", "metadata": {
  "name": "web-7d4b9c8f6-x2x4q", "generateName": "web-7d4b9c8f6-", "namespace": "shop",
  "uid": "378ff0fd-2aae-4044-a409-768bd5409c9e", "resourceVersion": "18446744073709551615",
  "generation": 2, "creationTimestamp": "2026-01-02T03:04:05Z", "deletionTimestamp": null,
  "labels": {"pod-template-hash": "7d4b9c8f6", "app": "web", "app.kubernetes.io/part-of": ""},
  "annotations": {"a/b": "{\"x\":[1,\"\\\\\"]}\n\u0026 \u00e9"}, "finalizers": ["example.com/hold"],
  "ownerReferences": [{"controller": true, "name": "web-7d4b9c8f6"}],
  "managedFields": [{"manager": "kubelet", "fieldsV1": {"f:status": {"k:{\"ip\":\"10.1.0.5\"}": {".": {}}}}}]},
  "spec": {"nodeName": "n1", "hostNetwork": false, "priority": -10, "containers": [{"name": "c", "ports": []}]},
  "status": {"phase": "Running", "podIP": "10.1.0.5", "podIPs": [{"ip": "10.1.0.5"}, {"ip": "fd01::5"}],
             "conditions": [{"type": "Ready", "lastProbeTime": null, "status": "True"}]}})";

TEST(PodText, ReadsWhatTheTreeReads) {
  for (
      const std::string text :
      {kOfCluster, "{}", " {\n} ", R"({"metadata":null,"spec":null,"status":null})",
       R"({"kind":"","apiVersion":null,"metadata":{"name":null,"labels":{}},"spec":{"nodeName":null}})",
       R"({"status":{"podIPs":[],"podIP":"fd01::7"}})", R"({"status":{"podIPs":[{}],"podIP":""}})",
       R"({"status":{"phase":"Succeeded"}})",
       R"({"spec":{"hostNetwork":true},"other":[[],{},0,-1]})",
       R"({"status":{"podIP":"10.1.0.5","podIPs":null,"phase":"Failed"}})"}) {
    const auto quick = read_pod(text);
    ASSERT_TRUE(quick) << text;
    const auto slow = by_tree(text);
    ASSERT_TRUE(slow) << text;
    EXPECT_EQ(parts(*quick), parts(*slow)) << text;
  }
}

TEST(PodText, WhatIsNotKeptTakesNoMemory) {
  const Pod pod = read_pod(kOfCluster).value();
  EXPECT_EQ(pod.meta.uid.capacity(), std::string().capacity());
  EXPECT_EQ(pod.meta.annotations.capacity(), 0U);
  EXPECT_EQ(pod.meta.finalizers.capacity(), 0U);
  EXPECT_EQ(pod.meta.labels.capacity(), pod.meta.labels.size());
}

// Faults, to be told by whoever parses, and what would be read otherwise than a tree reads it.
TEST(PodText, LeavesTheRestToTheTree) {
  const std::string deep = std::string(100, '[') + std::string(100, ']');
  for (const std::string& text : {std::string(),
                                  std::string("null"),
                                  std::string("[]"),
                                  std::string("{}x"),
                                  std::string("{\"a\":1,}"),
                                  std::string("{\"a\" 1}"),
                                  std::string("{\"a\":01}"),
                                  std::string("{\"a\":-}"),
                                  std::string("{\"a\":1.5}"),
                                  std::string("{\"a\":1e400}"),
                                  std::string("{\"a\":1234567890123456789}"),
                                  std::string("{\"a\":tru}"),
                                  std::string("{\"a\":[1 2]}"),
                                  std::string("{\"a\":[1,]}"),
                                  std::string("{\"a\":\"\n\"}"),
                                  std::string("{\"a\":\"\\x\"}"),
                                  std::string(R"({"a":"\ud83d\ude00"})"),
                                  std::string(R"({"a":"\u00g0"})"),
                                  std::string(R"({"a":"\u00)"),
                                  std::string(R"({"metadata":{"na\u006de":"a"}})"),
                                  std::string("{\"a\":\"\\"),
                                  std::string("{\"a\":\"\xff\"}"),
                                  "{\"a\":" + deep + "}",
                                  std::string(R"({"kind":"Node"})"),
                                  std::string(R"({"apiVersion":"v2"})"),
                                  std::string(R"({"kind":"Pod","kind":"Pod"})"),
                                  std::string(R"({"metadata":{"name":1}})"),
                                  std::string(R"({"metadata":{"name":"a\u0062"}})"),
                                  std::string(R"({"metadata":{"uid":1}})"),
                                  std::string(R"({"metadata":{"generation":-1}})"),
                                  std::string(R"({"metadata":{"resourceVersion":"x"}})"),
                                  std::string(R"({"metadata":{"creationTimestamp":"today"}})"),
                                  std::string(R"({"metadata":{"labels":{"a":null}}})"),
                                  std::string(R"({"metadata":{"labels":{"a\/b":"c"}}})"),
                                  std::string(R"({"metadata":{"labels":{"a":"b","a":"c"}}})"),
                                  std::string(R"({"metadata":{"annotations":{"a":1}}})"),
                                  std::string(R"({"metadata":{"finalizers":[1]}})"),
                                  std::string(R"({"spec":[]})"),
                                  std::string(R"({"spec":{"nodeName":"a","nodeName":"b"}})"),
                                  std::string(R"({"spec":{"hostNetwork":"true"}})"),
                                  std::string(R"({"status":{"podIPs":[{"ip":"10.1.0.500"}]}})"),
                                  std::string(R"({"status":{"podIPs":[{"ip":""}]}})"),
                                  std::string(R"({"status":{"podIPs":[null]}})"),
                                  std::string(R"({"status":{"podIP":"x"}})"),
                                  std::string(R"({"status":{"phase":1}})")}) {
    EXPECT_FALSE(read_pod(text)) << text;
  }
}

json value(int depth) {
  const auto kind = *rc::gen::inRange(0, depth > 2 ? 5 : 7);
  switch (kind) {
    case 0:
      return nullptr;
    case 1:
      return *rc::gen::arbitrary<bool>();
    case 2:
      return *rc::gen::arbitrary<std::int32_t>();
    case 3:
    case 4:
      return *rc::gen::elementOf(std::vector<std::string>{
          "", "Pod", "v1", "10.1.0.5", "fd01::5", "Failed", "a\"b", "7", "2026-01-02T03:04:05Z"});
    default:
      break;
  }
  json out = kind == 5 ? json::array() : json::object();
  for (int i = *rc::gen::inRange(0, 4); i > 0; --i) {
    if (kind == 5) {
      out.push_back(value(depth + 1));
      continue;
    }
    out[*rc::gen::elementOf(std::vector<std::string>{"apiVersion",
                                                     "kind",
                                                     "metadata",
                                                     "spec",
                                                     "status",
                                                     "name",
                                                     "namespace",
                                                     "uid",
                                                     "labels",
                                                     "resourceVersion",
                                                     "generation",
                                                     "creationTimestamp",
                                                     "deletionTimestamp",
                                                     "annotations",
                                                     "finalizers",
                                                     "nodeName",
                                                     "hostNetwork",
                                                     "phase",
                                                     "podIP",
                                                     "podIPs",
                                                     "ip"})] = value(depth + 1);
  }
  return out;
}

RC_GTEST_PROP(PodTextProperty, GeneratedDocumentsReadTheSame, ()) {
  json document = json::parse(kOfCluster);
  for (const char* part : {"metadata", "spec", "status"}) {
    json changes = value(1);
    if (changes.is_object()) document[part].update(changes);
  }
  RC_ASSERT(agrees(document.dump(*rc::gen::elementOf(std::vector<int>{-1, 1}))));
}

RC_GTEST_PROP(PodTextProperty, SpoiltTextsReadTheSame, ()) {
  std::string text = kOfCluster;
  for (int i = *rc::gen::inRange(1, 4); i > 0; --i) {
    const auto at = *rc::gen::inRange<std::size_t>(0, text.size());
    const char c = *rc::gen::elementOf(std::string("\"\\{}[]:,0-1n .ued8\n\t\x7f\x80"));
    switch (*rc::gen::inRange(0, 3)) {
      case 0:
        text[at] = c;
        break;
      case 1:
        text.insert(at, 1, c);
        break;
      default:
        text.erase(at, *rc::gen::inRange<std::size_t>(1, 30));
    }
  }
  RC_CLASSIFY(read_pod(text).has_value());
  RC_ASSERT(agrees(text));
}

}  // namespace
}  // namespace egw::model
