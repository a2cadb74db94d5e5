// EgressTunnel to and from JSON.
#include "egw/model/codec_support.hpp"

namespace egw::model {
namespace {

using detail::put;
using detail::put_object;
using nlohmann::json;

constexpr std::pair<std::string_view, TunnelPhase> kPhases[] = {
    {"Pending", TunnelPhase::kPending},
    {"Init", TunnelPhase::kInit},
    {"Failed", TunnelPhase::kFailed},
    {"Ready", TunnelPhase::kReady},
    {"HeartbeatTimeout", TunnelPhase::kHeartbeatTimeout},
    {"NodeNotReady", TunnelPhase::kNodeNotReady},
};

void read_phase(const Cursor& c, EgressTunnel::Status& out) {
  std::string word;
  c.get(word);
  if (word.empty()) return;
  for (const auto& [known, value] : kPhases) {
    if (known == word) {
      out.phase = value;
      return;
    }
  }
  out.phase = TunnelPhase::kUnknown;
  out.phase_word = std::move(word);
}

void read_tunnel(const Cursor& c, EgressTunnel& out) {
  const Cursor status = c["status"];
  const Cursor tunnel = status["tunnel"];
  tunnel["ipv4"].get(out.status.ipv4);
  tunnel["ipv6"].get(out.status.ipv6);
  tunnel["mac"].get(out.status.mac);
  const Cursor parent = tunnel["parent"];
  parent["name"].get(out.status.parent.name);
  parent["ipv4"].get(out.status.parent.ipv4);
  parent["ipv6"].get(out.status.parent.ipv6);
  parent["mac"].get(out.status.parent.mac);
  parent["macs"].get(out.status.parent.macs);
  status["mark"].get(out.status.mark);
  read_phase(status["phase"], out.status);
  status["lastHeartbeatTime"].get_time(out.status.last_heartbeat_ms);
  const Cursor realised = status["realised"];
  realised["term"].get_uint(out.status.realised.term);
  realised["revision"].get_uint(out.status.realised.revision);
  status["unreachable"].get(out.status.unreachable);
  status["lostSubnets"].get(out.status.lost_subnets);
  detail::read_conditions(status["conditions"], out.status.conditions);
}

json status_json(const EgressTunnel::Status& s) {
  json out = json::object();
  if (s == EgressTunnel::Status{}) return out;
  json parent = json::object();
  put(parent, "name", s.parent.name);
  put(parent, "ipv4", s.parent.ipv4);
  put(parent, "ipv6", s.parent.ipv6);
  put(parent, "mac", s.parent.mac);
  put(parent, "macs", s.parent.macs);
  json tunnel = json::object();
  put(tunnel, "ipv4", s.ipv4);
  put(tunnel, "ipv6", s.ipv6);
  put(tunnel, "mac", s.mac);
  put_object(tunnel, "parent", std::move(parent));
  put_object(out, "tunnel", std::move(tunnel));
  put(out, "mark", s.mark);
  out["phase"] = s.phase == TunnelPhase::kUnknown ? s.phase_word : to_string(s.phase);
  // Milliseconds: with update periods under a second two heartbeats must not read the same.
  if (s.last_heartbeat_ms != 0) out["lastHeartbeatTime"] = format_micro_time(s.last_heartbeat_ms);
  if (s.realised != Realised{}) {
    out["realised"] = {{"term", s.realised.term}, {"revision", s.realised.revision}};
  }
  put(out, "unreachable", s.unreachable);
  put(out, "lostSubnets", s.lost_subnets);
  put_object(out, "conditions", detail::conditions_json(s.conditions));
  return out;
}

}  // namespace

std::string_view to_string(TunnelPhase phase) {
  for (const auto& [text, value] : kPhases) {
    if (value == phase) return text;
  }
  return "Unknown";
}

std::string tunnel_phases() {
  std::string out;
  for (const auto& [text, value] : kPhases) out.append(out.empty() ? "" : ", ").append(text);
  return out;
}

template <>
EgressTunnel decode(const json& document, std::vector<Error>& faults) {
  return detail::read_document<EgressTunnel>(document, faults, read_tunnel);
}

template <>
json encode_status(const EgressTunnel& resource) {
  json out = status_json(resource.status);
  detail::restore_unknown(Kind::kEgressTunnel, resource.unknown_status, out);
  return out;
}

template <>
json encode(const EgressTunnel& resource) {
  json out = detail::document_of(info(Kind::kEgressTunnel), resource.meta);
  out["spec"] = json::object();
  put_object(out, "status", encode_status(resource));
  return out;
}

}  // namespace egw::model
