// Kubernetes' write semantics on one store.
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
  TestStore::Options with_term(std::uint64_t term) {
    TestStore::Options o;
    o.term = term;
    return o;
  }
};

TEST_F(Semantics, CreateFillsTheSystemFieldsAndIgnoresStatus) {
  const Answer a = s.create(gateway(), "", "g1",
                            {{"metadata", {{"uid", "mine"}, {"labels", {{"a", "b"}}}}},
                             {"spec", {{"x", 1}}},
                             {"status", {{"y", 2}}}});
  ASSERT_TRUE(a.ok()) << a.status.text();
  const json& m = a.object["metadata"];
  EXPECT_EQ(a.object["apiVersion"], "egressgateway.spidernet.io/v1beta1");
  EXPECT_EQ(a.object["kind"], "EgressGateway");
  EXPECT_EQ(m["name"], "g1");
  EXPECT_EQ(m["resourceVersion"], std::to_string(a.revision));
  EXPECT_EQ(m["generation"], 1);
  EXPECT_EQ(m["uid"].get<std::string>().size(), 36U);
  EXPECT_EQ(m["creationTimestamp"].get<std::string>().size(), 20U);
  EXPECT_EQ(m["labels"]["a"], "b");
  EXPECT_FALSE(a.object.contains("status"));
  EXPECT_EQ(s.get(gateway(), "", "g1").object, a.object);
}

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

TEST_F(Semantics, GenerationCountsChangesOfSpecAlone) {
  ASSERT_TRUE(s.create(gateway(), "", "g", {{"spec", {{"x", 1}}}}).ok());
  Answer a = s.update(gateway(), "", "g",
                      {{"metadata", {{"labels", {{"l", "1"}}}}}, {"spec", {{"x", 1}}}});
  EXPECT_EQ(a.object["metadata"]["generation"], 1);
  EXPECT_EQ(a.revision, 2U);
  a = s.write(WriteOp::kUpdateStatus, gateway(), "", "g", {{"status", {{"s", 1}}}}, {});
  EXPECT_EQ(a.object["metadata"]["generation"], 1);
  EXPECT_EQ(a.revision, 3U);
  a = s.update(gateway(), "", "g", {{"spec", {{"x", 2}}}});
  EXPECT_EQ(a.object["metadata"]["generation"], 2);
  EXPECT_EQ(a.object["status"]["s"], 1) << "an update of spec leaves the status";
  EXPECT_FALSE(a.object["metadata"].contains("labels"));
}

TEST_F(Semantics, StatusWritesTouchStatusAlone) {
  ASSERT_TRUE(s.create(gateway(), "", "g", {{"spec", {{"x", 1}}}}).ok());
  const json wanted = {
      {"metadata", {{"labels", {{"l", "1"}}}}}, {"spec", {{"x", 9}}}, {"status", {{"s", 1}}}};
  Answer a = s.write(WriteOp::kUpdateStatus, gateway(), "", "g", wanted, {});
  ASSERT_TRUE(a.ok()) << a.status.text();
  EXPECT_EQ(a.object["spec"]["x"], 1);
  EXPECT_FALSE(a.object["metadata"].contains("labels"));
  EXPECT_EQ(a.object["status"]["s"], 1);
  a = s.update(gateway(), "", "g", {{"spec", {{"x", 1}}}, {"status", {{"s", 7}}}});
  EXPECT_EQ(a.object["status"]["s"], 1);
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

TEST_F(Semantics, AnotherUidIsAConflict) {
  const Answer first = s.create(gateway(), "", "g", json::object());
  ASSERT_TRUE(s.remove(gateway(), "", "g").ok());
  ASSERT_TRUE(s.create(gateway(), "", "g", json::object()).ok());
  EXPECT_EQ(s.update(gateway(), "", "g", first.object).status.code, Code::kConflict);
}

TEST_F(Semantics, MissingAndExistingObjects) {
  EXPECT_EQ(s.get(gateway(), "", "g").status.code, Code::kNotFound);
  EXPECT_EQ(s.update(gateway(), "", "g", json::object()).status.code, Code::kNotFound);
  EXPECT_EQ(s.remove(gateway(), "", "g").status.code, Code::kNotFound);
  ASSERT_TRUE(s.create(gateway(), "", "g", json::object()).ok());
  EXPECT_EQ(s.create(gateway(), "", "g", json::object()).status.code, Code::kExists);
  EXPECT_TRUE(s.create(policy(), "a", "g", json::object()).ok()) << "another kind, same name";
  EXPECT_TRUE(s.create(policy(), "b", "g", json::object()).ok()) << "another namespace";
}

TEST_F(Semantics, FinalizersHoldADeletedObject) {
  ASSERT_TRUE(s.create(gateway(), "", "g",
                       {{"metadata", {{"finalizers", {"a/x", "a/y"}}}}, {"spec", {{"n", 1}}}})
                  .ok());
  Answer a = s.remove(gateway(), "", "g");
  ASSERT_TRUE(a.ok());
  EXPECT_TRUE(a.object["metadata"].contains("deletionTimestamp"));
  EXPECT_EQ(a.object["metadata"]["generation"], 2);
  const std::uint64_t marked = a.revision;
  EXPECT_EQ(s.remove(gateway(), "", "g").revision, marked) << "a second delete changes nothing";

  json more = a.object;
  more["metadata"]["finalizers"].push_back("a/z");
  EXPECT_EQ(s.update(gateway(), "", "g", more).status.code, Code::kInvalid);
  json one = a.object;
  one["metadata"]["finalizers"] = {"a/y"};
  one["metadata"].erase("deletionTimestamp");
  a = s.update(gateway(), "", "g", one);
  ASSERT_TRUE(a.ok()) << a.status.text();
  EXPECT_TRUE(a.object["metadata"].contains("deletionTimestamp")) << "cannot be taken back";
  json none = a.object;
  none["metadata"].erase("finalizers");
  a = s.update(gateway(), "", "g", none);
  ASSERT_TRUE(a.ok()) << a.status.text();
  EXPECT_EQ(a.revision, marked + 2);
  EXPECT_EQ(s.get(gateway(), "", "g").status.code, Code::kNotFound);
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

TEST_F(Semantics, StaleTermIsRefusedAndTheHighestRemembered) {
  ASSERT_TRUE(s.write(WriteOp::kCreate, gateway(), "", "g", json::object(), with_term(5)).ok());
  Answer a = s.write(WriteOp::kUpdate, gateway(), "", "g", {{"spec", {{"x", 1}}}}, with_term(4));
  EXPECT_EQ(a.status.code, Code::kStaleTerm);
  EXPECT_THAT(a.status.message, HasSubstr("term 4"));
  EXPECT_THAT(a.status.message, HasSubstr("term 5"));
  EXPECT_TRUE(s.update(gateway(), "", "g", {{"spec", {{"x", 1}}}}).ok()) << "no leader's write";
  // A write that changes nothing tells its term all the same; a dry run does not.
  const json now = s.get(gateway(), "", "g").object;
  TestStore::Options dry = with_term(99);
  dry.dry_run = true;
  ASSERT_TRUE(s.write(WriteOp::kUpdate, gateway(), "", "g", now, dry).ok());
  ASSERT_TRUE(s.write(WriteOp::kUpdate, gateway(), "", "g", now, with_term(9)).ok());
  TestStore other(folder.db());
  EXPECT_EQ(other.write(WriteOp::kUpdate, gateway(), "", "g", now, with_term(8)).status.code,
            Code::kStaleTerm);
  EXPECT_TRUE(other.write(WriteOp::kUpdate, gateway(), "", "g", now, with_term(9)).ok());
}

TEST_F(Semantics, DryRunStoresNothing) {
  TestStore::Options dry;
  dry.dry_run = true;
  EXPECT_TRUE(s.write(WriteOp::kCreate, gateway(), "", "g", json::object(), dry).ok());
  EXPECT_EQ(s.get(gateway(), "", "g").status.code, Code::kNotFound);
  ASSERT_TRUE(s.create(gateway(), "", "g", {{"spec", {{"x", 1}}}}).ok());
  const Answer a = s.write(WriteOp::kUpdate, gateway(), "", "g", {{"spec", {{"x", 2}}}}, dry);
  EXPECT_EQ(a.object["spec"]["x"], 2);
  EXPECT_EQ(s.get(gateway(), "", "g").object["spec"]["x"], 1);
  EXPECT_TRUE(s.write(WriteOp::kDelete, gateway(), "", "g", json(), dry).ok());
  EXPECT_TRUE(s.get(gateway(), "", "g").ok());
}

TEST_F(Semantics, AdmissionSeesOldAndNewAndItsDocumentIsStored) {
  std::vector<std::string> seen;
  s.host.admit = [&](std::uint32_t op, const json& before, const json& after, const egw_reader&,
                     const egw_admission_sink& out) {
    seen.push_back(std::to_string(op) + (before.is_null() ? "-" : "o") +
                   (after.is_null() ? "-" : "n"));
    if (!after.is_null()) {
      json changed = after;
      changed["spec"]["filled"] = true;
      changed["metadata"]["uid"] = "forged";
      const std::string text = changed.dump();
      out.object(out.ctx, sdk::str(text));
    }
    out.warning(out.ctx, sdk::str("mind the gap"));
    return static_cast<int>(EGW_OK);
  };
  Answer a = s.create(gateway(), "", "g", {{"spec", {{"x", 1}}}});
  ASSERT_TRUE(a.ok()) << a.status.text();
  EXPECT_EQ(a.object["spec"]["filled"], true);
  EXPECT_NE(a.object["metadata"]["uid"], "forged");
  EXPECT_THAT(a.warnings, ElementsAre("mind the gap"));
  a = s.update(gateway(), "", "g", {{"spec", {{"x", 1}}}});
  EXPECT_EQ(a.revision, 1U) << "what admission fills in is no change";
  s.write(WriteOp::kUpdateStatus, gateway(), "", "g", {{"status", {{"s", 1}}}}, {});
  s.remove(gateway(), "", "g");
  EXPECT_THAT(seen, ElementsAre("1-n", "2on", "4o-"));
}

TEST_F(Semantics, DenialsComeOnePerLineAndNothingIsStored) {
  s.host.admit = [](std::uint32_t, const json&, const json&, const egw_reader&,
                    const egw_admission_sink& out) {
    out.denial(out.ctx, sdk::str("spec.a: no"));
    out.denial(out.ctx, sdk::str("spec.b: neither"));
    return static_cast<int>(EGW_DENIED);
  };
  const Answer a = s.create(gateway(), "", "g", json::object());
  EXPECT_EQ(a.status.code, Code::kDenied);
  EXPECT_EQ(a.status.message, "spec.a: no\nspec.b: neither");
  EXPECT_EQ(s.get(gateway(), "", "g").status.code, Code::kNotFound);
}

TEST_F(Semantics, AdmissionReadsOtherObjectsInsideTheTransaction) {
  ASSERT_TRUE(s.create(gateway(), "", "g1", {{"spec", {{"x", 1}}}}).ok());
  ASSERT_TRUE(s.create(gateway(), "", "g2", {{"spec", {{"x", 2}}}}).ok());
  int found = 0, missing = 0;
  std::vector<std::string> names;
  s.host.admit = [&](std::uint32_t, const json&, const json& after, const egw_reader& reader,
                     const egw_admission_sink& out) {
    const egw_object_kind k = gateway().abi();
    const egw_object_sink sink{&names,
                               [](void* ctx, std::uint64_t, egw_str text) {
                                 static_cast<std::vector<std::string>*>(ctx)->push_back(
                                     json::parse(sdk::view(text))["metadata"]["name"]);
                               },
                               nullptr};
    found = reader.get(reader.ctx, &k, {}, sdk::str("g2"), &sink);
    missing = reader.get(reader.ctx, &k, {}, sdk::str("none"), &sink);
    EXPECT_EQ(reader.list(reader.ctx, &k, &sink), EGW_OK);
    const std::string text = after.dump();
    out.object(out.ctx, sdk::str(text));
    return static_cast<int>(EGW_OK);
  };
  ASSERT_TRUE(s.create(policy(), "d", "p", json::object()).ok());
  EXPECT_EQ(found, EGW_OK);
  EXPECT_EQ(missing, EGW_NOT_FOUND);
  EXPECT_THAT(names, ElementsAre("g2", "g1", "g2"));
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

json seen_at(const std::string& time) { return {{"reason", "R"}, {"lastTimestamp", time}}; }

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
  ASSERT_TRUE(s.create(event(), "d", "young", seen_at(format_now(23h))).ok());
  ASSERT_TRUE(s.create(event(), "d", "new", seen_at(format_now())).ok());
  EXPECT_EQ(s.get(event(), "d", "old").status.code, Code::kNotFound);
  EXPECT_TRUE(s.get(event(), "d", "young").ok());
}

}  // namespace
}  // namespace egw::local::test
