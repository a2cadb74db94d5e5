// What classes are called (plugins/common/plan.hpp): a fingerprint alone does not tell tables
// apart.
#include "common/plan.hpp"

#include <gtest/gtest.h>

namespace egw::common {
namespace {

using Named = std::map<std::string, ClassTables>;

ClassEntries entries(const char* prefix, std::uint32_t action) {
  return {{*sdk::Prefix::parse(prefix), action}};
}

void put(Named& tables, const std::string& name, const ClassEntries& written,
         const ClassEntries& named = {}) {
  ClassTable table;
  table.entries = written;
  table.named = named;
  tables[name] = {std::make_shared<const ClassTable>(table), 1};
}

TEST(FreeName, IsNotThatOfAnotherTable) {
  const ClassEntries mine = entries("10.9.0.0/16", 7), others = entries("10.9.0.0/16", 8);
  Named before, now;
  EXPECT_EQ(free_name("c1", mine, {&before, &now}), "c1");
  put(now, "c1", others);
  EXPECT_EQ(free_name("c1", others, {&before, &now}), "c1") << "equal ones are one";
  const std::string name = free_name("c1", mine, {&before, &now});
  EXPECT_NE(name, "c1");
  put(now, name, mine);
  EXPECT_EQ(free_name("c1", mine, {&before, &now}), name);
  EXPECT_EQ(free_name("c1", entries("10.9.0.0/16", 9), {&before, &now}).substr(0, 2), "c1");
  EXPECT_EQ(now.count(free_name("c1", entries("10.9.0.0/16", 9), {&before, &now})), 0U);
}

// What is in the kernel keeps its name until it has gone from there.
TEST(FreeName, IsNotThatOfATableBefore) {
  const ClassEntries mine = entries("10.9.0.0/16", 7);
  Named before, now;
  put(before, "c1", entries("10.9.0.0/16", 8));
  EXPECT_NE(free_name("c1", mine, {&before, &now}), "c1");
}

TEST(FreeName, GoesByWhatATableSaysNotByHowItIsWritten) {
  const ClassEntries mine = entries("10.8.0.0/15", 7);
  Named now;
  put(now, "c1", expand(mine, ladder_step(Table::kIp)), mine);
  EXPECT_EQ(free_name("c1", mine, {&now}), "c1");
}

}  // namespace
}  // namespace egw::common
