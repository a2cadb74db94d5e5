// What people and scripts read: YAML, tables, ages, the status report. Golden texts.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include "egw/app/status.hpp"
#include "egw/app/table.hpp"
#include "egw/app/yaml.hpp"

namespace egw::app {
namespace {

using model::Kind;
using nlohmann::json;

json parsed(const std::string& text) {
  auto documents = read_yaml(text, "test", 1 << 20);
  return documents && documents->size() == 1 ? documents->front() : json("(refused)");
}

TEST(Yaml, ScalarsFollowTheCoreSchema) {
  EXPECT_EQ(parsed("[1, -2, 0x1f, 0o17, 1.5, 1e3, true, False, ~, null]"),
            json({1, -2, 31, 15, 1.5, 1000.0, true, false, nullptr, nullptr}));
  EXPECT_EQ(parsed("[yes, no, on, off, '1', \"true\", 1.2.3, 10.6.1.55, fd00::55, 1:2, 12_3]"),
            json({"yes", "no", "on", "off", "1", "true", "1.2.3", "10.6.1.55", "fd00::55", "1:2",
                  "12_3"}));
  EXPECT_EQ(parsed("[18446744073709551615, -9223372036854775808]"),
            json({18446744073709551615ULL, std::numeric_limits<std::int64_t>::min()}));
}

TEST(Yaml, WritesWhatNeedsQuotesInQuotes) {
  const json document{{"apiVersion", "v1"},
                      {"kind", "X"},
                      {"metadata", {{"labels", {{"egress", "true"}, {"n", "12"}, {"y", "yes"}}}}},
                      {"spec",
                       {{"a", "10.6.1.55"},
                        {"b", ""},
                        {"c", "a: b"},
                        {"d", "line\nline"},
                        {"e", "2026-01-01T00:00:00Z"},
                        {"f", "fd00::55"},
                        {"g", json::array()},
                        {"h", json::object()},
                        {"i", {1, "2"}},
                        {"j", nullptr},
                        {"k", "plain words"}}}};
  EXPECT_EQ(write_yaml(document),
            "apiVersion: v1\n"
            "kind: X\n"
            "metadata:\n"
            "  labels:\n"
            "    egress: \"true\"\n"
            "    \"n\": \"12\"\n"
            "    \"y\": \"yes\"\n"
            "spec:\n"
            "  a: 10.6.1.55\n"
            "  b: \"\"\n"
            "  c: \"a: b\"\n"
            "  d: \"line\\nline\"\n"
            "  e: \"2026-01-01T00:00:00Z\"\n"
            "  f: fd00::55\n"
            "  g: []\n"
            "  h: {}\n"
            "  i:\n"
            "    - 1\n"
            "    - \"2\"\n"
            "  j: null\n"
            "  k: plain words\n");
}

RC_GTEST_PROP(Yaml, EveryStringComesBackAsItWas, (const std::string& text)) {
  // JSON text is UTF-8; YAML has no way to write a NUL or a broken sequence.
  std::string ascii;
  for (const char c : text) {
    if (c > 0) ascii += c;
  }
  const json document{{"key", ascii}, {ascii, "value"}, {"list", {ascii, ascii + " #x"}}};
  RC_ASSERT(parsed(write_yaml(document)) == document);
}

std::string yaml_refusal(const std::string& text) {
  const auto documents = read_yaml(text, "F", 1 << 20);
  return documents ? "(accepted)" : documents.error().to_string();
}

TEST(Yaml, Refusals) {
  EXPECT_EQ(yaml_refusal(","), "F:1: not valid YAML: unexpected text")
      << "yaml-cpp alone never ends";
  EXPECT_EQ(yaml_refusal("a: 1\na: 2"), "F:2: the key \"a\" is given twice");
  EXPECT_EQ(yaml_refusal("? [a]\n: 1"), "F:1: a key must be a plain string");
  EXPECT_EQ(yaml_refusal("? {a: b}\n: 1"), "F:1: a key must be a plain string");
  EXPECT_EQ(yaml_refusal("a: b\nc: [[1, 2], [3"),
            "F:2: not valid YAML: the [ here is not closed: add its ]");
  EXPECT_EQ(yaml_refusal("a: [{b: \"}\"}, {c: '}' # }"),
            "F:1: not valid YAML: the { here is not closed: add its }");
  EXPECT_EQ(yaml_refusal("a: " + std::string(70, '[')),
            "F:1: nested deeper than 64 levels, the most that is read");
  EXPECT_EQ(yaml_refusal(std::string(200'000, '[')),
            "F:1: nested deeper than 64 levels, the most that is read");
  EXPECT_EQ(
      yaml_refusal("a: !!binary x"),
      "F:1: the tag tag:yaml.org,2002:binary is not supported; write a plain or quoted value");
  EXPECT_EQ(yaml_refusal("a: !!set {b}"),
            "F:1: the tag tag:yaml.org,2002:set is not supported; write a plain or quoted value");
}

// Found by fuzzing: it became a string that no JSON can carry.
TEST(Yaml, OnlyUtf8) {
  for (const char* bad : {"\xad", "\xc0\x80", "\xe0\x80\x80", "\xed\xa0\x80", "\xf5\x80\x80\x80",
                          "\xc3", "\xf4\x90\x80\x80", "\xe2\x82"}) {
    EXPECT_THAT(yaml_refusal(std::string("a: b\nc: ") + bad), testing::StartsWith("F:2: byte 0x"))
        << bad;
  }
  EXPECT_EQ(yaml_refusal("a: \"\xc3\xa4 \xe2\x82\xac \xf0\x9f\x98\x80\""), "(accepted)");
}

TEST(Yaml, AnchorsAndDocuments) {
  EXPECT_EQ(parsed("a: &x {b: [1, 2]}\nc: *x\nd: [*x, *x]"),
            json::parse(R"({"a":{"b":[1,2]},"c":{"b":[1,2]},"d":[{"b":[1,2]},{"b":[1,2]}]})"));
  EXPECT_EQ(read_yaml("a\n---\n---\n# nothing\n---\nb: !!str 1\n...\n", "F", 100)->size(), 2U);
  EXPECT_EQ(parsed("80: x\ntrue: y\n"), json::parse(R"({"80":"x","true":"y"})"));
}

// Whatever comes, the answer is documents or one line.
RC_GTEST_PROP(Yaml, AnyTextIsReadOrRefused, ()) {
  const auto text = *rc::gen::container<std::string>(rc::gen::weightedOneOf<char>(
      {{3, rc::gen::elementOf(std::string("{}[]:,-&*!|>'\"#%\n \t?~"))},
       {1, rc::gen::inRange<char>(32, 126)}}));
  const auto documents = read_yaml(text, "test", 1 << 20);
  if (documents) {
    for (const auto& d : *documents) RC_ASSERT(parsed(write_yaml(d)) == d || d.is_null());
  } else {
    RC_ASSERT(documents.error().to_string().find('\n') == std::string::npos);
  }
}

TEST(Yaml, TrickyStringsComeBack) {
  for (const std::string s :
       {"true", "Null",  "~",     "1",        "-1",          "0x1f",  "1e5", ".5",    ".inf",
        "-",    "--- x", "- a",   "a #b",     "#c",          "a: b",  "a:",  ": a",   "[x",
        "{y",   "*z",    "&w",    "!t",       "|",           ">",     "'q'", "\"q\"", "%d",
        "@e",   "`f",    " lead", "trail ",   "tab\tx",      "nl\nx", "é",   "null",  "y",
        "N",    "0o7",   "1_000", "12:30:45", "2026-01-01",  "<<",    "=",   "\x7f",  "?",
        "? x",  ",",     "a,b",   "...",      "\xEF\xBB\xBF"}) {
    const json document{{"k", s}};
    EXPECT_EQ(parsed(write_yaml(document)), document) << s << "\n" << write_yaml(document);
  }
}

json gateway() {
  return parsed(R"(
apiVersion: egressgateway.spidernet.io/v1beta1
kind: EgressGateway
metadata: {name: egw, creationTimestamp: "2026-01-01T00:00:00Z"}
spec:
  clusterDefault: true
  ippools: {ipv4: [10.6.1.55, 10.6.1.56], ipv4DefaultEIP: 10.6.1.56}
status:
  ipUsage: {ipv4Total: 2, ipv4Free: 1, ipv6Total: 0, ipv6Free: 0}
  nodeList:
    - {name: n2, status: Ready, eips: [{ipv4: 10.6.1.56, ipv6: fd00::55}]}
    - {name: n3, status: Ready}
)");
}

constexpr std::int64_t kYear2026 = 1767225600000;  // 2026-01-01T00:00:00Z

std::string table(Kind kind, const std::vector<json>& documents, const RowStyle& style) {
  Table t(header_of(kind, style));
  for (const auto& d : documents) t.add(row_of(kind, d, style, kYear2026 + 65000));
  return t.format();
}

TEST(Tables, Gateway) {
  EXPECT_EQ(table(Kind::kEgressGateway, {gateway()}, {}),
            "NAME   IPV4DEFAULTEIP   IPV6DEFAULTEIP   CLUSTERDEFAULT   IPV4TOTAL   IPV4FREE   "
            "IPV6TOTAL   IPV6FREE   AGE\n"
            "egw    10.6.1.56        <none>           true             2           1          "
            "0           0          65s\n");
}

TEST(Tables, WideAddsAfterAge) {
  RowStyle wide;
  wide.wide = true;
  const auto header = header_of(Kind::kEgressGateway, wide);
  EXPECT_EQ(header.back(), "UNPLACED");
  const auto row = row_of(Kind::kEgressGateway, gateway(), wide, kYear2026);
  EXPECT_EQ(row[row.size() - 2], "n2=10.6.1.56,fd00::55 n3");
}

TEST(Tables, PoliciesAndTunnels) {
  RowStyle all;
  all.with_namespace = true;
  const json policy = parsed(R"(
metadata: {name: shop, namespace: default}
spec: {egressGatewayName: egw}
status: {eip: {ipv4: 10.6.1.56, ipv6: "fd00::55"}, node: n2}
)");
  EXPECT_EQ(table(Kind::kEgressPolicy, {policy}, all),
            "NAMESPACE   NAME   GATEWAY   IPV4        IPV6       EGRESSNODE   AGE\n"
            "default     shop   egw       10.6.1.56   fd00::55   n2           <unknown>\n");
  EXPECT_EQ(table(Kind::kEgressClusterPolicy, {policy}, {}),
            "NAME   GATEWAY   IPV4        IPV6       EGRESSTUNNEL   AGE\n"
            "shop   egw       10.6.1.56   fd00::55   n2             <unknown>\n");
  const json tunnel = parsed(R"(
metadata: {name: n2}
status:
  tunnel: {ipv4: 172.31.0.5, ipv6: "fd11::5", mac: "02:ee:0a:06:00:0b"}
  mark: "0x26000001"
  phase: Ready
)");
  EXPECT_EQ(table(Kind::kEgressTunnel, {tunnel}, {}),
            "NAME   TUNNELMAC           TUNNELIPV4   TUNNELIPV6   MARK         PHASE   AGE\n"
            "n2     02:ee:0a:06:00:0b   172.31.0.5   fd11::5      0x26000001   Ready   "
            "<unknown>\n");
}

TEST(Tables, EventsAsKubectlShowsThem) {
  const json event = parsed(R"(
metadata: {name: egw.0123456789abcdef, namespace: default}
regarding: {kind: EgressGateway, name: egw}
type: Normal
reason: EipMoved
note: 10.6.1.56 moved from n2 to n3
eventTime: "2026-01-01T00:00:00.000000Z"
series: {count: 2, lastObservedTime: "2026-01-01T00:01:00.000000Z"}
)");
  EXPECT_EQ(
      table(Kind::kEvent, {event}, {}),
      "LAST SEEN   TYPE     REASON     OBJECT              COUNT   MESSAGE\n"
      "5s          Normal   EipMoved   egressgateway/egw   2       10.6.1.56 moved from n2 to "
      "n3\n");
}

TEST(Tables, EventsOfOtherWritersAndOnesThatHappenedOnce) {
  const json older = parsed(R"(
regarding: {kind: Pod, name: shop}
type: Warning
reason: BackOff
note: again
deprecatedCount: 7
deprecatedLastTimestamp: "2026-01-01T00:01:00Z"
eventTime: null
)");
  const json once = parsed(R"(
regarding: {kind: Pod, name: shop}
type: Normal
reason: Pulled
note: done
eventTime: "2026-01-01T00:01:00.000000Z"
)");
  EXPECT_EQ(table(Kind::kEvent, {older, once}, {}),
            "LAST SEEN   TYPE      REASON    OBJECT     COUNT   MESSAGE\n"
            "5s          Warning   BackOff   pod/shop   7       again\n"
            "5s          Normal    Pulled    pod/shop   1       done\n");
}

// A container's own words come so to an administrator's terminal.
TEST(Tables, WhatOthersWroteBeginsNoLineAndNoColour) {
  const json event = parsed(R"(
regarding: {kind: Pod, name: shop}
type: Warning
reason: Unhealthy
note: "probe failed:\nNormal   Fine\e[31m"
eventTime: "2026-01-01T00:01:00.000000Z"
)");
  EXPECT_EQ(
      table(Kind::kEvent, {event}, {}),
      "LAST SEEN   TYPE      REASON      OBJECT     COUNT   MESSAGE\n"
      "5s          Warning   Unhealthy   pod/shop   1       probe failed:?Normal   Fine?[31m\n");
}

TEST(Tables, RowsOfAWatchKeepTheWidthsOfTheFirstOnes) {
  Table t({"NAME", "AGE"});
  t.add({"long-name", "1s"});
  EXPECT_EQ(t.format(), "NAME        AGE\nlong-name   1s\n");
  t.add({"b", "2s"});
  EXPECT_EQ(t.format(), "b           2s\n");
}

TEST(Tables, ADocumentOfTheWrongShapeDoesNotStopTheTable) {
  const json odd = parsed(
      "{metadata: {name: x}, spec: 3, status: {nodeList: [1, {eips: [2]}], conditions: [x], "
      "addresses: {a: 1}, podIPs: [[]]}}");
  RowStyle wide;
  wide.wide = true;
  for (const auto& kind : model::all_kinds()) {
    EXPECT_EQ(row_of(kind.id, odd, wide, 0).size(), header_of(kind.id, wide).size()) << kind.kind;
  }
}

TEST(Tables, AgesAsKubectlWritesThem) {
  const std::int64_t s = 1000;
  EXPECT_EQ(format_age(0), "0s");
  EXPECT_EQ(format_age(119 * s), "119s");
  EXPECT_EQ(format_age(120 * s), "2m");
  EXPECT_EQ(format_age(200 * s), "3m20s");
  EXPECT_EQ(format_age(3600 * s), "60m");
  EXPECT_EQ(format_age(4 * 3600 * s + 60 * s), "4h1m");
  EXPECT_EQ(format_age(30 * 3600 * s), "30h");
  EXPECT_EQ(format_age(3 * 86400 * s), "3d");
  EXPECT_EQ(format_age(400LL * 86400 * s), "400d");
  EXPECT_EQ(format_age(800LL * 86400 * s), "2y70d");
  EXPECT_EQ(format_age(-60 * s), "<unknown>");
}

StatusInput healthy() {
  StatusInput in;
  in.now_ms = 100000;
  model::EgressClusterInfo info;
  info.meta.name = "default";
  info.status.leader = "ctl0-17";
  info.status.term = 5;
  in.infos.push_back(info);
  model::EgressTunnel tunnel;
  tunnel.meta.name = "n2";
  tunnel.status.phase = model::TunnelPhase::kReady;
  tunnel.status.last_heartbeat_ms = 97000;
  tunnel.status.ipv4 = "172.31.0.5";
  tunnel.status.conditions = {{"DatapathInUse", true, "Configured", "netlink", 0}};
  in.tunnels.push_back(tunnel);
  model::EgressGateway gateway;
  gateway.meta.name = "egw";
  model::EipStatus eip;
  eip.ipv4 = "10.6.1.56";
  eip.id = 1;
  eip.epoch = 2;
  eip.policies = {{"shop", "default"}};
  gateway.status.node_list = {{"n2", "Ready", {eip}}};
  gateway.status.conditions = {
      {"Ready", true, "NodeReady", "", 0},
      {"LastMove", true, "EipMoved", "10.6.1.56 from n3 to n2 (HeartbeatTimeout)", 90000}};
  in.gateways.push_back(gateway);
  return in;
}

TEST(Status, Healthy) {
  const json status = make_status(healthy());
  EXPECT_EQ(status["healthy"], true);
  EXPECT_EQ(status["leader"], json({{"holder", "ctl0-17"}, {"term", 5}}));
  EXPECT_EQ(status_text(status),
            "Leader: ctl0-17, term 5\n"
            "\n"
            "Tunnels:\n"
            "NODE   PHASE   HEARTBEAT   IPV4         IPV6     DATAPATH\n"
            "n2     Ready   3s ago      172.31.0.5   <none>   netlink\n"
            "\n"
            "Egress IPs:\n"
            "GATEWAY   IPV4        IPV6     NODE   STATUS   EPOCH   POLICIES\n"
            "egw       10.6.1.56   <none>   n2     Ready    2       default/shop\n"
            "\n"
            "Last moves:\n"
            "TIME                   GATEWAY   MOVE\n"
            "1970-01-01T00:01:30Z   egw       10.6.1.56 from n3 to n2 (HeartbeatTimeout)\n"
            "\n"
            "Healthy.\n");
}

TEST(Status, WhichDatapathWasChosenAndWhyNotTheOthers) {
  StatusInput in = healthy();
  in.tunnels[0].status.conditions = {
      {"DatapathInUse", true, "Automatic",
       "netlink; ebpf: NoBtf: this kernel has no BTF; iptables: comes after netlink", 0}};
  const json status = make_status(in);
  EXPECT_EQ(status["healthy"], true);
  EXPECT_EQ(status["tunnels"][0]["datapath"], "netlink");
  EXPECT_EQ(status["tunnels"][0]["datapathNotChosen"],
            "ebpf: NoBtf: this kernel has no BTF; iptables: comes after netlink");
  EXPECT_THAT(status_text(status),
              testing::HasSubstr("\nDatapaths chosen automatically:\n"
                                 "NODE   DATAPATH   NOT CHOSEN\n"
                                 "n2     netlink    ebpf: NoBtf: this kernel has no BTF; iptables: "
                                 "comes after netlink\n"));
}

json problems_of(const StatusInput& in) { return make_status(in)["problems"]; }

TEST(Status, SaysWhichNodeIsDrained) {
  StatusInput in = healthy();
  in.tunnels[0].meta.annotations[std::string(model::kDrainAnnotation)] = "2026-01-01T00:00:00Z";
  EXPECT_EQ(make_status(in)["tunnels"][0]["draining"], true);
  EXPECT_THAT(status_text(make_status(in)), testing::HasSubstr("n2     Ready,Drain   3s ago"));
  EXPECT_EQ(make_status(in)["healthy"], true);
}

TEST(Status, SaysThatAnUninstallIsUnderWay) {
  StatusInput in = healthy();
  in.infos[0].meta.annotations[std::string(model::kUninstallAnnotation)] = "2026-01-01T00:00:00Z";
  EXPECT_EQ(make_status(in)["healthy"], false);
  EXPECT_THAT(status_text(make_status(in)),
              testing::HasSubstr("asked for at 2026-01-01T00:00:00Z"));
}

TEST(Status, NamesEveryProblem) {
  StatusInput in = healthy();
  in.infos.clear();
  EXPECT_EQ(problems_of(in)[0]["reason"], "NoLeader");

  in = healthy();
  in.tunnels[0].status.phase = model::TunnelPhase::kHeartbeatTimeout;
  const json silent{{"object", "egresstunnel/n2"},
                    {"reason", "HeartbeatTimeout"},
                    {"message", "last heartbeat 3s ago"}};
  EXPECT_EQ(problems_of(in), json::array({silent}));

  in = healthy();
  in.leaderless = "nobody leads";
  EXPECT_EQ(problems_of(in)[0]["reason"], "NoLeader");
  EXPECT_EQ(make_status(in)["leader"]["holder"], "") << "who is dead is not named as leader";
  in.now_ms += 60000;
  EXPECT_EQ(problems_of(in)[1]["reason"], "HeartbeatOld");
  EXPECT_THAT(problems_of(in)[1]["message"], testing::HasSubstr("nobody leads"));

  in = healthy();
  in.now_ms += 60000;
  EXPECT_THAT(problems_of(in)[0]["message"], testing::Not(testing::HasSubstr("egw controller")));
  model::Condition suspect;
  suspect.type = "StoreSuspect";
  suspect.status = true;
  model::set_condition(in.infos[0].status.conditions, std::move(suspect), 1);
  EXPECT_THAT(problems_of(in).dump(), testing::HasSubstr("(StoreSuspect)"));

  in = healthy();
  in.gateways[0].status.conditions[0].status = false;
  EXPECT_EQ(problems_of(in)[0]["reason"], "Ready (NodeReady)");

  in = healthy();
  in.tunnels[0].status.conditions = {{"EipConflict", true, "ClaimedByOther", "10.6.1.56 ...", 0}};
  EXPECT_EQ(problems_of(in)[0]["reason"], "EipConflict (ClaimedByOther)");
  in.tunnels[0].status.conditions[0].status = false;
  EXPECT_EQ(problems_of(in), json::array());

  // Nobody knows: neither good nor bad, so it is told whichever is the good one.
  in.tunnels[0].status.conditions[0].status = model::ConditionStatus::unknown();
  EXPECT_EQ(problems_of(in)[0]["reason"], "EipConflict (ClaimedByOther) is unknown");
  in = healthy();
  in.gateways[0].status.conditions[0].status = model::ConditionStatus::unknown();
  EXPECT_EQ(problems_of(in)[0]["reason"], "Ready (NodeReady) is unknown");

  in = healthy();
  model::EgressPolicy policy;
  policy.meta.name = "p";
  policy.meta.ns = "a";
  policy.status.conditions = {{"Allocated", false, "NoFreeEip", "every EIP is held", 0}};
  in.policies.push_back(policy);
  const json unplaced{{"object", "egresspolicy/a/p"},
                      {"reason", "Allocated (NoFreeEip)"},
                      {"message", "every EIP is held"}};
  EXPECT_EQ(problems_of(in), json::array({unplaced}));
}

TEST(Status, SaysOnceThatAPolicyHasNoEip) {
  StatusInput in = healthy();
  model::EgressPolicy policy;
  policy.meta.name = "p";
  policy.meta.ns = "a";
  policy.status.conditions = {
      {"Degraded", true, "NoFreeEip", "every EIP is held; its packets are dropped", 0},
      {"Allocated", false, "NoFreeEip", "every EIP is held", 0},
      {"Placed", false, "NotAllocated", "it has no EIP: see Allocated", 0},
      {"Realised", false, "NothingToProgram", "it has no EIP: see Allocated", 0}};
  in.policies.push_back(policy);
  ASSERT_EQ(problems_of(in).size(), 1U) << problems_of(in).dump(1);
  EXPECT_EQ(problems_of(in)[0]["reason"], "Degraded (NoFreeEip)");

  in.policies[0].status.conditions[0].status = false;  // the leader has not judged that yet
  ASSERT_EQ(problems_of(in).size(), 1U) << problems_of(in).dump(1);
  EXPECT_EQ(problems_of(in)[0]["reason"], "Allocated (NoFreeEip)");

  // Another fault than the one that makes it Degraded is told.
  in.policies[0].status.conditions = {
      {"Degraded", true, "NoReadyNode", "its packets are dropped", 0},
      {"Placed", false, "OwnerNotReady", "n2 is not Ready", 0}};
  EXPECT_EQ(problems_of(in).size(), 2U) << problems_of(in).dump(1);
}

TEST(Status, SaysOnceThatNoNodeServesAPolicy) {
  StatusInput in = healthy();
  model::EgressPolicy policy;
  policy.meta.name = "p";
  policy.status.conditions = {{"Degraded", true, "NoReadyNode", "its packets are dropped", 0},
                              {"Placed", false, "NoReadyNode", "no node can take the EIP", 0},
                              {"Realised", false, "Programming", "generation 4", 0}};
  in.policies.push_back(policy);
  ASSERT_EQ(problems_of(in).size(), 1U) << problems_of(in).dump(1);
  EXPECT_EQ(problems_of(in)[0]["message"], "no node can take the EIP; its packets are dropped");

  // While nothing keeps the nodes from it, that they have not programmed it is a fault of theirs.
  in.policies[0].status.conditions = {{"Placed", true, "Placed", "", 0},
                                      {"Realised", false, "Programming", "generation 4", 0}};
  ASSERT_EQ(problems_of(in).size(), 1U) << problems_of(in).dump(1);
  EXPECT_EQ(problems_of(in)[0]["message"],
            "generation 4: not every Ready node has programmed it yet (egw get egt -o wide)");
}

}  // namespace
}  // namespace egw::app
