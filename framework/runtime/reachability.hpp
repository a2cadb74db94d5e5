// Reachability: which owners answer pings through the tunnel. Called by the agent every
// tunnelUpdatePeriod: a gateway may be Ready and forward nothing, because a firewall of its own
// drops the tunnel.
#pragma once

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/awaitable.hpp>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "egw/model/node_state.hpp"
#include "egw/model/world.hpp"
#include "egw/runtime/clock.hpp"

namespace egw::runtime {

class Pinger {
 public:
  virtual ~Pinger() = default;
  // Pings all addresses through `device` at once; those that have answered when `wait_ms` is over,
  // or earlier when all have.
  virtual boost::asio::awaitable<std::set<model::Address>> ping(std::string device,
                                                                std::vector<model::Address> targets,
                                                                std::int64_t wait_ms) = 0;
};

// With ICMP sockets of its own (net::TunnelPing).
[[nodiscard]] std::unique_ptr<Pinger> make_pinger(boost::asio::any_io_executor executor,
                                                  Clock& clock);

class Reachability {
 public:
  static constexpr unsigned kMissesToFail = 3;

  // Whom a node with this state depends on: the owners of the egresses that its pods use; one
  // tunnel address each. Empty for a node without selected pods.
  [[nodiscard]] static std::map<std::string, model::Address> owners_of(
      const model::NodeState& state);

  // owners_of(), and those who are silent although a gateway counts on them: their EIPs may have
  // moved for that, and they must not get them back before they answer.
  [[nodiscard]] std::map<std::string, model::Address> to_ask(const model::NodeState& state,
                                                             const model::World& world) const;

  // The result of one round. What is no longer asked is forgotten. True: unreachable() changed.
  bool round(const std::map<std::string, model::Address>& asked,
             const std::set<model::Address>& answered);

  [[nodiscard]] bool asked_anybody() const { return !misses_.empty(); }
  [[nodiscard]] std::vector<std::string> unreachable() const;  // sorted

 private:
  std::map<std::string, unsigned> misses_;  // in a row, by node
};

}  // namespace egw::runtime
