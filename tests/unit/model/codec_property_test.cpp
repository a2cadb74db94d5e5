// decode(encode(x)) is x, and encode(decode(encode(x))) is encode(x), for generated resources.
#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "egw/model/codec.hpp"

namespace egw::model {
namespace {

using nlohmann::json;

// Text that JSON has to escape is welcome; length is kept small for speed. Never empty.
std::string word() {
  return *rc::gen::resize(8, rc::gen::nonEmpty(rc::gen::container<std::string>(
                                 rc::gen::elementOf(std::string("abcXYZ019.-_/:\"\\ \n")))));
}
std::string label() { return *rc::gen::elementOf(std::vector<std::string>{"a", "b-c", "d.e/f"}); }
std::string maybe_word() { return *rc::gen::arbitrary<bool>() ? word() : std::string(); }
template <class F>
auto list(F element) {
  std::vector<decltype(element())> out(*rc::gen::inRange<std::size_t>(0, 4));
  for (auto& e : out) e = element();
  return out;
}
std::uint64_t number(std::uint64_t end) { return *rc::gen::inRange<std::uint64_t>(0, end); }
std::int64_t second() { return static_cast<std::int64_t>(1 + number(4000000000)) * 1000; }

ObjectMeta meta(bool namespaced) {
  ObjectMeta m;
  m.name = word();
  if (namespaced) m.ns = word();
  m.uid = maybe_word();
  m.revision = *rc::gen::arbitrary<std::uint64_t>();
  m.generation = static_cast<std::int64_t>(number(1000));
  m.created_ms = second();
  if (number(2) == 1) m.deleted_ms = second();
  for (const std::string& key : list(word)) m.labels[key] = maybe_word();
  for (const std::string& key : list(word)) m.annotations[key] = maybe_word();
  m.finalizers = list(word);
  return m;
}

LabelSelector selector() {
  std::vector<std::string> parts;
  for (const std::string& key : list(label)) {
    const char* forms[] = {"{}=x", "{}!=y", "{} in (p,q)", "{} notin (r)", "{}", "!{}"};
    std::string form = forms[number(6)];
    form.replace(form.find("{}"), 2, key);
    parts.push_back(form);
  }
  std::string text;
  for (const std::string& p : parts) text += (text.empty() ? "" : ",") + p;
  return LabelSelector::parse_text(text).value();
}
std::optional<LabelSelector> maybe_selector() {
  if (number(2) == 0) return std::nullopt;
  return selector();
}

Condition condition() {
  const ConditionStatus any[] = {false, true, ConditionStatus::unknown()};
  return {word(), any[number(3)], word(), maybe_word(), second()};
}

EipStatus eip() {
  EipStatus e;
  e.ipv4 = maybe_word();
  e.ipv6 = maybe_word();
  e.use_node_ip = number(2) == 1;
  e.id = static_cast<std::uint32_t>(number(16384));
  e.epoch = *rc::gen::arbitrary<std::uint64_t>();
  e.moving_from = maybe_word();
  e.unserved_since_ms = number(2) == 1 ? second() : 0;
  e.unserved = number(2) == 1;
  e.left_node = maybe_word();
  e.left_why = maybe_word();
  e.policies = list([] { return PolicyRef{word(), maybe_word()}; });
  return e;
}

template <class R>
void expect_same_text(const R& resource) {
  const json text = encode(resource);
  const R back = decode<R>(text).value();
  RC_ASSERT(back.meta.key() == resource.meta.key());
  RC_ASSERT(back.meta.revision == resource.meta.revision);
  RC_ASSERT(back.meta.created_ms == resource.meta.created_ms);
  RC_ASSERT(back.meta.deleted_ms == resource.meta.deleted_ms);
  RC_ASSERT(back.meta.labels == resource.meta.labels);
  RC_ASSERT(encode(back) == text);
  // Through text, as stores do.
  RC_ASSERT(json::parse(text.dump()) == text);
}

RC_GTEST_PROP(CodecProperty, Gateway, ()) {
  EgressGateway g;
  g.meta = meta(false);
  g.spec = {number(2) == 1,
            {list(word), list(word), maybe_word(), maybe_word()},
            selector(),
            maybe_word(),
            maybe_selector()};
  g.status.term = *rc::gen::arbitrary<std::uint64_t>();
  g.status.node_list = list([] { return GatewayNode{word(), maybe_word(), list(eip)}; });
  g.status.unplaced = list(eip);
  g.status.ip_usage = {std::numeric_limits<std::int64_t>::max(), 1, 2,
                       static_cast<std::int64_t>(number(9))};
  g.status.conditions = list(condition);
  expect_same_text(g);
  const auto back = decode<EgressGateway>(encode(g)).value();
  RC_ASSERT(back.spec == g.spec);
  RC_ASSERT(back.status == g.status);
  RC_ASSERT(back.meta.annotations == g.meta.annotations);
  RC_ASSERT(back.meta.finalizers == g.meta.finalizers);
}

RC_GTEST_PROP(CodecProperty, Policy, (bool namespaced)) {
  EgressPolicy p;
  p.meta = meta(namespaced);
  p.spec.gateway = maybe_word();
  p.spec.egress_ip = {maybe_word(), maybe_word(), number(2) == 1,
                      number(2) == 1 ? AllocatorPolicy::kDefault : AllocatorPolicy::kRoundRobin};
  p.spec.pod_selector = maybe_selector();
  p.spec.namespace_selector = maybe_selector();
  p.spec.pod_subnet = list(word);
  p.spec.dest_subnet = list(word);
  p.spec.priority = *rc::gen::arbitrary<std::int64_t>();
  p.spec.failure_policy = number(2) == 1 ? FailurePolicy::kDrop : FailurePolicy::kNodeIp;
  p.status = {maybe_word(), maybe_word(), maybe_word(), list(condition)};
  const json text = encode(p);
  EgressPolicy back;
  if (namespaced) {
    back = decode<EgressPolicy>(text).value();
  } else {
    back = decode<EgressClusterPolicy>(text).value();
  }
  RC_ASSERT(back.spec == p.spec);
  RC_ASSERT(back.status == p.status);
  RC_ASSERT(encode(back) == text);
}

RC_GTEST_PROP(CodecProperty, Tunnel, ()) {
  EgressTunnel t;
  t.meta = meta(false);
  t.status.ipv4 = maybe_word();
  t.status.ipv6 = maybe_word();
  t.status.mac = maybe_word();
  t.status.parent = {maybe_word(), maybe_word(), maybe_word(), maybe_word(), list(word)};
  t.status.mark = maybe_word();
  t.status.phase = static_cast<TunnelPhase>(number(6));
  t.status.last_heartbeat_ms = second() + static_cast<std::int64_t>(number(1000));
  t.status.realised = {*rc::gen::arbitrary<std::uint64_t>(), *rc::gen::arbitrary<std::uint64_t>()};
  t.status.conditions = list(condition);
  expect_same_text(t);
  RC_ASSERT(decode<EgressTunnel>(encode(t)).value().status == t.status);
}

RC_GTEST_PROP(CodecProperty, ClusterInfo, (bool written)) {
  EgressClusterInfo c;
  c.meta = meta(false);
  c.spec = {*rc::gen::elementOf(std::vector<std::string>{"auto", "k8s", "calico", ""}),
            number(2) == 1, number(2) == 1, list(word)};
  if (written) {
    EgressClusterInfo::Status& s = c.status;
    const auto addresses = [] { return EgressClusterInfo::Addresses{list(word), list(word)}; };
    s.present = true;
    s.pod_cidr_mode = maybe_word();
    s.cluster_ip = addresses();
    for (const std::string& node : list(word)) s.node_ip[node] = addresses();
    for (const std::string& node : list(word)) s.pod_cidr[node] = addresses();
    s.extra_cidr = list(word);
    s.next_egress_id = static_cast<std::uint32_t>(number(16385));
    s.retired = list([] {
      return RetiredId{static_cast<std::uint32_t>(number(16384)), number(1U << 30)};
    });
    s.term = *rc::gen::arbitrary<std::uint64_t>();
    s.peers = list([] {
      return PeerInfo{word(),       maybe_word(), maybe_word(), maybe_word(), maybe_word(),
                      maybe_word(), maybe_word(), list(word),   list(word)};
    });
    s.conditions = list(condition);
  }
  expect_same_text(c);
  const auto back = decode<EgressClusterInfo>(encode(c)).value();
  RC_ASSERT(back.spec == c.spec);
  RC_ASSERT(back.status == c.status);
}

RC_GTEST_PROP(CodecProperty, CoreKinds, ()) {
  Node n;
  n.meta = meta(false);
  n.pod_cidrs = list(word);
  n.internal_ips = list(word);
  n.ready = number(2) == 1;
  expect_same_text(n);
  const auto node = decode<Node>(encode(n)).value();
  RC_ASSERT(node.pod_cidrs == n.pod_cidrs);
  RC_ASSERT(node.internal_ips == n.internal_ips);
  RC_ASSERT(node.ready == n.ready);

  Pod p;
  p.meta = meta(true);
  p.meta.uid.clear();  // not kept of a pod
  p.meta.annotations.clear();
  p.meta.finalizers.clear();
  p.node_name = maybe_word();
  p.host_network = number(2) == 1;
  p.finished = number(2) == 1;
  p.ips = list([] { return Address::from_value(Family::kV4, number(1ULL << 32)); });
  expect_same_text(p);
  const auto pod = decode<Pod>(encode(p)).value();
  RC_ASSERT(pod.node_name == p.node_name);
  RC_ASSERT(pod.host_network == p.host_network);
  RC_ASSERT(pod.finished == p.finished);
  RC_ASSERT(pod.ips == p.ips);
}

// Whatever JSON arrives: an answer or an error, never a crash. A valid document with one value
// replaced by something else.
RC_GTEST_PROP(CodecProperty, SurvivesAnyShape, ()) {
  json doc = json::parse(R"({"metadata": {"name": "n", "labels": {"a": "b"}, "finalizers": ["f"]},
    "spec": {"ippools": {"ipv4": ["10.6.1.55"]}, "nodeSelector": {"selector": {"matchExpressions":
      [{"key": "a", "operator": "In", "values": ["b"]}]}}, "egressIP": {"ipv4": "1.2.3.4"},
      "appliedTo": {"podSelector": {}}, "autoDetect": {"nodeIP": true}},
    "status": {"nodeList": [{"name": "x", "eips": [{"id": 1, "policies": [{"name": "p"}]}]}],
      "podIPs": [{"ip": "1.2.3.4"}], "peers": [{"name": "x"}], "conditions": [{"type": "t"}],
      "tunnel": {"parent": {"name": "eth0"}}}})");
  const json replacements[] = {nullptr,
                               true,
                               -1,
                               1e300,
                               "x",
                               json::array(),
                               json::object(),
                               json::array({nullptr}),
                               18446744073709551615ULL,
                               json::array({json::array()})};
  std::vector<json::json_pointer> places;
  const json leaves = doc.flatten();
  for (auto it = leaves.begin(); it != leaves.end(); ++it) {
    for (json::json_pointer p(it.key()); !p.empty(); p = p.parent_pointer()) places.push_back(p);
  }
  doc[places[number(places.size())]] = replacements[number(std::size(replacements))];
  const auto check = [](const auto& result) {
    if (!result) {
      RC_ASSERT(result.error().code == Errc::kInvalid);
      RC_ASSERT(!result.error().object.empty());
    }
  };
  check(decode<EgressGateway>(doc));
  check(decode<EgressPolicy>(doc));
  check(decode<EgressTunnel>(doc));
  check(decode<EgressClusterInfo>(doc));
  check(decode<Node>(doc));
  check(decode<Pod>(doc));
  check(decode<Namespace>(doc));
  for (const KindInfo& k : all_kinds()) {
    for (const UnknownField& f : find_unknown_fields(k.id, doc)) RC_ASSERT(!f.path.empty());
  }
}

}  // namespace
}  // namespace egw::model
