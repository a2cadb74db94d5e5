// The JSON of every resource: the documentation's manifest, errors that name the path, unknown
// fields with hints.
#include "egw/model/codec.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

namespace egw::model {
namespace {

using nlohmann::json;
using testing::ElementsAre;
using testing::HasSubstr;

TEST(Codec, GatewayOfTheDocumentation) {
  const json doc = json::parse(R"({
    "apiVersion": "egressgateway.spidernet.io/v1beta1", "kind": "EgressGateway",
    "metadata": {"name": "default", "resourceVersion": "17", "uid": "u", "generation": 2,
      "creationTimestamp": "2024-05-01T12:00:00Z",
      "finalizers": ["egressgateway.spidernet.io/egressgateway"]},
    "spec": {"clusterDefault": true,
      "ippools": {"ipv4": ["10.6.1.55", "10.6.1.56"], "ipv4DefaultEIP": "10.6.1.56",
                  "ipv6": ["fd00::55", "fd00::56"], "ipv6DefaultEIP": "fd00::55"},
      "nodeSelector": {"selector": {"matchLabels": {"egress": "true"}}}},
    "status": {"term": 3,
      "nodeList": [{"name": "node1", "status": "Ready", "eips": [
        {"ipv4": "10.6.1.56", "ipv6": "fd00::55", "id": 7, "epoch": 2, "movingFrom": "node2",
         "policies": [{"name": "all"}, {"name": "web", "namespace": "default"}]},
        {"useNodeIP": true, "id": 8, "epoch": 1, "unserved": true}]}],
      "unplaced": [{"ipv4": "10.6.1.55", "ipv6": "fd00::56", "id": 9,
                    "unservedSince": "2024-05-01T12:00:04.250000Z",
                    "leftNode": "node3", "leftWhy": "NodeDeleted"}],
      "ipUsage": {"ipv4Total": 2, "ipv4Free": 1, "ipv6Total": 2, "ipv6Free": 1},
      "conditions": [{"type": "Ready", "status": "True", "reason": "Served", "message": "m",
                      "lastTransitionTime": "2024-05-01T12:00:05Z"}]}})");
  const EgressGateway g = decode<EgressGateway>(doc).value();
  EXPECT_EQ(g.meta.name, "default");
  EXPECT_EQ(g.meta.revision, 17U);
  EXPECT_EQ(g.meta.created_ms, 1714564800000);
  EXPECT_TRUE(g.spec.cluster_default);
  EXPECT_EQ(g.spec.ippools.ipv4_default_eip, "10.6.1.56");
  EXPECT_TRUE(g.spec.node_selector.matches({{"egress", "true"}}));
  EXPECT_FALSE(g.spec.node_selector.matches({}));
  ASSERT_EQ(g.status.node_list.size(), 1U);
  const EipStatus& eip = g.status.node_list[0].eips[0];
  EXPECT_EQ(eip.id, 7U);
  EXPECT_EQ(eip.epoch, 2U);
  EXPECT_EQ(eip.moving_from, "node2");
  EXPECT_EQ(eip.policies[1], (PolicyRef{"web", "default"}));
  EXPECT_FALSE(eip.unserved);
  EXPECT_TRUE(g.status.node_list[0].eips[1].use_node_ip);
  EXPECT_TRUE(g.status.node_list[0].eips[1].unserved);
  EXPECT_EQ(g.status.unplaced[0].unserved_since_ms, 1714564804250);
  EXPECT_EQ(g.status.conditions[0].transition_ms, 1714564805000);
  EXPECT_EQ(encode(g), doc);
  EXPECT_EQ(encode_status(g), doc["status"]);
}

// Each of the three comes back as it came, also from another writer, in every kind that has any.
template <class R>
void expect_kept_conditions(const char* word) {
  const json conditions = json::array({{{"type", "Ready"},
                                        {"status", word},
                                        {"reason", "R"},
                                        {"message", "m"},
                                        {"lastTransitionTime", "2024-05-01T12:00:05Z"}}});
  const json doc{{"metadata", {{"name", "x"}}}, {"status", {{"conditions", conditions}}}};
  const R read = decode<R>(doc).value();
  EXPECT_EQ(to_string(read.status.conditions.at(0).status), word);
  EXPECT_EQ(encode(read)["status"]["conditions"], conditions) << info(R::kKind).kind;
  EXPECT_EQ(encode_status(read)["conditions"], conditions) << info(R::kKind).kind;
}

TEST(Codec, ConditionsKeepTheirStatus) {
  for (const char* word : {"True", "False", "Unknown"}) {
    expect_kept_conditions<EgressGateway>(word);
    expect_kept_conditions<EgressPolicy>(word);
    expect_kept_conditions<EgressClusterPolicy>(word);
    expect_kept_conditions<EgressTunnel>(word);
    expect_kept_conditions<EgressClusterInfo>(word);
  }
}

TEST(Codec, PolicyDefaultsAndShape) {
  const json doc = json::parse(R"({
    "apiVersion": "egressgateway.spidernet.io/v1beta1", "kind": "EgressPolicy",
    "metadata": {"name": "web", "namespace": "default"},
    "spec": {"egressGatewayName": "default",
      "appliedTo": {"podSelector": {"matchLabels": {"app": "web"}}}, "destSubnet": ["0.0.0.0/0"]}})");
  EgressPolicy p = decode<EgressPolicy>(doc).value();
  EXPECT_FALSE(p.spec.egress_ip.use_node_ip);
  EXPECT_EQ(p.spec.egress_ip.allocator, AllocatorPolicy::kDefault);
  EXPECT_EQ(p.spec.failure_policy, FailurePolicy::kDrop);
  EXPECT_FALSE(p.spec.namespace_selector);
  const json out = encode(p);
  EXPECT_EQ(out["spec"]["egressIP"], (json{{"allocatorPolicy", "default"}, {"useNodeIP", false}}));
  EXPECT_EQ(out["spec"]["appliedTo"], doc["spec"]["appliedTo"]);
  EXPECT_FALSE(out.contains("status"));
  p.status = {"10.6.1.56", "fd00::55", "node1", {}};
  EXPECT_EQ(encode_status(p),
            json::parse(R"({"eip": {"ipv4": "10.6.1.56", "ipv6": "fd00::55"}, "node": "node1"})"));
}

TEST(Codec, ClusterPolicyKeepsItsKindInWorld) {
  const json doc = json::parse(R"({"kind": "EgressClusterPolicy", "metadata": {"name": "all"},
    "spec": {"egressIP": {"allocatorPolicy": "rr"}, "failurePolicy": "NodeIP", "priority": -3,
             "appliedTo": {"namespaceSelector": {}, "podSubnet": ["10.1.0.0/16"]}}})");
  const EgressClusterPolicy c = decode<EgressClusterPolicy>(doc).value();
  EXPECT_EQ(c.spec.egress_ip.allocator, AllocatorPolicy::kRoundRobin);
  EXPECT_EQ(c.spec.failure_policy, FailurePolicy::kNodeIp);
  EXPECT_EQ(c.spec.priority, -3);
  ASSERT_TRUE(c.spec.namespace_selector);
  EXPECT_TRUE(c.spec.namespace_selector->empty());
  const EgressPolicy& as_policy = c;  // how World holds it
  EXPECT_EQ(encode(as_policy), encode(c));
  EXPECT_EQ(encode(c)["kind"], "EgressClusterPolicy");
}

TEST(Codec, TunnelShape) {
  EgressTunnel t;
  t.meta.name = "node1";
  EXPECT_EQ(encode(t)["spec"], json::object());
  EXPECT_FALSE(encode(t).contains("status"));
  const json status = json::parse(R"({
    "tunnel": {"ipv4": "172.31.0.5", "ipv6": "fd11::5", "mac": "66:50:85:cb:b2:bf",
      "parent": {"name": "eth0", "ipv4": "10.6.1.21", "ipv6": "fd00::21", "mac": "00:11:22:33:44:55",
                 "macs": ["00:11:22:33:44:66"]}},
    "mark": "0x26000005", "phase": "HeartbeatTimeout",
    "lastHeartbeatTime": "2024-05-01T12:00:00.250000Z", "realised": {"term": 2, "revision": 99},
    "conditions": [{"type": "Uplink", "status": "False", "reason": "NoCarrier", "message": "",
                    "lastTransitionTime": "2024-05-01T12:00:00Z"}]})");
  t = decode<EgressTunnel>({{"metadata", {{"name", "node1"}}}, {"status", status}}).value();
  EXPECT_EQ(t.status.phase, TunnelPhase::kHeartbeatTimeout);
  EXPECT_EQ(to_string(t.status.phase), "HeartbeatTimeout");
  EXPECT_EQ(t.status.last_heartbeat_ms, 1714564800250);
  EXPECT_EQ(t.status.parent.mac, "00:11:22:33:44:55");
  EXPECT_EQ(t.status.realised.revision, 99U);
  EXPECT_EQ(encode_status(t), status);
}

TEST(Codec, ClusterInfoShape) {
  const json doc = json::parse(R"({
    "apiVersion": "egressgateway.spidernet.io/v1beta1", "kind": "EgressClusterInfo",
    "metadata": {"name": "default"},
    "spec": {"autoDetect": {"podCidrMode": "k8s", "clusterIP": false, "nodeIP": true},
             "extraCidr": ["10.9.0.0/16"]},
    "status": {"podCidrMode": "k8s", "clusterIP": {"ipv4": ["10.96.0.0/16"]},
      "nodeIP": {"n1": {"ipv4": ["10.6.1.21"]}}, "podCIDR": {"n1": {"ipv4": ["10.244.0.0/24"]}},
      "extraCidr": ["10.9.0.0/16"], "nextEgressId": 12, "retired": [{"id": 3, "revision": 40}],
      "term": 5, "peers": [{"name": "n1", "underlayIPv4": "10.6.1.21", "underlayIPv6": "fd00::21",
        "tunnelIPv4": "172.31.0.5", "tunnelIPv6": "fd11::5", "mac": "02:ee:0a:06:01:15",
        "parentMAC": "00:11:22:33:44:55", "podCIDRs": ["10.244.0.0/24"],
        "macs": ["00:11:22:33:44:66"]}]}})");
  const EgressClusterInfo c = decode<EgressClusterInfo>(doc).value();
  EXPECT_TRUE(c.status.present);
  EXPECT_EQ(c.status.retired[0], (RetiredId{3, 40}));
  EXPECT_EQ(c.status.peers[0].parent_mac, "00:11:22:33:44:55");
  EXPECT_EQ(encode(c), doc);

  const EgressClusterInfo fresh =
      decode<EgressClusterInfo>({{"metadata", {{"name", "default"}}}}).value();
  EXPECT_FALSE(fresh.status.present);
  EXPECT_EQ(fresh.spec.pod_cidr_mode, "auto");
  EXPECT_TRUE(fresh.spec.cluster_ip);
  EXPECT_EQ(decode<EgressClusterInfo>(
                {{"spec", {{"autoDetect", {{"podCidrMode", ""}, {"nodeIP", false}}}}}})
                .value()
                .spec.pod_cidr_mode,
            "");
}

TEST(Codec, NodeReadsReadyAddressesAndCidrs) {
  const auto node = [](const char* text) { return decode<Node>(json::parse(text)).value(); };
  const Node n = node(R"({"metadata": {"name": "n1", "labels": {"egress": "true"}},
    "spec": {"podCIDR": "10.244.1.0/24", "podCIDRs": ["10.244.1.0/24", "fd01::/64"]},
    "status": {"addresses": [{"type": "InternalIP", "address": "10.6.1.21"},
                             {"type": "Hostname", "address": "n1"}],
               "conditions": [{"type": "MemoryPressure", "status": "False"},
                              {"type": "Ready", "status": "True"}]}})");
  EXPECT_THAT(n.pod_cidrs, ElementsAre("10.244.1.0/24", "fd01::/64"));
  EXPECT_THAT(n.internal_ips, ElementsAre("10.6.1.21"));
  EXPECT_TRUE(n.ready);
  EXPECT_EQ(n.meta.labels.at("egress"), "true");
  EXPECT_THAT(node(R"({"spec": {"podCIDR": "10.244.1.0/24"}})").pod_cidrs,
              ElementsAre("10.244.1.0/24"));
  EXPECT_TRUE(node("{}").ready);
  EXPECT_FALSE(node(R"({"status": {"conditions": [{"type": "Ready", "status": "False"}]}})").ready);
  EXPECT_FALSE(
      node(R"({"status": {"conditions": [{"type": "Ready", "status": "Unknown"}]}})").ready);
}

// A node has thousands: what is not kept must leave no memory behind either.
TEST(Codec, WhatIsNotKeptOfAPodTakesNoMemory) {
  const Pod pod = decode<Pod>(json::parse(R"({"metadata": {"name": "a", "namespace": "b",
      "uid": "378ff0fd-2aae-4044-a409-768bd5409c9e", "finalizers": ["example.com/hold"],
      "annotations": {"example.com/a": "b"}}})"))
                      .value();
  EXPECT_EQ(pod.meta.uid.capacity(), std::string().capacity());
  EXPECT_EQ(pod.meta.annotations.capacity(), 0U);
  EXPECT_EQ(pod.meta.finalizers.capacity(), 0U);
}

TEST(Codec, PodReadsWhatSelectsAndPlacesIt) {
  const auto pod = [](const char* text) { return decode<Pod>(json::parse(text)).value(); };
  const Pod p = pod(R"({"metadata": {"name": "a", "namespace": "b", "uid": "u",
      "annotations": {"x": "y"}, "labels": {"app": "web"}},
    "spec": {"nodeName": "n1", "containers": [{"name": "c"}]},
    "status": {"phase": "Running", "podIP": "10.1.0.5",
               "podIPs": [{"ip": "10.1.0.5"}, {"ip": "fd01::5"}]}})");
  EXPECT_EQ(p.meta.key(), (Key{"b", "a"}));
  EXPECT_EQ(p.node_name, "n1");
  EXPECT_FALSE(p.host_network);
  EXPECT_FALSE(p.finished);
  EXPECT_THAT(p.ips,
              ElementsAre(Address::parse("10.1.0.5").value(), Address::parse("fd01::5").value()));
  EXPECT_TRUE(p.meta.annotations.empty());
  EXPECT_EQ(pod(R"({"status": {"podIP": "10.1.0.5"}})").ips.size(), 1U);
  EXPECT_TRUE(pod(R"({"status": {"podIP": ""}})").ips.empty());
  EXPECT_TRUE(pod(R"({"status": {"phase": "Succeeded"}})").finished);
  EXPECT_TRUE(pod(R"({"status": {"phase": "Failed"}})").finished);
  EXPECT_FALSE(pod(R"({"status": {"phase": "Pending"}})").finished);
  EXPECT_TRUE(pod(R"({"spec": {"hostNetwork": true}})").host_network);
  auto bad = decode<Pod>(json::parse(R"({"status": {"podIPs": [{"ip": "10.1.0.500"}]}})"));
  ASSERT_FALSE(bad);
  EXPECT_EQ(bad.error().object, "status.podIPs[0].ip");
}

TEST(Codec, NullsReadAsAbsent) {
  const json doc = json::parse(R"({"metadata": {"name": "g", "creationTimestamp": null,
      "labels": null, "finalizers": null},
    "spec": {"clusterDefault": null, "ippools": null, "nodeSelector": null}, "status": null})");
  const EgressGateway g = decode<EgressGateway>(doc).value();
  EXPECT_EQ(g.meta.created_ms, 0);
  EXPECT_EQ(g.spec, EgressGateway::Spec{});
}

template <class R>
void expect_error(const char* text, const char* path, const char* want) {
  auto r = decode<R>(json::parse(text));
  ASSERT_FALSE(r) << text;
  EXPECT_EQ(r.error().code, Errc::kInvalid) << text;
  EXPECT_EQ(r.error().object, path) << text;
  EXPECT_THAT(r.error().message, HasSubstr(want)) << text;
}

// Fields of a newer version's status stay, in their places, through a read, a change and a write.
TEST(Codec, UnknownStatusFieldsAreKept) {
  json doc = json::parse(R"({
    "apiVersion": "egressgateway.spidernet.io/v1beta1", "kind": "EgressGateway",
    "metadata": {"name": "g"}, "spec": {"nodeSelector": {"selector": {}}},
    "status": {"term": 3, "shape": {"a": [1]}, "ipUsage": {"ipv4Total": 1, "reserved": 4},
      "nodeList": [
        {"name": "n1", "zone": "a", "eips": [
          {"id": 7, "ipv4": "10.6.1.56", "weight": 5, "type": "new", "policies": [
            {"name": "web", "namespace": "shop", "since": 1},
            {"name": "web", "namespace": "other", "since": 2}]},
          {"id": 8, "ipv4": "10.6.1.57", "weight": 6}]},
        {"name": "n2", "zone": "b"}],
      "conditions": [{"type": "Ready", "status": "True", "reason": "", "message": "",
                      "lastTransitionTime": "2024-05-01T12:00:00Z", "observedGeneration": 3}]}})");
  EgressGateway g = decode<EgressGateway>(doc).value();
  // What follows from defaults is written out; nothing else differs.
  doc["status"]["ipUsage"].update({{"ipv4Free", 0}, {"ipv6Free", 0}, {"ipv6Total", 0}});
  EXPECT_EQ(encode_status(g), doc["status"]) << json::diff(doc["status"], encode_status(g)).dump(1);

  // n1 goes, policy other/web goes, an EIP's epoch changes: the rest keeps what it has.
  g.status.node_list[0].eips[0].epoch = 9;
  g.status.node_list[0].eips[0].policies.erase(g.status.node_list[0].eips[0].policies.begin() + 1);
  g.status.node_list[0].eips.pop_back();
  g.status.node_list.erase(g.status.node_list.begin() + 1);
  json& nodes = doc["status"]["nodeList"];
  nodes.erase(1);
  nodes[0]["eips"].erase(1);
  nodes[0]["eips"][0]["epoch"] = 9;
  nodes[0]["eips"][0]["policies"].erase(1);
  EXPECT_EQ(encode_status(g), doc["status"]) << json::diff(doc["status"], encode_status(g)).dump(1);

  const json tunnel = json::parse(R"({"newer": true, "phase": "Ready",
      "tunnel": {"ipv4": "172.31.0.5", "mtu": 1400, "parent": {"name": "eth0", "speed": 10}}})");
  EXPECT_EQ(encode_status(decode<EgressTunnel>({{"status", tunnel}}).value()), tunnel);
  const json policy = json::parse(R"({"eip": {"ipv4": "10.6.1.56", "pair": 2}, "since": "now"})");
  EXPECT_EQ(encode_status(decode<EgressPolicy>({{"status", policy}}).value()), policy);
  const json info = json::parse(R"({"nextEgressId": 4, "newer": [],
      "nodeIP": {"n1": {"ipv4": ["10.6.1.21"], "ipv8": []}},
      "peers": [{"name": "n1", "key": "k"}], "retired": [{"id": 3, "revision": 4, "why": "x"}]})");
  EXPECT_EQ(encode_status(decode<EgressClusterInfo>({{"status", info}}).value()), info);
  const json only{{"newer", 1}};
  EXPECT_EQ(encode_status(decode<EgressTunnel>({{"status", only}}).value()), only);
}

TEST(Codec, AWordOfANewerVersionIsUnknownAndStays) {
  const json doc{{"status", {{"phase", "Resting"}, {"mark", "0x26000001"}}}};
  EgressTunnel tunnel = decode<EgressTunnel>(doc).value();
  EXPECT_EQ(tunnel.status.phase, TunnelPhase::kUnknown);
  EXPECT_EQ(encode_status(tunnel), doc["status"]);
  tunnel.status.phase = TunnelPhase::kReady;
  EXPECT_EQ(encode_status(tunnel)["phase"], "Ready");
}

TEST(Codec, OfAStoredObjectADamagedStatusIsNoError) {
  json doc = json::parse(R"({"metadata": {"name": "g"}, "spec": {"clusterDefault": true},
      "status": {"term": -1, "nodeList": [{"name": "n1", "eips": [{"ipv4": "10.6.1.5", "id": "x"}]}]}})");
  std::vector<Error> damage;
  const auto g = decode_stored<EgressGateway>(doc, damage);
  ASSERT_TRUE(g);
  EXPECT_TRUE(g->status_damaged);
  EXPECT_EQ(g->status.node_list.at(0).eips.at(0).ipv4, "10.6.1.5");
  ASSERT_EQ(damage.size(), 2U);
  EXPECT_EQ(damage[0].object, "status.term");
  damage.clear();
  doc["status"] = json::array();
  EXPECT_TRUE(decode_stored<EgressGateway>(doc, damage).value().spec.cluster_default);
  EXPECT_EQ(damage.at(0).object, "status");
  doc["spec"]["clusterDefault"] = "x";
  EXPECT_EQ(decode_stored<EgressGateway>(doc, damage).error().object, "spec.clusterDefault");
}

TEST(CodecErrors, AllOfThemAreFound) {
  std::vector<Error> faults;
  const auto p = decode<EgressPolicy>(
      json::parse(R"({"kind": "Pod", "metadata": {"name": 1, "labels": {"a": 2, "b": "c"}},
      "spec": {"priority": "x", "destSubnet": ["1.1.1.1", 5, null], "egressIP": [],
               "appliedTo": {"podSelector": {"matchLabels": {"a": "b", "c": 3}}}}})"),
      faults);
  std::vector<std::string> paths;
  for (const Error& f : faults) paths.push_back(f.object);
  EXPECT_THAT(paths, ElementsAre("kind", "metadata.name", "metadata.labels.a", "spec.egressIP",
                                 "spec.appliedTo.podSelector.matchLabels.c", "spec.destSubnet[1]",
                                 "spec.destSubnet[2]", "spec.priority"));
  EXPECT_THAT(p.spec.dest_subnet, ElementsAre("1.1.1.1", "", "")) << "each stays in its place";
  EXPECT_TRUE(p.spec.pod_selector->matches({{"a", "b"}}));
}

TEST(CodecErrors, NameThePathAndWhatIsWanted) {
  using G = EgressGateway;
  expect_error<G>("[]", "the document", "an object");
  expect_error<G>(R"({"kind": "EgressPolicy"})", "kind", "EgressGateway");
  expect_error<G>(R"({"apiVersion": "v1"})", "apiVersion", "egressgateway.spidernet.io/v1beta1");
  expect_error<G>(R"({"metadata": []})", "metadata", "an object");
  expect_error<G>(R"({"metadata": {"name": 5}})", "metadata.name", "number 5: want a string");
  expect_error<G>(R"({"metadata": {"resourceVersion": "x"}})", "metadata.resourceVersion",
                  "decimal");
  expect_error<G>(R"({"metadata": {"resourceVersion": "-1"}})", "metadata.resourceVersion",
                  "decimal");
  expect_error<G>(R"({"metadata": {"creationTimestamp": "now"}})", "metadata.creationTimestamp",
                  "RFC 3339");
  expect_error<G>(R"({"metadata": {"labels": {"a": true}}})", "metadata.labels.a", "a string");
  expect_error<G>(R"({"metadata": {"labels": {"a": null}}})", "metadata.labels.a", "a string");
  expect_error<G>(R"({"metadata": {"finalizers": "a"}})", "metadata.finalizers", "a list");
  expect_error<G>(R"({"spec": "x"})", "spec", "an object");
  expect_error<G>(R"({"spec": {"clusterDefault": "yes"}})", "spec.clusterDefault",
                  "\"yes\": want true or false");
  expect_error<G>(R"({"spec": {"ippools": {"ipv4": "10.6.1.55"}}})", "spec.ippools.ipv4", "a list");
  expect_error<G>(R"({"spec": {"ippools": {"ipv4": ["10.6.1.55", 5]}}})", "spec.ippools.ipv4[1]",
                  "a string");
  expect_error<G>(R"({"spec": {"nodeSelector": {"selector": {"matchLabels": []}}}})",
                  "spec.nodeSelector.selector.matchLabels", "an object");
  expect_error<G>(R"({"status": {"nodeList": [{"eips": [{"id": 16384}]}]}})",
                  "status.nodeList[0].eips[0].id", "from 0 to 16383");
  expect_error<G>(R"({"status": {"nodeList": [{"eips": [{"id": -1}]}]}})",
                  "status.nodeList[0].eips[0].id", "from 0 to 16383");
  expect_error<G>(R"({"status": {"term": 1.5}})", "status.term", "whole number");
  expect_error<G>(R"({"status": {"ipUsage": {"ipv4Total": -1}}})", "status.ipUsage.ipv4Total",
                  "from 0");
  for (const char* word : {"true", "", "Maybe"}) {
    const std::string doc =
        std::string(R"({"status": {"conditions": [{"status": ")") + word + R"("}]}})";
    expect_error<G>(doc.c_str(), "status.conditions[0].status", "True, False or Unknown");
  }
  using P = EgressPolicy;
  expect_error<P>(R"({"spec": {"priority": 9223372036854775808}})", "spec.priority",
                  "whole number");
  expect_error<P>(R"({"spec": {"priority": "1"}})", "spec.priority", "whole number");
  expect_error<P>(R"({"spec": {"egressIP": {"allocatorPolicy": "random"}}})",
                  "spec.egressIP.allocatorPolicy", "\"random\": want one of default, rr");
  expect_error<P>(R"({"spec": {"failurePolicy": "drop"}})", "spec.failurePolicy",
                  "one of Drop, NodeIP");
  expect_error<P>(R"({"spec": {"appliedTo": {"podSelector": []}}})", "spec.appliedTo.podSelector",
                  "an object");
  expect_error<EgressClusterInfo>(R"({"spec": {"autoDetect": {"podCidrMode": "flannel"}}})",
                                  "spec.autoDetect.podCidrMode", "calico");
  expect_error<EgressClusterInfo>(R"({"status": {"nodeIP": {"n1": []}}})", "status.nodeIP.n1",
                                  "an object");
}

std::vector<std::string> unknown(Kind kind, const char* text) {
  std::vector<std::string> out;
  for (const UnknownField& f : find_unknown_fields(kind, json::parse(text))) {
    out.push_back(f.path + (f.closest.empty() ? "" : " ~ " + f.closest));
  }
  return out;
}

TEST(UnknownFields, NamedWithTheClosestKnownOne) {
  EXPECT_THAT(unknown(Kind::kEgressGateway, R"({"spec": {"ippool": {}}})"),
              ElementsAre("spec.ippool ~ spec.ippools"));
  EXPECT_THAT(unknown(Kind::kEgressGateway, R"({"spec": {"ippools": {"ipv4DefaultEip": "x"}}})"),
              ElementsAre("spec.ippools.ipv4DefaultEip ~ spec.ippools.ipv4DefaultEIP"));
  EXPECT_THAT(unknown(Kind::kEgressGateway, R"({"specs": {}, "metadata": {"lables": {}}})"),
              ElementsAre("metadata.lables ~ metadata.labels", "specs ~ spec"));
  EXPECT_THAT(
      unknown(Kind::kEgressGateway,
              R"({"spec": {"nodeSelector": {"matchLabels": {"egress": "true"}}}})"),
      ElementsAre("spec.nodeSelector.matchLabels ~ spec.nodeSelector.selector.matchLabels"));
  EXPECT_THAT(
      unknown(Kind::kEgressPolicy, R"({"spec": {"gateway": "g", "appliedTo":
      {"podSelector": {"app": "web"}}}})"),
      ElementsAre("spec.appliedTo.podSelector.app ~ spec.appliedTo.podSelector.matchLabels.app",
                  "spec.gateway ~ spec.egressGatewayName"));
  EXPECT_THAT(unknown(Kind::kEgressPolicy, R"({"spec": {"destSubnets": [], "wholly": 1}})"),
              ElementsAre("spec.destSubnets ~ spec.destSubnet", "spec.wholly"));
  EXPECT_THAT(unknown(Kind::kEgressPolicy, R"({"spec": {"appliedTo": {"podSelector":
      {"matchExpressions": [{"key": "a", "operator": "Exists"}, {"key": "b", "op": "In"}]}}}})"),
              ElementsAre("spec.appliedTo.podSelector.matchExpressions[1].op"));
  EXPECT_THAT(unknown(Kind::kEgressTunnel, R"({"spec": {"mark": 1}})"), ElementsAre("spec.mark"));
  EXPECT_THAT(unknown(Kind::kEgressEndpointSlice, R"({"endpoint": [], "endpoints": []})"),
              ElementsAre("endpoint ~ endpoints"));
}

TEST(UnknownFields, KnownOnesAndFreeKeysAreQuiet) {
  EXPECT_THAT(unknown(Kind::kEgressGateway, R"({"apiVersion": "a", "kind": "b", "metadata": {
      "annotations": {"any": "thing"}, "labels": {"any": "label"}}, "spec": {"nodeSelector":
      {"policy": "x", "selector": {"matchLabels": {"any": "label"}}}}, "status": {"any": 1}})"),
              ElementsAre());
  EXPECT_THAT(unknown(Kind::kPod, R"({"spec": {"containers": []}, "data": 1})"), ElementsAre());
  EXPECT_THAT(unknown_fields(Kind::kEgressPolicy, json::parse(R"({"spec": {"prio": 1}})")),
              ElementsAre("spec.prio"));
  EXPECT_THAT(unknown(Kind::kEgressGateway, "[]"), ElementsAre());
}

TEST(Codec, Event) {
  const json doc = json::parse(R"({
    "apiVersion": "events.k8s.io/v1", "kind": "Event",
    "metadata": {"name": "egw.0123456789abcdef", "namespace": "default"},
    "regarding": {"apiVersion": "egressgateway.spidernet.io/v1beta1",
                  "kind": "EgressGateway", "name": "egw", "uid": "u1"},
    "type": "Warning", "action": "Move", "reason": "EipMoved", "note": "m",
    "reportingController": "egw-controller", "reportingInstance": "n1",
    "eventTime": "2024-05-01T12:00:00.000000Z",
    "series": {"count": 3, "lastObservedTime": "2024-05-01T12:00:05.250000Z"}})");
  const Event event = decode<Event>(doc).value();
  EXPECT_TRUE(event.warning);
  EXPECT_EQ(event.about, (Key{"", "egw"}));
  EXPECT_EQ(event.count, 3);
  EXPECT_EQ(event.about_uid, "u1");
  EXPECT_EQ(event.last_ms - event.first_ms, 5250);
  EXPECT_EQ(encode(event), doc);
  json once = doc;
  once.erase("series");
  EXPECT_EQ(encode(decode<Event>(once).value()), once);
  EXPECT_EQ(
      decode<Event>(json::parse(R"({"kind": "Event", "series": {"count": "x"}})")).error().object,
      "series.count");
}

}  // namespace
}  // namespace egw::model
