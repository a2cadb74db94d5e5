// Reads kubeconfig files (k8s.io/client-go/tools/clientcmd/api/v1). See access.hpp.
#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <filesystem>
#include <string_view>

#include "access.hpp"
#include "base64.hpp"

namespace egw::kube {

using sdk::Code;

namespace {

constexpr int kMaxDepth = 100;

[[noreturn]] void refuse(const std::string& file, const std::string& what) {
  throw sdk::Failure(Code::kInvalid, what, "kubeconfig " + file);
}

// An entry of clusters, users or contexts, with the file that it stands in.
struct Entry {
  YAML::Node content;
  std::string file;
  std::string path;  // "users[lab].user", for messages

  [[nodiscard]] std::string text(const char* key) const {
    const YAML::Node node = content[key];
    if (!node || node.IsNull()) return {};
    if (!node.IsScalar()) refuse(file, path + "." + key + " must be a text");
    return node.Scalar();
  }
  [[nodiscard]] bool flag(const char* key) const {
    const std::string value = text(key);
    if (value.empty() || value == "false") return false;
    if (value != "true") refuse(file, path + "." + key + " must be true or false");
    return true;
  }
  // Paths in a kubeconfig are relative to its folder.
  [[nodiscard]] std::string file_name(const char* key) const {
    std::string value = text(key);
    if (value.empty() || value.front() == '/') return value;
    return (std::filesystem::path(file).parent_path() / value).string();
  }
  // KEY-data wins over KEY.
  [[nodiscard]] std::string data(const char* key) const {
    const std::string encoded = text(key);
    if (encoded.empty()) return {};
    const auto bytes = decode_base64(encoded);
    if (!bytes) refuse(file, path + "." + key + " is no base64");
    return *bytes;
  }
};

struct Config {
  std::string files;  // the list, for messages
  std::vector<std::pair<std::string, YAML::Node>> documents;

  [[nodiscard]] Entry find(const char* list, const char* member, const std::string& name) const {
    for (const auto& [file, document] : documents) {
      const YAML::Node entries = document[list];
      if (!entries || !entries.IsSequence()) continue;
      for (const YAML::Node& entry : entries) {
        if (!entry.IsMap() || !entry["name"] || !entry["name"].IsScalar()) continue;
        if (entry["name"].Scalar() != name) continue;
        const std::string path = std::string(list) + "[" + name + "]." + member;
        const YAML::Node content = entry[member];
        if (!content || !content.IsMap()) refuse(file, path + " must be a map");
        return {content, file, path};
      }
    }
    refuse(files, std::string("has no entry \"") + name + "\" among its " + list);
  }
};

// Of brackets and braces.
int depth_of(const std::string& text) {
  int depth = 0, deepest = 0;
  for (const char c : text) {
    if (c == '[' || c == '{') deepest = std::max(deepest, ++depth);
    if (c == ']' || c == '}') depth = std::max(0, depth - 1);
  }
  return deepest;
}

Config load(const std::string& list) {
  Config out;
  out.files = list;
  bool found = false;
  for (std::size_t begin = 0; begin <= list.size();) {
    const std::size_t end = std::min(list.find(':', begin), list.size());
    const std::string file = list.substr(begin, end - begin);
    begin = end + 1;
    std::error_code unknown;  // of a folder that may not be searched: read_file says so
    if (file.empty() || (!std::filesystem::exists(file, unknown) && !unknown)) continue;
    const std::string text = read_file(file);
    // yaml-cpp recurses: no kubeconfig is nested deeply.
    if (depth_of(text) > kMaxDepth) refuse(file, "is nested too deeply");
    try {
      YAML::Node document = YAML::Load(text);
      found = true;
      if (document.IsNull()) continue;  // empty, or nothing but comments
      if (!document.IsMap()) refuse(file, "is no map of keys");
      out.documents.emplace_back(file, std::move(document));
    } catch (const YAML::Exception& e) {
      refuse(file, std::string("is no YAML: ") + e.what());
    }
  }
  if (!found) refuse(list, "there is no such file");
  return out;
}

std::string current_context(const Config& config) {
  for (const auto& [file, document] : config.documents) {
    const YAML::Node name = document["current-context"];
    if (name && name.IsScalar() && !name.Scalar().empty()) return name.Scalar();
  }
  refuse(config.files, "has no current-context: give config.context");
}

Server read_server(const Entry& cluster, std::string& ca_file) {
  Server out;
  out.url = cluster.text("server");
  while (!out.url.empty() && out.url.back() == '/') out.url.pop_back();
  const bool http = out.url.rfind("http://", 0) == 0;
  if (!http && out.url.rfind("https://", 0) != 0) {
    refuse(cluster.file, cluster.path + ".server must begin with https://");
  }
  out.ca = cluster.data("certificate-authority-data");
  if (out.ca.empty()) ca_file = cluster.file_name("certificate-authority");
  if (!ca_file.empty()) (void)read_file(ca_file);
  out.tls_name = cluster.text("tls-server-name");
  out.proxy = cluster.text("proxy-url");
  out.insecure = cluster.flag("insecure-skip-tls-verify");
  if (out.insecure && (!out.ca.empty() || !ca_file.empty())) {
    refuse(cluster.file, cluster.path +
                             ": a certificate authority and insecure-skip-tls-verify "
                             "contradict each other; leave one out");
  }
  return out;
}

std::string scalar(const Entry& where, const YAML::Node& node, const char* what) {
  if (!node || !node.IsScalar()) refuse(where.file, where.path + ": " + what + " must be a text");
  return node.Scalar();
}

ExecPlugin read_exec(const Entry& user) {
  const Entry exec{user.content["exec"], user.file, user.path + ".exec"};
  if (!exec.content.IsMap()) refuse(exec.file, exec.path + " must be a map");
  ExecPlugin out;
  out.command = exec.text("command");
  out.api_version = exec.text("apiVersion");
  out.folder = std::filesystem::path(exec.file).parent_path().string();
  out.provide_cluster = exec.flag("provideClusterInfo");
  if (out.command.empty()) refuse(exec.file, exec.path + ".command must be given");
  if (out.api_version != "client.authentication.k8s.io/v1" &&
      out.api_version != "client.authentication.k8s.io/v1beta1") {
    refuse(exec.file, exec.path + ".apiVersion must be client.authentication.k8s.io/v1");
  }
  if (exec.text("interactiveMode") == "Always") {
    refuse(exec.file, exec.path + ".interactiveMode: a daemon has no terminal; use another user");
  }
  if (const YAML::Node list = exec.content["args"]; list && !list.IsNull()) {
    if (!list.IsSequence()) refuse(exec.file, exec.path + ".args must be a list");
    for (const YAML::Node& item : list) out.arguments.push_back(scalar(exec, item, "args"));
  }
  if (const YAML::Node list = exec.content["env"]; list && !list.IsNull()) {
    if (!list.IsSequence()) refuse(exec.file, exec.path + ".env must be a list");
    for (const YAML::Node& item : list) {
      if (!item.IsMap()) refuse(exec.file, exec.path + ".env must have maps of name and value");
      out.environment.emplace_back(scalar(exec, item["name"], "env name"),
                                   scalar(exec, item["value"], "env value"));
    }
  }
  return out;
}

void read_user(const Entry& user, Access& out) {
  for (const char* key :
       {"auth-provider", "username", "password", "as", "as-uid", "as-groups", "as-user-extra"}) {
    const YAML::Node given = user.content[key];
    const bool nothing = !given || given.IsNull() || (given.IsScalar() && given.Scalar().empty());
    if (!nothing) refuse(user.file, user.path + "." + key + " is not supported");
  }
  out.token_file = user.file_name("tokenFile");
  if (out.token_file.empty()) out.token = user.text("token");
  out.certificate = user.data("client-certificate-data");
  out.key = user.data("client-key-data");
  if (out.certificate.empty()) out.certificate_file = user.file_name("client-certificate");
  if (out.key.empty()) out.key_file = user.file_name("client-key");
  const bool certificate = !out.certificate.empty() || !out.certificate_file.empty();
  const bool key = !out.key.empty() || !out.key_file.empty();
  if (certificate != key) {
    refuse(user.file, user.path + ": client-certificate and client-key must be given together");
  }
  if (user.content["exec"]) out.exec = read_exec(user);
}

}  // namespace

Access read_kubeconfig(const std::string& list, const std::string& context) {
  const Config config = load(list);
  const std::string name = context.empty() ? current_context(config) : context;
  const Entry entry = config.find("contexts", "context", name);
  Access out;
  out.server = read_server(config.find("clusters", "cluster", entry.text("cluster")), out.ca_file);
  if (const std::string user = entry.text("user"); !user.empty()) {
    read_user(config.find("users", "user", user), out);
  }
  if (std::string ns = entry.text("namespace"); !ns.empty()) out.ns = std::move(ns);
  out.origin = "kubeconfig " + entry.file + ", context " + name;
  return out;
}

}  // namespace egw::kube
