// See server.hpp.
#include "kube/support/server.hpp"

#include <fcntl.h>
#include <netinet/in.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/rsa.h>
#include <signal.h>
#include <spawn.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <stdexcept>
#include <thread>

#include "access.hpp"
#include "api.hpp"
#include "kube/support/crds.hpp"

extern char** environ;

namespace egw::kube::test {

using namespace std::chrono_literals;
using std::chrono::steady_clock;

namespace {

int free_port() {
  const int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t length = sizeof(address);
  const bool ok = ::bind(fd, reinterpret_cast<sockaddr*>(&address), length) == 0 &&
                  ::getsockname(fd, reinterpret_cast<sockaddr*>(&address), &length) == 0;
  ::close(fd);
  if (!ok) throw std::runtime_error("no free port");
  return ntohs(address.sin_port);
}

void write_file(const std::string& path, const std::string& text) {
  std::ofstream out(path);
  out << text;
  if (!out.flush()) throw std::runtime_error("cannot write " + path);
}

std::string contents(const std::string& path) {
  std::ifstream in(path);
  return {std::istreambuf_iterator<char>(in), {}};
}

void write_key(const std::string& path) {
  EVP_PKEY* key = ::EVP_RSA_gen(2048);
  FILE* file = std::fopen(path.c_str(), "w");
  const bool ok = key != nullptr && file != nullptr &&
                  ::PEM_write_PrivateKey(file, key, nullptr, nullptr, 0, nullptr, nullptr) == 1;
  if (file != nullptr) std::fclose(file);
  ::EVP_PKEY_free(key);
  if (!ok) throw std::runtime_error("cannot make " + path);
}

// Ends with this process, even when that is killed.
pid_t spawn(std::vector<std::string> arguments, const std::string& log) {
  std::vector<char*> argv;
  for (std::string& a : arguments) argv.push_back(a.data());
  argv.push_back(nullptr);
  const pid_t parent = ::getpid();
  const pid_t pid = ::fork();
  if (pid < 0) throw std::runtime_error("fork");
  if (pid > 0) return pid;
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (::getppid() != parent) ::_exit(127);
  const int fd = ::open(log.c_str(), O_WRONLY | O_CREAT | O_APPEND, 0600);
  ::dup2(fd, 1);
  ::dup2(fd, 2);
  ::execv(argv[0], argv.data());
  ::_exit(127);
}

void end_process(pid_t& pid) {
  if (pid <= 0) return;
  ::kill(pid, SIGKILL);
  ::waitpid(pid, nullptr, 0);
  pid = -1;
}

// Which API server, and what of it is switched off: see server.hpp.
std::string environment(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

std::string programs() {
  const std::string command = EGW_KUBE_BUILD_SERVERS " " + environment("EGW_TEST_KUBERNETES");
  FILE* pipe = ::popen(command.c_str(), "r");
  std::string out;
  std::array<char, 4096> chunk{};
  while (pipe != nullptr && std::fgets(chunk.data(), chunk.size(), pipe) != nullptr) {
    out += chunk.data();
  }
  if (pipe == nullptr || ::pclose(pipe) != 0) {
    throw std::runtime_error("tests/kube/build-servers failed");
  }
  while (!out.empty() && out.back() == '\n') out.pop_back();
  return out;
}

constexpr const char* kAuditPolicy = R"(apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- level: Metadata
)";

}  // namespace

ApiServer& ApiServer::shared() {
  static ApiServer server(open_crds());
  return server;
}

ApiServer::ApiServer(const std::vector<json>& crds, std::vector<std::string> more_flags)
    : more_flags_(std::move(more_flags)), programs_(programs()) {
  std::string name = "/tmp/egw-kube-XXXXXX";
  if (::mkdtemp(name.data()) == nullptr) throw std::runtime_error("mkdtemp " + name);
  folder_ = name;
  write_key(file("sa.key"));
  write_file(file("audit.yaml"), kAuditPolicy);
  write_file(file("tokens.csv"),
             "admintoken,admin,admin,\"system:masters\"\n"
             "nobodytoken,nobody,nobody\n");
  start_etcd();
  port_ = free_port();
  url_ = "https://127.0.0.1:" + std::to_string(port_);
  start_server();
  wait_ready();
  for (const json& crd : crds) {
    request("POST", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", crd);
  }
  for (const char* ns : {"a", "b", "d", "x", "y"}) {
    request("POST", "/api/v1/namespaces", {{"metadata", {{"name", ns}}}});
  }
  // Served a moment after they were accepted.
  for (const json& crd : crds) {
    const std::string path = "/apis/" + crd["spec"]["group"].get<std::string>() + "/v1beta1/" +
                             crd["spec"]["names"]["plural"].get<std::string>();
    const auto until = steady_clock::now() + 20s;
    for (;;) {
      try {
        request("GET", path);
        break;
      } catch (const std::runtime_error&) {
        if (steady_clock::now() > until) throw;
        std::this_thread::sleep_for(50ms);
      }
    }
  }
}

ApiServer::~ApiServer() {
  end_process(server_);
  end_process(etcd_);
  std::error_code ec;
  std::filesystem::remove_all(folder_, ec);
}

void ApiServer::start_etcd() {
  etcd_url_ = "http://127.0.0.1:" + std::to_string(free_port());
  const std::string peer = "http://127.0.0.1:" + std::to_string(free_port());
  etcd_ = spawn({programs_ + "/etcd", "--data-dir=" + file("etcd"), "--unsafe-no-fsync",
                 "--listen-client-urls=" + etcd_url_, "--advertise-client-urls=" + etcd_url_,
                 "--listen-peer-urls=" + peer, "--initial-advertise-peer-urls=" + peer,
                 "--initial-cluster=default=" + peer, "--log-level=error"},
                file("etcd.log"));
}

void ApiServer::start_server() {
  std::vector<std::string> command = {programs_ + "/kube-apiserver",
                                      "--etcd-servers=" + etcd_url_,
                                      "--secure-port=" + std::to_string(port_),
                                      "--bind-address=127.0.0.1",
                                      "--advertise-address=127.0.0.1",
                                      "--endpoint-reconciler-type=none",
                                      "--cert-dir=" + file("certificates"),
                                      "--service-cluster-ip-range=10.96.0.0/16",
                                      "--token-auth-file=" + file("tokens.csv"),
                                      "--authorization-mode=RBAC",
                                      "--service-account-issuer=https://kubernetes.default.svc",
                                      "--service-account-key-file=" + file("sa.key"),
                                      "--service-account-signing-key-file=" + file("sa.key"),
                                      "--disable-admission-plugins=ServiceAccount",
                                      "--allow-privileged=true",
                                      "--audit-policy-file=" + file("audit.yaml"),
                                      "--audit-log-path=" + file("audit.log")};
  if (const std::string gates = environment("EGW_TEST_FEATURE_GATES"); !gates.empty()) {
    command.push_back("--feature-gates=" + gates);
  }
  command.insert(command.end(), more_flags_.begin(), more_flags_.end());
  server_ = spawn(std::move(command), file("server.log"));
}

void ApiServer::wait_ready() {
  const auto until = steady_clock::now() + 60s;
  for (;;) {
    try {
      if (std::filesystem::exists(file("certificates/apiserver.crt"))) {
        request("GET", "/readyz");
        return;
      }
    } catch (const std::runtime_error& e) {
      if (steady_clock::now() > until) {
        throw std::runtime_error(std::string("kube-apiserver does not become ready: ") + e.what() +
                                 "\n" + contents(file("server.log")));
      }
    }
    if (::waitpid(server_, nullptr, WNOHANG) == server_) {
      server_ = -1;
      throw std::runtime_error("kube-apiserver has ended:\n" + contents(file("server.log")));
    }
    std::this_thread::sleep_for(100ms);
  }
}

std::string ApiServer::kubeconfig(const std::string& user) const {
  return kubeconfig(user, user + "token");
}

std::string ApiServer::kubeconfig(const std::string& name, const std::string& token) const {
  const std::string path = file(name + ".kubeconfig");
  // JSON is YAML.
  const json cluster = {{"server", url_}, {"certificate-authority", "certificates/apiserver.crt"}};
  const json config = {
      {"apiVersion", "v1"},
      {"kind", "Config"},
      {"current-context", "test"},
      {"clusters", {{{"name", "test"}, {"cluster", cluster}}}},
      {"users", {{{"name", name}, {"user", {{"token", token}}}}}},
      {"contexts", {{{"name", "test"}, {"context", {{"cluster", "test"}, {"user", name}}}}}}};
  write_file(path, config.dump(2));
  return path;
}

json ApiServer::request(const std::string& method, const std::string& path, const json& body) {
  Api api(read_kubeconfig(kubeconfig("admin"), ""), sdk::Host());
  HttpRequest r;
  r.method = method;
  r.path = path;
  r.deadline = 10s;
  if (!body.is_null()) {
    r.body = body.dump();
    r.content_type = method == "PATCH" ? "application/merge-patch+json" : "application/json";
  }
  const HttpAnswer answer = api.call(r);
  if (!answer.success()) {
    throw std::runtime_error(method + " " + path + ": " + std::to_string(answer.code) + " " +
                             answer.error + answer.body);
  }
  return json::parse(answer.body, nullptr, false);
}

void ApiServer::clear(const std::string& collection) {
  const json all = request("GET", collection);
  for (const json& item : all["items"]) {
    const json& metadata = item["metadata"];
    std::string path = collection;
    if (metadata.contains("namespace")) {
      const std::size_t slash = collection.rfind('/');
      path = collection.substr(0, slash) + "/namespaces/" +
             metadata["namespace"].get<std::string>() + collection.substr(slash);
    }
    path += "/" + metadata["name"].get<std::string>();
    if (metadata.contains("finalizers")) {
      request("PATCH", path, {{"metadata", {{"finalizers", nullptr}}}});
      if (metadata.contains("deletionTimestamp")) continue;
    }
    request("DELETE", path, {{"gracePeriodSeconds", 0}});
  }
}

void ApiServer::stop() {
  ::kill(server_, SIGSTOP);
  ::waitpid(server_, nullptr, WUNTRACED);
}
void ApiServer::go_on() { ::kill(server_, SIGCONT); }
void ApiServer::kill() { end_process(server_); }
void ApiServer::start_again() {
  start_server();
  wait_ready();
}

void ApiServer::compact() {
  const json head = request("GET", "/api/v1/namespaces");
  const std::string revision = head["metadata"]["resourceVersion"];
  Access access;
  access.server.url = etcd_url_;
  Api etcd(access, sdk::Host());
  HttpRequest r;
  r.method = "POST";
  r.path = "/v3/kv/compaction";
  r.body = json{{"revision", revision}, {"physical", true}}.dump();
  r.content_type = "application/json";
  const HttpAnswer answer = etcd.call(r);
  if (!answer.success()) throw std::runtime_error("compaction: " + answer.error + answer.body);
}

std::vector<json> ApiServer::audit() const {
  std::vector<json> out;
  std::ifstream in(file("audit.log"));
  for (std::string line; std::getline(in, line);) {
    json entry = json::parse(line, nullptr, false);
    if (entry.is_object()) out.push_back(std::move(entry));
  }
  return out;
}

}  // namespace egw::kube::test
