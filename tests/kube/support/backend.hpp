// A store over the shared API server, empty at first.
#pragma once

#include <memory>
#include <string>

#include "kube/support/crds.hpp"
#include "kube/support/server.hpp"
#include "store.hpp"
#include "support/store_kit.hpp"

namespace egw::kube::test {

inline constexpr const char* kGroupPath = "/apis/egressgateway.spidernet.io/v1beta1/";

struct KubeBackend {
  ApiServer& server = ApiServer::shared();
  store_kit::TestHost host;
  std::unique_ptr<sdk::StateStore> first;

  KubeBackend() {
    server.clear(std::string(kGroupPath) + "egressgateways");
    server.clear(std::string(kGroupPath) + "egresspolicies");
    server.clear("/api/v1/pods");
    server.clear("/apis/coordination.k8s.io/v1/leases");
    first = another();
  }
  sdk::StateStore& store() { return *first; }
  std::unique_ptr<sdk::StateStore> another(const std::string& user = "admin") {
    return std::make_unique<KubeStore>(json{{"kubeconfig", server.kubeconfig(user)}}.dump(),
                                       host.services());
  }
};

}  // namespace egw::kube::test
