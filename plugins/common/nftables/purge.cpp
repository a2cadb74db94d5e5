// What a datapath on nftables takes away again: the connections of an egress IP, and everything.
#include "adoption.hpp"
#include "datapath.hpp"

namespace egw::common {
namespace {

constexpr std::chrono::milliseconds kLastWait{2000};

sdk::Status forget_flows(const SweepHint& hint, std::string what,
                         const std::function<Fate(const Flow&)>& judge) {
  auto socket = NetlinkSocket::open(NETLINK_NETFILTER);
  if (!socket) return socket.status();
  const int n = sweep(*socket, hint, judge);
  if (n >= 0) return sdk::ok();
  return sdk::fail(sdk::Code::kUnavailable, "connection tracking cannot be read", std::move(what),
                   -n);
}

}  // namespace

sdk::Status NftDatapath::forget(const sdk::Address& eip) {
  if (!eip) return sdk::fail(sdk::Code::kInvalid, "no address");
  SweepHint hint;
  hint.translated = eip;
  // A connection of the host itself, or one from outside, is not ours to end.
  return forget_flows(hint, eip.text(), [eip](const Flow& flow) {
    Fate fate;
    if (flow.translated == eip && flow.source != eip) fate.kind = Fate::Kind::kRemove;
    return fate;
  });
}

bool NftDatapath::tables_of_another() {
  for (const Table t : kFamilies) {
    const KernelTable table = nft_->dump(t);
    if (table.chains.count("classify") == 0) continue;
    return (table.chains.count(std::string(Ruleset::kUnpackChain)) != 0) != (programs_ != nullptr);
  }
  return false;
}

void NftDatapath::forget_programmed() {
  monitor_->watch({});
  sweeper_.drain(kLastWait);
  unswept_ = Unswept();
  held_ = sdk::DatapathState();
  desired_.reset();
  numbering_ = Numbering();
  routes_.clear();
  rules_.clear();
  device_ = 0;
  tunnel_.forget();
}

// Device, routes, rules and connections are the successor's, and so are the tables when it has
// taken them over (shared_layout.hpp).
sdk::Status NftDatapath::hand_over(const sdk::NodeConfig& /*node*/) {
  const Monitor::OwnChange own(*monitor_);
  forget_programmed();
  sdk::Status first = programs_ ? programs_->purge() : sdk::ok();
  if (!tables_owner_.still()) return first;
  const sdk::Status tables = tables_.purge();
  return first.ok() ? tables : first;
}

sdk::Status NftDatapath::purge() {
  const Monitor::OwnChange own(*monitor_);
  if (tables_of_another()) {
    // Tables, routes and the tunnel device have been handed over, with the connections.
    forget_programmed();
    return programs_ ? programs_->purge() : sdk::ok();
  }
  Bound held = read_bound(*nft_);
  if (programs_) programs_->add_bound(held);
  const auto bound = bound_by(std::move(held));
  forget_programmed();
  sdk::Status first;
  const auto note = [&](sdk::Status s) {
    if (first.ok() && !s.ok()) first = std::move(s);
  };
  // Rules and tables together would be best; rules first leaves steered packets without a route,
  // which the tables then still drop.
  for (const Table t : kFamilies) {
    std::vector<Message> messages;
    for (const auto& r : our_rules(route_, address_family(t))) {
      messages.push_back(remove(r));
    }
    for (const auto& r : our_routes(route_, address_family(t))) {
      messages.push_back(remove(r));
    }
    for (const int err : route_.requests(messages)) {
      if (err != 0 && err != ENOENT && err != ESRCH) {
        note(sdk::fail(sdk::Code::kInternal, "a rule or route cannot be removed", "purge", err));
      }
    }
  }
  if (const int err = remove_tunnels(route_); err != 0) {
    note(sdk::fail(sdk::Code::kInternal, "the tunnel device cannot be removed", "purge", err));
  }
  note(tables_.purge());
  if (programs_) note(programs_->purge());
  // A connection keeps what it was bound to: the pod's address, or an egress IP.
  note(forget_flows({}, "purge", bound));
  return first;
}

}  // namespace egw::common
