// `egw vip move`: has the leader move an EIP to another node of its gateway, and waits for the
// answer.
#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <chrono>
#include <optional>
#include <utility>

#include "egw/app/annotate.hpp"
#include "egw/app/console.hpp"
#include "egw/app/read_world.hpp"
#include "egw/app/verbs.hpp"
#include "egw/core/plan.hpp"

namespace egw::app {
namespace {

using nlohmann::json;
using std::chrono::milliseconds;

struct Request {
  std::string gateway, eip, to;
  [[nodiscard]] std::string annotation() const { return json{{"eip", eip}, {"to", to}}.dump(); }
};

struct Place {
  std::string node;
  std::string pair;         // "10.6.1.56/fd00::55"
  std::string moving_from;  // while the former owner has not handed over
};

// Where the EIP is according to the gateway's status.
std::optional<Place> place_of(const model::EgressGateway& gateway, const std::string& eip) {
  for (const auto& node : gateway.status.node_list) {
    for (const auto& entry : node.eips) {
      if (entry.ipv4 != eip && entry.ipv6 != eip) continue;
      const bool pair = !entry.ipv4.empty() && !entry.ipv6.empty();
      return Place{node.name, entry.ipv4 + (pair ? "/" : "") + entry.ipv6, entry.moving_from};
    }
  }
  return std::nullopt;
}

// What the leader would answer now: its own plan, with the request in it. Heartbeats that it has
// seen run out stand in the tunnels' phases.
std::string refusal(model::World world, const model::Settings& settings, const Request& request) {
  auto& gateway = world.gateways.at(request.gateway);
  gateway.meta.annotations[std::string(model::kMoveAnnotation)] = request.annotation();
  core::PlanInput input;
  input.world = &world;
  input.settings = &settings;
  for (const auto& [name, g] : world.gateways) input.term = std::max(input.term, g.status.term);
  for (const auto& [name, i] : world.cluster_infos) {
    input.term = std::max(input.term, i.status.term);
  }
  // As after that leader's stamp; and without an earlier answer, so that this one is in the plan.
  for (auto& [name, g] : world.gateways) g.status.term = input.term;
  model::remove_condition(gateway.status.conditions, "MoveDone");
  model::remove_condition(gateway.status.conditions, "MoveRefused");
  core::observe(input);
  for (const core::Write& write : core::plan(input).writes) {
    const auto* planned = std::get_if<core::WriteGateway>(&write);
    if (planned == nullptr || planned->gateway.meta.name != request.gateway) continue;
    const auto* refused = model::find_condition(planned->gateway.status.conditions, "MoveRefused");
    return refused == nullptr ? std::string() : refused->message;
  }
  return "the cluster has no EgressClusterInfo yet: is a controller running?";
}

// The leader has taken the annotation off and, when the EIP moves, the former owner has handed
// over.
bool answered(const model::EgressGateway& gateway, const std::string& eip) {
  if (gateway.meta.annotations.contains(std::string(model::kMoveAnnotation))) return false;
  const auto place = place_of(gateway, eip);
  return !place || place->moving_from.empty();
}

// Follows the gateway until the request is answered.
Result<WatchEnd> follow(Session& session, const Request& request, milliseconds limit,
                        model::EgressGateway& last) {
  host::Query query{model::Kind::kEgressGateway, "", request.gateway, "", ""};
  return session.watch(
      {std::move(query)},
      [&](std::size_t, const host::StoreEvent& event) {
        if (event.type != host::StoreEvent::Type::kUpsert) return true;
        auto decoded = model::decode<model::EgressGateway>(event.document);
        if (!decoded) return true;
        last = *std::move(decoded);
        return !answered(last, request.eip);
      },
      limit);
}

// The gateway as it is now: what the watch saw last may be older than what ended it.
void look_again(Session& session, const Request& request, model::EgressGateway& last) {
  const auto stored = session.get(model::Kind::kEgressGateway, {"", request.gateway});
  if (!stored) return;  // what was seen before stays the last word
  auto decoded = model::decode<model::EgressGateway>(stored->document);
  if (decoded) last = *std::move(decoded);
}

// The end was not waited for. The leader writes where the EIP goes before it takes the request off.
int say_unfinished(Context& context, const Request& request, const model::EgressGateway& last,
                   WatchEnd end, milliseconds limit) {
  const bool interrupted = end == WatchEnd::kInterrupted;
  const auto seconds = limit.count() / 1000;
  const auto when =
      interrupted ? std::string("when this was interrupted") : fmt::format("after {} s", seconds);
  const bool asked = last.meta.annotations.contains(std::string(model::kMoveAnnotation));
  const auto place = place_of(last, request.eip);
  std::string what;
  if (!place || (asked && place->node != request.to)) {
    what = fmt::format("{}; the request stays (annotation {}): egw status says who leads",
                       interrupted ? std::string("interrupted")
                                   : fmt::format("no leader has answered within {} s", seconds),
                       model::kMoveAnnotation);
  } else if (!place->moving_from.empty()) {
    what = fmt::format("{} is on {} now, but {} had not handed over {}: egw status shows it",
                       place->pair, place->node, place->moving_from, when);
  } else {
    what = fmt::format(
        "{} is on {} now, but the leader had not taken the request off {} "
        "(annotation {}): egw status says who leads",
        place->pair, place->node, when, model::kMoveAnnotation);
  }
  context.console.error(fmt::format("egressgateway \"{}\": {}", request.gateway, what));
  return kRefused;
}

int say_refused(Context& context, const Request& request, const std::string& why) {
  context.console.error(fmt::format("egressgateway \"{}\": {} not moved to {}: {}", request.gateway,
                                    request.eip, request.to, why));
  return kRefused;
}

std::optional<milliseconds> parse_seconds(const std::string& text) {
  unsigned value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || value < 1 || value > 3600) {
    return std::nullopt;
  }
  return std::chrono::seconds(value);
}

int move(Context& context, Session& session, const Request& request, const Place& from,
         milliseconds limit) {
  const auto begin = std::chrono::steady_clock::now();
  const auto asked = annotate(session, model::Kind::kEgressGateway, {"", request.gateway},
                              model::kMoveAnnotation, request.annotation(), true);
  if (!asked) return say_refused(context, request, asked.error().to_string());
  model::EgressGateway last;
  const auto end = follow(session, request, limit, last);
  if (!end) return say_refused(context, request, end.error().to_string());
  if (*end != WatchEnd::kSeen) {
    look_again(session, request, last);
    const bool seen = !last.meta.name.empty();
    if (!seen || !answered(last, request.eip)) {
      return say_unfinished(context, request, last, *end, limit);
    }
  }
  const auto place = place_of(last, request.eip);
  if (!place || place->node != request.to) {
    const auto* refused = model::find_condition(last.status.conditions, "MoveRefused");
    return say_refused(
        context, request,
        refused != nullptr ? refused->message : "somebody else has moved it since; see egw status");
  }
  const auto took =
      std::chrono::duration_cast<milliseconds>(std::chrono::steady_clock::now() - begin);
  context.console.out(fmt::format("egressgateway/{}: {} moved from {} to {} in {} ms\n",
                                  request.gateway, place->pair, from.node, request.to,
                                  took.count()));
  return finish(context, kDone);
}

int run_vip(Context& context) {
  const auto& args = context.args;
  Request request{args.positional[0], "", args.get("to")};
  if (request.to.empty()) return usage_error(context, "vip move", "--to NODE is missing");
  const auto address = model::Address::parse(args.positional[1]);
  if (!address) return usage_error(context, "vip move", address.error().to_string());
  request.eip = address->to_string();
  const auto limit = parse_seconds(args.get("timeout", "30"));
  if (!limit) {
    return usage_error(
        context, "vip move",
        fmt::format("--timeout is \"{}\"; expected 1 to 3600 seconds", args.get("timeout")));
  }
  int code = kDone;
  const auto config = load(context, code);
  if (config == nullptr) return code;
  const auto session = open_store(context, *config, code);
  if (session == nullptr) return code;
  std::vector<Unreadable> unreadable;
  auto world = read_world(*session, unreadable);
  if (!world) {
    context.console.error(world.error().to_string());
    return kRefused;
  }
  warn_of(context.console, unreadable);
  const auto gateway = world->gateways.find(request.gateway);
  if (gateway == world->gateways.end()) {
    context.console.error(fmt::format("egressgateways \"{}\" not found", request.gateway));
    return kRefused;
  }
  const auto from = place_of(gateway->second, request.eip);
  if (const auto why = refusal(*world, config->runtime.settings, request); !why.empty()) {
    return say_refused(context, request, why);
  }
  if (from && from->node == request.to && from->moving_from.empty()) {
    context.console.out(fmt::format("egressgateway/{}: {} is on {} already\n", request.gateway,
                                    from->pair, request.to));
    return finish(context, kDone);
  }
  Place was = from.value_or(Place{"no node", request.eip, ""});
  if (was.node == request.to) was.node = was.moving_from;  // asked for before, and under way
  if (args.has("dry-run")) {
    context.console.out(fmt::format("egressgateway/{}: {} would move from {} to {} (dry run)\n",
                                    request.gateway, was.pair, was.node, request.to));
    return finish(context, kDone);
  }
  return move(context, *session, request, was, *limit);
}

}  // namespace

Verb vip_move_verb() {
  Verb v;
  v.name = "vip move";
  v.usage = "GATEWAY EIP --to NODE [--dry-run] [--timeout SECONDS]";
  v.summary = "Move an EIP to another node of its gateway";
  v.details =
      "The leader hands it over without losing a packet of a pod on another node; the command ends "
      "when it\nhas. Refused, with the reason and exit code 1, when the node is not Ready, is "
      "being "
      "drained, or is not\none that the gateway selects. IPv4 and IPv6 of a pair move together. An "
      "EIP that was moved stays where it\nis until its node fails.\n\n"
      "examples:\n"
      "  egw vip move egw 10.6.1.56 --to n3\n"
      "  egw vip move egw 10.6.1.56 --to n3 --dry-run";
  v.options = {
      {"to", 0, "NODE", "the node that is to own it"},
      {"dry-run", 0, "", "say what would happen; ask nobody"},
      {"timeout", 0, "SECONDS", "how long to wait for the leader's answer (default: 30)"},
  };
  v.min_args = v.max_args = 2;
  v.run = run_vip;
  return v;
}

}  // namespace egw::app
