// See access.hpp.
#include "access.hpp"

#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <fstream>
#include <sstream>

namespace egw::kube {

using sdk::Code;

namespace {

constexpr std::size_t kMaxFile = 1 << 20;

std::string environment(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

bool readable(const std::string& path) { return ::access(path.c_str(), R_OK) == 0; }

std::string trimmed(std::string text) {
  while (!text.empty() && (text.back() == '\n' || text.back() == ' ' || text.back() == '\r')) {
    text.pop_back();
  }
  return text;
}

}  // namespace

std::string read_file(const std::string& path) {
  errno = 0;
  std::ifstream in(path, std::ios::binary);
  if (!in) throw sdk::Failure(Code::kInvalid, "cannot be read", path, errno);
  std::string out(kMaxFile + 1, '\0');
  in.read(out.data(), static_cast<std::streamsize>(out.size()));
  if (in.bad()) throw sdk::Failure(Code::kInvalid, "cannot be read", path, errno);
  out.resize(static_cast<std::size_t>(in.gcount()));
  if (out.size() > kMaxFile) throw sdk::Failure(Code::kInvalid, "has more than 1 MiB", path);
  out.shrink_to_fit();  // it is kept: a token takes no MiB
  return out;
}

Access in_cluster(const std::string& folder) {
  const std::string host = environment("KUBERNETES_SERVICE_HOST");
  const std::string port = environment("KUBERNETES_SERVICE_PORT");
  if (host.empty()) {
    throw sdk::Failure(Code::kInvalid,
                       "KUBERNETES_SERVICE_HOST is not set: egw does not run in a pod; give "
                       "config.kubeconfig",
                       folder);
  }
  const bool v6 = host.find(':') != std::string::npos;
  Access out;
  out.server.url =
      "https://" + (v6 ? "[" + host + "]" : host) + ":" + (port.empty() ? "443" : port);
  out.ca_file = folder + "/ca.crt";
  out.token_file = folder + "/token";
  for (const std::string& file : {out.ca_file, out.token_file}) (void)read_file(file);
  if (readable(folder + "/namespace")) out.ns = trimmed(read_file(folder + "/namespace"));
  out.origin = "service account " + folder;
  return out;
}

Access find_access(const AccessOptions& options) {
  if (!options.kubeconfig.empty()) return read_kubeconfig(options.kubeconfig, options.context);
  const std::string list = environment("KUBECONFIG");
  if (!list.empty()) return read_kubeconfig(list, options.context);
  const std::string& folder = options.service_account_folder;
  if (readable(folder + "/token") && !environment("KUBERNETES_SERVICE_HOST").empty()) {
    return in_cluster(folder);
  }
  const std::string home = environment("HOME") + "/.kube/config";
  if (readable(home)) return read_kubeconfig(home, options.context);
  throw sdk::Failure(Code::kInvalid,
                     "no way to an API server: config.kubeconfig and KUBECONFIG are not set, there "
                     "is no service account in " +
                         folder + " and no file " + home,
                     "config.kubeconfig");
}

}  // namespace egw::kube
