// Phase and conditions of the own EgressTunnel (agent_status.hpp).
#include "egw/runtime/agent_status.hpp"

#include "egw/model/conditions.hpp"
#include "egw/model/node_state_codec.hpp"

namespace egw::runtime {
namespace {

using model::Condition;
using model::TunnelPhase;

// A condition that never was true is absent; one that was stays with status False.
void report(const AgentView& view, model::Conditions& conditions, std::string type, bool on,
            std::string reason, std::string message) {
  Condition condition;
  condition.type = std::move(type);
  condition.status = on;
  if (on) {
    condition.reason = std::move(reason);
    condition.message = std::move(message);
  } else {
    if (model::find_condition(conditions, condition.type) == nullptr) return;
    condition.reason = "Resolved";
  }
  model::set_condition(conditions, std::move(condition), view.wall_ms);
}

template <class Range, class Text>
std::string listed(const Range& range, Text text) {
  constexpr std::size_t kMost = 5;
  std::string out;
  std::size_t count = 0;
  for (const auto& item : range) {
    if (count < kMost) out += (count == 0 ? "" : "; ") + text(item);
    ++count;
  }
  if (count > kMost) out += "; and " + std::to_string(count - kMost) + " more";
  return out;
}

std::string uplink_message(const AgentView& view) {
  if (view.uplink.name.empty()) {
    return "no interface towards the outside found by tunnelDetectMethod " + view.uplink_method +
           ": check the default route or name the interface";
  }
  if (view.uplink_without_address) {
    return "interface " + view.uplink.name +
           " has no address for the tunnel (feature.tunnelUnderlay): give it back its address "
           "(DHCP lease, network configuration)";
  }
  return "interface " + view.uplink.name + " is gone, down or has no carrier";
}

std::string in_use_text(const DatapathInUse& datapath) {
  std::string out = datapath.name;
  for (const auto& [name, why] : datapath.others) out += "; " + name + ": " + why;
  return out;
}

bool serious(const AgentView& view) {
  const auto& status = *view.programmer;
  return (view.uplink_known && !view.uplink_works) || !status.refused.empty() ||
         !status.sysctls.empty() || status.missed >= kMissedDeadlinesToFail ||
         view.failing_too_long;
}

void fill_conditions(const AgentView& view, model::Conditions& conditions) {
  const auto& status = *view.programmer;
  report(view, conditions, "UplinkDown", view.uplink_known && !view.uplink_works,
         view.uplink_without_address ? "NoAddress" : "NoCarrier", uplink_message(view));
  report(view, conditions, "UplinkFamilyLost", !view.lost_address.empty(), "NoAddress",
         "interface " + view.uplink.name + " has lost " + view.lost_address +
             " and has no other address of that family: EIPs of that family may not get out "
             "here, those of the other do; give it back, or drain this node");
  report(view, conditions, "EipNotAnnounced", !view.silent.empty(), "NoInterface",
         listed(view.silent, [](const model::Address& eip) { return eip.to_string(); }) +
             ": no interface that works has the subnet");
  report(view, conditions, "SubnetLost", !view.lost_subnets.empty(), "InterfaceLost",
         listed(view.lost_subnets,
                [](const net::LostSubnet& lost) {
                  return lost.subnet.to_string() + " was on interface " + lost.interface +
                         ", which does not work any more";
                }) +
             ": EIPs in it go to other nodes until it is back; if it has left this node on "
             "purpose, restart the agent");
  report(view, conditions, std::string(model::kDatapathInUse), !view.datapath.name.empty(),
         view.datapath.automatic ? "Automatic" : "Configured", in_use_text(view.datapath));
  report(view, conditions, std::string(model::kReportedBy), !view.identity.empty(), "Agent",
         view.identity);
  if (view.namesake_gone) {
    report(view, conditions, std::string(model::kDuplicateAgent), false, "", "");
  }
  report(view, conditions, "DatapathRefused", !status.refused.empty(), "ProbeFailed",
         status.refused);
  report(view, conditions, "DatapathRemark", !status.remarks.empty(), "ProbeRemark",
         listed(status.remarks, [](const std::string& remark) { return remark; }));
  const bool failed = status.missed > 0 || !status.error.empty();
  std::string unwell = view.unwell.empty() ? status.settings_error : view.unwell;
  if (unwell.empty() && view.failed_times > 0) {
    unwell = "programming failed for eipEvictionTimeout " + std::to_string(view.failed_times) +
             " times and works again; the node gets no EIPs for a while, lest they move to and "
             "fro: see the agent's log for what was refused, and restart the agent to end this";
  }
  report(view, conditions, "Degraded", failed || !unwell.empty(),
         status.missed > 0 ? "DeadlineMissed"
         : failed          ? "ApplyFailed"
                           : "Unwell",
         failed ? status.error : unwell);
  report(view, conditions, "SysctlMissing", !status.sysctls.empty(), "SysctlMissing",
         listed(status.sysctls, [](const SysctlProblem& p) { return p.key + " " + p.message; }));
  report(view, conditions, "PartlyProgrammed", !status.failures.empty(), "ObjectsFailed",
         listed(status.failures,
                [](const host::ApplyFailure& f) { return f.object + ": " + f.message; }));
  report(view, conditions, std::string(model::kPurgedCondition), !view.purged_for.empty(),
         "Uninstalled",
         "nothing of egw is left in this node's kernel; asked for at " + view.purged_for);
  report(view, conditions, std::string(model::kPurgeFailedCondition), !view.purge_trouble.empty(),
         "PurgeFailed", view.purge_trouble);
  report(view, conditions, std::string(model::kStoreReplaced), false, "", "");
  report(view, conditions, "StoreBehind", !view.behind.empty(), "NotHeardOf",
         listed(view.behind, [](const auto& entry) {
           return std::string(model::info(entry.first).kind) + ": " +
                  (entry.second.empty() ? "no complete answer yet" : entry.second);
         }) + ": what changes there does not reach this node; what it has programmed stays");
  report(view, conditions, "EipConflict", !view.conflicts.empty(), "ClaimedByOther",
         listed(view.conflicts, [](const auto& entry) {
           return entry.first.to_string() + " is claimed by " +
                  model::format_mac(entry.second.mac) + " on " + entry.second.interface +
                  ", which is no gateway";
         }));
  report(view, conditions, "PolicyIncomplete", !view.findings.empty(),
         view.findings.empty() ? "" : view.findings.front().reason,
         listed(view.findings, [](const core::CompileFinding& f) {
           return (f.policy.ns.empty() ? f.policy.name : f.policy.ns + "/" + f.policy.name) + ": " +
                  f.reason + ": " + f.message;
         }));
}

// The one condition that is good when it is True.
void fill_reachable(const AgentView& view, model::EgressTunnel::Status& status) {
  status.unreachable = view.unreachable;
  status.lost_subnets.clear();
  for (const auto& lost : view.lost_subnets) status.lost_subnets.push_back(lost.subnet.to_string());
  if (!view.pinged) {
    model::remove_condition(status.conditions, "TunnelReachable");
    return;
  }
  Condition condition;
  condition.type = "TunnelReachable";
  condition.status = view.unreachable.empty();
  condition.reason = condition.status ? "AllAnswer" : "NoAnswer";
  if (!condition.status) {
    condition.message = "no answer through the tunnel from " +
                        listed(view.unreachable, [](const std::string& name) { return name; }) +
                        ": look for FORWARD or INPUT rules there that drop the tunnel, and at the "
                        "network between the nodes";
  }
  model::set_condition(status.conditions, std::move(condition), view.wall_ms);
}

TunnelPhase phase_of(const AgentView& view, TunnelPhase stored) {
  if (stored == TunnelPhase::kNodeNotReady) return stored;  // the controller's word
  if (!view.has_tunnel_address) return TunnelPhase::kPending;
  if (serious(view)) return TunnelPhase::kFailed;
  // A restarted agent finds the kernel as its predecessor left it, still forwarding: giving up
  // Ready here would move the node's EIPs for nothing. After a reboot the kernel is empty.
  const bool forwards =
      stored == TunnelPhase::kReady && view.kernel_intact && view.programmer->error.empty();
  if (!view.programmer->programmed && !forwards) return TunnelPhase::kInit;
  return TunnelPhase::kReady;
}

}  // namespace

model::Mac tunnel_mac(const model::Address& underlay, const std::string& node_name) {
  model::Mac mac{0x02, 0xee, 0, 0, 0, 0};
  if (underlay.is_v4()) {
    for (std::size_t i = 0; i < 4; ++i) mac[i + 2] = underlay.bytes()[i];
    return mac;
  }
  std::uint32_t hash = 2166136261U;  // FNV-1a
  for (const char c : node_name) hash = (hash ^ static_cast<std::uint8_t>(c)) * 16777619U;
  for (std::size_t i = 0; i < 4; ++i) mac[i + 2] = static_cast<std::uint8_t>(hash >> (8 * i));
  return mac;
}

void fill_status(const AgentView& view, model::EgressTunnel::Status& status) {
  status.phase = phase_of(view, status.phase);
  if (view.tunnel_mac != model::Mac{}) status.mac = model::format_mac(view.tunnel_mac);
  if (view.uplink_known && !view.uplink.name.empty() && (view.uplink.ipv4 || view.uplink.ipv6)) {
    status.parent.name = view.uplink.name;
    status.parent.ipv4 = view.uplink.ipv4.to_string();
    status.parent.ipv6 = view.uplink.ipv6.to_string();
    status.parent.mac = model::format_mac(view.uplink.mac);
    status.parent.macs.clear();
    for (const model::Mac& mac : view.port_macs) {
      if (mac != view.uplink.mac) status.parent.macs.push_back(model::format_mac(mac));
    }
  }
  if (view.programmer->programmed) status.realised = view.programmer->realised;
  fill_conditions(view, status.conditions);
  fill_reachable(view, status);
}

void fill_elsewhere(const std::string& message, std::int64_t wall_ms,
                    model::EgressTunnel::Status& status) {
  status.phase = TunnelPhase::kFailed;
  Condition condition;
  condition.type = model::kStoreReplaced;
  condition.status = true;
  condition.reason = "AnotherStore";
  condition.message = message;
  model::set_condition(status.conditions, std::move(condition), wall_ms);
}

void fill_aside(const std::string& identity, std::int64_t wall_ms,
                model::EgressTunnel::Status& status) {
  Condition condition;
  condition.type = model::kDuplicateAgent;
  condition.status = true;
  condition.reason = "SameNodeName";
  condition.message = "agent " + identity +
                      " has this node's name, too, and stands aside: stop it, or give it its own "
                      "--node-name (nodeName); last heard of at " +
                      model::format_time(wall_ms);
  model::set_condition(status.conditions, std::move(condition), wall_ms);
}

bool hands_over(const model::World& world) {
  for (const auto& [name, gateway] : world.gateways) {
    for (const model::GatewayNode& node : gateway.status.node_list) {
      for (const model::EipStatus& eip : node.eips) {
        if (!eip.moving_from.empty()) return true;
      }
    }
  }
  return false;
}

std::int64_t realised_spread_ms(const model::World& world) {
  constexpr std::size_t kAtOnce = 100;
  constexpr std::int64_t kEachMs = 5;  // as often as a cluster of that size writes heartbeats
  std::size_t nodes = 0;
  for (const auto& [name, info] : world.cluster_infos) nodes += info.status.peers.size();
  if (nodes <= kAtOnce || hands_over(world)) return 0;
  return static_cast<std::int64_t>(nodes) * kEachMs;
}

}  // namespace egw::runtime
