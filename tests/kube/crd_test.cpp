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

TEST(KubeTermRecord, WhatOthersHavePutThereStays) {
  KubeBackend backend;
  store_kit::Calls s(backend.store());
  ASSERT_TRUE(s.create(store_kit::gateway(), "", "g", json::object()).ok());
  const auto write = [&](std::uint64_t term) {
    store_kit::Calls::Options options;
    options.term = term;
    return s.write(sdk::WriteOp::kUpdateStatus, store_kit::gateway(), "", "g",
                   {{"status", {{"term", term}}}}, options);
  };
  ASSERT_TRUE(write(1).ok());
  const std::string path = "/apis/coordination.k8s.io/v1/namespaces/default/leases/egw-term";
  json lease = backend.server.request("GET", path);
  lease["metadata"]["labels"] = {{"team", "net"}};
  lease["metadata"]["annotations"]["note"] = "ours";
  lease["metadata"]["finalizers"] = {"example.org/kept"};
  lease["spec"] = {{"holderIdentity", "somebody"}};
  backend.server.request("PUT", path, lease);
  ASSERT_TRUE(write(2).ok());
  lease = backend.server.request("GET", path);
  EXPECT_EQ(lease["metadata"]["labels"], json({{"team", "net"}}));
  EXPECT_EQ(lease["metadata"]["annotations"]["note"], "ours");
  EXPECT_EQ(lease["metadata"]["annotations"]["egressgateway.spidernet.io/term"], "2");
  EXPECT_EQ(lease["metadata"]["finalizers"], json({"example.org/kept"}));
  EXPECT_EQ(lease["spec"]["holderIdentity"], "somebody");
  lease["metadata"].erase("finalizers");
  backend.server.request("PUT", path, lease);
}

}  // namespace
}  // namespace egw::kube::test
