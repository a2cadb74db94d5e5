// A real kube-apiserver with its etcd for the tests of this folder: two processes on loopback ports
// with TLS, tokens and RBAC, in a folder that goes with them. The environment says which:
// EGW_TEST_KUBERNETES a version that tests/kube/build-servers knows (else the newest),
// EGW_TEST_FEATURE_GATES what is switched on or off ("WatchList=false").
#pragma once

#include <sys/types.h>

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace egw::kube::test {

using nlohmann::json;

class ApiServer {
 public:
  // Running, with the CRDs. Throws std::runtime_error.
  explicit ApiServer(const std::vector<json>& crds, std::vector<std::string> more_flags = {});
  ~ApiServer();
  ApiServer(const ApiServer&) = delete;
  ApiServer& operator=(const ApiServer&) = delete;

  // The one of this process; started when it is first asked for.
  static ApiServer& shared();

  [[nodiscard]] const std::string& url() const { return url_; }
  [[nodiscard]] const std::string& folder() const { return folder_; }
  [[nodiscard]] std::string file(const std::string& name) const { return folder_ + "/" + name; }
  // A kubeconfig of a user in tokens.csv: "admin", "nobody"; or with any other token.
  [[nodiscard]] std::string kubeconfig(const std::string& user) const;
  [[nodiscard]] std::string kubeconfig(const std::string& name, const std::string& token) const;

  // As admin; the parsed answer. Throws when there is none or it is no success.
  json request(const std::string& method, const std::string& path, const json& body = json());
  // Removes all objects of a collection, and waits until they are gone.
  void clear(const std::string& collection);
  // Makes etcd forget the past, so that older revisions cannot be watched any more. The API
  // server's own cache goes with a restart.
  void compact();

  void stop();   // SIGSTOP
  void go_on();  // SIGCONT
  void kill();   // SIGKILL, the API server alone
  void start_again();
  // What the audit log says since: requests as "verb resource user code".
  std::vector<json> audit() const;

 private:
  void start_etcd();
  void start_server();
  void wait_ready();

  const std::vector<std::string> more_flags_;
  std::string folder_, programs_, url_, etcd_url_;
  int port_ = 0;
  pid_t etcd_ = -1, server_ = -1;
};

}  // namespace egw::kube::test
