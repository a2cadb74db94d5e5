// A store whose API server is a HostileServer, and the kubeconfig that leads there.
#pragma once

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>

#include "store.hpp"
#include "support/store_kit.hpp"

namespace egw::kube::test {

// A file for as long as this lives.
class Kubeconfig {
 public:
  explicit Kubeconfig(const std::string& url, const std::string& user = "token: t") {
    std::string name = "/tmp/egw-hostile-XXXXXX";
    folder_ = ::mkdtemp(name.data());
    std::ofstream(path()) << "current-context: x\n"
                             "contexts: [{name: x, context: {cluster: c, user: u}}]\n"
                             "users: [{name: u, user: {"
                          << user
                          << "}}]\n"
                             "clusters: [{name: c, cluster: {server: \""
                          << url << "\"}}]\n";
  }
  ~Kubeconfig() { std::filesystem::remove_all(folder_); }
  Kubeconfig(const Kubeconfig&) = delete;
  Kubeconfig& operator=(const Kubeconfig&) = delete;
  [[nodiscard]] std::string path() const { return folder_ / "config"; }

 private:
  std::filesystem::path folder_;
};

struct Store {
  explicit Store(const std::string& url, const std::string& user = "token: t")
      : file(url, user),
        store(nlohmann::json{{"kubeconfig", file.path()}, {"requestTimeout", 0.5}}.dump(),
              host.services()) {}
  Kubeconfig file;
  store_kit::TestHost host;
  KubeStore store;
  store_kit::Calls calls{store};
};

}  // namespace egw::kube::test
