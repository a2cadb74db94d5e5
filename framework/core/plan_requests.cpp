// Requests of people to move an EIP: annotation egressgateway.spidernet.io/move on
// the gateway, {"eip": "10.6.1.60", "to": "node2"}. The answer is a condition, MoveDone or
// MoveRefused; when it is stored, the annotation goes.
#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#include "egw/core/plan_parts.hpp"

namespace egw::core::parts {
namespace {

using nlohmann::json;

constexpr std::size_t kMaxRequest = 1000;  // bytes; an address and a node name need far less

model::Condition refused(std::string_view reason, std::string message) {
  return {"MoveRefused", true, std::string(reason), std::move(message), 0};
}

struct Request {
  model::Address eip;
  std::string to;
};

// Empty reason on success.
std::string parse(const std::string& text, Request& out) {
  constexpr std::string_view kWanted = "want {\"eip\": \"ADDRESS\", \"to\": \"NODE\"}";
  if (text.size() > kMaxRequest)
    return fmt::format("longer than {} bytes; {}", kMaxRequest, kWanted);
  const json j = json::parse(text, nullptr, false);
  if (!j.is_object()) return fmt::format("not a JSON object; {}", kWanted);
  for (const auto& [key, value] : j.items()) {
    if (key != "eip" && key != "to") return fmt::format("unknown key \"{}\"; {}", key, kWanted);
    if (!value.is_string()) return fmt::format("\"{}\" is not a string; {}", key, kWanted);
  }
  if (!j.contains("eip") || !j.contains("to")) return std::string(kWanted);
  const auto address = model::Address::parse(j["eip"].get_ref<const std::string&>());
  if (!address) return address.error().message;
  out.eip = *address;
  out.to = j["to"].get<std::string>();
  return {};
}

model::Condition answer(Draft& d, GatewayDraft& g, const std::string& text) {
  Request request;
  if (std::string why = parse(text, request); !why.empty()) {
    return refused("InvalidRequest", fmt::format("annotation {}: {}", model::kMoveAnnotation, why));
  }
  const auto entry = std::find_if(g.entries.begin(), g.entries.end(), [&](const Entry& e) {
    return e.v4 == request.eip || e.v6 == request.eip;
  });
  if (entry == g.entries.end()) {
    return refused("EipNotFound",
                   fmt::format("{} is not an EIP of this gateway now", request.eip.to_string()));
  }
  if (entry->taken) return refused("PoolConflict", g.pool_conflict);
  const int target = d.find_node(request.to);
  if (target == kNobody || !std::binary_search(g.nodes.begin(), g.nodes.end(), target)) {
    return refused("NodeNotSelected",
                   fmt::format("node {} is not one that the nodeSelector matches", request.to));
  }
  if (entry->owner_before != request.to) {
    const NodeView& node = d.node(target);
    if (node.draining) {
      return refused("TargetDraining",
                     fmt::format("node {} is being drained and takes no EIP", request.to));
    }
    if (!node.may_take()) {
      return refused("TargetNotReady", fmt::format("node {} is {}, not Ready", request.to,
                                                   node.stale         ? "HeartbeatTimeout"
                                                   : node.unreachable ? "Unreachable"
                                                   : node.node->ready ? to_string(node.phase)
                                                                      : "NodeNotReady"));
    }
  }
  if (!d.node(target).reaches(entry->eip)) {
    return refused("TargetNotReady", fmt::format("node {} has lost the interface with the subnet "
                                                 "of {}",
                                                 request.to, request.eip.to_string()));
  }
  entry->request = target;
  return {"MoveDone", true, "MoveDone",
          fmt::format("{} is on node {}", request.eip.to_string(), request.to), 0};
}

}  // namespace

void read_requests(Draft& d) {
  for (GatewayDraft& g : d.gateways) {
    const auto& annotations = g.gateway->meta.annotations;
    const auto text = annotations.find(std::string(model::kMoveAnnotation));
    if (text == annotations.end()) continue;
    g.answer = answer(d, g, text->second);
    if (g.answer->type != "MoveRefused") continue;
    const model::Condition* before = find_condition(g.gateway->status.conditions, "MoveRefused");
    if (before != nullptr && before->message == g.answer->message) continue;
    d.notice(Notice::Level::kWarning, model::Kind::kEgressGateway, g.gateway->meta.key(),
             "MoveRefused", g.answer->message);
  }
}

}  // namespace egw::core::parts
