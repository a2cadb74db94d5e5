// `egw uninstall`: has the agents take everything of egw out of their nodes' kernels, takes the
// finalizers off, and says which node is left. Objects stay.
//
// The request is an annotation of the EgressClusterInfo (model/resources.hpp); each agent answers
// with a condition of its tunnel. The leader plans nothing meanwhile, and takes the request off
// when the uninstall is not completed (core/plan.cpp).
#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <chrono>
#include <map>
#include <optional>
#include <set>

#include "egw/app/annotate.hpp"
#include "egw/app/console.hpp"
#include "egw/app/verbs.hpp"
#include "egw/model/codec.hpp"
#include "egw/model/text.hpp"

namespace egw::app {
namespace {

using model::Kind;
using nlohmann::json;
using std::chrono::milliseconds;

const model::Key kInfo{"", std::string(model::kClusterInfoName)};

std::int64_t now_ms() {
  using namespace std::chrono;
  return duration_cast<milliseconds>(system_clock::now().time_since_epoch()).count();
}

std::string name_of(const json& document) {
  return document.value("/metadata/name"_json_pointer, std::string());
}

// The nodes that are asked, and what they have answered.
class Nodes {
 public:
  explicit Nodes(std::string request) : request_(std::move(request)) {}
  // Those that an agent has reported of and that are still there.
  Result<void> read(Session& session) {
    auto nodes = session.list(host::Query{Kind::kNode, "", "", "", ""});
    if (!nodes) return tl::unexpected(std::move(nodes.error()));
    auto tunnels = session.list(host::Query{Kind::kEgressTunnel, "", "", "", ""});
    if (!tunnels) return tl::unexpected(std::move(tunnels.error()));
    for (const auto& node : *nodes) present_.insert(name_of(node.document));
    for (const auto& tunnel : *tunnels) take(tunnel.document);
    return {};
  }
  // Returns whether the node has answered just now.
  bool take(const json& document) {
    const auto tunnel = model::decode<model::EgressTunnel>(document);
    if (!tunnel || !present_.contains(tunnel->meta.name)) return false;
    if (tunnel->status.last_heartbeat_ms == 0) return false;  // no agent has ever been there
    State& state = all_[tunnel->meta.name];
    const bool before = state.purged;
    const auto& conditions = tunnel->status.conditions;
    const auto* purged = model::find_condition(conditions, model::kPurgedCondition);
    const auto* failed = model::find_condition(conditions, model::kPurgeFailedCondition);
    // The answer to an earlier request is none, while the agent may be about to answer this one.
    state.purged_before = purged != nullptr && purged->status;
    state.purged = purged != nullptr && purged->status && purged->message.ends_with(request_);
    state.trouble = failed != nullptr && failed->status ? failed->message : "";
    state.heard_ms = tunnel->status.last_heartbeat_ms;
    return state.purged && !before;
  }
  [[nodiscard]] bool all_purged() const {
    return std::all_of(all_.begin(), all_.end(), [](const auto& n) { return n.second.purged; });
  }
  [[nodiscard]] std::size_t count() const { return all_.size(); }
  // Nodes that an earlier uninstall has left clean, and whose agents do not run any more.
  [[nodiscard]] std::vector<std::string> purged_before() const {
    std::vector<std::string> out;
    for (const auto& [name, state] : all_) {
      if (!state.purged && state.purged_before) out.push_back(name);
    }
    return out;
  }
  // A line for each node that is left.
  [[nodiscard]] std::vector<std::string> left(std::int64_t now) const {
    std::vector<std::string> out;
    for (const auto& [name, state] : all_) {
      if (state.purged || state.purged_before) continue;
      const std::string heard = fmt::format("heard last {} s ago", (now - state.heard_ms) / 1000);
      out.push_back(fmt::format(
          "node \"{}\" is left: its agent {}; run there, when its agent has ended: egw purge "
          "--datapath all",
          name,
          state.trouble.empty() ? fmt::format("has not answered ({})", heard)
                                : "cannot purge it (" + state.trouble + ")"));
    }
    return out;
  }

 private:
  struct State {
    bool purged = false, purged_before = false;
    std::string trouble;
    std::int64_t heard_ms = 0;
  };
  const std::string request_;
  std::set<std::string> present_;
  std::map<std::string, State> all_;
};

enum class Waited { kLongEnough, kCancelled, kInterrupted };

// Until all have answered or the time is over, unless the request goes.
Result<Waited> wait_for(Context& context, Session& session, Nodes& nodes, milliseconds limit) {
  bool cancelled = false;
  std::vector<host::Query> queries{{Kind::kEgressTunnel, "", "", "", ""},
                                   {Kind::kEgressClusterInfo, "", kInfo.name, "", ""}};
  const auto on_event = [&](std::size_t query, const host::StoreEvent& event) {
    if (event.type != host::StoreEvent::Type::kUpsert) return !nodes.all_purged();
    if (query == 0) {
      if (nodes.take(event.document)) {
        context.console.out(fmt::format("node/{} purged\n", event.key.name));
      }
    } else {
      const auto info = model::decode<model::EgressClusterInfo>(event.document);
      cancelled =
          info && !info->meta.annotations.contains(std::string(model::kUninstallAnnotation));
    }
    return !cancelled && !nodes.all_purged();
  };
  if (nodes.all_purged()) return Waited::kLongEnough;
  const auto end = session.watch(std::move(queries), on_event, limit);
  if (!end) return tl::unexpected(end.error());
  if (*end == WatchEnd::kInterrupted) return Waited::kInterrupted;
  return cancelled ? Waited::kCancelled : Waited::kLongEnough;
}

// Takes ours off all objects of a kind.
Result<void> let_go(Session& session, Kind kind, std::string_view finalizer) {
  const std::string ours(finalizer);
  auto listed = session.list(host::Query{kind, "", "", "", ""});
  if (!listed) return tl::unexpected(std::move(listed.error()));
  for (auto& object : *listed) {
    const model::Key key{"", name_of(object.document)};
    for (int attempt = 1;; ++attempt) {
      json& finalizers = object.document["metadata"]["finalizers"];
      const auto found = std::find(finalizers.begin(), finalizers.end(), json(ours));
      if (found == finalizers.end()) break;
      finalizers.erase(found);
      host::WriteRequest request{host::WriteRequest::Op::kUpdate, kind, key, object.document};
      request.expected_revision = object.revision;
      auto written = session.write(std::move(request));
      if (written || written.error().code == Errc::kNotFound) break;
      if (written.error().code != Errc::kConflict || attempt == 8) {
        return tl::unexpected(std::move(written.error()));
      }
      auto again = session.get(kind, key);
      if (!again && again.error().code == Errc::kNotFound) break;
      if (!again) return tl::unexpected(std::move(again.error()));
      object = std::move(*again);
    }
  }
  return {};
}

int say(Context& context, const Error& error) {
  context.console.error(error.to_string());
  return kRefused;
}

int cancel(Context& context, Session& session) {
  const auto changed =
      annotate(session, Kind::kEgressClusterInfo, kInfo, model::kUninstallAnnotation, "", false);
  if (!changed && changed.error().code != Errc::kNotFound) return say(context, changed.error());
  context.console.out(changed && *changed ? "cancelled: the nodes are programmed again\n"
                                          : "no uninstall has been asked for\n");
  return finish(context, kDone);
}

int uninstall(Context& context, Session& session, milliseconds limit) {
  const std::string request = model::format_micro_time(now_ms());
  const auto asked = annotate(session, Kind::kEgressClusterInfo, kInfo, model::kUninstallAnnotation,
                              request, true);
  if (!asked && asked.error().code != Errc::kNotFound) return say(context, asked.error());
  Nodes nodes(request);
  if (asked) {  // else no controller has ever led here, and no agent has programmed anything
    if (auto ok = nodes.read(session); !ok) return say(context, ok.error());
    const auto waited = wait_for(context, session, nodes, limit);
    if (!waited) return say(context, waited.error());
    if (*waited == Waited::kInterrupted) {
      context.console.error(
          "interrupted: the request stays, agents go on with it, and no finalizer was taken off; "
          "egw uninstall goes on from here, egw uninstall --cancel takes it back");
      return finish(context, kRefused);
    }
    if (*waited == Waited::kCancelled) {
      context.console.error(
          "the uninstall has been cancelled meanwhile (by `egw uninstall --cancel`, or a "
          "controller "
          "has started): the nodes are programmed again; try again");
      return kRefused;
    }
  }
  for (const auto& [kind, finalizer] : {std::pair{Kind::kEgressGateway, model::kGatewayFinalizer},
                                        std::pair{Kind::kEgressTunnel, model::kTunnelFinalizer}}) {
    if (auto ok = let_go(session, kind, finalizer); !ok) return say(context, ok.error());
  }
  for (const std::string& name : nodes.purged_before()) {
    context.console.out(fmt::format("node/{} was purged before; its agent does not run\n", name));
  }
  const auto left = nodes.left(now_ms());
  for (const std::string& line : left) context.console.error(line);
  if (!left.empty()) return kRefused;
  context.console.out(fmt::format(
      "nothing is left on {}, and nothing holds objects back; end the agents and controllers "
      "within ten minutes, or {} programmed again\n",
      model::counted(nodes.count(), "node"), nodes.count() == 1 ? "the node is" : "the nodes are"));
  return finish(context, kDone);
}

int run_uninstall(Context& context) {
  const std::string text = context.args.get("timeout", "60");
  unsigned seconds = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), seconds);
  if (error != std::errc() || end != text.data() + text.size() || seconds < 1 || seconds > 500) {
    return usage_error(context, "uninstall", "--timeout: want whole seconds from 1 to 500");
  }
  int code = kDone;
  const auto session = open_store(context, code);
  if (session == nullptr) return code;
  return context.args.has("cancel") ? cancel(context, *session)
                                    : uninstall(context, *session, std::chrono::seconds(seconds));
}

}  // namespace

Verb uninstall_verb() {
  Verb v;
  v.name = "uninstall";
  v.usage = "[--timeout SECONDS] [--cancel]";
  v.summary = "Take egw out of the kernels of all nodes, before its processes are removed";
  v.details =
      "Every agent removes what it has programmed; pods then leave with the addresses that the\n"
      "network gives them. Objects stay, without finalizers. A node whose agent does not answer "
      "is\n"
      "named, and the exit code is 1. While no more is done, the leader undoes it after ten "
      "minutes.\n\n"
      "examples:\n  egw uninstall\n  egw uninstall --timeout 120\n  egw uninstall --cancel";
  v.options = {
      {"timeout", 0, "SECONDS", "how long to wait for the agents, 1 to 500 (default 60)"},
      {"cancel", 0, "", "take the request back"},
  };
  v.run = run_uninstall;
  return v;
}

}  // namespace egw::app
