// What every state store must do, whatever is behind it: Kubernetes' write semantics and the order
// of events. Instantiated once per store (tests/unit/local, tests/kube) with
//   INSTANTIATE_TYPED_TEST_SUITE_P(Name, StoreSuite, Backend);
// where Backend is default-constructible and has an empty store: `TestHost host`, `store()`, and
// `another()`, a second store instance over the same content.
#pragma once

#include <gmock/gmock.h>

#include <atomic>
#include <memory>

#include "support/store_kit.hpp"

namespace egw::store_kit {

using sdk::Code;
using sdk::WriteOp;
using testing::ElementsAre;
using testing::HasSubstr;

template <class Backend>
class StoreSuite : public testing::Test {
 protected:
  Backend backend;
  Calls calls{backend.store()};
  static Calls::Options with_revision(std::uint64_t revision) {
    Calls::Options o;
    o.revision = revision;
    return o;
  }
  static Calls::Options with_term(std::uint64_t term) {
    Calls::Options o;
    o.term = term;
    return o;
  }
};
TYPED_TEST_SUITE_P(StoreSuite);

TYPED_TEST_P(StoreSuite, CreateFillsTheSystemFieldsAndIgnoresStatus) {
  auto& s = this->calls;
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

TYPED_TEST_P(StoreSuite, GenerationCountsChangesOfSpecAlone) {
  auto& s = this->calls;
  const Answer made = s.create(gateway(), "", "g", {{"spec", {{"x", 1}}}});
  ASSERT_TRUE(made.ok()) << made.status.text();
  Answer a = s.update(gateway(), "", "g",
                      {{"metadata", {{"labels", {{"l", "1"}}}}}, {"spec", {{"x", 1}}}});
  EXPECT_EQ(a.object["metadata"]["generation"], 1);
  EXPECT_GT(a.revision, made.revision);
  const std::uint64_t before_status = a.revision;
  a = s.write(WriteOp::kUpdateStatus, gateway(), "", "g", {{"status", {{"s", 1}}}}, {});
  EXPECT_EQ(a.object["metadata"]["generation"], 1);
  EXPECT_GT(a.revision, before_status);
  a = s.update(gateway(), "", "g", {{"spec", {{"x", 2}}}});
  EXPECT_EQ(a.object["metadata"]["generation"], 2);
  EXPECT_EQ(a.object["status"]["s"], 1) << "an update of spec leaves the status";
  EXPECT_FALSE(a.object["metadata"].contains("labels"));
}

TYPED_TEST_P(StoreSuite, StatusWritesTouchStatusAlone) {
  auto& s = this->calls;
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
  // The whole status is replaced, with and without an expected revision.
  a = s.write(WriteOp::kUpdateStatus, gateway(), "", "g", {{"status", {{"t", 2}}}}, {});
  EXPECT_EQ(a.object["status"], json({{"t", 2}}));
  a = s.write(WriteOp::kUpdateStatus, gateway(), "", "g", {{"status", {{"u", 3}}}},
              this->with_revision(a.revision));
  ASSERT_TRUE(a.ok()) << a.status.text();
  EXPECT_EQ(a.object["status"], json({{"u", 3}}));
  EXPECT_EQ(a.object["spec"]["x"], 1);
  a = s.write(WriteOp::kUpdateStatus, gateway(), "", "g", json::object(), {});
  ASSERT_TRUE(a.ok()) << a.status.text();
  EXPECT_FALSE(a.object.contains("status"));
}

TYPED_TEST_P(StoreSuite, AWriteThatChangesNothingKeepsTheRevision) {
  auto& s = this->calls;
  const Answer made = s.create(gateway(), "", "g", {{"spec", {{"x", 1}}}});
  const Answer same = s.update(gateway(), "", "g", made.object);
  ASSERT_TRUE(same.ok()) << same.status.text();
  EXPECT_EQ(same.revision, made.revision);
  EXPECT_EQ(same.object, made.object);
  const json status = {{"status", {{"s", 1}}}};
  const Answer told = s.write(WriteOp::kUpdateStatus, gateway(), "", "g", status, {});
  EXPECT_GT(told.revision, made.revision);
  EXPECT_EQ(s.write(WriteOp::kUpdateStatus, gateway(), "", "g", status, {}).revision,
            told.revision);
}

TYPED_TEST_P(StoreSuite, ConflictIsAValueThatNamesTheObject) {
  auto& s = this->calls;
  const Answer made = s.create(gateway(), "", "g", json::object());
  const auto stale = this->with_revision(made.revision + 1'000'000);
  const Answer a = s.write(WriteOp::kUpdate, gateway(), "", "g", {{"spec", {{"x", 1}}}}, stale);
  EXPECT_EQ(a.status.code, Code::kConflict);
  EXPECT_THAT(a.status.text(), HasSubstr("EgressGateway g"));
  EXPECT_THAT(a.status.message, HasSubstr("revision " + std::to_string(made.revision) + " "));
  EXPECT_EQ(s.write(WriteOp::kUpdateStatus, gateway(), "", "g", {{"status", {{"x", 1}}}}, stale)
                .status.code,
            Code::kConflict);
  const Answer b = s.write(WriteOp::kUpdate, gateway(), "", "g", {{"spec", {{"x", 1}}}},
                           this->with_revision(made.revision));
  EXPECT_TRUE(b.ok()) << b.status.text();
  EXPECT_EQ(
      s.write(WriteOp::kDelete, gateway(), "", "g", json(), this->with_revision(made.revision))
          .status.code,
      Code::kConflict);
  EXPECT_TRUE(
      s.write(WriteOp::kDelete, gateway(), "", "g", json(), this->with_revision(b.revision)).ok());
  EXPECT_EQ(s.write(WriteOp::kCreate, gateway(), "", "g", json::object(), stale).status.code,
            Code::kConflict);
}

TYPED_TEST_P(StoreSuite, AnotherUidIsAConflict) {
  auto& s = this->calls;
  const Answer first = s.create(gateway(), "", "g", json::object());
  ASSERT_TRUE(s.remove(gateway(), "", "g").ok());
  ASSERT_TRUE(s.create(gateway(), "", "g", json::object()).ok());
  EXPECT_EQ(s.update(gateway(), "", "g", first.object).status.code, Code::kConflict);
}

TYPED_TEST_P(StoreSuite, MissingAndExistingObjects) {
  auto& s = this->calls;
  EXPECT_EQ(s.get(gateway(), "", "g").status.code, Code::kNotFound);
  EXPECT_EQ(s.update(gateway(), "", "g", json::object()).status.code, Code::kNotFound);
  EXPECT_EQ(
      s.write(WriteOp::kUpdateStatus, gateway(), "", "g", {{"status", {{"x", 1}}}}, {}).status.code,
      Code::kNotFound);
  EXPECT_EQ(s.remove(gateway(), "", "g").status.code, Code::kNotFound);
  ASSERT_TRUE(s.create(gateway(), "", "g", json::object()).ok());
  EXPECT_EQ(s.create(gateway(), "", "g", json::object()).status.code, Code::kExists);
  EXPECT_TRUE(s.create(policy(), "a", "g", json::object()).ok()) << "another kind, same name";
  EXPECT_TRUE(s.create(policy(), "b", "g", json::object()).ok()) << "another namespace";
  const Answer gone = s.remove(policy(), "b", "g");
  EXPECT_TRUE(gone.ok()) << gone.status.text();
  EXPECT_EQ(gone.object["metadata"]["namespace"], "b") << "the last document";
  EXPECT_EQ(s.get(policy(), "b", "g").status.code, Code::kNotFound);
}

TYPED_TEST_P(StoreSuite, FinalizersHoldADeletedObject) {
  auto& s = this->calls;
  ASSERT_TRUE(s.create(gateway(), "", "g",
                       {{"metadata", {{"finalizers", {"a.io/x", "a.io/y"}}}}, {"spec", {{"n", 1}}}})
                  .ok());
  Answer a = s.remove(gateway(), "", "g");
  ASSERT_TRUE(a.ok()) << a.status.text();
  EXPECT_TRUE(a.object["metadata"].contains("deletionTimestamp"));
  EXPECT_EQ(a.object["metadata"]["generation"], 2);
  const std::uint64_t marked = a.revision;
  EXPECT_EQ(s.remove(gateway(), "", "g").revision, marked) << "a second delete changes nothing";

  json more = a.object;
  more["metadata"]["finalizers"].push_back("a.io/z");
  EXPECT_EQ(s.update(gateway(), "", "g", more).status.code, Code::kInvalid);
  json one = a.object;
  one["metadata"]["finalizers"] = {"a.io/y"};
  one["metadata"].erase("deletionTimestamp");
  a = s.update(gateway(), "", "g", one);
  ASSERT_TRUE(a.ok()) << a.status.text();
  EXPECT_TRUE(a.object["metadata"].contains("deletionTimestamp")) << "cannot be taken back";
  json none = a.object;
  none["metadata"].erase("finalizers");
  a = s.update(gateway(), "", "g", none);
  ASSERT_TRUE(a.ok()) << a.status.text();
  EXPECT_EQ(s.get(gateway(), "", "g").status.code, Code::kNotFound);
}

TYPED_TEST_P(StoreSuite, DocumentsOfAnotherPlaceAreRefused) {
  auto& s = this->calls;
  const auto code = [&](const sdk::ObjectKind& k, const std::string& ns, const std::string& name,
                        const json& object) { return s.create(k, ns, name, object).status.code; };
  EXPECT_EQ(code(gateway(), "", "Upper", json::object()), Code::kInvalid);
  EXPECT_EQ(code(gateway(), "", "", json::object()), Code::kInvalid);
  EXPECT_EQ(code(gateway(), "", "..", json::object()), Code::kInvalid);
  EXPECT_EQ(code(gateway(), "", "a/b", json::object()), Code::kInvalid);
  EXPECT_EQ(code(gateway(), "", std::string(254, 'a'), json::object()), Code::kInvalid);
  EXPECT_EQ(code(gateway(), "a", "g", json::object()), Code::kInvalid);
  EXPECT_EQ(code(policy(), "", "p", json::object()), Code::kInvalid);
  EXPECT_EQ(code(gateway(), "", "g", "{"), Code::kInvalid);
  EXPECT_EQ(code(gateway(), "", "g", "[1]"), Code::kInvalid);
  EXPECT_EQ(code(gateway(), "", "g", "{\"a\":" + std::string(200, '[')), Code::kInvalid);
  EXPECT_EQ(code(gateway(), "", "g", {{"kind", "Pod"}}), Code::kInvalid);
  EXPECT_EQ(code(gateway(), "", "g", {{"metadata", {{"name", "h"}}}}), Code::kInvalid);
  EXPECT_EQ(code(gateway(), "", "g", {{"metadata", {{"labels", {{"a", 1}}}}}}), Code::kInvalid);
  EXPECT_EQ(s.list(gateway()).objects.size(), 0U);
  EXPECT_EQ(code(gateway(), "", std::string(253, 'a'), json::object()), Code::kOk);
}

TYPED_TEST_P(StoreSuite, StaleTermIsRefusedAndTheHighestRemembered) {
  auto& s = this->calls;
  const Answer made =
      s.write(WriteOp::kCreate, gateway(), "", "g", json::object(), this->with_term(5));
  ASSERT_TRUE(made.ok()) << made.status.text();
  const json spec = {{"spec", {{"x", 1}}}};
  Answer a = s.write(WriteOp::kUpdate, gateway(), "", "g", spec, this->with_term(4));
  EXPECT_EQ(a.status.code, Code::kStaleTerm);
  EXPECT_THAT(a.status.message, HasSubstr("term 4"));
  EXPECT_THAT(a.status.message, HasSubstr("term 5"));
  EXPECT_TRUE(s.update(gateway(), "", "g", spec).ok()) << "no leader's write";
  // A write that changes nothing tells its term all the same; a dry run does not.
  const json now = s.get(gateway(), "", "g").object;
  Calls::Options dry = this->with_term(99);
  dry.dry_run = true;
  ASSERT_TRUE(s.write(WriteOp::kUpdate, gateway(), "", "g", now, dry).ok());
  a = s.write(WriteOp::kUpdate, gateway(), "", "g", now, this->with_term(9));
  ASSERT_TRUE(a.ok()) << a.status.text();
  const std::unique_ptr<sdk::StateStore> second = this->backend.another();
  Calls other(*second);
  EXPECT_EQ(other.write(WriteOp::kUpdate, gateway(), "", "g", now, this->with_term(8)).status.code,
            Code::kStaleTerm);
  EXPECT_TRUE(other.write(WriteOp::kUpdate, gateway(), "", "g", now, this->with_term(9)).ok());
  // The first hears of the second's higher term.
  ASSERT_TRUE(other.write(WriteOp::kUpdate, gateway(), "", "g", now, this->with_term(10)).ok());
  const auto until = std::chrono::steady_clock::now() + 2s;
  do {
    a = s.write(WriteOp::kUpdate, gateway(), "", "g", now, this->with_term(9));
  } while (a.ok() && std::chrono::steady_clock::now() < until);
  EXPECT_EQ(a.status.code, Code::kStaleTerm);
}

TYPED_TEST_P(StoreSuite, DryRunStoresNothing) {
  auto& s = this->calls;
  Calls::Options dry;
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

TYPED_TEST_P(StoreSuite, AdmissionSeesOldAndNewAndItsDocumentIsStored) {
  auto& s = this->calls;
  std::vector<std::string> seen;
  this->backend.host.admit = [&](std::uint32_t op, const json& before, const json& after,
                                 const egw_reader&, const egw_admission_sink& out) {
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
  const std::uint64_t revision = a.revision;
  EXPECT_EQ(a.object["spec"]["filled"], true);
  EXPECT_NE(a.object["metadata"]["uid"], "forged");
  EXPECT_THAT(a.warnings, ElementsAre("mind the gap"));
  a = s.update(gateway(), "", "g", {{"spec", {{"x", 1}}}});
  EXPECT_EQ(a.revision, revision) << "what admission fills in is no change";
  s.write(WriteOp::kUpdateStatus, gateway(), "", "g", {{"status", {{"s", 1}}}}, {});
  s.remove(gateway(), "", "g");
  EXPECT_THAT(seen, ElementsAre("1-n", "2on", "4o-"));
}

TYPED_TEST_P(StoreSuite, DenialsComeOnePerLineAndNothingIsStored) {
  auto& s = this->calls;
  this->backend.host.admit = [](std::uint32_t, const json&, const json&, const egw_reader&,
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

TYPED_TEST_P(StoreSuite, AdmissionReadsOtherObjects) {
  auto& s = this->calls;
  ASSERT_TRUE(s.create(gateway(), "", "g1", {{"spec", {{"x", 1}}}}).ok());
  ASSERT_TRUE(s.create(gateway(), "", "g2", {{"spec", {{"x", 2}}}}).ok());
  int found = 0, missing = 0;
  std::vector<std::string> names;
  this->backend.host.admit = [&](std::uint32_t, const json&, const json& after,
                                 const egw_reader& reader, const egw_admission_sink& out) {
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
  const Answer a = s.create(policy(), "d", "p", json::object());
  ASSERT_TRUE(a.ok()) << a.status.text();
  EXPECT_EQ(found, EGW_OK);
  EXPECT_EQ(missing, EGW_NOT_FOUND);
  EXPECT_THAT(names, ElementsAre("g2", "g1", "g2"));
}

TYPED_TEST_P(StoreSuite, ListIsSortedAndFiltered) {
  auto& s = this->calls;
  for (const char* name : {"b", "a"}) {
    for (const char* ns : {"y", "x"}) {
      ASSERT_TRUE(s.create(policy(), ns, name, {{"metadata", {{"labels", {{"app", name}}}}}}).ok());
    }
  }
  const auto names = [](const Answer& a) {
    std::vector<std::string> out;
    for (const json& o : a.objects) {
      EXPECT_EQ(o["kind"], "EgressPolicy");
      out.push_back(o["metadata"]["namespace"].get<std::string>() + "/" +
                    o["metadata"]["name"].get<std::string>());
    }
    return out;
  };
  EXPECT_THAT(names(s.list(policy())), ElementsAre("x/a", "x/b", "y/a", "y/b"));
  EXPECT_THAT(names(s.list(policy(), "y")), ElementsAre("y/a", "y/b"));
  EXPECT_THAT(names(s.list(policy(), "", "metadata.name=a")), ElementsAre("x/a", "y/a"));
  EXPECT_THAT(names(s.list(policy(), "x", "", "app!=a")), ElementsAre("x/b"));
  EXPECT_THAT(names(s.list(policy(), "", "", "app in (b)")), ElementsAre("x/b", "y/b"));
  EXPECT_EQ(s.list(policy(), "", "nonsense").status.code, Code::kInvalid);
}

TYPED_TEST_P(StoreSuite, SnapshotThenChangesInOrder) {
  auto& s = this->calls;
  ASSERT_TRUE(s.create(gateway(), "", "a", json::object()).ok());
  ASSERT_TRUE(s.create(policy(), "d", "other-kind", json::object()).ok());
  Recorder r(this->backend.store(), gateway());
  ASSERT_TRUE(r.wait("SYNCED"));
  ASSERT_TRUE(s.create(gateway(), "", "b", json::object()).ok());
  ASSERT_TRUE(r.wait("UPSERT b"));
  ASSERT_TRUE(s.update(gateway(), "", "a", {{"spec", {{"x", 1}}}}).ok());
  ASSERT_TRUE(r.wait([](const Recorder::Event& e) {
    return e.text() == "UPSERT a" && json::parse(e.object)["spec"]["x"] == 1;
  }));
  const std::uint64_t last = s.get(gateway(), "", "b").revision;
  ASSERT_TRUE(s.remove(gateway(), "", "b").ok());
  ASSERT_TRUE(r.wait([&](const Recorder::Event& e) {
    return e.text() == "DELETE b" && json::parse(e.object)["metadata"]["name"] == "b" &&
           e.revision > last;
  }));
  EXPECT_THAT(r.take(),
              ElementsAre("SNAPSHOT", "UPSERT a", "SYNCED", "UPSERT b", "UPSERT a", "DELETE b"));
}

TYPED_TEST_P(StoreSuite, DeleteAndCreateAgainAreBothSeen) {
  auto& s = this->calls;
  ASSERT_TRUE(s.create(gateway(), "", "a", json::object()).ok());
  Recorder r(this->backend.store(), gateway());
  ASSERT_TRUE(r.wait("SYNCED"));
  ASSERT_TRUE(s.remove(gateway(), "", "a").ok());
  ASSERT_TRUE(s.create(gateway(), "", "a", json::object()).ok());
  EXPECT_TRUE(r.wait("DELETE a"));
  EXPECT_TRUE(r.wait("UPSERT a"));
}

TYPED_TEST_P(StoreSuite, AnObjectThatStopsMatchingIsDeleted) {
  auto& s = this->calls;
  const auto labelled = [](const char* app) {
    return json{{"metadata", {{"labels", {{"app", app}}}}}};
  };
  ASSERT_TRUE(s.create(policy(), "d", "p1", labelled("web")).ok());
  ASSERT_TRUE(s.create(policy(), "d", "p2", labelled("cache")).ok());
  Recorder by_label(this->backend.store(), policy(), "", "", "", "app in (web,db)");
  Recorder by_name(this->backend.store(), policy(), "d", "p2");
  ASSERT_TRUE(by_label.wait("SYNCED"));
  ASSERT_TRUE(by_name.wait("SYNCED"));
  ASSERT_TRUE(s.update(policy(), "d", "p1", labelled("other")).ok());
  ASSERT_TRUE(by_label.wait("DELETE d/p1"));
  ASSERT_TRUE(s.update(policy(), "d", "p2", labelled("db")).ok());
  ASSERT_TRUE(by_label.wait("UPSERT d/p2"));
  ASSERT_TRUE(s.remove(policy(), "d", "p1").ok());
  ASSERT_TRUE(s.remove(policy(), "d", "p2").ok());
  ASSERT_TRUE(by_label.wait("DELETE d/p2"));
  ASSERT_TRUE(by_name.wait("DELETE d/p2"));
  EXPECT_THAT(by_label.take(), ElementsAre("SNAPSHOT", "UPSERT d/p1", "SYNCED", "DELETE d/p1",
                                           "UPSERT d/p2", "DELETE d/p2"));
  EXPECT_THAT(by_name.take(),
              ElementsAre("SNAPSHOT", "UPSERT d/p2", "SYNCED", "UPSERT d/p2", "DELETE d/p2"));
}

TYPED_TEST_P(StoreSuite, UnsubscribeFromInsideAnEventEndsIt) {
  auto& s = this->calls;
  struct Context {
    sdk::StateStore* store;
    std::atomic<std::uint64_t> number{0};
    std::atomic<int> events{0};
  } context{&this->backend.store()};
  ASSERT_TRUE(s.create(gateway(), "", "a", json::object()).ok());
  Recorder probe(this->backend.store(), gateway());
  ASSERT_TRUE(probe.wait("SYNCED"));
  sdk::Query q;
  q.kind = gateway();
  const egw_event_sink sink{&context, [](void* ctx, const egw_event*) {
                              auto* c = static_cast<Context*>(ctx);
                              if (c->number == 0) return;  // SNAPSHOT may come before the number
                              ++c->events;
                              c->events.notify_all();
                              c->store->unsubscribe(c->number);
                            }};
  context.number = this->backend.store().subscribe(q, sdk::EventSink(sink)).value();
  ASSERT_TRUE(s.create(gateway(), "", "b", json::object()).ok());
  context.events.wait(0);
  ASSERT_TRUE(s.create(gateway(), "", "c", json::object()).ok());
  ASSERT_TRUE(probe.wait("UPSERT c"));
  EXPECT_EQ(context.events, 1);
}

REGISTER_TYPED_TEST_SUITE_P(StoreSuite, CreateFillsTheSystemFieldsAndIgnoresStatus,
                            GenerationCountsChangesOfSpecAlone, StatusWritesTouchStatusAlone,
                            AWriteThatChangesNothingKeepsTheRevision,
                            ConflictIsAValueThatNamesTheObject, AnotherUidIsAConflict,
                            MissingAndExistingObjects, FinalizersHoldADeletedObject,
                            DocumentsOfAnotherPlaceAreRefused,
                            StaleTermIsRefusedAndTheHighestRemembered, DryRunStoresNothing,
                            AdmissionSeesOldAndNewAndItsDocumentIsStored,
                            DenialsComeOnePerLineAndNothingIsStored, AdmissionReadsOtherObjects,
                            ListIsSortedAndFiltered, SnapshotThenChangesInOrder,
                            DeleteAndCreateAgainAreBothSeen, AnObjectThatStopsMatchingIsDeleted,
                            UnsubscribeFromInsideAnEventEndsIt);

}  // namespace egw::store_kit
