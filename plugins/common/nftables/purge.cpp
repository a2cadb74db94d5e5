// What a datapath on nftables takes away again: the connections of an egress IP, and everything.
#include <algorithm>

#include "adoption.hpp"
#include "common/upkeep.hpp"
#include "datapath.hpp"

namespace egw::common {
namespace {

constexpr std::chrono::milliseconds kLastWait{2000};

}  // namespace

sdk::Status NftDatapath::forget(const sdk::Address& eip) { return forget_eip(eip); }

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
  unswept_ = Unswept(false);
  held_ = sdk::DatapathState();
  desired_.reset();
  numbering_ = Numbering();
  routes_.clear();
  rules_.clear();
  device_ = 0;
  tunnel_.forget();
  ahead_ = {};
}

// Device, routes, rules and connections are the successor's, and so are the tables when it has
// taken them over (shared_layout.hpp).
sdk::Status NftDatapath::hand_over(const sdk::NodeConfig& /*node*/) {
  const Monitor::OwnChange own(*monitor_);
  forget_programmed();
  sdk::Status first = programs_ ? programs_->purge() : sdk::ok();
  if (tables_of_another()) return first;
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
  bound_.add(read_bound(*nft_));
  if (programs_) programs_->add_bound(bound_);
  sweeper_.forget_late();
  sdk::Status first = remove_all();
  // A connection keeps what it was bound to: the pod's address, or an egress IP.
  sdk::Status flows = forget_bound(bound_);
  return first.ok() ? flows : first;
}

bool NftDatapath::untouched() {
  return no_routing(route_) && std::none_of(kTables.begin(), kTables.end(),
                                            [&](Table t) { return nft_->table_exists(t); });
}

sdk::Status NftDatapath::remove_all() {
  forget_programmed();
  sdk::Status first;
  const auto note = [&](sdk::Status s) {
    if (first.ok() && !s.ok()) first = std::move(s);
  };
  // Rules and tables together would be best; rules first leaves steered packets without a route,
  // which the tables then still drop.
  note(remove_routing(route_));
  note(tables_.purge());
  if (programs_) note(programs_->purge());
  return first;
}

}  // namespace egw::common
