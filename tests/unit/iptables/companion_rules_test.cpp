// What a step writes of egress IPs is the difference of what two plans want, as elements of
// nftables and of the sets of EIPs.
#include "iptables/companion_rules.hpp"

#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <map>

#include "iptables/sets.hpp"
#include "support/node_state.hpp"

namespace egw::iptables {
namespace {

using test::addr;

// Few addresses, so that egresses share them; ids of more than a byte, whose keys are sorted
// otherwise than they are.
sdk::State some_state() {
  sdk::State s = test::node_state();
  for (std::uint8_t i = 1; i <= 2; ++i) s.peers.emplace("p" + std::to_string(i), test::peer(i));
  for (const std::uint32_t id : {1U, 2U, 255U, 256U, 257U, 16383U}) {
    if (*rc::gen::inRange(0, 3) == 0) continue;
    sdk::Egress e;
    e.id = id;
    e.kind = *rc::gen::element(sdk::EgressKind::kAddress, sdk::EgressKind::kNode);
    e.owner = *rc::gen::element(sdk::Owner::kNone, sdk::Owner::kSelf, sdk::Owner::kPeer);
    if (e.owner == sdk::Owner::kPeer) e.owner_peer = "p" + std::to_string(*rc::gen::inRange(1, 3));
    e.may_serve = *rc::gen::arbitrary<bool>();
    if (e.kind == sdk::EgressKind::kAddress) {
      e.v4 = addr(*rc::gen::element<std::string>("10.6.1.1", "10.6.1.2"));
      if (*rc::gen::arbitrary<bool>()) e.v6 = addr("fd00::1");
    }
    s.egresses[id] = e;
  }
  return s;
}

using AllElements = std::map<std::pair<common::Table, std::string>, common::Elements>;

AllElements elements_of(const common::Plan& plan, bool egress) {
  AllElements out;
  const CompanionTables tables = companion_tables({plan, 1450, egress, true, false});
  for (const common::Table t : common::kTables) {
    for (const auto& [spec, elements] : tables[static_cast<std::size_t>(t)].sets) {
      out[{t, spec.name}] = elements;
    }
  }
  return out;
}

RC_GTEST_PROP(CompanionRules, AStepWritesTheDifference, (bool egress)) {
  common::Numbering numbering;
  std::vector<common::ObjectFailure> failures;
  common::Plan before, after;
  before.build(some_state(), numbering, failures);
  after.know(before);
  after.build(some_state(), numbering, failures);
  AllElements kernel = elements_of(before, egress);
  for (const CompanionChange& c : companion_changes(before, after, egress)) {
    common::Elements& set = kernel.at({c.table, c.set});
    for (const auto& e : c.had) RC_ASSERT(std::erase(set, e) == 1U);
    set.insert(set.end(), c.wants.begin(), c.wants.end());
    std::sort(set.begin(), set.end());
  }
  RC_ASSERT(kernel == elements_of(after, egress));
}

RC_GTEST_PROP(CompanionRules, EipsComeAndGoWithTheLastEgressThatHasThem, ()) {
  common::Numbering numbering;
  std::vector<common::ObjectFailure> failures;
  common::Plan before, after;
  before.build(some_state(), numbering, failures);
  after.build(some_state(), numbering, failures);
  std::array<Groups, 2> groups;
  const SetPlan old_sets(before, groups, failures), new_sets(after, groups, failures);
  const auto eips = [](const SetPlan& sets, Table t) {
    const auto at = sets.contents().find(set_name(t, "eips"));
    return at == sets.contents().end() ? SetElements() : at->second.elements;
  };
  for (const Table t : common::kFamilies) {
    SetElements kernel = eips(old_sets, t);
    const EipChange change = eip_change(t, before, after);
    kernel.insert(change.come.begin(), change.come.end());
    for (const auto& [key, mark] : change.gone) RC_ASSERT(kernel.erase(key) == 1U);
    RC_ASSERT(kernel == eips(new_sets, t));
  }
}

}  // namespace
}  // namespace egw::iptables
