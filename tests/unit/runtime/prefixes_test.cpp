// The controller and the kinds that a store may not have: ServiceCIDR and Calico's IPPool.
#include "cluster.hpp"
#include "egw/runtime/spawn.hpp"

namespace egw::test {
namespace {

class PrefixesTest : public ClusterTest {
 protected:
  [[nodiscard]] json info() const {
    return content->read(Kind::kEgressClusterInfo, {"", "default"}).value("status", json::object());
  }
};

TEST_F(PrefixesTest, AreFollowedWhereTheStoreHasThem) {
  content->put(Kind::kServiceCidr, make("networking.k8s.io/v1", "ServiceCIDR", "kubernetes",
                                        {{"cidrs", {"10.96.0.0/16"}}}));
  start_cluster();
  EXPECT_EQ(info()["clusterIP"]["ipv4"], json({"10.96.0.0/16"}));
  EXPECT_EQ(info()["podCidrMode"], "k8s");
  content->put(Kind::kCalicoIpPool, make("crd.projectcalico.org/v1", "IPPool", "default-pool",
                                         {{"cidr", "192.168.0.0/16"}}));
  loop.advance(1000);
  EXPECT_EQ(info()["podCidrMode"], "calico");
  EXPECT_EQ(info()["podCIDR"], json::parse(R"({"default-pool": {"ipv4": ["192.168.0.0/16"]}})"));
  content->remove(Kind::kServiceCidr, {"", "kubernetes"});
  loop.advance(1000);
  EXPECT_FALSE(info().contains("clusterIP")) << info().dump();
}

TEST_F(PrefixesTest, AStoreWithoutTheKindsIsAsReadyAsOneWithThem) {
  add_node("n1", false);
  add_node("g1", true);
  auto rig = std::make_unique<ControllerRig>(loop, content, office, "c1", log, settings);
  rig->store.unknown_kinds = {Kind::kServiceCidr, Kind::kCalicoIpPool};
  ControllerRig& controller = *rig;
  controllers["c1"] = std::move(rig);
  runtime::spawn(loop.executor(), ControllerRig::live(controller));
  loop.advance(30'000);
  EXPECT_TRUE(controller.controller->ready());
  EXPECT_TRUE(controller.controller->leading());
  EXPECT_EQ(info()["podCidrMode"], "k8s");
}

}  // namespace
}  // namespace egw::test
