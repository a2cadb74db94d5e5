// `egw drain`, `egw undrain`: ask the leader to move a node's EIPs away; `egw purge`: leave nothing
// in this node's kernel.
#include <fmt/format.h>

#include <chrono>

#include "egw/app/annotate.hpp"
#include "egw/app/console.hpp"
#include "egw/app/verbs.hpp"
#include "egw/model/resources.hpp"
#include "egw/runtime/process.hpp"

namespace egw::app {
namespace {

int set_drain(Context& context, bool on) {
  int code = kDone;
  const auto session = open_store(context, code);
  if (session == nullptr) return code;
  using namespace std::chrono;
  const auto now = duration_cast<milliseconds>(system_clock::now().time_since_epoch()).count();
  const std::string& node = context.args.positional[0];
  const auto changed = annotate(*session, model::Kind::kEgressTunnel, {"", node},
                                model::kDrainAnnotation, on ? model::format_time(now) : "", false);
  if (!changed) {
    if (changed.error().code == Errc::kNotFound) {
      context.console.error(
          fmt::format("egresstunnels \"{}\" not found: no node of that name", node));
    } else {
      context.console.error(changed.error().to_string());
    }
    return kRefused;
  }
  const std::string what = on ? "draining" : "not draining any more";
  const std::string same = on ? "draining already" : "not draining";
  context.console.out(fmt::format("node/{} {}\n", node, *changed ? what : same));
  return finish(context, kDone);
}

int run_drain(Context& context) { return set_drain(context, true); }
int run_undrain(Context& context) { return set_drain(context, false); }

int run_purge_verb(Context& context) {
  int code = kDone;
  const auto config = load(context, code);
  if (config == nullptr) return code;
  const std::string datapath = context.args.get("datapath");
  const auto purged = runtime::run_purge(for_role(*config, "agent"), datapath);
  if (!purged) {
    context.console.error(purged.error().to_string());
    return exit_code_of(purged.error());
  }
  context.console.out(fmt::format("node/{} purged\n", config->runtime.node_name));
  return finish(context, kDone);
}

}  // namespace

Verb drain_verb() {
  Verb v;
  v.name = "drain";
  v.usage = "NODE";
  v.summary = "Move a node's EIPs to other nodes, for maintenance";
  v.details =
      "Ends at once; the leader hands the EIPs over. `egw get egt NODE -o yaml` shows the "
      "condition\n"
      "Drained. The node gets no EIP until `egw undrain NODE` or until its agent starts anew.\n\n"
      "example:\n  egw drain n2";
  v.min_args = v.max_args = 1;
  v.run = run_drain;
  return v;
}

Verb undrain_verb() {
  Verb v;
  v.name = "undrain";
  v.usage = "NODE";
  v.summary = "Let a drained node have EIPs again";
  v.details = "example:\n  egw undrain n2";
  v.min_args = v.max_args = 1;
  v.run = run_undrain;
  return v;
}

Verb purge_verb() {
  Verb v;
  v.name = "purge";
  v.usage = "[--datapath NAME|all]";
  v.summary = "Remove everything of egw from this node's kernel";
  v.details =
      "For uninstalling. Settings of the host (sysctls) that the agent changed get their old "
      "values.\n"
      "Refused while an agent runs with this state folder.\n\n"
      "examples:\n  egw purge\n  egw purge --datapath all";
  v.options = {
      {"datapath", 0, "NAME",
       "of this datapath plugin (default: those that have programmed this node), or all"},
      {"state-dir", 0, "DIR", "the node's state folder"},
  };
  v.run = run_purge_verb;
  return v;
}

}  // namespace egw::app
