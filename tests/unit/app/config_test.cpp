// Configuration: defaults, precedence, and the exact line of every refusal.
#include "egw/app/config.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

namespace egw::app {
namespace {

using std::chrono::milliseconds;
using testing::ElementsAre;
using testing::HasSubstr;

class ConfigTest : public testing::Test {
 protected:
  ConfigTest()
      : file_(std::filesystem::temp_directory_path() /
              ("egw-config-test-" + std::to_string(::getpid()) + ".yaml")) {}
  ~ConfigTest() override { std::filesystem::remove(file_); }

  // Loads `text` as the file; the file's name in messages is shortened to FILE.
  Result<Config> load(const std::string& text, std::vector<std::string> sets = {}) {
    std::ofstream(file_) << text;
    ConfigInput input;
    input.file = file_.string();
    input.node_name = "n1";
    input.sets = std::move(sets);
    return load_config(input);
  }
  std::string error(const std::string& text, std::vector<std::string> sets = {}) {
    auto loaded = load(text, std::move(sets));
    if (loaded) return "(accepted)";
    std::string line = loaded.error().to_string();
    for (std::size_t at; (at = line.find(file_.string())) != std::string::npos;) {
      line.replace(at, file_.string().size(), "FILE");
    }
    return line;
  }
  std::filesystem::path file_;
};

Config defaults() {
  ConfigInput input;
  input.node_name = "n1";
  return load_config(input).value();
}

TEST_F(ConfigTest, DefaultsWithoutAFile) {
  const Config c = defaults();
  EXPECT_TRUE(c.runtime.settings.enable_ipv4);
  EXPECT_FALSE(c.runtime.settings.enable_ipv6);
  EXPECT_EQ(c.runtime.settings.tunnel_v4.to_string(), "172.31.0.0/16");
  EXPECT_EQ(c.runtime.settings.tunnel_v6.to_string(), "fd11::/112");
  EXPECT_EQ(c.runtime.settings.eip_eviction_timeout, milliseconds(15000));
  EXPECT_TRUE(c.runtime.settings.failover);
  EXPECT_EQ(c.runtime.state_store.name, "local");
  EXPECT_EQ(c.runtime.state_store.config["path"], "/var/lib/egw/egw.db");
  EXPECT_EQ(c.runtime.leader_election.config["path"], "/var/lib/egw/egw.db");
  EXPECT_EQ(c.runtime.datapath.name, "netlink");
  EXPECT_EQ(c.runtime.node_name, "n1");
  EXPECT_EQ(for_role(c, "agent").health.port, 5810);
  EXPECT_EQ(for_role(c, "agent").metrics.port, 5811);
  EXPECT_EQ(for_role(c, "controller").health.port, 5820);
  EXPECT_EQ(for_role(c, "controller").metrics.port, 5821);
  EXPECT_EQ(c.runtime.plugin_dir, default_plugin_dir());
  EXPECT_THAT(c.warnings, ElementsAre());
}

// The sample that lists every key is the defaults, so it cannot fall behind them.
TEST_F(ConfigTest, TheSampleWithAllKeysIsTheDefaults) {
  ConfigInput input;
  input.file = EGW_SOURCE_DIR "/config/egw.yaml";
  input.node_name = "n1";
  const auto loaded = load_config(input);
  ASSERT_TRUE(loaded) << loaded.error().to_string();
  const Config d = defaults();
  const auto& s = loaded->runtime.settings;
  const auto& t = d.runtime.settings;
  EXPECT_EQ(s.enable_ipv4, t.enable_ipv4);
  EXPECT_EQ(s.enable_ipv6, t.enable_ipv6);
  EXPECT_EQ(s.tunnel_v4, t.tunnel_v4);
  EXPECT_EQ(s.tunnel_v6, t.tunnel_v6);
  EXPECT_EQ(s.tunnel_detect_method, t.tunnel_detect_method);
  EXPECT_EQ(s.underlay, t.underlay);
  EXPECT_EQ(s.vxlan_name, t.vxlan_name);
  EXPECT_EQ(s.vxlan_port, t.vxlan_port);
  EXPECT_EQ(s.vxlan_id, t.vxlan_id);
  EXPECT_EQ(s.vxlan_disable_checksum_offload, t.vxlan_disable_checksum_offload);
  EXPECT_EQ(s.announce_exclude, t.announce_exclude);
  EXPECT_EQ(s.failover, t.failover);
  EXPECT_EQ(s.tunnel_monitor_period, t.tunnel_monitor_period);
  EXPECT_EQ(s.tunnel_update_period, t.tunnel_update_period);
  EXPECT_EQ(s.eip_eviction_timeout, t.eip_eviction_timeout);
  EXPECT_EQ(s.pod_cidr_mode, t.pod_cidr_mode);
  EXPECT_EQ(s.detect_cluster_ip, t.detect_cluster_ip);
  EXPECT_EQ(s.detect_node_ip, t.detect_node_ip);
  EXPECT_EQ(s.extra_cidr, t.extra_cidr);
  EXPECT_EQ(s.slot_mask, t.slot_mask);
  EXPECT_EQ(s.ct_mask, t.ct_mask);
  EXPECT_EQ(s.manage_forwarding, t.manage_forwarding);
  EXPECT_EQ(s.boot_drop, t.boot_drop);
  EXPECT_EQ(loaded->runtime.state_store.config, d.runtime.state_store.config);
  EXPECT_EQ(loaded->runtime.leader_election.config, d.runtime.leader_election.config);
  EXPECT_EQ(loaded->runtime.datapath.config, d.runtime.datapath.config);
  EXPECT_EQ(loaded->runtime.state_dir, d.runtime.state_dir);
  EXPECT_EQ(loaded->runtime.log_level, d.runtime.log_level);
  for (const char* role : {"agent", "controller"}) {
    EXPECT_EQ(for_role(*loaded, role).health.port, for_role(d, role).health.port);
    EXPECT_EQ(for_role(*loaded, role).metrics.port, for_role(d, role).metrics.port);
    EXPECT_EQ(for_role(*loaded, role).health.address, for_role(d, role).health.address);
  }
  EXPECT_THAT(loaded->warnings, ElementsAre());
}

TEST_F(ConfigTest, EverySampleLoadsWithoutAWarning) {
  int samples = 0;
  for (const auto& entry : std::filesystem::directory_iterator(EGW_SOURCE_DIR "/config")) {
    const std::string name = entry.path().filename();
    if (!name.ends_with(".yaml") || name.ends_with("-objects.yaml")) continue;
    ++samples;
    ConfigInput input;
    input.file = entry.path();
    const auto loaded = load_config(input);
    EXPECT_TRUE(loaded) << loaded.error().to_string();
    if (!loaded) continue;
    EXPECT_THAT(loaded->warnings, ElementsAre()) << entry.path();
  }
  EXPECT_GE(samples, 3);
}

TEST_F(ConfigTest, OptionsWinOverEnvironmentOverFile) {
  std::ofstream(file_) << "plugins: {dir: /from/file}\nnodeName: filenode\nlog: {level: warn}\n";
  ConfigInput input;
  input.file = file_;
  EXPECT_EQ(load_config(input)->runtime.plugin_dir, "/from/file");
  EXPECT_EQ(load_config(input)->runtime.node_name, "filenode");
  input.env_plugin_dir = "/from/env";
  EXPECT_EQ(load_config(input)->runtime.plugin_dir, "/from/env");
  input.plugin_dir = "/from/option";
  input.node_name = "optionnode";
  input.log_level = "debug";
  EXPECT_EQ(load_config(input)->runtime.plugin_dir, "/from/option");
  EXPECT_EQ(load_config(input)->runtime.node_name, "optionnode");
  EXPECT_EQ(load_config(input)->runtime.log_level, runtime::LogLevel::kDebug);
}

TEST_F(ConfigTest, SetWinsOverFileAndALaterSetOverAnEarlierOne) {
  const auto c = load("feature: {gatewayFailover: {tunnelMonitorPeriod: 2}}",
                      {"feature.tunnelMonitorPeriod=3", "feature.tunnelMonitorPeriod=0.5",
                       "plugins.stateStore.config.path=/tmp/x.db", "nodeName=n7"});
  ASSERT_TRUE(c) << c.error().to_string();
  EXPECT_EQ(c->runtime.settings.tunnel_monitor_period, milliseconds(500));
  EXPECT_EQ(c->runtime.state_store.config["path"], "/tmp/x.db");
  EXPECT_EQ(c->runtime.leader_election.config["path"], "/tmp/x.db") << "follows the store";
}

TEST_F(ConfigTest, NestedAndFlatSpellingsMeanTheSame) {
  const auto nested = load(
      "feature: {gatewayFailover: {tunnelMonitorPeriod: 1, tunnelUpdatePeriod: 1.5, "
      "eipEvictionTimeout: 4}}");
  const auto flat =
      load("feature: {tunnelMonitorPeriod: 1, tunnelUpdatePeriod: 1.5, eipEvictionTimeout: 4}");
  for (const auto* c : {&nested, &flat}) {
    ASSERT_TRUE(*c);
    EXPECT_EQ((*c)->runtime.settings.tunnel_monitor_period, milliseconds(1000));
    EXPECT_EQ((*c)->runtime.settings.tunnel_update_period, milliseconds(1500));
    EXPECT_EQ((*c)->runtime.settings.eip_eviction_timeout, milliseconds(4000));
  }
}

TEST_F(ConfigTest, OldChartSpellingsOfARole) {
  const auto c = load(
      "agent: {healthServer: {port: 6810}, prometheus: {enabled: true, port: 6811}, debug: "
      "{logLevel: panic}}\ncontroller: {prometheus: {enabled: false}}");
  ASSERT_TRUE(c) << c.error().to_string();
  EXPECT_EQ(for_role(*c, "agent").health.port, 6810);
  EXPECT_EQ(for_role(*c, "agent").metrics.port, 6811);
  EXPECT_EQ(for_role(*c, "agent").log_level, runtime::LogLevel::kError);
  EXPECT_EQ(for_role(*c, "controller").metrics.port, 0);
  EXPECT_EQ(for_role(*c, "controller").log_level, runtime::LogLevel::kInfo);
}

TEST_F(ConfigTest, KeysOfTheChartWithoutEffectAreNamedInOneWarningPerReason) {
  const auto c = load(
      "global: {name: x}\nagent: {image: {tag: v1}, resources: {}}\ncontroller: {replicas: 2}\n"
      "feature: {startRouteTable: 50}");
  ASSERT_TRUE(c) << c.error().to_string();
  EXPECT_THAT(
      c->warnings,
      ElementsAre("configuration: without effect, because the Helm chart alone reads them: "
                  "agent.image, agent.resources, controller.replicas, global",
                  "configuration: without effect, because this implementation needs no such "
                  "setting: feature.startRouteTable"));
}

TEST_F(ConfigTest, DatapathAuto) {
  const auto c = load(
      "feature: {datapathMode: auto, iptables: {backendMode: legacy}}\n"
      "plugins: {datapath: {config: {netlink: {routeTable: 7}}}}");
  ASSERT_TRUE(c) << c.error().to_string();
  EXPECT_EQ(c->runtime.datapath.name, "auto");
  EXPECT_EQ(c->runtime.datapath.config.dump(),
            R"({"iptables":{"backendMode":"legacy"},"netlink":{"routeTable":7}})");
  EXPECT_TRUE(c->warnings.empty());
}

TEST_F(ConfigTest, BackendModeReachesTheIptablesDatapathOnly) {
  const auto c = load("feature: {datapathMode: iptables, iptables: {backendMode: legacy}}");
  ASSERT_TRUE(c);
  EXPECT_EQ(c->runtime.datapath.config["backendMode"], "legacy");
  const auto other = load("feature: {iptables: {backendMode: legacy}}");
  ASSERT_TRUE(other);
  ASSERT_EQ(other->warnings.size(), 1U);
  EXPECT_THAT(other->warnings[0],
              HasSubstr("feature.iptables.backendMode: has no effect with the datapath netlink"));
}

TEST_F(ConfigTest, EndpointSlicesAreOnUnlessSwitchedOff) {
  const auto c = load("feature: {maxNumberEndpointPerSlice: 50}");
  ASSERT_TRUE(c) << c.error().to_string();
  EXPECT_TRUE(c->warnings.empty());
  EXPECT_TRUE(c->runtime.settings.endpoint_slices);
  EXPECT_EQ(c->runtime.settings.max_endpoints_per_slice, 50U);
  const auto off = load("feature: {endpointSlices: false}");
  ASSERT_TRUE(off) << off.error().to_string();
  EXPECT_FALSE(off->runtime.settings.endpoint_slices);
}

TEST_F(ConfigTest, MasksAreNumbersOrText) {
  const auto c = load("marks: {slotMask: 0xf0000, ctMask: '0x00FF0000'}");
  ASSERT_TRUE(c) << c.error().to_string();
  EXPECT_EQ(c->runtime.settings.slot_mask, 0xf0000U);
  EXPECT_EQ(c->runtime.settings.ct_mask, 0xff0000U);
}

struct Refusal {
  const char* name;
  const char* text;
  const char* line;
};

class ConfigRefusal : public ConfigTest, public testing::WithParamInterface<Refusal> {};

TEST_P(ConfigRefusal, SaysWhatIsWrongInOneLine) {
  const std::string line = error(GetParam().text);
  EXPECT_EQ(line, GetParam().line);
  EXPECT_EQ(line.find('\n'), std::string::npos);
}

const Refusal kRefusals[] = {
    {"UnknownKey", "feature: {tunelMonitorPeriod: 5}",
     "FILE: feature.tunelMonitorPeriod: unknown key; did you mean \"tunnelMonitorPeriod\"?"},
    {"UnknownTopKey", "mark: {}", "FILE: mark: unknown key; did you mean \"marks\"?"},
    {"UnknownKeyNothingNear", "log: {colour: red}",
     "FILE: log.colour: unknown key; known here: format, level"},
    {"UnknownEmptyKey", "festure:", "FILE: festure: unknown key; did you mean \"feature\"?"},
    {"WrongTypeBool", "feature: {enableIPv6: 'yes'}",
     "FILE: feature.enableIPv6: is \"yes\"; expected true or false"},
    {"WrongTypeNumber", "feature: {tunnelUpdatePeriod: soon}",
     "FILE: feature.tunnelUpdatePeriod: is \"soon\"; expected a number from 0.05 to 86400"},
    {"WrongTypeMap", "feature: [1]", "FILE: feature: is a list; expected a map"},
    {"WrongTypeList", "feature: {announcedInterfacesToExclude: br0}",
     "FILE: feature.announcedInterfacesToExclude: is \"br0\"; expected a list"},
    {"NotAMap", "- 1", "FILE: is a list; expected a map"},
    {"OutOfRange", "feature: {vxlan: {port: 70000}}",
     "FILE: feature.vxlan.port: is 70000; expected an integer from 1 to 65535"},
    {"NotInEnum", "log: {level: loud}",
     "FILE: log.level: is \"loud\"; expected one of debug, info, warn, error"},
    {"NoDatapathOfThatName", "feature: {datapathMode: xdp}",
     "FILE: feature.datapathMode: is \"xdp\"; expected one of auto, netlink, iptables, ebpf"},
    {"RelativeStateDir", "stateDir: var", "FILE: stateDir: is \"var\"; expected an absolute path"},
    {"Timeouts", "feature: {tunnelMonitorPeriod: 5, tunnelUpdatePeriod: 5, eipEvictionTimeout: 10}",
     "FILE: feature.eipEvictionTimeout: is 10 s; expected more than tunnelMonitorPeriod (5 s) and "
     "tunnelUpdatePeriod (5 s) together"},
    {"NestedTimeouts", "feature: {gatewayFailover: {eipEvictionTimeout: 2.5}}",
     "FILE: feature.eipEvictionTimeout: is 2.5 s; expected more than tunnelMonitorPeriod (5 s) and "
     "tunnelUpdatePeriod (5 s) together"},
    {"NestedAndFlatDiffer",
     "feature: {tunnelUpdatePeriod: 2, gatewayFailover: {tunnelUpdatePeriod: 3}}",
     "FILE: feature.gatewayFailover.tunnelUpdatePeriod is 3 and feature.tunnelUpdatePeriod is 2; "
     "they mean the same, give one of them"},
    {"AutoWantsSections", "plugins: {datapath: {name: auto, config: {routeTable: 7}}}",
     "FILE: plugins.datapath.config: has the key \"routeTable\"; with the datapath auto it has a "
     "section for each datapath that may be chosen: ebpf, netlink, iptables"},
    {"AutoWantsObjects", "plugins: {datapath: {name: auto, config: {netlink: 7}}}",
     "FILE: plugins.datapath.config: has no section but a value in \"netlink\"; with the datapath "
     "auto it has a section for each datapath that may be chosen: ebpf, netlink, iptables"},
    {"DatapathTwice", "feature: {datapathMode: ebpf}\nplugins: {datapath: {name: netlink}}",
     "FILE: feature.datapathMode is \"ebpf\" and plugins.datapath.name is \"netlink\"; they mean "
     "the same, give one of them"},
    {"BadRegex", "feature: {announcedInterfacesToExclude: ['br(']}",
     "FILE: feature.announcedInterfacesToExclude: \"br(\" is not a regular expression "
     "(Mismatched '(' and ')' in regular expression); a name that begins with br- is matched by "
     "^br-.*"},
    {"BadSubnetFamily", "feature: {tunnelIpv4Subnet: 'fd00::/64'}",
     "FILE: feature.tunnelIpv4Subnet: is an IPv6 prefix; expected an IPv4 one"},
    {"SubnetTooSmall", "feature: {tunnelIpv4Subnet: 10.0.0.0/31}",
     "FILE: feature.tunnelIpv4Subnet: is too small for a tunnel network; expected /30 or shorter"},
    {"BothFamiliesOff", "feature: {enableIPv4: false}",
     "FILE: feature.enableIPv4: both families are switched off; switch one on"},
    {"DetectMethod", "feature: {tunnelDetectMethod: eth0}",
     "FILE: feature.tunnelDetectMethod: is \"eth0\"; expected defaultRouteInterface or "
     "interface=NAME"},
    {"DeviceName", "feature: {vxlan: {name: 'a b'}}",
     "FILE: feature.vxlan.name: is \"a b\"; expected 1 to 15 characters without slash, colon or "
     "space"},
    {"MaskWithHole", "marks: {slotMask: 0xf0f00000}",
     "FILE: marks.slotMask: is 0xf0f00000; expected one run of 4 to 8 neighbouring bits, such as "
     "0xff000000"},
    {"MaskTooWide", "marks: {slotMask: 0xffff0000}",
     "FILE: marks.slotMask: is 0xffff0000; expected one run of 4 to 8 neighbouring bits, such as "
     "0xff000000"},
    {"MaskOfIds", "marks: {slotMask: 0x1e000}",
     "FILE: marks.slotMask: is 0x0001e000; expected bits of the upper 16: the lower ones carry "
     "egress ids and kube-proxy's marks"},
    {"MaskText", "marks: {ctMask: all}",
     "FILE: marks.ctMask: is \"all\"; expected one run of neighbouring bits as a number or a "
     "string "
     "like \"0xff000000\""},
    {"BindAddress", "agent: {bindAddress: localhost}",
     "FILE: agent.bindAddress: is \"localhost\"; expected an IPv4 or IPv6 address of this machine, "
     "0.0.0.0 or ::"},
    {"MetricsOffAndOn", "agent: {metricsPort: 99, prometheus: {enabled: false}}",
     "FILE: agent.prometheus.enabled: is false, but agent.metricsPort is 99; give one of them"},
    {"KeyTwice", "log: {level: info}\nlog: {level: warn}",
     "FILE:2: the key \"log\" is given twice"},
    {"NotYaml", "feature: {", "FILE:1: not valid YAML: end of map flow not found"},
    {"TwoDocuments", "log: {}\n---\nlog: {}", "FILE: holds 2 YAML documents; expected one"},
    {"CustomInterface", "feature: {tunnelDetectCustomInterface: [{interfaceName: eth0}]}",
     "FILE: feature.tunnelDetectCustomInterface[0].nodeSelector: missing; it is required here"},
    {"Alias", "global: &a [x, *a]", "FILE:1: an alias refers to itself"},
};

INSTANTIATE_TEST_SUITE_P(Table, ConfigRefusal, testing::ValuesIn(kRefusals),
                         [](const auto& row) { return row.param.name; });

TEST_F(ConfigTest, AliasBombIsRefusedAtOnce) {
  std::string bomb = "global:\n  a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n";
  for (int i = 1; i < 12; ++i) {
    const std::string from = "*a" + std::to_string(i - 1);
    bomb += "  a" + std::to_string(i) + ": &a" + std::to_string(i) + " [" + from;
    for (int k = 0; k < 9; ++k) bomb += ", " + from;
    bomb += "]\n";
  }
  EXPECT_THAT(error(bomb), HasSubstr("aliases expand to more than the file holds"));
}

TEST_F(ConfigTest, DeepNestingIsRefused) {
  std::string deep = "global: ";
  for (int i = 0; i < 70; ++i) deep += "[";
  for (int i = 0; i < 70; ++i) deep += "]";
  EXPECT_EQ(error(deep), "FILE:1: nested deeper than 64 levels, the most that is read");
  EXPECT_EQ(error("{\"global\":" + deep.substr(8) + "}"),
            "FILE: nested deeper than 64 levels, the most that is read");
}

TEST_F(ConfigTest, LargeFileIsRefused) {
  EXPECT_EQ(error(std::string(1024 * 1024 + 1, '#')),
            "FILE: is larger than 1024 KiB, the most that is read");
}

TEST_F(ConfigTest, MissingFile) {
  ConfigInput input;
  input.file = "/nonexistent/egw.yaml";
  EXPECT_EQ(load_config(input).error().to_string(),
            "/nonexistent/egw.yaml: cannot be opened (No such file or directory)");
}

TEST_F(ConfigTest, SetRefusals) {
  EXPECT_EQ(error("", {"feature.tunelMonitorPeriod=5"}),
            "--set: feature.tunelMonitorPeriod: unknown key; did you "
            "mean \"tunnelMonitorPeriod\"?");
  EXPECT_EQ(error("", {"feature.vxlan.port=many"}),
            "--set: feature.vxlan.port: is \"many\"; expected an integer from 1 "
            "to 65535");
  EXPECT_EQ(error("", {"feature"}), "--set feature: expected key.path=value");
  EXPECT_EQ(error("", {"=1"}), "--set =1: expected key.path=value");
  EXPECT_EQ(error("", {"a..b=1"}),
            "--set a..b=1: expected key.path=value with a dotted path of keys");
  EXPECT_EQ(error("", {"feature.eipEvictionTimeout=9"}),
            "--set: feature.eipEvictionTimeout: is 9 s; expected more "
            "than tunnelMonitorPeriod (5 s) and tunnelUpdatePeriod (5 s) together");
  EXPECT_EQ(error("", {"nodeName=N_1"}), "(accepted)") << "--node-name n1 wins";
}

TEST_F(ConfigTest, OptionRefusals) {
  ConfigInput input;
  input.node_name = "Not_A_Name";
  EXPECT_THAT(load_config(input).error().to_string(),
              HasSubstr("nodeName: is \"Not_A_Name\"; expected 1 to 253 lower-case letters"));
  input.node_name = "a..b";
  EXPECT_THAT(load_config(input).error().to_string(), HasSubstr("nodeName: is \"a..b\""));
  input.node_name = "n1";
  input.log_level = "loud";
  EXPECT_EQ(load_config(input).error().to_string(),
            "--log-level: is \"loud\"; expected debug, info, warn or error");
}

}  // namespace
}  // namespace egw::app
