// AdmissionReviews that whoever reaches the webhook's port may send, and what is answered.
#include <nlohmann/json.hpp>
#include <utility>

#include "fuzz/fuzz.hpp"
#include "kube/admission_review.hpp"

using namespace egw;
using fuzz::require;
using nlohmann::json;

namespace {

struct NoReader : sdk::Reader {
  sdk::Status get(const sdk::ObjectKind&, std::string_view, std::string_view,
                  const sdk::ObjectSink&) override {
    return sdk::fail(sdk::Code::kNotFound, "nothing here");
  }
  sdk::Status list(const sdk::ObjectKind&, const sdk::ObjectSink&) override { return sdk::ok(); }
};

// The host takes the object as it is.
sdk::StoreHost admitting() {
  static egw_store_host host = [] {
    egw_store_host out{};
    out.struct_size = sizeof(out);
    out.base.struct_size = sizeof(out.base);
    out.admit = [](void*, std::uint32_t, const egw_object_kind*, egw_str, egw_str after,
                   const egw_reader*, const egw_admission_sink* sink) {
      if (after.len != 0) sink->object(sink->ctx, after);
      return static_cast<std::int32_t>(EGW_OK);
    };
    return out;
  }();
  return sdk::StoreHost(&host);
}

void answered(const kube::AdmissionRequest& request) {
  NoReader reader;
  for (const bool defaulting : {false, true}) {
    const kube::Verdict verdict = kube::judge(request, defaulting, admitting(), reader);
    const json answer = json::parse(kube::write_review(request.uid, verdict))["response"];
    require(answer["uid"] == request.uid, "the answer is to that question");
    require(answer["allowed"] == true, "what is admitted unchanged is allowed");
    require(!answer.contains("patch"), "and nothing is changed");
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const auto review = kube::read_review(fuzz::text(data, size));
  if (!review.ok()) {
    require(review.status().code == sdk::Code::kInvalid, "it is the asker's fault");
    require(review.status().text().find('\n') == std::string::npos, "one line");
    return 0;
  }
  const kube::AdmissionRequest& request = review.value();
  if (request.judged) {
    const bool created = request.op == sdk::WriteOp::kCreate;
    const bool deleted = request.op == sdk::WriteOp::kDelete;
    require(request.object.is_null() == deleted && request.old_object.is_null() == created,
            "what the operation is about");
    if (!created && !deleted) {
      const json patch = kube::patch_of(request.old_object, request.object);
      json patched = request.old_object, wanted = request.object;
      patched.erase("status");
      wanted.erase("status");
      if (!patch.is_null()) patched = patched.patch(patch);
      require(patched == wanted, "a patch makes of one what the other is");
    }
  }
  answered(request);
  return 0;
}
