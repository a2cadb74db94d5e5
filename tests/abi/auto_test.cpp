// `datapath: auto`, with real libraries under the names that it looks for.
#include <gmock/gmock.h>

#include <fstream>

#include "abi/support.hpp"
#include "egw/runtime/auto_datapath.hpp"

namespace egw::host::test {
namespace {

using runtime::AutoDatapath;
using runtime::DatapathRecord;
using testing::HasSubstr;

class Auto : public testing::Test {
 protected:
  Auto() {
    config.plugin_dir = bench.folder().path();
    config.state_dir = bench.folder().path() / "node";
    fs::create_directory(config.state_dir);
    config.datapath = {"auto", nlohmann::json::object()};
  }
  // Builds of one plugin under each name (tests/abi/CMakeLists.txt).
  void install(const std::string& name) {
    bench.folder().add("datapath-auto-" + name, "datapath-" + name);
  }
  void refuse(const std::string& name, const std::string& why) {
    config.datapath.config[name]["probe"] = why;
  }
  Result<void> open(std::optional<DatapathRecord> record = std::nullopt) {
    auto opened = AutoDatapath::open(bench.host(), config, record, log);
    if (!opened) return tl::unexpected(opened.error());
    datapath = std::move(*opened);
    return {};
  }
  // The name chosen, or what is said of it.
  std::string choose() {
    const auto findings = bench.await(datapath->probe({}));
    if (!findings) return findings.error().to_string();
    if (const auto chosen = datapath->chosen()) return chosen->name;
    std::string out;
    for (const auto& f : *findings) out += f.code + ": " + f.message + "; ";
    return out;
  }
  static DatapathRecord programmed_by(const std::string& name, const std::string& boot) {
    DatapathRecord record;
    record.now.choice.name = name;
    record.boot = boot;
    return record;
  }

  Bench bench;
  runtime::RuntimeConfig config;
  runtime::Logger log{runtime::LogFormat::kText, runtime::LogLevel::kError};
  std::unique_ptr<AutoDatapath> datapath;
};

TEST_F(Auto, TheFirstInTheOrder) {
  for (const char* name : {"iptables", "netlink", "ebpf"}) install(name);
  ASSERT_TRUE(open());
  EXPECT_EQ(choose(), "ebpf");
  EXPECT_EQ(datapath->others().at("netlink"), "comes after ebpf");
  EXPECT_EQ(datapath->others().at("iptables"), "comes after ebpf");
}

TEST_F(Auto, WhatIsNotInstalledOrRefusesIsPassedOverAndTheReasonKept) {
  install("netlink");
  install("iptables");
  refuse("netlink", "no nftables here");
  ASSERT_TRUE(open());
  EXPECT_EQ(choose(), "iptables");
  EXPECT_EQ(datapath->others().at("ebpf"), "is not installed");
  EXPECT_EQ(datapath->others().at("netlink"), "NotHere: no nftables here");
  // It is the chosen one now in everything.
  model::Change change;
  change.full = true;
  change.node.emplace();
  EXPECT_TRUE(bench.await(datapath->apply(std::move(change))));
  EXPECT_TRUE(bench.await(datapath->health()));
}

TEST_F(Auto, AFileThatIsNoPluginIsPassedOver) {
  std::ofstream(bench.folder().path() / "egw-datapath-ebpf.so") << "nothing";
  install("netlink");
  ASSERT_TRUE(open());
  EXPECT_EQ(choose(), "netlink");
  EXPECT_THAT(datapath->others().at("ebpf"), HasSubstr("egw-datapath-ebpf.so is "));
}

TEST_F(Auto, NoneIsInstalled) {
  install("other");  // a third party's is never chosen by itself
  const auto opened = open();
  ASSERT_FALSE(opened);
  EXPECT_EQ(opened.error().code, Errc::kInvalid);  // exit code 2
  EXPECT_EQ(opened.error().object, "plugins.datapath.name");
  EXPECT_THAT(opened.error().message,
              HasSubstr("auto finds no usable datapath in " + config.plugin_dir.string() +
                        ": ebpf: is not installed; netlink: is not installed; iptables: is not "
                        "installed: install one"));
}

TEST_F(Auto, AllRefuseAndLaterOneDoesNot) {
  install("ebpf");
  install("netlink");
  const fs::path gate = bench.folder().path() / "wrong";
  std::ofstream(gate) << "x";
  config.datapath.config["ebpf"]["probe"] = "no BTF";
  config.datapath.config["netlink"] = {{"probe", "no nftables"}, {"while", gate.string()}};
  ASSERT_TRUE(open());
  EXPECT_EQ(choose(),
            "ebpf: NotHere: no BTF; netlink: NotHere: no nftables; iptables: is not installed; ");
  EXPECT_FALSE(datapath->chosen());
  model::Change change;
  change.full = true;
  const auto applied = bench.await(datapath->apply(std::move(change)));
  ASSERT_FALSE(applied);
  EXPECT_EQ(applied.error().code, Errc::kUnavailable);
  fs::remove(gate);
  EXPECT_EQ(choose(), "netlink");
}

TEST_F(Auto, ARestartStaysWithWhatHasProgrammedTheNode) {
  for (const char* name : {"ebpf", "netlink", "iptables"}) install(name);
  ASSERT_TRUE(open(programmed_by("iptables", runtime::this_boot())));
  EXPECT_TRUE(bench.await(datapath->health()));  // of the one that programmed it
  EXPECT_EQ(choose(), "iptables");
  EXPECT_EQ(datapath->others().at("ebpf"), "iptables has programmed this node already");
  // A boot empties the kernel: there is nothing to stay with.
  ASSERT_TRUE(open(programmed_by("iptables", "another boot")));
  EXPECT_FALSE(bench.await(datapath->health()));
  EXPECT_EQ(choose(), "ebpf");
  // Nor is there when it cannot run any more.
  refuse("iptables", "the tools are gone");
  ASSERT_TRUE(open(programmed_by("iptables", runtime::this_boot())));
  EXPECT_EQ(choose(), "ebpf");
  EXPECT_EQ(datapath->others().at("iptables"), "NotHere: the tools are gone");
  ASSERT_TRUE(open(programmed_by("other", runtime::this_boot())));
  EXPECT_EQ(choose(), "ebpf");
}

TEST_F(Auto, OneThatCrashesInItsProbeIsPassedOver) {
  bench.folder().add("datapath-auto-faulty", "datapath-ebpf");
  install("netlink");
  const fs::path fault = bench.folder().path() / "fault";
  std::ofstream(fault) << "probe crash";
  config.datapath.config["ebpf"] = {
      {"library", (fs::path(ABI_PLUGINS) / "egw-datapath-plain.so").string()},
      {"fault", fault.string()}};
  ASSERT_TRUE(open());
  EXPECT_EQ(choose(), "netlink");
  EXPECT_THAT(datapath->others().at("ebpf"),
              HasSubstr("crashed with signal 11 (SIGSEGV) in probe"));
}

TEST_F(Auto, DriftIsToldOfTheChosenOne) {
  install("netlink");
  ASSERT_TRUE(open());
  std::string what;
  datapath->on_drift([&](std::string said) { what = std::move(said); });
  EXPECT_EQ(choose(), "netlink");
  ASSERT_TRUE(bench.await(datapath->forget(model::Address::v4({192, 0, 2, 1}))));
  EXPECT_TRUE(bench.until([&] { return what == "element"; }));
}

}  // namespace
}  // namespace egw::host::test
