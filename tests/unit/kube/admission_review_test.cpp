// AdmissionReviews in and out, and what becomes of the host's admission in between.
#include "admission_review.hpp"

#include <gmock/gmock.h>

#include "base64.hpp"
#include "support/store_kit.hpp"

namespace egw::kube {
namespace {

using nlohmann::json;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

json request_for(const std::string& operation) {
  json object = {{"apiVersion", "egressgateway.spidernet.io/v1beta1"},
                 {"kind", "EgressPolicy"},
                 {"metadata", {{"name", "p"}, {"managedFields", {{{"manager", "kubectl"}}}}}},
                 {"spec", {{"priority", 7}}},
                 {"status", {{"node", "n1"}}}};
  json old_object = object;
  old_object["spec"]["priority"] = 5;
  return {
      {"uid", "u-1"},
      {"operation", operation},
      {"kind",
       {{"group", "egressgateway.spidernet.io"}, {"version", "v1beta1"}, {"kind", "EgressPolicy"}}},
      {"resource",
       {{"group", "egressgateway.spidernet.io"},
        {"version", "v1beta1"},
        {"resource", "egresspolicies"}}},
      {"namespace", "shop"},
      {"name", "p"},
      {"object", operation == "DELETE" ? json() : object},
      {"oldObject", operation == "CREATE" ? json() : old_object}};
}

std::string body_of(const json& request) {
  return json{
      {"apiVersion", "admission.k8s.io/v1"}, {"kind", "AdmissionReview"}, {"request", request}}
      .dump();
}

AdmissionRequest read(const json& request) {
  auto out = read_review(body_of(request));
  if (!out.ok()) throw std::runtime_error(out.status().text());
  return std::move(*out);
}

struct NoReader : sdk::Reader {
  sdk::Status get(const sdk::ObjectKind&, std::string_view, std::string_view,
                  const sdk::ObjectSink&) override {
    return sdk::fail(sdk::Code::kNotFound, "nothing here");
  }
  sdk::Status list(const sdk::ObjectKind&, const sdk::ObjectSink&) override { return sdk::ok(); }
};

// A host whose admission is `rule`: (old, new, out) -> admitted.
struct Judge {
  using Rule = std::function<bool(const json&, const json&, const egw_admission_sink&)>;
  explicit Judge(const Rule& rule) {
    host.admit = [this, rule](std::uint32_t op, const json& before, const json& after,
                              const egw_reader&, const egw_admission_sink& out) {
      asked.push_back(op);
      const bool admitted = rule(before, after, out);
      return static_cast<int>(admitted ? EGW_OK : EGW_DENIED);
    };
  }
  Verdict operator()(const AdmissionRequest& request, bool defaulting) {
    NoReader reader;
    return judge(request, defaulting, host.services(), reader);
  }
  store_kit::TestHost host;
  std::vector<std::uint32_t> asked;
};

void store(const egw_admission_sink& out, const json& object) {
  const std::string text = object.dump();
  out.object(out.ctx, sdk::str(text));
}

TEST(KubeAdmissionReview, ARequestIsReadWhole) {
  const AdmissionRequest update = read(request_for("UPDATE"));
  EXPECT_EQ(update.uid, "u-1");
  EXPECT_TRUE(update.judged);
  EXPECT_EQ(update.op, sdk::WriteOp::kUpdate);
  EXPECT_EQ(update.resource.kind, "EgressPolicy");
  EXPECT_EQ(update.resource.plural, "egresspolicies");
  EXPECT_TRUE(update.resource.namespaced);
  EXPECT_EQ(update.object["metadata"], (json{{"name", "p"}, {"namespace", "shop"}}));
  EXPECT_EQ(update.old_object["spec"]["priority"], 5);
  EXPECT_TRUE(read(request_for("CREATE")).old_object.is_null());
  EXPECT_TRUE(read(request_for("DELETE")).object.is_null());
}

TEST(KubeAdmissionReview, AStatusAndAConnectionAreNotJudged) {
  json request = request_for("UPDATE");
  request["subResource"] = "status";
  EXPECT_FALSE(read(request).judged);
  request = request_for("UPDATE");
  request["operation"] = "CONNECT";
  EXPECT_FALSE(read(request).judged);
  Judge judged([](const json&, const json&, const egw_admission_sink&) { return false; });
  EXPECT_TRUE(judged(read(request), false).allowed);
  EXPECT_TRUE(judged.asked.empty());
}

TEST(KubeAdmissionReview, WhoTakesANameOfTheLeadersIsWarned) {
  Judge judged([](const json&, const json& after, const egw_admission_sink& out) {
    store(out, after);
    return true;
  });
  const auto warnings = [&](const char* name, const char* user, bool defaulting = false) {
    json request = request_for("CREATE");
    request["kind"]["kind"] = "EgressClusterInfo";
    request["name"] = request["object"]["metadata"]["name"] = name;
    request["userInfo"] = {{"username", user}};
    const Verdict verdict = judged(read(request), defaulting);
    EXPECT_TRUE(verdict.allowed);
    return verdict.warnings;
  };
  EXPECT_THAT(warnings("peers-7", "kubernetes-admin"),
              ElementsAre(HasSubstr("\"peers-7\": the leading controller keeps")));
  EXPECT_THAT(warnings("peers-7", "kubernetes-admin", true), IsEmpty());
  EXPECT_THAT(warnings("peers-7", "system:serviceaccount:egw-system:controller"), IsEmpty());
  EXPECT_THAT(warnings("default", "kubernetes-admin"), IsEmpty());
}

TEST(KubeAdmissionReview, WhatIsNoReviewIsNamedByItsField) {
  const auto refused = [](const std::string& body) {
    const auto out = read_review(body);
    return out.ok() ? std::string("taken") : out.status().text();
  };
  for (const char* body : {"", "{", "[]", "null", "\"x\"", "{\"kind\":", "\xff\xfe"}) {
    EXPECT_THAT(refused(body), HasSubstr("no JSON object")) << body;
  }
  EXPECT_THAT(refused("{}"), HasSubstr("AdmissionReview"));
  EXPECT_THAT(refused(R"({"kind":"AdmissionReview","apiVersion":"admission.k8s.io/v1beta1"})"),
              HasSubstr("admission.k8s.io/v1"));
  const auto broken = [&](const char* key, const json& value) {
    json request = request_for("UPDATE");
    request[key] = value;
    return refused(body_of(request));
  };
  EXPECT_THAT(broken("uid", 5), HasSubstr("request.uid"));
  EXPECT_THAT(broken("uid", std::string(5000, 'x')), HasSubstr("request.uid"));
  EXPECT_THAT(broken("kind", "EgressPolicy"), HasSubstr("request.kind"));
  EXPECT_THAT(broken("resource", json::array()), HasSubstr("request.resource"));
  EXPECT_THAT(broken("operation", "PATCH"), HasSubstr("request.operation"));
  EXPECT_THAT(broken("object", json()), HasSubstr("object"));
  EXPECT_THAT(broken("object", json::array()), HasSubstr("object"));
  EXPECT_THAT(broken("oldObject", "x"), HasSubstr("oldObject"));
  EXPECT_THAT(refused(std::string(5000, '[')), HasSubstr("nested"));
}

// Counted before anything is parsed, and only what is a value.
TEST(KubeAdmissionReview, ABodyOfTooManyValuesIsRefused) {
  const auto with = [](const std::string& many) {
    std::string body = body_of(request_for("CREATE"));
    return body.insert(body.find("{\"priority\":7") + 1, "\"many\":[" + many + "1],");
  };
  const auto repeated = [](const char* text, int times) {
    std::string out;
    for (int i = 0; i < times; ++i) out += text;
    return out;
  };
  for (const char* text : {"1,", "[],", "{\"\":1},", "[[1,2],3],"}) {
    const auto out = read_review(with(repeated(text, 200'000)));
    ASSERT_FALSE(out.ok()) << text;
    EXPECT_EQ(out.status().code, sdk::Code::kInvalid);
    EXPECT_THAT(out.status().text(), HasSubstr("more than 200000 JSON values"));
  }
  EXPECT_TRUE(read_review(with(repeated("{\"a\":1,\"b\":2},", 60'000))).ok());
  const std::string text = repeated(",[{\\\",", 200'000);
  const auto quoted = read_review(with("\"" + text + "\","));
  ASSERT_TRUE(quoted.ok()) << quoted.status().text();
  EXPECT_EQ(quoted.value().object["spec"]["many"].size(), 2U);
}

TEST(KubeAdmissionReview, MetadataThatIsNoObjectIsLeftToTheHost) {
  json request = request_for("CREATE");
  request["object"]["metadata"] = "x";
  EXPECT_EQ(read(request).object["metadata"], "x");
}

TEST(KubeAdmissionReview, DefaultsBecomeAPatch) {
  Judge judged([](const json&, const json& after, const egw_admission_sink& out) {
    json object = after;
    object["spec"]["egressGatewayName"] = "web";
    object["metadata"]["finalizers"] = {"f"};
    object["status"] = {{"node", "other"}};
    store(out, object);
    return true;
  });
  const AdmissionRequest request = read(request_for("CREATE"));
  const Verdict verdict = judged(request, true);
  EXPECT_TRUE(verdict.allowed);
  const json answer = json::parse(write_review(request.uid, verdict));
  EXPECT_EQ(answer["apiVersion"], "admission.k8s.io/v1");
  EXPECT_EQ(answer["response"]["uid"], "u-1");
  EXPECT_EQ(answer["response"]["patchType"], "JSONPatch");
  const json patch = json::parse(*decode_base64(answer["response"]["patch"].get<std::string>()));
  // The object as the API server has it: managedFields stay.
  const json patched = request_for("CREATE")["object"].patch(patch);
  json wanted = request_for("CREATE")["object"];
  wanted["spec"]["egressGatewayName"] = "web";
  wanted["metadata"]["finalizers"] = {"f"};
  EXPECT_EQ(patched, wanted);
}

TEST(KubeAdmissionReview, AnObjectThatHasItsDefaultsGetsNoPatch) {
  Judge judged([](const json&, const json& after, const egw_admission_sink& out) {
    store(out, after);
    return true;
  });
  const Verdict verdict = judged(read(request_for("UPDATE")), true);
  EXPECT_TRUE(verdict.patch.is_null());
  EXPECT_FALSE(json::parse(write_review("u", verdict))["response"].contains("patch"));
}

TEST(KubeAdmissionReview, DenialsAreJoinedAndWarningsPassedOn) {
  Judge judged([](const json&, const json&, const egw_admission_sink& out) {
    out.warning(out.ctx, sdk::str(std::string_view("mind the gap")));
    out.denial(out.ctx, sdk::str(std::string_view("spec.a: no")));
    out.denial(out.ctx, sdk::str(std::string_view("spec.b: neither")));
    return false;
  });
  const AdmissionRequest request = read(request_for("UPDATE"));
  const json answer = json::parse(write_review("u", judged(request, false)))["response"];
  EXPECT_EQ(answer["allowed"], false);
  EXPECT_EQ(answer["status"]["message"], "spec.a: no\nspec.b: neither");
  EXPECT_EQ(answer["status"]["code"], 403);
  EXPECT_EQ(answer["warnings"], json({"mind the gap"}));
  // The question for defaults comes first, before the rules of the CRDs: all is said there.
  EXPECT_EQ(json::parse(write_review("u", judged(request, true)))["response"]["status"],
            answer["status"]);
}

TEST(KubeAdmissionReview, ADeleteIsJudgedByWhatIsStored) {
  Judge judged([](const json& before, const json& after, const egw_admission_sink&) {
    return before["metadata"]["name"] == "p" && after.is_null();
  });
  EXPECT_TRUE(judged(read(request_for("DELETE")), false).allowed);
  EXPECT_THAT(judged.asked, ElementsAre(static_cast<std::uint32_t>(EGW_WRITE_DELETE)));
}

TEST(KubeAdmissionReview, WhatWasToBeFilledInAndWasNotIsRefused) {
  Judge judged([](const json&, const json& after, const egw_admission_sink& out) {
    json object = after;
    object["spec"]["egressGatewayName"] = "web";
    store(out, object);
    return true;
  });
  const Verdict created = judged(read(request_for("CREATE")), false);
  EXPECT_FALSE(created.allowed);
  EXPECT_THAT(created.message, HasSubstr("/spec/egressGatewayName"));
  EXPECT_THAT(created.message, HasSubstr("MutatingWebhookConfiguration"));
  EXPECT_TRUE(judged(read(request_for("UPDATE")), false).allowed);
}

}  // namespace
}  // namespace egw::kube
