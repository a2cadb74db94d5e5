// Another store answers in place of the one that the nodes were programmed from: removed and made
// anew, or the wrong file (docs/adr/0030-another-store.md).
#include "cluster.hpp"
#include "egw/runtime/store_record.hpp"
#include "egw/runtime/sysctls.hpp"

namespace egw::test {
namespace {

using testing::HasSubstr;

class OtherStore : public ClusterTest {
 protected:
  OtherStore() { content->id = "first"; }
  // What everybody is connected to from here on.
  void answer(const std::string& id,
              std::map<MemoryContent::Place, MemoryContent::Object> objects) {
    content->id = id;
    content->objects = std::move(objects);
    for (auto* connection : content->connections) connection->disconnect();
    loop.settle();
    for (auto* connection : content->connections) connection->reconnect();
    loop.advance(3000);
  }
  [[nodiscard]] json condition(const std::string& node) const {
    for (const auto& c : tunnel(node).value("/status/conditions"_json_pointer, json::array())) {
      if (c["type"] == "StoreReplaced") return c;
    }
    return {};
  }
};

TEST_F(OtherStore, AnEmptyOneRemovesNothingUntilTheFormerIsBack) {
  start_cluster();
  const std::string owner_before = owner();
  AgentRig& client = *agents["n1"];
  AgentRig& gateway = *agents[owner_before];
  ASSERT_EQ(client.datapath.state.endpoints.size(), 1U);
  const auto endpoints = client.datapath.state.endpoints;
  const auto egresses = client.datapath.state.egresses.size();
  const auto former = content->objects;
  ASSERT_EQ(runtime::read_store_record(folder / "n1"), "first");

  answer("second", {});
  EXPECT_EQ(client.datapath.state.endpoints, endpoints);
  EXPECT_EQ(client.datapath.state.egresses.size(), egresses);
  EXPECT_TRUE(gateway.announces(kEip));
  EXPECT_FALSE(client.agent->ready());
  EXPECT_THAT(client.agent->state()["store"]["trouble"], HasSubstr("another store (second)"));
  // The nodes are applied to it: the controller makes tunnels, whose agents say what is wrong.
  for (const char* name : {"n1", "g1", "g2"}) add_node(name, name[0] == 'g');
  add_gateway();
  loop.advance(5000);
  EXPECT_EQ(client.datapath.state.endpoints, endpoints);
  EXPECT_EQ(client.datapath.state.egresses.size(), egresses);
  EXPECT_TRUE(gateway.announces(kEip));
  EXPECT_EQ(phase("n1"), "Failed");
  EXPECT_EQ(owner(), "") << "nobody serves two stores";
  EXPECT_EQ(condition("n1").value("status", ""), "True");
  EXPECT_THAT(condition("n1").value("message", ""),
              testing::AllOf(HasSubstr("second"), HasSubstr("programmed-store")));

  answer("first", former);
  EXPECT_TRUE(client.agent->ready());
  EXPECT_EQ(client.datapath.state.endpoints.size(), 1U);
  EXPECT_EQ(phase("n1"), "Ready");
  add_pod("web-2", "n1", "10.244.1.6");
  loop.settle();
  EXPECT_EQ(client.datapath.state.endpoints.size(), 2U);
}

TEST_F(OtherStore, ARestartedAgentKeepsToTheRecordedOneUntilItIsRemoved) {
  start_cluster();
  kill_agent("n1");
  content->id = "second";
  std::erase_if(content->objects,
                [](const auto& entry) { return entry.first.first == Kind::kPod; });
  start_agent("n1");
  loop.advance(3000);
  EXPECT_TRUE(agents["n1"]->datapath.applies.empty());
  EXPECT_FALSE(agents["n1"]->agent->ready());
  EXPECT_EQ(phase("n1"), "Failed");

  kill_agent("n1");
  std::filesystem::remove(runtime::store_record(folder / "n1"));
  start_agent("n1");
  loop.advance(3000);
  EXPECT_TRUE(agents["n1"]->agent->ready());
  EXPECT_EQ(phase("n1"), "Ready");
  EXPECT_EQ(condition("n1").value("status", ""), "False");
  EXPECT_EQ(runtime::read_store_record(folder / "n1"), "second");
}

TEST_F(OtherStore, ARestartedOwnerGoesOnAnsweringForWhatItServed) {
  start_cluster();
  const std::string g = owner();
  const auto former = content->objects;
  kill_agent(g);
  content->id = "second";
  content->objects.clear();
  AgentRig& gateway = start_agent(g);
  loop.advance(1000);
  EXPECT_THAT(gateway.datapath.applies, testing::IsEmpty());
  ASSERT_TRUE(gateway.announces(kEip));
  EXPECT_TRUE(gateway.announcer.eips.at(0).probe_first) << "another may have got it meanwhile";
  EXPECT_EQ(gateway.announcer.macs.size(), 2U) << "of everybody else's uplink";

  net::Claim claim;  // it has
  claim.address = gateway.announcer.eips.at(0).address;
  claim.from_gateway = true;
  gateway.agent->on_claim(claim);
  loop.advance(5000);
  EXPECT_THAT(gateway.announcer.confirmed, testing::IsEmpty()) << "no store says that it is ours";

  answer("first", former);
  EXPECT_TRUE(gateway.agent->ready());
  EXPECT_EQ(owner(), g);
  EXPECT_TRUE(gateway.announces(kEip));
}

TEST_F(OtherStore, WhatLeftTheOwnerIsNotServedAfterItsRestart) {
  start_cluster();
  const std::string g = owner();
  agents[g]->agent->stop(true);  // drains
  loop.advance(3000);
  ASSERT_EQ(owner(), other(g));
  dead.push_back(std::move(agents.at(g)));
  agents.erase(g);
  EXPECT_THAT(runtime::read_served_record(folder / g).eips, testing::IsEmpty());
  content->id = "second";
  AgentRig& gateway = start_agent(g);
  loop.advance(1000);
  EXPECT_FALSE(gateway.announces(kEip));
}

// What a purge does: the next start is like the first one since boot, for agent.bootDrop, too.
TEST_F(OtherStore, NothingIsOnRecordOnceNothingIsProgrammed) {
  const auto dir = folder / "n1";
  std::filesystem::create_directories(dir);
  ASSERT_TRUE(runtime::write_store_record(dir, "first"));
  ASSERT_TRUE(runtime::write_served_record(dir, {}));
  ASSERT_TRUE(runtime::write_file(runtime::boot_record(dir), "this boot\n"));
  ASSERT_TRUE(runtime::forget_programming(dir));
  EXPECT_TRUE(std::filesystem::is_empty(dir));
  EXPECT_TRUE(runtime::forget_programming(dir)) << "nothing to do is no error";
}

TEST_F(OtherStore, ANodeThatHoldsNothingTakesAny) {
  start_cluster();
  kill_agent("n1");
  content->id = "second";
  AgentRig& rig = start_agent("n1", true);  // as after a reboot
  rig.datapath.open_gate();
  loop.advance(3000);
  EXPECT_TRUE(rig.agent->started());
  EXPECT_EQ(runtime::read_store_record(folder / "n1"), "second");
}

}  // namespace
}  // namespace egw::test
