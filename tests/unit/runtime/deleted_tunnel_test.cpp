// EgressTunnels that somebody deletes although their nodes serve: they are made anew, and nothing
// moves because of that.
#include "cluster.hpp"

namespace egw::test {
namespace {

class DeletedTunnelTest : public ClusterTest {
 protected:
  void remove(const std::string& node) { content->remove(Kind::kEgressTunnel, {"", node}); }
  // As one has that was made by a version without finalizers.
  void without_finalizer(const std::string& node) {
    json document = tunnel(node);
    document["metadata"].erase("finalizers");
    content->put(Kind::kEgressTunnel, document);
  }
  [[nodiscard]] std::size_t moves() const {
    return controllers.at("c1")->controller->state()["moves"].size();
  }
  // All nodes have what they had, in objects of another uid.
  void expect_as_before(const std::map<std::string, json>& before) {
    for (const auto& [name, old] : before) {
      const json now = tunnel(name);
      ASSERT_FALSE(now.is_null()) << name;
      EXPECT_NE(now["metadata"]["uid"], old["metadata"]["uid"]) << name;
      EXPECT_FALSE(now["metadata"].contains("deletionTimestamp")) << name;
      EXPECT_EQ(now["metadata"].value("finalizers", json::array()).size(), 1U) << name;
      EXPECT_EQ(now["status"]["tunnel"], old["status"]["tunnel"]) << name;
      EXPECT_EQ(now["status"]["mark"], old["status"]["mark"]) << name;
      EXPECT_EQ(phase(name), "Ready") << name;
    }
  }
  [[nodiscard]] std::map<std::string, json> all() const {
    return {{"n1", tunnel("n1")}, {"g1", tunnel("g1")}, {"g2", tunnel("g2")}};
  }
};

TEST_F(DeletedTunnelTest, ItsEipsStay) {
  start_cluster();
  const std::string node = owner();
  const std::size_t moved = moves();
  const json before = tunnel(node);
  ASSERT_EQ(before["metadata"]["finalizers"][0], std::string(model::kTunnelFinalizer));
  remove(node);
  loop.advance(1500);
  expect_as_before({{node, before}});
  loop.advance(10'000);
  EXPECT_EQ(owner(), node);
  EXPECT_EQ(moves(), moved);
  EXPECT_TRUE(agents[node]->announces(kEip));
}

TEST_F(DeletedTunnelTest, AllAtOnceAlsoWithoutFinalizers) {
  start_cluster();
  const std::string node = owner();
  const std::size_t moved = moves();
  for (const bool finalizers : {true, false}) {
    const auto before = all();
    for (const auto& [name, document] : before) {
      if (!finalizers) without_finalizer(name);
      remove(name);
    }
    loop.advance(1500);
    expect_as_before(before);
    loop.advance(10'000);
  }
  EXPECT_EQ(owner(), node);
  EXPECT_EQ(moves(), moved);
}

// The agent is heard between the steps of that.
TEST_F(DeletedTunnelTest, AlsoWhenTheStoreIsSlow) {
  start_cluster();
  const std::string node = owner();
  const std::size_t moved = moves();
  const auto before = all();
  for (int run = 0; run < 20; ++run) {
    for (const auto& [name, document] : before) remove(name);
    loop.advance(137);
  }
  loop.advance(3000);
  expect_as_before(before);
  EXPECT_EQ(owner(), node);
  EXPECT_EQ(moves(), moved);
}

// No leader is there to see it: the finalizer keeps it until one is.
TEST_F(DeletedTunnelTest, NothingGoesWhileNobodyLeads) {
  start_cluster();
  const std::string node = owner();
  const auto before = all();
  controllers["c1"]->controller->stop();
  loop.advance(500);
  for (const auto& [name, document] : before) remove(name);
  loop.advance(20'000);
  EXPECT_TRUE(tunnel(node)["metadata"].contains("deletionTimestamp"));
  EXPECT_EQ(phase(node), "Ready");
  start_controller("c2");
  loop.advance(5000);
  expect_as_before(before);
  EXPECT_EQ(owner(), node);
}

TEST_F(DeletedTunnelTest, WhoseAgentIsGoneLosesItsEipsInTime) {
  start_cluster();
  loop.advance(5000);
  const std::string node = owner();
  kill_agent(node);
  remove(node);
  loop.advance(1500);
  EXPECT_EQ(owner(), node) << "it has been heard a moment ago";
  loop.advance(1700);
  EXPECT_EQ(owner(), other(node));
  EXPECT_NE(phase(node), "Ready");
}

TEST_F(DeletedTunnelTest, WhoseNodeGoesLeavesAtOnce) {
  start_cluster();
  const std::string node = owner();
  content->remove(Kind::kNode, {"", node});
  loop.advance(200);
  EXPECT_EQ(owner(), other(node));
  EXPECT_TRUE(tunnel(node).is_null()) << "no finalizer keeps it";
}

}  // namespace
}  // namespace egw::test
