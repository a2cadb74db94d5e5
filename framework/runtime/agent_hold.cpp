// When a node is not programmed: its pods are held back after a boot (agent.bootDrop), and after
// `egw uninstall` it is left as if egw had never run there (agent.hpp); while another
// agent has its name (namesake.hpp). And when its Node has gone.
#include <utility>

#include "egw/runtime/agent_impl.hpp"
#include "egw/runtime/store_record.hpp"

namespace egw::runtime {
namespace asio = boost::asio;

// Nobody knows yet which pods have a policy: none gets out. What is inside is taken from the store
// as it is; before that is known nothing is held.
void Agent::Impl::hold_pods() {
  if (!ports.hold_pods || pods_held || programmer.status().programmed || !sync.synced()) return;
  const auto own = sync.world().nodes.find(options.node_name);
  if (own == sync.world().nodes.end()) return;
  if (own->second.pod_cidrs.empty()) {
    if (!std::exchange(told_cannot_hold, true)) {
      log.warn(
          "agent.bootDrop holds nobody back: the Node has no spec.podCIDRs, which say where "
          "this node's pods are",
          {{"node", options.node_name}});
    }
    return;
  }
  std::vector<model::Prefix> pods;
  std::vector<model::Prefix> inside;
  const auto collect = [](const std::vector<std::string>& texts, std::vector<model::Prefix>& into) {
    for (const auto& text : texts) {
      if (const auto prefix = model::Prefix::parse(text)) into.push_back(*prefix);
    }
  };
  const auto collect_both = [&](const model::EgressClusterInfo::Addresses& addresses) {
    collect(addresses.ipv4, inside);
    collect(addresses.ipv6, inside);
  };
  collect(own->second.pod_cidrs, pods);
  collect(own->second.pod_cidrs, inside);
  for (const auto& [name, info] : sync.world().cluster_infos) {
    collect_both(info.status.cluster_ip);
    for (const auto& [node, addresses] : info.status.node_ip) collect_both(addresses);
    for (const auto& [node, addresses] : info.status.pod_cidr) collect_both(addresses);
    collect(info.status.extra_cidr, inside);
  }
  pods_held = true;
  ports.hold_pods(pods, inside);
}

// Whether there is anything in the kernel that another store's content would take out.
bool Agent::Impl::keeps_store() const {
  return !purged && (programmer.status().programmed || kernel_intact);
}

std::string Agent::Impl::other_store_text() const {
  const std::string record = store_record(options.state_dir).string();
  return "this is the store " + sync.other_store() +
         ", and the node's kernel holds what the store " + sync.store_id() +
         " has said: it is kept as it is, and nothing of this store is taken. Put the former store "
         "or a backup of it back; to take this one once it holds what it should, remove " +
         record + " and restart the agent";
}

void Agent::Impl::look_at_store() {
  if (sync.other_store() == told_other_store) return;
  told_other_store = sync.other_store();
  if (told_other_store.empty()) return;
  log.error(
      "StoreReplaced: another store answers in place of the one that this node is programmed "
      "from",
      {{"error", other_store_text()}});
  if (!programmer.status().programmed) serve_as_before();
}

// The kernel goes on forwarding for these; without answers its neighbours would forget them.
// Another gateway may have got them meanwhile: it is asked for first, and yielded to.
void Agent::Impl::serve_as_before() {
  const ServedRecord record = read_served_record(options.state_dir);
  gateway_macs = record.gateway_macs;
  ports.announcer.set_gateway_macs(record.gateway_macs);
  keeper.assign(record.eips, {}, clock.steady_ms());
  keeper.realised({}, clock.steady_ms());
}

void Agent::Impl::note_served() {
  if (!programmer.status().programmed || noted_store.empty() || !sync.other_store().empty()) return;
  ServedRecord now;
  now.eips = keeper.served();
  if (!now.eips.empty()) now.gateway_macs = gateway_macs;
  if (now == noted_served) return;
  noted_served = std::move(now);
  if (auto noted = write_served_record(options.state_dir, noted_served); !noted) {
    log.warn("cannot note which EIPs this node serves", {{"error", noted.error().to_string()}});
  }
}

void Agent::Impl::note_store() {
  if (!programmer.status().programmed || noted_store == sync.store_id()) return;
  noted_store = sync.store_id();
  if (auto noted = write_store_record(options.state_dir, noted_store); !noted) {
    log.warn("cannot note which store this node is programmed from",
             {{"error", noted.error().to_string()}});
  }
}

// With every change of the World, before anything is programmed for it.
void Agent::Impl::look_for_uninstall() {
  if (!sync.synced()) return;
  std::string asked;
  const auto& infos = sync.world().cluster_infos;
  if (const auto info = infos.find(std::string(model::kClusterInfoName)); info != infos.end()) {
    const auto& annotations = info->second.meta.annotations;
    const auto request = annotations.find(std::string(model::kUninstallAnnotation));
    if (request != annotations.end()) asked = request->second.empty() ? "?" : request->second;
  }
  if (asked == uninstall_asked) return;
  const bool was_held = !uninstall_asked.empty();
  uninstall_asked = asked;
  purged = false;
  purge_trouble.clear();
  if (was_held && !asked.empty()) return uninstall_wakeup.notify();  // asked for anew
  programmer.hold(stands_aside || !asked.empty());
  mute();
  if (!asked.empty()) {
    log.info("uninstalling: taking everything of egw out of this node's kernel");
  } else {
    log.info("the uninstall is over: programming this node again");
    told_programmed = false;
  }
  uninstall_wakeup.notify();
}

void Agent::Impl::mute() {
  ports.announcer.mute(!uninstall_asked.empty() || (uplink_known && !uplink_works) ||
                       namesake.part() != Namesake::Part::kReports);
}

// With every change of the own tunnel, and with time. While it is not known whether the other one
// lives, an empty kernel is programmed: the node may have been booted or replaced.
Namesake::Part Agent::Impl::look_for_namesake() {
  const auto* own = own_tunnel();
  if (own == nullptr || !sync.synced()) return namesake.part();
  const auto before = namesake.part();
  const std::string other = namesake.other();
  const bool disputed_before = namesake.disputed();
  const bool heard = sync.connected() && sync.other_store().empty();
  const auto part = namesake.look(own->status, heard, clock.steady_ms(), clock.wall_ms());
  const bool aside =
      part == Namesake::Part::kAside || (part == Namesake::Part::kWaits && kernel_intact);
  if (part != before) {
    mute();
    drain_wakeup.notify();
  }
  if (aside != stands_aside) {
    stands_aside = aside;
    programmer.hold(aside || !uninstall_asked.empty());
  }
  tell_of_namesake(before, other, disputed_before);
  return part;
}

void Agent::Impl::tell_of_namesake(Namesake::Part before, const std::string& other,
                                   bool disputed_before) {
  using Part = Namesake::Part;
  const Part part = namesake.part();
  if (part != before && part == Part::kAside) {
    log.error(
        "DuplicateAgent: another agent reports for this node: nothing is programmed, announced "
        "or reported here; stop one of the two, or give it its own --node-name (nodeName)",
        {{"node", options.node_name}, {"this", namesake.identity()}, {"other", namesake.other()}});
  } else if (part != before && part == Part::kWaits) {
    log.info("another agent has reported for this node: waiting whether it still does",
             {{"this", namesake.identity()}, {"other", namesake.other()}});
  } else if (part != before) {
    log.info("the other agent of this node is silent: this one reports", {{"other", other}});
  }
  if (part != Part::kReports || disputed_before == namesake.disputed()) return;
  if (disputed_before) {
    log.info("no other agent has this node's name any more");
  } else {
    log.error("DuplicateAgent: another agent has this node's name",
              {{"this", namesake.identity()}, {"error", namesake.told()}});
  }
}

// Whoever deletes a Node whose machine goes on takes its tunnel from it, too.
void Agent::Impl::look_for_node() {
  if (!sync.synced()) return;
  const bool there = sync.world().nodes.contains(options.node_name);
  if (there && node_gone) log.info("the Node of this agent is there again");
  if (!there && node_known && !node_gone) {
    log.warn(
        "the Node of this agent has been deleted: until there is one of that name again the "
        "node is no gateway and no peer of others, and what its pods send through a gateway is "
        "lost; stop the agent if the node is to go",
        {{"node", options.node_name}});
  }
  node_known = node_known || there;
  node_gone = node_known && !there;
}

asio::awaitable<void> Agent::Impl::uninstall(std::shared_ptr<Impl> self) {
  BackOff back_off(500, 5000, 1);
  while (!self->stopping) {
    if (self->uninstall_asked.empty() || self->purged) {
      co_await self->uninstall_wakeup.wait();
      continue;
    }
    const std::string asked = self->uninstall_asked;
    auto done = co_await self->programmer.purge();
    if (done && self->ports.on_purged) done = self->ports.on_purged();
    if (done) {
      self->noted_store.clear();
      self->noted_served = {};
      self->kernel_intact = self->told_programmed = false;
    }
    if (asked != self->uninstall_asked) continue;  // taken back meanwhile, or asked for anew
    const std::string trouble = done ? "" : done.error().to_string();
    if (!trouble.empty() && trouble != self->purge_trouble) {
      self->log.error("this node cannot be purged", {{"error", trouble}});
    }
    self->purge_trouble = trouble;
    if (done) {
      self->log.info("node purged");
      self->purged = true;
    }
    self->reporter.wake();
    if (!done) {
      co_await self->uninstall_wakeup.wait(self->clock.steady_ms() + back_off.next_ms());
    }
  }
}

}  // namespace egw::runtime
