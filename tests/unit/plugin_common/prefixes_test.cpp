// Longest prefix match out of exact matches, against a search through the rules: reduce(),
// expand(), and what Desired writes into the kernel's maps, looked up as the chains look it up.
#include "common/prefixes.hpp"

#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <algorithm>
#include <set>

#include "common/nftables/desired.hpp"

namespace egw::common {
namespace {

const std::vector<std::uint32_t> kActions{1, 2, 3, kDropNumber, kNodeIpNumber, kBypassNumber};

// Few distinct bits, so that prefixes nest and destinations hit them.
sdk::Address some_address(Table t) {
  const bool v4 = t == Table::kIp;
  sdk::Address a = *sdk::Address::parse(v4 ? "10.0.0.0" : "2001:db8::");
  for (std::size_t i = v4 ? 1 : 4; i < a.size(); ++i) {
    a.bytes[i] = *rc::gen::element<std::uint8_t>(0x00, 0x00, 0x80, 0xff, 0x01, 0x55);
  }
  return a;
}

ClassEntries some_rules(Table t) {
  ClassEntries out;
  const int count = *rc::gen::inRange(0, 40);
  const int bits = t == Table::kIp ? 33 : 129;
  for (int i = 0; i < count; ++i) {
    const sdk::Prefix p(some_address(t), static_cast<unsigned>(*rc::gen::inRange(0, bits)));
    out.push_back({sdk::Prefix(p.first(), p.len), *rc::gen::elementOf(kActions)});
  }
  return out;
}

Table some_family() { return *rc::gen::element(Table::kIp, Table::kIp6); }

// Destinations at and around the edges of every prefix.
std::vector<sdk::Address> interesting(const ClassEntries& rules, Table t) {
  std::vector<sdk::Address> out{some_address(t), some_address(t)};
  for (const ClassEntry& r : rules) {
    for (sdk::Address a : {r.prefix.first(), r.prefix.last()}) {
      out.push_back(a);
      sdk::Address before = a;
      before.decrement();
      a.increment();
      out.push_back(before);
      out.push_back(a);
    }
  }
  return out;
}

ClassEntry entry(const std::string& prefix, std::uint32_t action) {
  return {*sdk::Prefix::parse(prefix), action};
}

TEST(Prefixes, WhatChangesNothingIsLeftOut) {
  EXPECT_TRUE(reduce({entry("10.0.0.0/8", kBypassNumber)}).empty());
  const ClassEntries nested = reduce({entry("10.0.0.0/8", 1), entry("10.1.0.0/16", 1),
                                      entry("10.1.1.0/24", 2), entry("10.1.1.128/25", 2)});
  EXPECT_EQ(nested, (ClassEntries{entry("10.0.0.0/8", 1), entry("10.1.1.0/24", 2)}));
  // A hole in a prefix is no such thing, and of two equal prefixes the later one counts.
  EXPECT_EQ(
      reduce({entry("0.0.0.0/0", 1), entry("10.0.0.0/8", 2), entry("10.0.0.0/8", kBypassNumber)})
          .size(),
      2U);
}

TEST(Prefixes, EqualTablesHaveOneContent) {
  const ClassEntries a = reduce({entry("10.0.0.0/8", 1), entry("10.1.0.0/16", 2)});
  const ClassEntries b = reduce({entry("10.1.0.0/16", 2), entry("10.0.0.7/8", 1)});
  EXPECT_EQ(content_of(a), content_of(b));
  EXPECT_NE(content_of(a), content_of(reduce({entry("10.0.0.0/8", 1), entry("10.1.0.0/16", 3)})));
  EXPECT_NE(content_of({entry("10.0.0.0/8", 1)}), content_of({entry("10.0.0.0/9", 1)}));
}

TEST(Prefixes, ExpandedOnesKeepTheLongest) {
  const ClassEntries out = expand({entry("10.0.0.0/23", 1), entry("10.0.1.0/24", 2)}, 8);
  EXPECT_EQ(out, (ClassEntries{entry("10.0.0.0/24", 1), entry("10.0.1.0/24", 2)}));
  EXPECT_EQ(expand({entry("::/0", 1)}, 4), (ClassEntries{entry("::/0", 1)}));
}

RC_GTEST_PROP(Prefixes, ReducedAndExpandedAnswerTheSame, ()) {
  const Table t = some_family();
  const ClassEntries rules = some_rules(t);
  const ClassEntries reduced = reduce(rules);
  const ClassEntries expanded = expand(reduced, ladder_step(t));
  for (const ClassEntry& e : expanded) RC_ASSERT(e.prefix.len % ladder_step(t) == 0U);
  for (const sdk::Address& a : interesting(rules, t)) {
    RC_ASSERT(match(reduced, a) == match(rules, a));
    RC_ASSERT(match(expanded, a) == match(rules, a));
  }
}

// ---- the whole: what the kernel would answer from the maps that Desired wants ------------------

sdk::State three_egresses() {
  sdk::State s;
  s.node.enable_ipv4 = s.node.enable_ipv6 = true;
  s.node.name = "n1";
  s.node.tunnel_device = "egress.vxlan";
  s.node.parent_device = "eth0";
  s.node.underlay = *sdk::Address::parse("10.6.0.11");
  s.node.slot_mask = 0xff000000;
  s.node.ct_mask = 0xfff80000;
  for (std::uint32_t id = 1; id <= 3; ++id) s.egresses[id].id = id;
  return s;
}

sdk::Action action_of(std::uint32_t number) {
  if (number <= kIdMask) return {sdk::ActionKind::kEgress, number};
  if (number == kDropNumber) return {sdk::ActionKind::kDrop, 0};
  return {number == kNodeIpNumber ? sdk::ActionKind::kNodeIp : sdk::ActionKind::kBypass, 0};
}

sdk::ClassTable table_of_rules(const ClassEntries& rules) {
  sdk::ClassTable out;
  for (const ClassEntry& e : rules) {
    sdk::ClassRule rule;
    rule.destination = e.prefix;
    rule.action = action_of(e.action);
    out.push_back(rule);
  }
  return out;
}

std::uint32_t u32_of(const std::string& bytes) {
  std::uint32_t v = 0;
  std::memcpy(&v, bytes.data(), sizeof(v));
  return v;
}

// As chain "judge" and the chain of the class's shape do it.
std::uint32_t kernel_answer(const Desired& desired, Table t, std::uint32_t class_id,
                            const std::map<std::uint8_t, Elements>& maps, const sdk::Address& a) {
  const std::uint32_t number = desired.number(class_id, t);
  if (number == 0) return kBypassNumber;
  const Elements shapes = desired.elements().at(t, Dyn::kShape);
  const std::string* chain = find_element(shapes, register_u32(number & kShapeMask));
  if (chain == nullptr) return number;
  const std::uint32_t shape = (number & ~kClassBit) >> kShapeShift;
  const Lengths& lengths = desired.shapes(t).at(shape);
  EXPECT_EQ(*chain, Desired::chain_of(shape, lengths));
  for (const std::uint8_t length : lengths) {
    std::string key = register_u32(number);
    if (length != 0) key += register_address(sdk::Prefix(a, length).first());
    if (const std::string* found = find_element(maps.at(length), key)) return u32_of(*found);
  }
  return kBypassNumber;
}

void check(const Desired& desired, const std::map<std::uint32_t, ClassEntries>& classes, Table t) {
  const auto maps = desired.prefix_elements(t);
  for (const auto& [id, rules] : classes) {
    for (const sdk::Address& a : interesting(rules, t)) {
      RC_ASSERT(kernel_answer(desired, t, id, maps, a) == match(rules, a));
    }
  }
}

RC_GTEST_PROP(Prefixes, TheMapsAnswerAsTheClassesSay, ()) {
  const Table t = some_family();
  sdk::State state = three_egresses();
  std::map<std::uint32_t, ClassEntries> classes;
  const auto set = [&](std::uint32_t id) {
    classes[id] = some_rules(t);
    state.classes[id] = table_of_rules(classes[id]);
  };
  for (std::uint32_t id = 1; id <= 5; ++id) set(id);
  Numbering numbering;
  std::vector<ObjectFailure> failures;
  Desired desired;
  desired.build(state, 1450, numbering, failures);
  check(desired, classes, t);
  // Classes come, change and go, one step after the other.
  for (int step = 0; step < 8; ++step) {
    const auto id = static_cast<std::uint32_t>(*rc::gen::inRange(1, 8));
    egw_class record{};
    record.struct_size = sizeof(record);
    record.id = id;
    std::vector<egw_class> upserts;
    std::vector<std::uint32_t> deletes;
    if (*rc::gen::arbitrary<bool>()) {
      set(id);
      upserts.push_back(record);  // update() takes the rules from the state
    } else {
      classes.erase(id);
      state.classes.erase(id);
      deletes.push_back(id);
    }
    egw_change raw{};
    raw.struct_size = sizeof(raw);
    raw.classes = sdk::span_of(upserts);
    raw.deleted_classes = sdk::span_of(deletes);
    desired.update(state, sdk::Change(&raw), numbering, failures);
    check(desired, classes, t);
    Desired anew;
    anew.build(state, 1450, numbering, failures);
    RC_ASSERT(anew.prefix_elements(t) == desired.prefix_elements(t));
    RC_ASSERT(anew.elements().at(t, Dyn::kShape) == desired.elements().at(t, Dyn::kShape));
  }
  RC_ASSERT(failures.empty());
}

// However many sets of lengths the classes have: a bounded number of chains, each of bounded
// length.
TEST(Prefixes, ChainsAreBounded) {
  sdk::State state = three_egresses();
  std::map<std::uint32_t, ClassEntries> classes;
  for (std::uint32_t id = 1; id <= 400; ++id) {
    ClassEntries rules;
    for (unsigned bit = 0; bit < 9; ++bit) {
      if ((id >> bit & 1U) == 0) continue;
      rules.push_back(
          {sdk::Prefix(sdk::Prefix(*sdk::Address::parse("10.85.85.85"), 9 + 2 * bit).first(),
                       9 + 2 * bit),
           1 + bit % 3});
    }
    if (id % 50 == 0) {
      for (unsigned length = 1; length <= 32; ++length) {
        rules.push_back(
            {sdk::Prefix(sdk::Prefix(*sdk::Address::parse("10.85.85.85"), length).first(), length),
             1 + length % 3});
      }
    }
    classes[id] = rules;
    state.classes[id] = table_of_rules(rules);
  }
  Numbering numbering;
  std::vector<ObjectFailure> failures;
  Desired desired;
  desired.build(state, 1450, numbering, failures);
  EXPECT_LE(desired.shapes(Table::kIp).size(), kMaxShapes + 1);
  ASSERT_EQ(desired.shapes(Table::kIp).count(kLadderShape), 1U);
  std::size_t chains = 0;
  desired.each_chain(Table::kIp, [&](const Chain& c) {
    ++chains;
    EXPECT_LE(c.rule_count(), 33U) << c.name;
  });
  EXPECT_LE(chains, kMaxShapes + 1 + 40);
  const auto maps = desired.prefix_elements(Table::kIp);
  for (const auto& [id, rules] : classes) {
    for (const ClassEntry& r : rules) {
      for (const sdk::Address& a : {r.prefix.first(), r.prefix.last()}) {
        EXPECT_EQ(kernel_answer(desired, Table::kIp, id, maps, a), match(rules, a)) << id;
      }
    }
  }
}

TEST(Prefixes, ChainAsksTheLongestFirst) {
  const Chain chain = Ruleset().lengths_chain(Table::kIp6, "x", {128, 20, 0});
  ASSERT_EQ(chain.rules.size(), 4U);
  EXPECT_EQ(chain.rules[0], "meta priority set meta priority . ip6 daddr map @m128 goto egress");
  EXPECT_EQ(chain.rules[1],
            "meta priority set meta priority . ( ip6 daddr & ffff:f000:: ) map @m20 goto egress");
  EXPECT_EQ(chain.rules[2], "meta priority set meta priority map @m0 goto egress");
  EXPECT_EQ(chain.rules[3], "goto leave_alone");
}

TEST(Prefixes, OnlyAClassThatIsThereLeavesAPacketOfAProgramAlone) {
  const Ruleset ruleset(sdk::NodeConfig(), 1450, true);
  const Chain chain = ruleset.lengths_chain(Table::kIp, "x", {32});
  ASSERT_EQ(chain.rules.size(), 3U);
  EXPECT_EQ(chain.rules[1],
            "meta priority set meta priority & 0x0001ffff map @numbers goto leave_alone");
  EXPECT_EQ(chain.rules[2], "counter name \"no_egress\" drop");
}

}  // namespace
}  // namespace egw::common
