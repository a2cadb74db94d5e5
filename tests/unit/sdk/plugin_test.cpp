// The thunks of the three kinds, called through their C tables: what crosses, and that nothing is
// thrown across. DatapathState against the contract of egw_change.
#include <gtest/gtest.h>

#include <memory>
#include <stdexcept>

#include "egw/sdk/datapath.hpp"
#include "egw/sdk/leader_election.hpp"
#include "egw/sdk/state_store.hpp"

namespace egw::sdk {
namespace {

struct Caught {
  int sys_errno = 0;
  std::string what, message;
  egw_error_sink sink{this, [](void* ctx, std::int32_t e, egw_str about, egw_str why) {
                        auto* self = static_cast<Caught*>(ctx);
                        self->sys_errno = e;
                        self->what = view(about);
                        self->message = view(why);
                      }};
};

class Recorder final : public FullDatapath {
 public:
  static constexpr std::uint64_t kCapabilities = EGW_CAP_POST_DNAT;
  Recorder(std::string_view config, std::string_view, DatapathHost) {
    if (config == "refuse") {
      throw Failure(Code::kUnsupported, "no such kernel", "vxlan", ENOTSUP);
    }
    if (config == "throw") throw std::runtime_error("out of luck");
    if (config == "int") throw 5;
  }
  static Status probe(std::string_view, const NodeConfig& node, ProbeSink& out) {
    out.finding(true, "Name", node.name);
    return ok();
  }
  Status apply_full(const State& state, ApplyReport& report) override {
    for (const auto& [id, egress] : state.egresses) {
      if (egress.owner == Owner::kPeer && !state.peers.contains(egress.owner_peer)) {
        report.failed(ObjectType::kEgress, id, ENOENT, "no such peer");
      }
      if (egress.id == 666) throw std::runtime_error("cannot bear this one");
    }
    endpoints = state.endpoints.size();
    return ok();
  }
  Status sysctls(SysctlSink&) override { return ok(); }
  Outcome<std::string> observe() override { return std::to_string(endpoints); }
  Status counters(CounterSink& out) override {
    out.counter("packets", "dir=out", 7);
    return ok();
  }
  Status health() override { return fail(Code::kUnavailable, "ill"); }
  Status forget(const Address& eip) override { return fail(Code::kNotFound, "none", eip.text()); }
  Status purge() override { return ok(); }
  std::size_t endpoints = 0;
};
using Ops = detail::DatapathThunks<Recorder>;

struct Opened {
  void* instance = nullptr;
  Opened() {
    egw_datapath_host host{};
    host.struct_size = sizeof(host);
    EXPECT_EQ(Ops::kOps.open(str("{}"), str("/"), &host, &instance, nullptr), EGW_OK);
  }
  ~Opened() { Ops::kOps.close(instance); }
};

struct Step {
  egw_change change{};
  egw_node_config node{};
  std::vector<egw_egress> egresses;
  std::vector<egw_class> classes;
  std::vector<egw_endpoint> endpoints;
  std::vector<egw_addr> deleted;
  std::string failed;
  Step(bool full, std::uint64_t generation, std::uint64_t base) {
    change.struct_size = sizeof(change);
    change.full = full ? 1 : 0;
    change.generation = generation;
    change.base = base;
    node.struct_size = sizeof(node);
    if (full) change.node = &node;
  }
  Step& egress(std::uint32_t id, std::string_view peer = {}) {
    egw_egress e{};
    e.struct_size = sizeof(e);
    e.id = id;
    e.owner = peer.empty() ? EGW_OWNER_SELF : EGW_OWNER_PEER;
    e.owner_peer = str(peer);
    egresses.push_back(e);
    return *this;
  }
  Step& endpoint(const char* address) {
    egw_endpoint e{};
    e.struct_size = sizeof(e);
    e.class_id = 1;
    e.address = Address::parse(address)->abi();
    endpoints.push_back(e);
    return *this;
  }
  Step& gone(const char* address) {
    deleted.push_back(Address::parse(address)->abi());
    return *this;
  }
  std::int32_t apply(void* instance, Caught& error) {
    change.egresses = span_of(egresses);
    change.classes = span_of(classes);
    change.endpoints = span_of(endpoints);
    change.deleted_endpoints = span_of(deleted);
    const egw_apply_report report{this,
                                  [](void* ctx, std::uint32_t, egw_str key, std::int32_t, egw_str) {
                                    static_cast<Step*>(ctx)->failed += std::string(view(key)) + ";";
                                  },
                                  nullptr};
    return Ops::kOps.apply(instance, &change, &report, &error.sink);
  }
};

std::string observe(void* instance) {
  std::string out;
  const egw_text_sink sink{&out,
                           [](void* ctx, egw_str s) { *static_cast<std::string*>(ctx) = view(s); }};
  EXPECT_EQ(Ops::kOps.observe(instance, &sink, nullptr), EGW_OK);
  return out;
}

TEST(Thunks, ConstructorThatThrowsGivesItsStatus) {
  void* instance = nullptr;
  Caught error;
  egw_datapath_host host{};
  host.struct_size = sizeof(host);
  EXPECT_EQ(Ops::kOps.open(str("refuse"), {}, &host, &instance, &error.sink), EGW_UNSUPPORTED);
  EXPECT_EQ(error.what, "vxlan");
  EXPECT_EQ(error.message, "no such kernel");
  EXPECT_EQ(error.sys_errno, ENOTSUP);
  EXPECT_EQ(Ops::kOps.open(str("throw"), {}, &host, &instance, &error.sink), EGW_INTERNAL);
  EXPECT_EQ(error.message, "out of luck");
  EXPECT_EQ(Ops::kOps.open(str("int"), {}, &host, &instance, &error.sink), EGW_INTERNAL);
  EXPECT_EQ(instance, nullptr);
}

TEST(Thunks, FullDatapathGathersSteps) {
  const Opened o;
  Caught error;
  EXPECT_EQ(Step(false, 2, 1).apply(o.instance, error), EGW_NEED_FULL);
  EXPECT_EQ(Step(true, 5, 0).endpoint("10.0.0.1").endpoint("10.0.0.2").apply(o.instance, error),
            EGW_OK);
  EXPECT_EQ(observe(o.instance), "2");
  EXPECT_EQ(Step(false, 7, 6).endpoint("10.0.0.3").apply(o.instance, error), EGW_NEED_FULL);
  EXPECT_NE(error.message.find("generation 6"), std::string::npos) << error.message;
  EXPECT_EQ(observe(o.instance), "2");
  EXPECT_EQ(Step(false, 6, 5)
                .endpoint("10.0.0.3")
                .gone("10.0.0.1")
                .gone("10.9.9.9")
                .apply(o.instance, error),
            EGW_OK);
  EXPECT_EQ(observe(o.instance), "2");
  EXPECT_EQ(Step(true, 7, 0).endpoint("10.0.0.9").apply(o.instance, error), EGW_OK);
  EXPECT_EQ(observe(o.instance), "1");
}

TEST(Thunks, FailuresAreReportedAsPartialAndExceptionsAsInternal) {
  const Opened o;
  Caught error;
  Step partial(true, 1, 0);
  EXPECT_EQ(partial.egress(4, "nobody").egress(5).apply(o.instance, error), EGW_PARTIAL);
  EXPECT_EQ(partial.failed, "4;");
  EXPECT_EQ(Step(true, 2, 0).egress(666).apply(o.instance, error), EGW_INTERNAL);
  EXPECT_EQ(error.message, "cannot bear this one");
  EXPECT_EQ(Step(true, 2, 0).egress(0).apply(o.instance, error), EGW_INVALID);
  EXPECT_EQ(Step(true, 2, 0).egress(16384).apply(o.instance, error), EGW_INVALID);
  EXPECT_EQ(error.what, "egress 16384");
}

TEST(Thunks, StatusesCross) {
  const Opened o;
  Caught error;
  EXPECT_EQ(Ops::kOps.health(o.instance, &error.sink), EGW_UNAVAILABLE);
  EXPECT_EQ(error.message, "ill");
  const egw_addr eip = Address::v4(192, 0, 2, 1).abi();
  EXPECT_EQ(Ops::kOps.forget(o.instance, &eip, &error.sink), EGW_NOT_FOUND);
  EXPECT_EQ(error.what, "192.0.2.1");
}

TEST(State, ClassTableFlattens) {
  egw_class_rule rules[2]{};
  rules[0].struct_size = rules[1].struct_size = sizeof(egw_class_rule);
  rules[0].action = EGW_ACTION_EGRESS;
  rules[0].egress_id = 3;
  rules[0].destination = Prefix::parse("0.0.0.0/0")->abi();
  rules[1].action = EGW_ACTION_BYPASS;
  rules[1].egress_id = 99;  // has no meaning for this action
  rules[1].destination = Prefix::parse("10.0.0.0/8")->abi();
  egw_class c{};
  c.struct_size = sizeof(c);
  c.rules = span_of(rules);
  const auto flat = flatten(class_table(c));
  ASSERT_EQ(flat.size(), 3U);
  EXPECT_EQ(flat[1].value, (Action{ActionKind::kBypass, 0}));
  EXPECT_EQ(flat[2].first, Address::v4(11, 0, 0, 0));
}

TEST(Outcome, KeepsItsPromises) {
  Outcome<int> five(5);
  EXPECT_EQ(*five, 5);
  EXPECT_TRUE(five.status().ok());
  const Outcome<int> none(fail(Code::kNotFound, "no such thing", "x", ENOENT));
  EXPECT_FALSE(none);
  EXPECT_THROW((void)none.value(), Failure);
  EXPECT_EQ(none.status().text(), "x: no such thing (No such file or directory)");
  EXPECT_EQ(Outcome<int>(ok()).status().code, Code::kInternal);
}

class Elector final : public LeaderElection {
 public:
  Elector(std::string_view, std::string_view, Host) {}
  Status campaign(ElectionSink) override { return ok(); }
  void resign() override {}
  Status health() override { return ok(); }
};
class Store final : public StateStore {
 public:
  Store(std::string_view, StoreHost host) : host_(host) {}
  Outcome<std::uint64_t> subscribe(const Query&, EventSink sink) override {
    sink.snapshot();
    sink.upsert(3, "ns", "name", "{}");
    sink.synced(3);
    return 1;
  }
  void unsubscribe(std::uint64_t) override {}
  Status get(const ObjectKind&, std::string_view, std::string_view, const ObjectSink&) override {
    return fail(Code::kNotFound, "no such object");
  }
  Status list(const Query&, const ObjectSink&) override { return ok(); }
  Status write(const Write& w, const ObjectSink& out) override {
    struct Empty final : Reader {
      Status get(const ObjectKind&, std::string_view, std::string_view,
                 const ObjectSink&) override {
        return fail(Code::kNotFound, "no such object");
      }
      Status list(const ObjectKind&, const ObjectSink&) override { return ok(); }
    } reader;
    const Admission a = host_.admit(w.op, w.kind, {}, w.object, reader);
    if (!a.admitted) return fail(Code::kDenied, a.denials.front());
    out.object(4, a.object);
    return ok();
  }
  Status health() override { return ok(); }

 private:
  StoreHost host_;
};

TEST(Thunks, StoreAsksTheHost) {
  const auto& ops = detail::StateStoreThunks<Store>::kOps;
  egw_store_host host{};
  host.struct_size = sizeof(host);
  host.admit = [](void*, std::uint32_t, const egw_object_kind* kind, egw_str, egw_str new_json,
                  const egw_reader* reader, const egw_admission_sink* out) -> std::int32_t {
    const egw_object_sink sink{};
    EXPECT_EQ(reader->get(reader->ctx, kind, str("a"), str("b"), &sink), EGW_NOT_FOUND);
    if (view(new_json) == "bad") {
      out->denial(out->ctx, str("spec.x: no"));
      return EGW_DENIED;
    }
    out->object(out->ctx, str("{\"defaults\":1}"));
    return EGW_OK;
  };
  void* instance = nullptr;
  ASSERT_EQ(ops.open(str("{}"), &host, &instance, nullptr), EGW_OK);
  std::string got;
  const egw_object_sink out{
      &got,
      [](void* ctx, std::uint64_t, egw_str json) { *static_cast<std::string*>(ctx) = view(json); },
      [](void*, egw_str) {}};
  egw_write write{};
  write.struct_size = sizeof(write);
  write.op = EGW_WRITE_CREATE;
  write.object = str("good");
  Caught error;
  EXPECT_EQ(ops.write(instance, &write, &out, &error.sink), EGW_OK);
  EXPECT_EQ(got, "{\"defaults\":1}");
  write.object = str("bad");
  EXPECT_EQ(ops.write(instance, &write, &out, &error.sink), EGW_DENIED);
  EXPECT_EQ(error.message, "spec.x: no");
  ops.close(instance);
}

TEST(Thunks, TablesAreComplete) {
  const auto d = detail::descriptor<Recorder>(EGW_KIND_DATAPATH, "recorder", "1", "{}", &Ops::kOps,
                                              EGW_CAP_DELTA);
  EXPECT_EQ(d.abi_major, EGW_ABI_MAJOR);
  EXPECT_EQ(view(d.name), "recorder");
  EXPECT_EQ(detail::capabilities_of<Recorder>(), EGW_CAP_POST_DNAT);
  EXPECT_EQ(detail::capabilities_of<Store>(), 0U);
  EXPECT_NE(detail::LeaderElectionThunks<Elector>::kOps.health, nullptr);
}

}  // namespace
}  // namespace egw::sdk

EGW_DATAPATH_PLUGIN(egw::sdk::Recorder, "recorder", "1", "");
