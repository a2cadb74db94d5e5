// What the agent says of itself in its EgressTunnel: phase and conditions from what it knows. Pure.
// Called by agent.cpp.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "egw/core/compile.hpp"
#include "egw/model/resources.hpp"
#include "egw/net/announcer.hpp"
#include "egw/net/uplink.hpp"
#include "egw/runtime/datapath_record.hpp"
#include "egw/runtime/programmer.hpp"

namespace egw::runtime {

// Somebody who is no gateway claims an EIP of ours.
struct Conflict {
  model::Mac mac{};
  std::string interface;
  std::int64_t last_ms = 0;  // steady
};

struct AgentView {
  const ProgrammerStatus* programmer = nullptr;
  bool has_tunnel_address = false;
  bool kernel_intact = false;  // at the start it held what a predecessor had programmed
  DatapathInUse datapath;      // name empty: not known
  std::string unwell;          // what the datapath says is wrong; empty: it is well
  bool uplink_known = false;   // the first look at the uplink has been taken
  net::UplinkState uplink;     // the last one that was there
  bool uplink_works = false;   // there, with a carrier and an address of the tunnel's underlay
  bool uplink_without_address = false;  // only that address is missing
  std::string lost_address;  // of the uplink's other family, which it had before; empty: none
  std::vector<model::Address> silent;         // EIPs that it serves and nobody hears of
  std::vector<net::LostSubnet> lost_subnets;  // that EIPs are in
  // WorldSync::behind(), when that has lasted for one eipEvictionTimeout.
  std::vector<std::pair<model::Kind, std::string>> behind;
  bool failing_too_long = false;  // no apply has succeeded for one eipEvictionTimeout, or so it was
  unsigned failed_times = 0;      // so it was, this often, and it is not trusted yet
  std::string uplink_method;
  std::vector<model::Mac> port_macs;  // of the interfaces that EIPs may be announced on; sorted
  model::Mac tunnel_mac{};            // as programmed, or as it will be; zero: not known
  std::map<model::Address, Conflict> conflicts;
  std::vector<core::CompileFinding> findings;
  bool pinged = false;                   // owners have been asked through the tunnel
  std::vector<std::string> unreachable;  // those that do not answer
  std::string purged_for;                // the request to uninstall that has been met; empty: none
  std::string purge_trouble;             // why that has failed; empty: it has not
  std::string identity;                  // of this agent; empty: not told
  bool namesake_gone = false;            // the one that stood aside has not said so for long
  std::int64_t wall_ms = 0;
};

inline constexpr unsigned kMissedDeadlinesToFail = 3;

// 02:ee and the underlay IPv4 address, or four bytes of a hash of the node's name: the same after
// every restart.
[[nodiscard]] model::Mac tunnel_mac(const model::Address& underlay, const std::string& node_name);

// Sets phase, MAC, parent, realised and the agent's conditions in a status as stored. Leaves the
// controller's fields, its conditions and the phase NodeNotReady alone.
void fill_status(const AgentView& view, model::EgressTunnel::Status& status);
// In the status of an EgressTunnel of a store that the agent does not take.
void fill_elsewhere(const std::string& message, std::int64_t wall_ms,
                    model::EgressTunnel::Status& status);
// In the status of another agent's, which is the node's: that this one has its name, too. Says
// when, so that it is news each time.
void fill_aside(const std::string& identity, std::int64_t wall_ms,
                model::EgressTunnel::Status& status);

// An EIP is handed over from one node to another, who waits until all have realised it.
[[nodiscard]] bool hands_over(const model::World& world);
// For how long a realised change may wait until it is told (TunnelReporter::Options): 0 where few
// nodes would write at once, or an EIP is handed over.
[[nodiscard]] std::int64_t realised_spread_ms(const model::World& world);

}  // namespace egw::runtime
