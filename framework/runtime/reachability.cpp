// Pings through the tunnel and what follows from them (reachability.hpp).
#include "egw/runtime/reachability.hpp"

#include <algorithm>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <utility>

#include "egw/net/tunnel_ping.hpp"

namespace egw::runtime {
namespace asio = boost::asio;

namespace {

class IcmpPinger final : public Pinger {
 public:
  IcmpPinger(asio::any_io_executor executor, Clock& clock)
      : executor_(std::move(executor)), clock_(clock) {}

  // One socket per round and family: the device may have been made anew since the last.
  asio::awaitable<std::set<model::Address>> ping(std::string device,
                                                 std::vector<model::Address> targets,
                                                 std::int64_t wait_ms) override {
    ++sequence_;
    auto round = std::make_shared<Round>(executor_, clock_);
    for (const auto family : {model::Family::kV4, model::Family::kV6})
      send(round, device, targets, family);
    const std::int64_t until = clock_.steady_ms() + wait_ms;
    while (round->answered.size() < targets.size() && clock_.steady_ms() < until) {
      co_await round->wakeup.wait(until);
    }
    for (auto& socket : round->sockets) socket->descriptor.cancel();
    co_return round->answered;
  }

 private:
  struct Socket {
    Socket(const asio::any_io_executor& executor, net::TunnelPing the_ping)
        : ping(std::move(the_ping)), descriptor(executor, ping.descriptor()) {}
    // The descriptor is the ping's own: let go before it is closed twice.
    ~Socket() { descriptor.release(); }
    Socket(const Socket&) = delete;
    Socket& operator=(const Socket&) = delete;
    net::TunnelPing ping;
    asio::posix::stream_descriptor descriptor;
  };
  struct Round {
    Round(const asio::any_io_executor& executor, Clock& clock) : wakeup(executor, clock) {}
    Wakeup wakeup;
    std::vector<std::unique_ptr<Socket>> sockets;
    std::set<model::Address> answered;
  };

  void send(const std::shared_ptr<Round>& round, const std::string& device,
            const std::vector<model::Address>& targets, model::Family family) {
    const bool any = std::any_of(targets.begin(), targets.end(),
                                 [&](const auto& target) { return target.family() == family; });
    if (!any) return;
    auto ping = net::TunnelPing::open(device, family);
    if (!ping) return;  // nobody answers, which is what will be said
    round->sockets.push_back(std::make_unique<Socket>(executor_, std::move(*ping)));
    Socket* socket = round->sockets.back().get();
    for (const auto& target : targets) {
      if (target.family() == family) (void)socket->ping.send(target, sequence_);
    }
    listen(round, socket, sequence_);
  }

  static void listen(const std::shared_ptr<Round>& round, Socket* socket, std::uint16_t sequence) {
    socket->descriptor.async_wait(
        asio::posix::stream_descriptor::wait_read,
        [round, socket, sequence](const boost::system::error_code& error) {
          if (error) return;
          while (const auto from = socket->ping.receive(sequence)) round->answered.insert(*from);
          round->wakeup.notify();
          listen(round, socket, sequence);
        });
  }

  asio::any_io_executor executor_;
  Clock& clock_;
  std::uint16_t sequence_ = 0;
};

model::Address tunnel_address(const model::Peer& peer) {
  return peer.tunnel_v4 ? peer.tunnel_v4 : peer.tunnel_v6;
}

// The planner has it for a node that would serve if it could be reached: one that is dead is no
// business of the pings.
bool counted_on(const model::World& world, const std::string& name) {
  return std::any_of(world.gateways.begin(), world.gateways.end(), [&](const auto& entry) {
    const auto& nodes = entry.second.status.node_list;
    return std::any_of(nodes.begin(), nodes.end(), [&](const model::GatewayNode& node) {
      return node.name == name && (node.status == "Ready" || node.status == "Unreachable");
    });
  });
}

}  // namespace

std::unique_ptr<Pinger> make_pinger(asio::any_io_executor executor, Clock& clock) {
  return std::make_unique<IcmpPinger>(std::move(executor), clock);
}

std::map<std::string, model::Address> Reachability::owners_of(const model::NodeState& state) {
  std::map<std::string, model::Address> owners;
  if (state.endpoints.empty()) return owners;
  for (const auto& [id, table] : state.classes) {
    for (const auto& rule : table) {
      if (rule.action != model::ActionKind::kEgress) continue;
      const auto egress = state.egresses.find(rule.egress_id);
      if (egress == state.egresses.end() || egress->second.owner != model::Owner::kPeer) continue;
      const auto peer = state.peers.find(egress->second.owner_peer);
      if (peer == state.peers.end()) continue;
      if (const auto address = tunnel_address(peer->second)) owners.emplace(peer->first, address);
    }
  }
  return owners;
}

std::map<std::string, model::Address> Reachability::to_ask(const model::NodeState& state,
                                                           const model::World& world) const {
  auto asked = owners_of(state);
  for (const std::string& name : unreachable()) {
    const auto peer = state.peers.find(name);
    if (peer == state.peers.end() || !counted_on(world, name)) continue;
    if (const auto address = tunnel_address(peer->second)) asked.emplace(name, address);
  }
  return asked;
}

bool Reachability::round(const std::map<std::string, model::Address>& asked,
                         const std::set<model::Address>& answered) {
  const auto before = unreachable();
  const bool asked_before = asked_anybody();
  std::map<std::string, unsigned> next;
  for (const auto& [name, address] : asked) {
    const auto known = misses_.find(name);
    const unsigned misses = known == misses_.end() ? 0 : known->second;
    next[name] = answered.contains(address) ? 0 : std::min(misses + 1, kMissesToFail);
  }
  misses_ = std::move(next);
  return unreachable() != before || asked_anybody() != asked_before;
}

std::vector<std::string> Reachability::unreachable() const {
  std::vector<std::string> names;
  for (const auto& [name, misses] : misses_) {
    if (misses >= kMissesToFail) names.push_back(name);
  }
  return names;
}

}  // namespace egw::runtime
