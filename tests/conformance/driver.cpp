// egw-datapath-driver: holds one datapath plugin open through the real plugin host and does what it
// is told, a JSON document per line on stdin, an answer per line on stdout. It runs inside the
// namespaces of the node that it stands for. Used by the conformance kit (rig.py), by tests/netns
// and tests/bench. What the plugin itself writes to stdout goes to stderr: the answers have a
// descriptor of their own.
//
// usage: egw-datapath-driver PLUGIN_DIR NAME STATE_DIR [CONFIG_JSON]
// {"op": "apply", "change": {...}} | {"op": "apply", "file": PATH}
// (framework/model/node_state_codec.hpp)
// {"op": "plugin"}: who it is and what it offers
// {"op": "probe", "node": {...}} | sysctls | observe | counters | health | purge | {"op": "forget",
// "eip": A}
// {"op": "hand_over", "node": {...}}: another datapath goes on with what both share
// {"op": "drift", "timeoutMs": n}: waits for the plugin's next word that somebody changed the
// kernel
#include <fcntl.h>
#include <unistd.h>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <cstdio>
#include <fstream>
#include <iostream>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>

#include "egw/host/plugin_host.hpp"
#include "egw/model/node_state_codec.hpp"

namespace {

namespace asio = boost::asio;
using egw::host::Datapath;
using nlohmann::json;

json error_json(const egw::Error& error) { return {{"ok", false}, {"error", error.to_string()}}; }

template <class T>
json plain(const egw::Result<T>& result) {
  return result ? json{{"ok", true}} : error_json(result.error());
}

asio::awaitable<json> apply(Datapath& datapath, const json& request) {
  json document;
  if (request.contains("file")) {
    const auto path = request["file"].get<std::string>();
    std::ifstream in(path);
    if (!in) co_return json{{"ok", false}, {"error", path + ": cannot be opened"}};
    document = json::parse(in);
  } else {
    document = request.at("change");
  }
  auto change = egw::model::decode_change(document);
  if (!change) co_return error_json(change.error());
  const auto outcome = co_await datapath.apply(std::move(*change));
  if (!outcome) co_return error_json(outcome.error());
  json answer = {{"ok", true}, {"needFull", outcome->need_full}, {"tookUs", outcome->took.count()}};
  answer["failures"] = json::array();
  for (const auto& f : outcome->failures) {
    answer["failures"].push_back(
        {{"object", f.object}, {"errno", f.sys_errno}, {"message", f.message}});
  }
  answer["repaired"] = json::object();
  for (const auto& [what, count] : outcome->repaired) answer["repaired"][what] = count;
  co_return answer;
}

asio::awaitable<json> probe(Datapath& datapath, const json& request) {
  auto node = egw::model::decode_node_config(request.at("node"));
  if (!node) co_return error_json(node.error());
  const auto findings = co_await datapath.probe(std::move(*node));
  if (!findings) co_return error_json(findings.error());
  json answer = {{"ok", true}, {"findings", json::array()}};
  for (const auto& f : *findings) {
    answer["findings"].push_back(
        {{"ok", f.ok}, {"advisory", f.advisory}, {"code", f.code}, {"message", f.message}});
  }
  co_return answer;
}

asio::awaitable<json> hand_over(Datapath& datapath, const json& request) {
  auto node = egw::model::decode_node_config(request.at("node"));
  if (!node) co_return error_json(node.error());
  co_return plain(co_await datapath.hand_over(std::move(*node)));
}

// Writes what the datapath asks for, as the host does on a real node.
asio::awaitable<json> sysctls(Datapath& datapath) {
  const auto needs = co_await datapath.sysctls();
  if (!needs) co_return error_json(needs.error());
  json answer = {{"ok", true}, {"sysctls", json::array()}};
  for (const auto& n : *needs) {
    std::ofstream("/proc/sys/" + n.key) << n.value;
    answer["sysctls"].push_back(
        {{"key", n.key}, {"value", n.value}, {"why", n.why}, {"forwarding", n.forwarding}});
  }
  co_return answer;
}

json plugin(const egw::host::PluginInfo& info) {
  return {{"ok", true},
          {"name", info.name},
          {"version", info.version},
          {"abi", std::to_string(info.abi_major) + "." + std::to_string(info.abi_minor)},
          {"capabilities", info.capabilities}};
}

asio::awaitable<json> counters(Datapath& datapath) {
  const auto values = co_await datapath.counters();
  if (!values) co_return error_json(values.error());
  json answer = {{"ok", true}, {"counters", json::object()}};
  for (const auto& v : *values) {
    answer["counters"][v.labels.empty() ? v.name : v.name + "{" + v.labels + "}"] = v.value;
  }
  co_return answer;
}

class Driver {
 public:
  Driver(Datapath& datapath, egw::host::PluginInfo info)
      : datapath_(datapath), info_(std::move(info)) {
    datapath_.on_drift([this](const std::string& what) {
      drift_ = what;
      if (waiting_ != nullptr) waiting_->cancel();
    });
  }

  asio::awaitable<json> handle(const json& request) {
    const std::string op = request.at("op");
    if (op == "apply") co_return co_await apply(datapath_, request);
    if (op == "plugin") co_return plugin(info_);
    if (op == "probe") co_return co_await probe(datapath_, request);
    if (op == "sysctls") co_return co_await sysctls(datapath_);
    if (op == "counters") co_return co_await counters(datapath_);
    if (op == "health") co_return plain(co_await datapath_.health());
    if (op == "purge") co_return plain(co_await datapath_.purge());
    if (op == "hand_over") co_return co_await hand_over(datapath_, request);
    if (op == "drift") co_return co_await drift(request.value("timeoutMs", 1000));
    if (op == "forget") {
      const auto eip = egw::model::Address::parse(request.at("eip").get<std::string>());
      if (!eip) co_return error_json(eip.error());
      co_return plain(co_await datapath_.forget(*eip));
    }
    if (op == "observe") {
      auto seen = co_await datapath_.observe();
      if (!seen) co_return error_json(seen.error());
      co_return json{{"ok", true}, {"observed", std::move(*seen)}};
    }
    co_return json{{"ok", false}, {"error", "unknown op " + op}};
  }

 private:
  asio::awaitable<json> drift(int timeout_ms) {
    if (!drift_) {
      asio::steady_timer timer(co_await asio::this_coro::executor);
      timer.expires_after(std::chrono::milliseconds(timeout_ms));
      waiting_ = &timer;
      boost::system::error_code ignored;
      co_await timer.async_wait(asio::redirect_error(asio::use_awaitable, ignored));
      waiting_ = nullptr;
    }
    json answer = {{"ok", drift_.has_value()}};
    if (drift_) answer["drift"] = *drift_;
    drift_.reset();
    co_return answer;
  }

  Datapath& datapath_;
  egw::host::PluginInfo info_;
  std::optional<std::string> drift_;
  asio::steady_timer* waiting_ = nullptr;
};

asio::awaitable<void> answer_line(Driver& driver, const std::string& line, std::FILE* answers) {
  json answer;
  try {
    const json request = json::parse(line);
    answer = co_await driver.handle(request);
  } catch (const std::exception& e) {
    answer = {{"ok", false}, {"error", e.what()}};
  }
  std::fprintf(answers, "%s\n", answer.dump().c_str());
  std::fflush(answers);
}

// Where the answers go: what stdout was. From here on stdout is stderr, for everybody in the
// process; children that a plugin executes do not get it.
std::FILE* own_answers() {
  const int fd = fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, 3);
  if (fd < 0 || dup2(STDERR_FILENO, STDOUT_FILENO) < 0) return nullptr;
  return fdopen(fd, "w");
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 4) {
    std::fprintf(stderr, "usage: egw-datapath-driver PLUGIN_DIR NAME STATE_DIR [CONFIG_JSON]\n");
    return 2;
  }
  std::FILE* const answers = own_answers();
  if (answers == nullptr) {
    std::perror("egw-datapath-driver: stdout");
    return 2;
  }
  asio::io_context io;
  egw::host::Deadlines deadlines;
#ifdef __SANITIZE_ADDRESS__
  // Several times as slow, and a probe's child copies the sanitizer's memory, too.
  for (auto* deadline : {&deadlines.apply, &deadlines.call, &deadlines.open}) *deadline *= 4;
#endif
  egw::host::PluginHost host(
      argv[1], io.get_executor(),
      [](int level, std::string_view plugin, std::string_view message) {
        std::cerr << level << ' ' << plugin << ": " << message << '\n';
      },
      deadlines);
  const json config = argc > 4 ? json::parse(argv[4], nullptr, false) : json::object();
  if (config.is_discarded()) {
    std::fprintf(stderr, "egw-datapath-driver: CONFIG_JSON is no JSON: %s\n", argv[4]);
    return 2;
  }
  auto datapath = host.open_datapath(argv[2], config, argv[3]);
  if (!datapath) {
    std::fprintf(stderr, "%s\n", datapath.error().to_string().c_str());
    return 1;
  }
  auto info = host.inspect(egw::host::PluginKind::kDatapath, argv[2]);
  if (!info) {
    std::fprintf(stderr, "%s\n", info.error().to_string().c_str());
    return 1;
  }
  Driver driver(**datapath, std::move(*info));
  for (std::string line; std::getline(std::cin, line);) {
    asio::co_spawn(io, answer_line(driver, line, answers), asio::detached);
    io.restart();
    io.run();
  }
  return 0;
}
