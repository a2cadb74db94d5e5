// The CRDs that the tree ships, read by a real API server.
#include <gtest/gtest.h>

#include "kube/support/backend.hpp"

namespace egw::kube::test {
namespace {

TEST(KubeCrds, TheServerTakesAllOfThem) {
  ApiServer& server = ApiServer::shared();
  const std::string path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
  const std::vector<json> all = shipped_crds();
  EXPECT_EQ(all.size(), 7U);
  for (const json& shipped : all) {
    // The open ones of the other tests have their names.
    const json crd = of_group(shipped, "crds.example.org");
    const json stored = server.request("POST", path, crd);
    EXPECT_EQ(stored["spec"]["versions"][0]["schema"], crd["spec"]["versions"][0]["schema"])
        << crd["metadata"]["name"] << ": the server has dropped something";
    server.request("DELETE", path + "/" + crd["metadata"]["name"].get<std::string>());
  }
}

TEST(KubeCrds, ATermThatFallsIsAStaleTermEvenPastTheRecord) {
  KubeBackend backend;
  store_kit::Calls s(backend.store());
  ASSERT_TRUE(s.create(store_kit::gateway(), "", "g", json::object()).ok());
  const auto status = [&](int term) {
    return s.write(sdk::WriteOp::kUpdateStatus, store_kit::gateway(), "", "g",
                   {{"status", {{"term", term}}}}, {});
  };
  ASSERT_TRUE(status(5).ok());
  ASSERT_TRUE(status(6).ok());
  const auto late = status(4);
  EXPECT_EQ(late.status.code, sdk::Code::kStaleTerm) << late.status.text();
}

}  // namespace
}  // namespace egw::kube::test
