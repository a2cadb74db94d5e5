// A planned stop: the agent asks the leader to move its EIPs away, by an annotation on its tunnel,
// and the next start takes that back (agent.hpp).
#include <utility>

#include "egw/runtime/agent_impl.hpp"

namespace egw::runtime {
namespace asio = boost::asio;

// The annotation of a drain that this start ends.
asio::awaitable<void> Agent::Impl::undrain(std::shared_ptr<Impl> self) {
  BackOff back_off(200, 5000, 1);
  while (!self->stopping && !self->draining) {
    const auto& tunnels = self->sync.world().tunnels;
    const auto own = tunnels.find(self->options.node_name);
    const bool ours = self->sync.synced() && self->namesake.part() == Namesake::Part::kReports;
    if (ours && (own == tunnels.end() ||
                 !own->second.meta.annotations.contains(std::string(model::kDrainAnnotation)))) {
      co_return;
    }
    if (ours) {
      std::string name(model::kDrainAnnotation);
      std::string nothing;
      auto removed = co_await self->reporter.annotate(std::move(name), std::move(nothing));
      if (removed) co_return;
      self->log.warn("the drain annotation of this node cannot be removed",
                     {{"error", removed.error().to_string()}});
      co_await self->drain_wakeup.wait(self->clock.steady_ms() + back_off.next_ms());
    } else {
      co_await self->drain_wakeup.wait();
    }
  }
}

bool Agent::Impl::owns_anything() const {
  if (keeper.owned_count() != 0 || keeper.handing_over()) return true;
  // Not before the last change of the move is in the kernel.
  if (programmer.behind()) return true;
  for (const auto& [name, gateway] : sync.world().gateways) {
    for (const auto& node : gateway.status.node_list) {
      if (node.name == options.node_name && !node.eips.empty()) return true;
      for (const auto& eip : node.eips) {
        if (eip.moving_from == options.node_name) return true;
      }
    }
  }
  return false;
}

// The leader's answer to a drain, when it is that nobody can take what this node holds.
const model::Condition* Agent::Impl::nobody_takes_over() const {
  const auto* own = own_tunnel();
  if (own == nullptr) return nullptr;
  const auto* answer = model::find_condition(own->status.conditions, model::kDrainedCondition);
  return answer != nullptr && answer->reason == model::kNoOtherReadyNode ? answer : nullptr;
}

asio::awaitable<void> Agent::Impl::drain(std::shared_ptr<Impl> self) {
  const std::int64_t until = self->clock.steady_ms() + self->options.drain_timeout_ms;
  self->log.info("draining: asking the leader to move this node's EIPs away");
  std::string name(model::kDrainAnnotation);
  std::string value = model::format_time(self->clock.wall_ms());
  auto asked = co_await self->reporter.annotate(std::move(name), std::move(value));
  if (!asked) {
    self->log.warn("cannot ask for a drain, stopping without",
                   {{"error", asked.error().to_string()}});
  }
  const auto go_on = [&] {
    return asked && !self->stopping && self->owns_anything() &&
           self->nobody_takes_over() == nullptr && self->clock.steady_ms() < until;
  };
  while (go_on()) co_await self->drain_wakeup.wait(until);
  const auto* answer = self->nobody_takes_over();
  if (asked && self->owns_anything() && answer != nullptr) {
    self->log.warn("not drained: nobody can take this node's EIPs, stopping with them",
                   {{"leader", answer->message}});
  } else if (asked && self->owns_anything()) {
    self->log.warn("drain timeout: stopping although this node still owns EIPs");
  } else if (asked) {
    self->log.info("drained");
  }
  self->halt();
}

}  // namespace egw::runtime
