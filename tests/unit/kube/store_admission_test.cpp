// Writes of a store whose admission meets an API server that fails or is faster.
#include <gmock/gmock.h>

#include "hostile_server.hpp"
#include "hostile_store.hpp"

namespace egw::kube::test {
namespace {

using sdk::Code;
using store_kit::Answer;
using store_kit::gateway;
using store_kit::json;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;
using Exchange = HostileServer::Exchange;

constexpr const char* kStored =
    R"({"apiVersion":"egressgateway.spidernet.io/v1beta1","kind":"EgressGateway",)"
    R"("metadata":{"name":"g","resourceVersion":"7"},"spec":{}})";

// Admission that lists the gateways before it says `verdict`.
store_kit::TestHost::Admit lists_first(int verdict) {
  return [verdict](std::uint32_t, const json&, const json& after, const egw_reader& reader,
                   const egw_admission_sink& out) {
    const egw_object_kind kind = gateway().abi();
    Answer others;
    const egw_object_sink sink{&others, [](void*, std::uint64_t, egw_str) {}, nullptr};
    (void)reader.list(reader.ctx, &kind, &sink);
    if (verdict != EGW_OK) out.denial(out.ctx, sdk::str(std::string_view("there is no gateway")));
    const std::string text = after.dump();
    out.object(out.ctx, sdk::str(text));
    return verdict;
  };
}

// Neither a denial that blames the object nor a leave that nobody has looked at.
TEST(KubeStoreAdmission, WhatCannotBeReadIsNotJudged) {
  for (const int verdict : {static_cast<int>(EGW_DENIED), static_cast<int>(EGW_OK)}) {
    std::atomic<int> writes{0};
    HostileServer server([&writes](Exchange& e) {
      if (e.line().rfind("GET", 0) == 0) return e.send(status(500, "{}"));
      ++writes;
      return e.send(ok(kStored));
    });
    Store s(server.url());
    s.host.admit = lists_first(verdict);
    const Answer a = s.calls.create(gateway(), "", "g", {{"spec", json::object()}});
    EXPECT_EQ(a.status.code, Code::kUnavailable) << a.status.text();
    EXPECT_THAT(a.status.text(), HasSubstr("egressgateways"));
    EXPECT_THAT(a.status.text(), Not(HasSubstr("there is no gateway")));
    EXPECT_EQ(writes, 0);
  }
}

TEST(KubeStoreAdmission, WarningsAreToldOnceThoughTheWriteIsRepeated) {
  std::atomic<int> writes{0};
  HostileServer server([&writes](Exchange& e) {
    if (e.line().rfind("GET", 0) == 0) return e.send(ok(kStored));
    if (++writes < 3) return e.send(status(409, R"({"reason":"Conflict"})"));
    return e.send(ok(kStored));
  });
  Store s(server.url());
  s.host.admit = [](std::uint32_t, const json&, const json& after, const egw_reader&,
                    const egw_admission_sink& out) {
    out.warning(out.ctx, sdk::str(std::string_view("mind the gap")));
    const std::string text = after.dump();
    out.object(out.ctx, sdk::str(text));
    return static_cast<int>(EGW_OK);
  };
  const Answer a = s.calls.update(gateway(), "", "g", {{"spec", json::object()}});
  EXPECT_TRUE(a.ok()) << a.status.text();
  EXPECT_EQ(writes, 3);
  EXPECT_THAT(a.warnings, ElementsAre("mind the gap"));
}

}  // namespace
}  // namespace egw::kube::test
