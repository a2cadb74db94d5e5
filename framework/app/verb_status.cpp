// `egw status`: is everything well, and if not, what is wrong.
#include <fmt/format.h>

#include <chrono>
#include <filesystem>
#include <string_view>

#include "egw/app/console.hpp"
#include "egw/app/read_world.hpp"
#include "egw/app/status.hpp"
#include "egw/app/verbs.hpp"
#include "egw/app/yaml.hpp"
#include "egw/model/codec.hpp"
#include "egw/runtime/admin_client.hpp"

namespace egw::app {
namespace {

using nlohmann::json;

Result<StatusInput> gather(Session& session) {
  StatusInput in;
  Result<void> ok = read_all<model::EgressGateway>(session, in.gateways, in.unreadable);
  if (ok) ok = read_all<model::EgressPolicy>(session, in.policies, in.unreadable);
  if (ok) ok = read_all<model::EgressClusterPolicy>(session, in.policies, in.unreadable);
  if (ok) ok = read_all<model::EgressTunnel>(session, in.tunnels, in.unreadable);
  if (ok) ok = read_all<model::EgressClusterInfo>(session, in.infos, in.unreadable);
  if (!ok) return tl::unexpected(std::move(ok.error()));
  return in;
}

// Packets that the agent's datapath has dropped, by table and reason: what stands in a pod's way
// shows here first. Without an answer, nothing.
void add_drops(const std::filesystem::path& socket, json& state) {
  const auto answer = runtime::admin_call(socket, "/counters");
  if (!answer || !state.is_object()) return;
  const json counters = json::parse(*answer, nullptr, false);
  if (!counters.is_object()) return;
  json dropped = json::object();
  for (const json& c : counters.value("datapath", json::array())) {
    const auto packets = c.value("value", std::uint64_t{0});
    if (c.value("name", "") != "dropped_packets_total" || packets == 0) continue;
    dropped[c.value("labels", "")] = packets;
  }
  state["dropped"] = std::move(dropped);
}

// Asks the processes of this node by their admin sockets; the store is not needed.
int local_status(Context& context, const Config& config) {
  json answers = json::object();
  std::string why;
  for (const char* role : {"agent", "controller"}) {
    const auto socket = runtime::admin_socket(config.runtime.state_dir, role);
    auto answer = runtime::admin_call(socket, "/state");
    if (!answer) {
      why += fmt::format("{}{}", why.empty() ? "" : "; ", answer.error().to_string());
      continue;
    }
    json state = json::parse(*answer, nullptr, false);
    if (state.is_discarded()) {
      context.console.error(fmt::format("{}: the answer is not JSON", socket.string()));
      return kRefused;
    }
    if (role == std::string_view("agent")) add_drops(socket, state);
    answers[role] = std::move(state);
  }
  if (answers.empty()) {
    context.console.error(fmt::format("no agent and no controller answers here: {}", why));
    return kRefused;
  }
  const bool as_json = context.args.get("output") == "json";
  context.console.out(as_json ? write_json(answers) : write_yaml(answers));
  return finish(context, kDone);
}

int run_status(Context& context) {
  const std::string format = context.args.get("output");
  if (!format.empty() && format != "json") {
    return usage_error(context, "status", fmt::format("-o is \"{}\"; expected json", format));
  }
  if (context.args.has("state-dir") && !context.args.has("local")) {
    return usage_error(context, "status", "--state-dir is of no use without --local");
  }
  int code = kDone;
  const auto config = load(context, code);
  if (config == nullptr) return code;
  if (context.args.has("local")) return local_status(context, *config);
  const auto session = open_store(context, *config, code);
  if (session == nullptr) return code;
  auto input = gather(*session);
  if (!input) {
    context.console.error(input.error().to_string());
    return kRefused;
  }
  using namespace std::chrono;
  input->now_ms = duration_cast<milliseconds>(system_clock::now().time_since_epoch()).count();
  input->settings = config->runtime.settings;
  if (const auto led = session->led(*config); !led) {
    const bool nobody = led.error().code == Errc::kNotFound;
    (nobody ? input->leaderless : input->untold) = led.error().to_string();
  }
  const json status = make_status(*input);
  context.console.out(format == "json" ? write_json(status) : status_text(status));
  return finish(context, status["healthy"].get<bool>() ? kDone : kRefused);
}

}  // namespace

Verb status_verb() {
  Verb v;
  v.name = "status";
  v.usage = "[-o json] [--local]";
  v.summary = "Say who leads, who owns which EIP, and what is wrong";
  v.details =
      "Exit code 1 when something is wrong: it is then listed under Problems.\n"
      "--local asks the agent and the controller of this node themselves, without the store.\n\n"
      "examples:\n"
      "  egw status\n"
      "  egw status -o json\n"
      "  egw status --local";
  v.options = {
      {"output", 'o', "json", "the same as JSON"},
      {"local", 0, "", "what this node's agent and controller say of themselves"},
      {"state-dir", 0, "DIR", "with --local: the state folder of the node"},
  };
  v.run = run_status;
  return v;
}

}  // namespace egw::app
