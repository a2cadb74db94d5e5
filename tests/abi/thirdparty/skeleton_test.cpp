// The skeleton's unit tests, with the SDK's fakes and no test framework.
#include "skeleton.hpp"

#include <cstdio>

#include "egw/sdk/testing.hpp"

namespace t = egw::sdk::testing;
using egw::sdk::Code;
using Plugin = t::Plugin<thirdparty::Skeleton>;

static int failures = 0;
#define CHECK(condition)                                          \
  do {                                                            \
    if (!(condition)) {                                           \
      ++failures;                                                 \
      std::printf("%s:%d: %s\n", __FILE__, __LINE__, #condition); \
    }                                                             \
  } while (false)

static t::StateBuilder shop() {
  t::StateBuilder state("n1");
  state.peer("n2", "10.6.0.12").egress(7, "10.6.1.56", "n2");
  state.steer("10.244.1.10", {{"0.0.0.0/0", 7}, {"192.0.2.0/24", 0}});
  return state;
}

int main() {
  {
    t::StateBuilder state = shop();
    Plugin plugin;
    CHECK(plugin.apply(state.step_on(3)).status.code == Code::kNeedFull);
    CHECK(plugin.apply(state.full()).status.ok());
    CHECK(plugin.observe() == R"({"datapath": "thirdparty", "entries": 1})");
    state.steer("10.244.1.11", {{"0.0.0.0/0", 7}});
    CHECK(plugin.apply(state.step()).status.ok());
    state.remove_endpoint("10.244.1.10");
    CHECK(plugin.apply(state.step()).status.ok());
    CHECK(plugin.observe() == R"({"datapath": "thirdparty", "entries": 1})");
    CHECK(plugin.apply(state.step_on(1)).status.code == Code::kNeedFull);
    CHECK(plugin.counters()["applied{kind=all}"] == 3);
    CHECK(plugin.sysctls()["net/ipv4/ip_forward"].second);
    CHECK(plugin.health().ok() && plugin.forget("10.6.1.56").ok());
    plugin.object().lose("10.244.1.11");
    CHECK(plugin.host().drifts.size() == 1 && !plugin.health().ok());
    CHECK(plugin.apply(state.full()).repaired["entry"] == 1 && plugin.health().ok());
    CHECK(plugin.purge().ok());
    CHECK(plugin.observe() == R"({"datapath": "thirdparty", "entries": 0})");
  }
  {
    const auto [status, wrong] = Plugin::probe(shop().full());
    CHECK(status.ok() && wrong.empty());
    t::StateBuilder bad = shop();
    bad.node.slot_mask = 0;
    const auto [refused, why] = Plugin::probe(bad.full());
    CHECK(refused.code == Code::kUnsupported && why.count("SlotMask") == 1);
  }
  try {
    const Plugin plugin(R"({"device": "sw1"})");
    CHECK(!"open succeeds without the device");
  } catch (const egw::sdk::Failure& failure) {
    CHECK(failure.status().code == Code::kUnsupported);
  }
  std::printf("%d failures\n", failures);
  return failures == 0 ? 0 : 1;
}
