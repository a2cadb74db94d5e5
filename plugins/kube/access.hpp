// Where the API server is and who we are to it: from a kubeconfig or from the pod that egw runs in.
// The rules are client-go's (tools/clientcmd, rest.InClusterConfig). Used by api.cpp.
#pragma once

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "egw/sdk/status.hpp"
#include "http.hpp"

namespace egw::kube {

// A program that prints credentials (client.authentication.k8s.io ExecCredential).
struct ExecPlugin {
  std::string command, api_version, folder;  // folder: where a relative command begins
  std::vector<std::string> arguments;
  std::vector<std::pair<std::string, std::string>> environment;
  bool provide_cluster = false;
};

struct Access {
  Server server;
  std::string ns = "default";
  std::string origin;  // "kubeconfig /etc/egw/kubeconfig, context lab", for messages

  // At most one kind of each; files are read again when they change.
  std::string ca_file;  // instead of server.ca
  std::string token, token_file;
  std::string certificate, key;  // PEM
  std::string certificate_file, key_file;
  std::optional<ExecPlugin> exec;
};

struct AccessOptions {
  std::string kubeconfig;              // files separated by ':'; empty: see find_access
  std::string context;                 // empty: the current one
  std::string service_account_folder;  // with token, ca.crt, namespace
};

// In this order: options.kubeconfig, $KUBECONFIG, the service account's folder (when it has a token
// and $KUBERNETES_SERVICE_HOST is set), ~/.kube/config. Throws sdk::Failure (kInvalid) that says
// which file and key.
[[nodiscard]] Access find_access(const AccessOptions& options);

// The merged kubeconfig of a ':'-separated list: of two entries of one name the first counts; files
// that do not exist are left out.
[[nodiscard]] Access read_kubeconfig(const std::string& list, const std::string& context);
[[nodiscard]] Access in_cluster(const std::string& folder);

// The whole file. Throws sdk::Failure (kInvalid) with errno; at most 1 MiB.
[[nodiscard]] std::string read_file(const std::string& path);

}  // namespace egw::kube
