// `egw agent`, `egw controller`: the long-running roles.
#include <fmt/format.h>

#include <charconv>

#include "egw/app/console.hpp"
#include "egw/app/verbs.hpp"
#include "egw/runtime/process.hpp"

namespace egw::app {
namespace {

int run_agent_verb(Context& context) {
  int code = kDone;
  const auto config = load(context, code);
  if (config == nullptr) return code;
  runtime::RuntimeConfig rt = for_role(*config, "agent");
  rt.drain_on_stop = context.args.has("drain");
  if (context.args.has("drain-timeout")) {
    if (!rt.drain_on_stop) {
      return usage_error(context, "agent", "--drain-timeout is of no use without --drain");
    }
    const std::string text = context.args.get("drain-timeout");
    unsigned seconds = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), seconds);
    if (error != std::errc{} || end != text.data() + text.size() || seconds == 0 ||
        seconds > 3600) {
      return usage_error(
          context, "agent",
          fmt::format("--drain-timeout is \"{}\"; expected 1 to 3600 seconds", text));
    }
    rt.drain_timeout = std::chrono::seconds(seconds);
  }
  return runtime::run_agent(rt);
}

int run_controller_verb(Context& context) {
  int code = kDone;
  const auto config = load(context, code);
  if (config == nullptr) return code;
  return runtime::run_controller(for_role(*config, "controller"));
}

const OptionSpec kNodeName{"node-name", 0, "NAME", "this node's name (default: the host name)"};
const OptionSpec kStateDir{"state-dir", 0, "DIR", "folder of this node's own files"};

}  // namespace

Verb agent_verb() {
  Verb v;
  v.name = "agent";
  v.summary = "Run the agent of this node until SIGTERM";
  v.details =
      "Makes the kernel of this node agree with the store, answers for the EIPs that it owns, "
      "reports\n"
      "its heartbeat. Stopping it leaves the kernel as it is: traffic goes on.\n\n"
      "examples:\n  egw agent\n  egw --config /etc/egw/egw.yaml agent --node-name n1 --drain";
  v.options = {
      kNodeName,
      kStateDir,
      {"drain", 0, "", "on SIGTERM, SIGINT or SIGHUP hand the EIPs over first"},
      {"drain-timeout", 0, "SECONDS", "stop even if they are not handed over (default: 30)"}};
  v.run = run_agent_verb;
  return v;
}

Verb controller_verb() {
  Verb v;
  v.name = "controller";
  v.summary = "Run a controller until SIGTERM";
  v.details =
      "Of several, one is elected and decides which node owns which EIP; the others stand by.\n\n"
      "example:\n  egw --config /etc/egw/egw.yaml controller";
  v.options = {kNodeName, kStateDir};
  v.run = run_controller_verb;
  return v;
}

}  // namespace egw::app
