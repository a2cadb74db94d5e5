// What the local store does beside what every store does (suite_test.cpp).
#include <gmock/gmock.h>
#include <sys/stat.h>

#include <filesystem>

#include "document.hpp"
#include "support.hpp"

namespace egw::local::test {
namespace {

using sdk::Code;
using sdk::WriteOp;
using testing::ElementsAre;
using testing::HasSubstr;

class Semantics : public testing::Test {
 protected:
  Folder folder;
  TestStore s{folder.db()};
  TestStore::Options with_revision(std::uint64_t revision) {
    TestStore::Options o;
    o.revision = revision;
    return o;
  }
};

TEST_F(Semantics, FilesAreForTheOwnerAlone) {
  struct stat st {};
  ASSERT_EQ(::stat(folder.db().c_str(), &st), 0);
  EXPECT_EQ(st.st_mode & 0777, 0600U);
  ASSERT_TRUE(s.create(gateway(), "", "g", json::object()).ok());
  ASSERT_EQ(::stat((folder.db() + "-wal").c_str(), &st), 0);
  EXPECT_EQ(st.st_mode & 0777, 0600U);
  const TestStore deeper(folder.file("a/b/egw.db"));
  ASSERT_EQ(::stat(folder.file("a/b").c_str(), &st), 0);
  EXPECT_EQ(st.st_mode & 0777, 0700U);
}

TEST_F(Semantics, CoreKindsKeepStatusInPlainWrites) {
  const json ready = {{"status", {{"phase", "Running"}}}};
  EXPECT_EQ(s.create(node(), "", "n1", ready).object["status"]["phase"], "Running");
  EXPECT_EQ(s.update(node(), "", "n1", {{"status", {{"phase", "Gone"}}}}).object["status"]["phase"],
            "Gone");
  // A manifest without a status does not take it away.
  EXPECT_EQ(s.update(node(), "", "n1", {{"spec", {{"a", 1}}}}).object["status"]["phase"], "Gone");
}

TEST_F(Semantics, AWriteThatChangesNothingKeepsTheRevision) {
  const Answer made = s.create(gateway(), "", "g", {{"spec", {{"x", 1}}}});
  const Answer same = s.update(gateway(), "", "g", made.object);
  ASSERT_TRUE(same.ok());
  EXPECT_EQ(same.revision, made.revision);
  EXPECT_EQ(same.object, made.object);
  EXPECT_EQ(s.create(gateway(), "", "h", json::object()).revision, made.revision + 1);
}

TEST_F(Semantics, ConflictNamesBothRevisions) {
  ASSERT_TRUE(s.create(gateway(), "", "g", json::object()).ok());
  const Answer a =
      s.write(WriteOp::kUpdate, gateway(), "", "g", {{"spec", {{"x", 1}}}}, with_revision(77));
  EXPECT_EQ(a.status.code, Code::kConflict);
  EXPECT_THAT(a.status.text(), HasSubstr("EgressGateway g"));
  EXPECT_THAT(a.status.message, HasSubstr("77"));
  EXPECT_THAT(a.status.message, HasSubstr("revision 1 "));
  EXPECT_TRUE(
      s.write(WriteOp::kUpdate, gateway(), "", "g", {{"spec", {{"x", 1}}}}, with_revision(1)).ok());
  EXPECT_EQ(s.write(WriteOp::kDelete, gateway(), "", "g", json(), with_revision(1)).status.code,
            Code::kConflict);
}

TEST_F(Semantics, BoundsAreRefusedWithTheField) {
  const auto refused = [&](const sdk::ObjectKind& k, const std::string& ns, const std::string& name,
                           const json& object) {
    const Answer a = s.create(k, ns, name, object);
    EXPECT_EQ(a.status.code, Code::kInvalid) << name;
    return a.status.message;
  };
  EXPECT_THAT(refused(gateway(), "", "Upper", json::object()), HasSubstr("metadata.name"));
  EXPECT_THAT(refused(gateway(), "", "a..b", json::object()), HasSubstr("RFC 1123"));
  EXPECT_THAT(refused(gateway(), "", std::string(254, 'a'), json::object()), HasSubstr("253"));
  EXPECT_THAT(refused(gateway(), "ns", "g", json::object()), HasSubstr("cluster-scoped"));
  EXPECT_THAT(refused(policy(), "", "p", json::object()), HasSubstr("must be given"));
  EXPECT_THAT(refused(policy(), "a.b", "p", json::object()), HasSubstr("metadata.namespace"));
  EXPECT_THAT(refused(gateway(), "", "g", "{"), HasSubstr("not valid JSON"));
  EXPECT_THAT(refused(gateway(), "", "g", "[1]"), HasSubstr("JSON object"));
  EXPECT_THAT(refused(gateway(), "", "g", std::string("{\"a\":\"\xff\"}")), HasSubstr("JSON"));
  EXPECT_THAT(refused(gateway(), "", "g", "{\"a\":" + std::string(200, '[')), HasSubstr("deep"));
  EXPECT_THAT(refused(gateway(), "", "g", {{"spec", std::string(1600 * 1024, 'x')}}),
              HasSubstr("1572864"));
  EXPECT_THAT(refused(gateway(), "", "g", {{"kind", "Pod"}}), HasSubstr("kind is \"Pod\""));
  EXPECT_THAT(refused(gateway(), "", "g", {{"metadata", {{"name", "h"}}}}), HasSubstr("\"h\""));
  EXPECT_THAT(refused(gateway(), "", "g", {{"metadata", {{"labels", {{"a", 1}}}}}}),
              HasSubstr("metadata.labels.a"));
  EXPECT_TRUE(s.create(gateway(), "", std::string(253, 'a'), json::object()).ok());
  EXPECT_TRUE(s.create(gateway(), "", "a-1.b-2", {{"spec", std::string(1500 * 1024, 'x')}}).ok());
}

TEST_F(Semantics, AWholeThatGrowsOverTheBoundIsRefused) {
  const std::string big(900 * 1024, 'x');
  ASSERT_TRUE(s.create(gateway(), "", "g", {{"spec", big}}).ok());
  const Answer a = s.write(WriteOp::kUpdateStatus, gateway(), "", "g", {{"status", big}}, {});
  EXPECT_EQ(a.status.code, Code::kInvalid);
  EXPECT_FALSE(s.get(gateway(), "", "g").object.contains("status"));
}

TEST_F(Semantics, ListIsSortedAndFiltered) {
  for (const char* name : {"b", "a"}) {
    for (const char* ns : {"y", "x"}) {
      ASSERT_TRUE(s.create(pod(), ns, name,
                           {{"metadata", {{"labels", {{"app", name}}}}},
                            {"spec", {{"nodeName", std::string("n") + name}}}})
                      .ok());
    }
  }
  const auto names = [](const Answer& a) {
    std::vector<std::string> out;
    for (const json& o : a.objects) {
      out.push_back(o["metadata"]["namespace"].get<std::string>() + "/" +
                    o["metadata"]["name"].get<std::string>());
    }
    return out;
  };
  EXPECT_THAT(names(s.list(pod())), ElementsAre("x/a", "x/b", "y/a", "y/b"));
  EXPECT_THAT(names(s.list(pod(), "y")), ElementsAre("y/a", "y/b"));
  EXPECT_THAT(names(s.list(pod(), "", "spec.nodeName=na")), ElementsAre("x/a", "y/a"));
  EXPECT_THAT(names(s.list(pod(), "x", "", "app!=a")), ElementsAre("x/b"));
  EXPECT_EQ(s.list(pod(), "", "nonsense").status.code, Code::kInvalid);
}

json seen_at(const std::string& time) { return {{"reason", "R"}, {"eventTime", time}}; }

TEST_F(Semantics, EventsGoWhenThereAreTooMany) {
  ASSERT_TRUE(s.create(gateway(), "", "g", json::object()).ok());
  for (int i = 0; i < 1000; ++i) {
    ASSERT_TRUE(s.create(event(), "d", "e" + std::to_string(i), seen_at(format_now())).ok());
  }
  EXPECT_EQ(s.list(event()).objects.size(), 1000U);
  json again = s.get(event(), "d", "e0").object;
  again["count"] = 2;
  ASSERT_TRUE(s.update(event(), "d", "e0", again).ok());  // the newest now
  const Answer more = s.create(event(), "d", "one-more", seen_at(format_now()));
  ASSERT_TRUE(more.ok());
  EXPECT_EQ(s.list(event()).objects.size(), 1000U);
  EXPECT_TRUE(s.get(event(), "d", "e0").ok());
  EXPECT_EQ(s.get(event(), "d", "e1").status.code, Code::kNotFound);
  EXPECT_TRUE(s.get(gateway(), "", "g").ok());
  // The removal has a revision of its own.
  EXPECT_EQ(s.create(gateway(), "", "h", json::object()).revision, more.revision + 2);
}

TEST_F(Semantics, EventsGoWhenTheyAreOld) {
  ASSERT_TRUE(s.create(event(), "d", "old", seen_at(format_now(25h))).ok());
  json again = seen_at(format_now(25h));
  again["series"] = {{"count", 2}, {"lastObservedTime", format_now(23h)}};
  ASSERT_TRUE(s.create(event(), "d", "young", again).ok());
  ASSERT_TRUE(s.create(event(), "d", "new", seen_at(format_now())).ok());
  EXPECT_EQ(s.get(event(), "d", "old").status.code, Code::kNotFound);
  EXPECT_TRUE(s.get(event(), "d", "young").ok());
}

}  // namespace
}  // namespace egw::local::test
