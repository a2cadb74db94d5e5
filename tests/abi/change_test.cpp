// From one datapath to another, with real libraries: who is asked what, and what stays on record.
#include <gmock/gmock.h>

#include <algorithm>
#include <fstream>

#include "abi/support.hpp"
#include "egw/runtime/datapath_change.hpp"

namespace egw::host::test {
namespace {

using runtime::DatapathChange;
using runtime::DatapathRecord;
using runtime::read_datapath_record;
using testing::HasSubstr;

class Change : public testing::Test {
 protected:
  Change() {
    for (const char* name : {"noting-a", "noting-b", "noting-c"}) {
      bench.folder().add("datapath-" + std::string(name));
    }
    fs::create_directory(state);
  }
  nlohmann::json config(nlohmann::json more = nlohmann::json::object()) {
    more["notes"] = notes.string();
    return more;
  }
  // As an agent does that finds this node with what the record says, and is to use `name`.
  void start(const std::string& name) {
    const nlohmann::json own = config();
    auto opened = bench.host().open_datapath(name, own, state / ("datapath-" + name), state);
    ASSERT_TRUE(opened) << opened.error().to_string();
    DatapathRecord record;
    record.now.choice.name = name;
    record.now.choice.config = own;
    model::NodeConfig node;
    node.name = "n1";
    applied_again = 0;
    DatapathChange change(state, bench.host(), log, name);
    bench.await(change.run(std::move(record), **opened, std::move(node), [&] { ++applied_again; }));
  }
  std::string take_notes() {
    std::ifstream in(notes);
    std::string text{std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
    fs::remove(notes);
    return text;
  }

  Bench bench;
  const fs::path state = bench.folder().path() / "node";
  const fs::path notes = bench.folder().path() / "notes";
  runtime::Logger log{runtime::LogFormat::kText, runtime::LogLevel::kError};
  int applied_again = 0;
};

TEST_F(Change, TheFirstOneOnANodeTakesOverFromNobody) {
  start("noting-a");
  EXPECT_EQ(take_notes(), "noting-a: open in " + (state / "layout-test-1").string() + "\n");
  EXPECT_EQ(applied_again, 0);
  const auto record = read_datapath_record(state);
  ASSERT_TRUE(record);
  EXPECT_EQ(record->now.choice.name, "noting-a");
  EXPECT_EQ(record->now.holds.dump(), R"({"tables":["one"]})");  // not who, not the long lists
  start("noting-a");
  EXPECT_THAT(take_notes(), testing::Not(HasSubstr("purge")));
  EXPECT_TRUE(read_datapath_record(state)->former.empty());
}

TEST_F(Change, OneLayoutIsHandedOver) {
  start("noting-a");
  take_notes();
  start("noting-b");
  const std::string folder = (state / "layout-test-1").string();
  EXPECT_EQ(take_notes(), "noting-b: open in " + folder + "\nnoting-a: open in " + folder +
                              "\nnoting-a: hand over n1\n");
  EXPECT_EQ(applied_again, 1);
  EXPECT_TRUE(read_datapath_record(state)->former.empty());
}

TEST_F(Change, WithoutOneItIsPurged) {
  start("noting-a");
  start("noting-c");
  EXPECT_THAT(take_notes(), HasSubstr("noting-a: purge\n"));
  start("noting-b");
  const std::string said = take_notes();
  EXPECT_THAT(said, HasSubstr("noting-c: purge\n"));
  EXPECT_THAT(said, testing::Not(HasSubstr("hand over")));
  EXPECT_EQ(applied_again, 1);
}

TEST_F(Change, WhoseLibraryIsGoneStaysOnRecordUntilItIsBack) {
  start("noting-a");
  const fs::path library = bench.folder().path() / "egw-datapath-noting-a.so";
  fs::rename(library, bench.folder().path() / "kept");
  start("noting-b");
  auto record = read_datapath_record(state);
  ASSERT_EQ(record->former.size(), 1U);
  EXPECT_EQ(record->former[0].choice.name, "noting-a");
  EXPECT_EQ(record->former[0].holds.dump(), R"({"tables":["one"]})");
  EXPECT_EQ(applied_again, 0);
  take_notes();
  start("noting-c");  // both are former ones now
  EXPECT_THAT(take_notes(), HasSubstr("noting-b: purge\n"));
  fs::rename(bench.folder().path() / "kept", library);
  start("noting-c");
  EXPECT_THAT(take_notes(), HasSubstr("noting-a: purge\n"));
  EXPECT_TRUE(read_datapath_record(state)->former.empty());
}

TEST_F(Change, BackToAFormerOneThatIsStillThere) {
  start("noting-a");
  const fs::path library = bench.folder().path() / "egw-datapath-noting-a.so";
  fs::rename(library, bench.folder().path() / "kept");
  start("noting-b");
  fs::rename(bench.folder().path() / "kept", library);
  take_notes();
  start("noting-a");
  const std::string said = take_notes();
  EXPECT_THAT(said, HasSubstr("noting-b: hand over n1\n"));
  EXPECT_THAT(said, testing::Not(HasSubstr("noting-a: hand over")));
  EXPECT_TRUE(read_datapath_record(state)->former.empty());
}

TEST_F(Change, WhatCannotBePurgedIsAskedAgain) {
  DatapathRecord record;
  record.now.choice.name = "noting-c";
  record.now.choice.config = config({{"purge", "fail"}});
  ASSERT_TRUE(write_datapath_record(state, record));
  start("noting-a");
  EXPECT_EQ(applied_again, 0);
  const auto kept = read_datapath_record(state);
  ASSERT_EQ(kept->former.size(), 1U);
  EXPECT_EQ(kept->former[0].choice.config.value("purge", ""), "fail");
}

TEST_F(Change, ARecordThatCannotBeReadIsSaidOnceAndMadeAnew) {
  start("noting-a");
  const fs::path file = state / "datapath.json";
  runtime::Logger warns{runtime::LogFormat::kText, runtime::LogLevel::kWarn};
  const auto said = [&] {
    testing::internal::CaptureStderr();
    const DatapathChange change(state, bench.host(), warns, "noting-a");
    return testing::internal::GetCapturedStderr();
  };
  EXPECT_EQ(said(), "");
  for (const auto& [text, fault] : {std::pair{"{", "JSON"}, std::pair{R"({"name": 5})", "name"}}) {
    std::ofstream(file, std::ios::trunc) << text;
    const std::string line = said();
    EXPECT_THAT(line, testing::AllOf(HasSubstr(file.string()), HasSubstr(fault),
                                     HasSubstr("egw purge --datapath NAME")));
    EXPECT_EQ(std::count(line.begin(), line.end(), '\n'), 1) << line;
  }
  start("noting-a");
  EXPECT_EQ(said(), "");
  fs::remove(file);
  EXPECT_EQ(said(), "") << "a fresh node";
  fs::create_directory(file);
  EXPECT_THAT(said(), HasSubstr("remove it"));
  start("noting-a");  // goes on without
}

TEST(Record, ReadsThatOfAnOlderAgentAndNoNonsense) {
  const Folder folder;
  EXPECT_FALSE(read_datapath_record(folder.path()));
  std::ofstream(folder.path() / "datapath.json") << R"({"name": "netlink", "config": {}})";
  const auto old = read_datapath_record(folder.path());
  ASSERT_TRUE(old);
  EXPECT_EQ(old->now.choice.name, "netlink");
  EXPECT_FALSE(old->automatic);
  for (const char* text : {"", "[]", "{", R"({"name": 5})"}) {
    std::ofstream(folder.path() / "datapath.json", std::ios::trunc) << text;
    EXPECT_FALSE(read_datapath_record(folder.path())) << text;
    EXPECT_NE(runtime::datapath_record_fault(folder.path()), "") << text;
  }
  for (const char* text :
       {R"({"name": "a", "config": 5, "former": 5, "others": [], "automatic": "yes", "boot": 1})",
        R"({"name": "a", "holds": [], "former": [5, {"name": 1}]})"}) {
    std::ofstream(folder.path() / "datapath.json", std::ios::trunc) << text;
    const auto odd = read_datapath_record(folder.path());
    ASSERT_TRUE(odd) << text;
    EXPECT_TRUE(odd->former.empty());
    EXPECT_EQ(runtime::datapath_record_fault(folder.path()), "") << text;
  }
}

}  // namespace
}  // namespace egw::host::test
