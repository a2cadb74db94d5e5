// AdmissionReview of admission.k8s.io/v1: what the API server asks a webhook and how it is answered
// (k8s.io/api/admission/v1). Pure; used by webhook.cpp.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "egw/sdk/state_store.hpp"
#include "resource.hpp"

namespace egw::kube {

struct AdmissionRequest {
  std::string uid;
  // Not set for what is none of admission's business: a subresource, a connection.
  bool judged = false;
  sdk::WriteOp op = sdk::WriteOp::kCreate;
  Resource resource;
  std::string ns, name;
  std::string user;                   // who asks
  nlohmann::json object, old_object;  // null where the operation has none
};

// kInvalid, with the field, for what is no such review or has more than 200,000 values.
[[nodiscard]] sdk::Outcome<AdmissionRequest> read_review(std::string_view body);

struct Verdict {
  bool allowed = true;
  bool denied = false;  // by admission, whatever is answered
  int code = 403;       // of a refusal: as an HTTP status, with its metav1.StatusReason
  std::string reason = "Forbidden", message;
  std::vector<std::string> warnings;
  nlohmann::json patch;  // RFC 6902; null: leave the object as it is
};
[[nodiscard]] std::string write_review(const std::string& uid, const Verdict& verdict);

// Asks the host. defaulting: what is admitted is answered with the patch. What is refused is
// refused there already: the rules of the CRDs, which come before the validating question, know
// less and say less. Other objects are read by `reader`.
[[nodiscard]] Verdict judge(AdmissionRequest request, bool defaulting, const sdk::StoreHost& host,
                            sdk::Reader& reader);

// What makes `given` into `wanted`, the status left out; null: nothing.
[[nodiscard]] nlohmann::json patch_of(nlohmann::json given, nlohmann::json wanted);

}  // namespace egw::kube
