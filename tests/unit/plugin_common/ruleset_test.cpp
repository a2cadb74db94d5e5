// Which chains a node has in which role, and that each can be written in its order.
#include "common/nftables/ruleset.hpp"

#include <gtest/gtest.h>

#include <set>

namespace egw::common {
namespace {

sdk::NodeConfig some_node(const std::string& underlay) {
  sdk::NodeConfig out;
  out.enable_ipv4 = out.enable_ipv6 = true;
  out.tunnel_device = "egress.vxlan";
  out.parent_device = "eth0";
  out.underlay = *sdk::Address::parse(underlay);
  out.tunnel_port = 7789;
  out.slot_mask = 0xff000000;
  out.ct_mask = 0xfff80000;
  return out;
}

std::set<std::string> names(const Ruleset& ruleset, Table t) {
  std::set<std::string> out;
  for (const Chain& c : ruleset.fixed_chains(t)) out.insert(c.name);
  return out;
}

TEST(Ruleset, TheHookForAllPacketsIsLeftOutOnlyWhereTheIngressTakesItsPlace) {
  for (const bool programs : {false, true}) {
    for (const bool ingress : {false, true}) {
      for (const bool serves : {false, true}) {
        Ruleset r(some_node("10.6.0.11"), 1450, programs);
        r.set_ingress(ingress);
        r.set_serves(serves);
        const bool light = ingress && !serves;
        for (const Table t : kFamilies) {
          EXPECT_EQ(names(r, t).count("raw_in"), light ? 0U : 1U);
          EXPECT_EQ(names(r, t).count("unwrap_late"), light ? 1U : 0U);
        }
        EXPECT_EQ(names(r, Table::kNetdev).count("from_wire"), light ? 1U : 0U);
        EXPECT_EQ(names(r, Table::kNetdev).count("into_tunnel"), programs ? 0U : 1U);
      }
    }
  }
}

// A family that is switched off has no place to judge its packets but raw_in.
TEST(Ruleset, AFamilyThatIsOffKeepsTheHook) {
  sdk::NodeConfig node = some_node("10.6.0.11");
  node.enable_ipv4 = false;
  Ruleset r(node, 1450);
  r.set_ingress(true);
  EXPECT_EQ(names(r, Table::kIp).count("raw_in"), 1U);
  EXPECT_EQ(names(r, Table::kIp6).count("raw_in"), 0U);
}

TEST(Ruleset, TheTunnelsPortIsJudgedBeforeAnythingIsAccepted) {
  for (const char* underlay : {"10.6.0.11", "fd00::11"}) {
    Ruleset r(some_node(underlay), 1450);
    r.set_ingress(true);
    for (const Table t : kFamilies) {
      for (const Chain& c : r.fixed_chains(t)) {
        if (c.name != "classify") continue;
        EXPECT_EQ(c.rules.at(0), "iifgroup 0x00656777 goto from_tunnel");
        EXPECT_EQ(c.rules.at(1) == "@th,16,16 7789 meta l4proto udp goto from_wire", r.carries(t))
            << underlay;
      }
    }
    for (const Chain& c : r.fixed_chains(Table::kNetdev)) {
      if (c.name != "from_wire") continue;
      ASSERT_EQ(c.rules.size(), 1U);
      EXPECT_EQ(c.rules[0].find("drop"), std::string::npos);
      EXPECT_EQ(c.rules[0].find("meta mark set"), std::string::npos);
    }
  }
}

}  // namespace
}  // namespace egw::common
