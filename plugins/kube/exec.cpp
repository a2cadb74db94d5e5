// Runs the program of a kubeconfig's users[].user.exec and reads the ExecCredential that it prints.
// See credentials.hpp.
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <ctime>
#include <map>
#include <nlohmann/json.hpp>

#include "base64.hpp"
#include "credentials.hpp"

extern char** environ;

namespace egw::kube {

using nlohmann::json;
using sdk::Code;
using namespace std::chrono_literals;

namespace {

constexpr auto kPatience = 4000ms;  // less than the host allows a call
constexpr std::size_t kMaxOutput = 1 << 20;

std::string exec_info(const ExecPlugin& plugin, const Server& server) {
  json info = {{"apiVersion", plugin.api_version},
               {"kind", "ExecCredential"},
               {"spec", {{"interactive", false}}}};
  if (plugin.provide_cluster) {
    json& cluster = info["spec"]["cluster"];
    cluster["server"] = server.url;
    if (!server.ca.empty()) cluster["certificate-authority-data"] = encode_base64(server.ca);
    if (!server.tls_name.empty()) cluster["tls-server-name"] = server.tls_name;
    if (server.insecure) cluster["insecure-skip-tls-verify"] = true;
  }
  return info.dump();
}

// argv or envp of posix_spawn; the texts outlive it.
std::vector<char*> pointers(std::vector<std::string>& texts) {
  std::vector<char*> out;
  for (std::string& text : texts) out.push_back(text.data());
  out.push_back(nullptr);
  return out;
}

using Time = std::chrono::steady_clock::time_point;

// Whether there is something to read before the end of time.
bool wait_for(int fd, Time end) {
  const auto left =
      std::chrono::ceil<std::chrono::milliseconds>(end - std::chrono::steady_clock::now());
  struct pollfd poll_fd = {fd, POLLIN, 0};
  return left.count() > 0 && ::poll(&poll_fd, 1, static_cast<int>(left.count())) > 0;
}

// All that comes until its end; false: there is no end in time, or too much.
bool read_all(int fd, Time end, std::string& out) {
  while (out.size() <= kMaxOutput && wait_for(fd, end)) {
    char chunk[4096];
    const ssize_t n = ::read(fd, chunk, sizeof(chunk));
    if (n == 0) return true;
    if (n > 0) out.append(chunk, static_cast<std::size_t>(n));
    if (n < 0 && errno != EINTR) return false;
  }
  return false;
}

// The exit status as of waitpid; a program that does not end in time is killed.
int finish(pid_t pid, Time end, bool& in_time) {
  const int fd = static_cast<int>(::syscall(SYS_pidfd_open, pid, 0));
  in_time = in_time && fd >= 0 && wait_for(fd, end);
  if (!in_time) ::kill(pid, SIGKILL);
  if (fd >= 0) ::close(fd);
  int status = 0;
  while (::waitpid(pid, &status, 0) < 0 && errno == EINTR) {
  }
  return status;
}

// Ours, then the kubeconfig's, then what every such program gets: of one name the last counts.
std::vector<std::string> environment_of(const ExecPlugin& plugin, const std::string& info) {
  std::map<std::string, std::string> variables;
  for (char** v = environ; *v != nullptr; ++v) {
    const std::string text = *v;
    const std::size_t end = text.find('=');
    if (end != std::string::npos) variables[text.substr(0, end)] = text.substr(end + 1);
  }
  for (const auto& [name, value] : plugin.environment) variables[name] = value;
  variables["KUBERNETES_EXEC_INFO"] = info;
  std::vector<std::string> out;
  for (const auto& [name, value] : variables) out.push_back(name + "=" + value);
  return out;
}

// Standard output of the program, or why there is none.
sdk::Outcome<std::string> output_of(const ExecPlugin& plugin, const std::string& info) {
  std::string program = plugin.command;
  const bool in_path = program.find('/') == std::string::npos;
  if (!in_path && program.front() != '/') program = plugin.folder + "/" + program;
  std::vector<std::string> arguments = plugin.arguments;
  arguments.insert(arguments.begin(), program);
  std::vector<std::string> variables = environment_of(plugin, info);
  int out[2];
  if (::pipe2(out, O_CLOEXEC) != 0) return sdk::fail(Code::kUnavailable, "no pipe", program, errno);
  posix_spawn_file_actions_t actions;
  ::posix_spawn_file_actions_init(&actions);
  ::posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
  ::posix_spawn_file_actions_adddup2(&actions, out[1], 1);
  // Our threads have all signals blocked, and the process ignores SIGPIPE: not so the program.
  sigset_t none, all;
  ::sigemptyset(&none);
  ::sigfillset(&all);
  posix_spawnattr_t attributes;
  ::posix_spawnattr_init(&attributes);
  ::posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
  ::posix_spawnattr_setsigmask(&attributes, &none);
  ::posix_spawnattr_setsigdefault(&attributes, &all);
  pid_t pid = -1;
  const int error = ::posix_spawnp(&pid, program.c_str(), &actions, &attributes,
                                   pointers(arguments).data(), pointers(variables).data());
  ::posix_spawn_file_actions_destroy(&actions);
  ::posix_spawnattr_destroy(&attributes);
  ::close(out[1]);
  if (error != 0) {
    ::close(out[0]);
    return sdk::fail(Code::kUnavailable, "the credential program cannot be run", program, error);
  }
  std::string text;
  const Time end = std::chrono::steady_clock::now() + kPatience;
  bool in_time = read_all(out[0], end, text);
  ::close(out[0]);
  const int status = finish(pid, end, in_time);
  if (!in_time) {
    return sdk::fail(Code::kUnavailable,
                     "the credential program did not end within 4 s, or printed too much", program);
  }
  if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
    return sdk::fail(
        Code::kUnavailable,
        "the credential program failed" +
            (WIFEXITED(status) ? " with exit code " + std::to_string(WEXITSTATUS(status))
                               : std::string()),
        program);
  }
  return text;
}

std::string member(const json& object, const char* key) {
  const auto it = object.find(key);
  return it != object.end() && it->is_string() ? it->get<std::string>() : std::string();
}

std::int64_t unix_seconds(const std::string& rfc3339) {
  std::tm time{};
  if (::strptime(rfc3339.c_str(), "%Y-%m-%dT%H:%M:%S", &time) == nullptr) return 0;
  return ::timegm(&time);
}

}  // namespace

sdk::Outcome<ExecAnswer> run_exec_plugin(const ExecPlugin& plugin, const Server& server) {
  const auto text = output_of(plugin, exec_info(plugin, server));
  if (!text.ok()) return text.status();
  const json answer = json::parse(text.value(), nullptr, false);
  const auto status = answer.is_object() ? answer.find("status") : answer.end();
  if (!answer.is_object() || status == answer.end() || !status->is_object()) {
    return sdk::fail(Code::kUnavailable,
                     "the credential program printed no ExecCredential with a status",
                     plugin.command);
  }
  ExecAnswer out;
  out.credentials.token = member(*status, "token");
  out.credentials.certificate = member(*status, "clientCertificateData");
  out.credentials.key = member(*status, "clientKeyData");
  out.expires = unix_seconds(member(*status, "expirationTimestamp"));
  if (out.credentials.token.empty() && out.credentials.certificate.empty()) {
    return sdk::fail(Code::kUnavailable,
                     "the credential program gave neither a token nor a client certificate",
                     plugin.command);
  }
  return out;
}

}  // namespace egw::kube
