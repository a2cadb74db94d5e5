// See admission_review.hpp.
#include "admission_review.hpp"

#include <utility>

#include "answer.hpp"
#include "base64.hpp"
#include "common/nesting.hpp"

namespace egw::kube {

using nlohmann::json;
using sdk::Code;
using sdk::WriteOp;

namespace {

constexpr std::string_view kVersion = "admission.k8s.io/v1";
// A parsed value takes up to 160 bytes, whatever its text. A gateway with 5,000 policies, with its
// old self, has 50,000.
constexpr std::size_t kMaxValues = 200'000;

sdk::Status bad(const std::string& message, const char* field) {
  return sdk::fail(Code::kInvalid, message, field);
}

// As the host knows an object: with its namespace, without the server's bookkeeping.
json document(json object, const std::string& ns) {
  if (!object.contains("metadata")) object["metadata"] = json::object();
  json& metadata = object["metadata"];
  if (!metadata.is_object()) return object;
  metadata.erase("managedFields");
  if (!ns.empty() && text_of(metadata, "namespace").empty()) metadata["namespace"] = ns;
  return object;
}

// Takes it out of the request.
sdk::Outcome<json> take_object(json& request, const char* key, bool wanted) {
  const auto it = request.find(key);
  const bool given = it != request.end() && !it->is_null();
  if (!wanted) return json();
  if (!given || !it->is_object()) {
    return bad("want the object that the operation is about", key);
  }
  return document(std::move(*it), text_of(request, "namespace"));
}

bool read_op(const std::string& text, WriteOp& op) {
  if (text == "CREATE") {
    op = WriteOp::kCreate;
  } else if (text == "UPDATE") {
    op = WriteOp::kUpdate;
  } else if (text == "DELETE") {
    op = WriteOp::kDelete;
  } else {
    return false;
  }
  return true;
}

std::string dump(const json& object) {
  return object.is_null() ? "" : object.dump(-1, ' ', false, json::error_handler_t::replace);
}

// What admission has made of the object, as a patch; null: nothing.
json patch_by(AdmissionRequest& request, const std::string& admitted) {
  sdk::Outcome<json> wanted = parse_object(admitted);
  if (!wanted.ok()) return {};
  return patch_of(std::move(request.object), document(std::move(*wanted), request.ns));
}

// The parts of the table of nodes are the leader's own. Who that is cannot be known here for sure;
// it is no person, where the chart has made it.
bool takes_the_leaders_name(const AdmissionRequest& request) {
  return request.op == WriteOp::kCreate && request.resource.kind == "EgressClusterInfo" &&
         request.name.starts_with("peers-") && !request.user.starts_with("system:serviceaccount:");
}

}  // namespace

sdk::Outcome<AdmissionRequest> read_review(std::string_view body) {
  if (common::more_values_than(body, kMaxValues)) {
    return bad("more than " + std::to_string(kMaxValues) + " JSON values: make the object smaller",
               "the body");
  }
  sdk::Outcome<json> review = parse_object(body);
  if (!review.ok()) return bad("no JSON object: " + review.status().message, "the body");
  if (text_of(*review, "kind") != "AdmissionReview" || text_of(*review, "apiVersion") != kVersion) {
    return bad("want kind AdmissionReview of " + std::string(kVersion), "kind, apiVersion");
  }
  json request;
  if (const auto it = review->find("request"); it != review->end()) request = std::move(*it);
  AdmissionRequest out;
  out.uid = text_of(request, "uid");
  if (out.uid.empty() || out.uid.size() > 256) return bad("want 1 to 256 bytes", "request.uid");
  const json& kind = member_of(request, "kind");
  const json& resource = member_of(request, "resource");
  out.resource.group = text_of(kind, "group");
  out.resource.version = text_of(kind, "version");
  out.resource.kind = text_of(kind, "kind");
  out.resource.plural = text_of(resource, "resource");
  if (out.resource.kind.empty() || out.resource.version.empty() || out.resource.plural.empty()) {
    return bad("want the kind and the resource of the object", "request.kind, request.resource");
  }
  out.name = text_of(request, "name");
  out.ns = text_of(request, "namespace");
  out.user = text_of(member_of(request, "userInfo"), "username");
  out.resource.namespaced = !out.ns.empty();
  if (!text_of(request, "subResource").empty()) return out;
  if (!read_op(text_of(request, "operation"), out.op)) {
    if (text_of(request, "operation") == "CONNECT") return out;
    return bad("want CREATE, UPDATE, DELETE or CONNECT", "request.operation");
  }
  auto object = take_object(request, "object", out.op != WriteOp::kDelete);
  if (!object.ok()) return object.status();
  auto old_object = take_object(request, "oldObject", out.op != WriteOp::kCreate);
  if (!old_object.ok()) return old_object.status();
  out.object = std::move(*object);
  out.old_object = std::move(*old_object);
  out.judged = true;
  return out;
}

std::string write_review(const std::string& uid, const Verdict& verdict) {
  json response = {{"uid", uid}, {"allowed", verdict.allowed}};
  if (!verdict.allowed) {
    response["status"] = {{"status", "Failure"},
                          {"code", verdict.code},
                          {"reason", verdict.reason},
                          {"message", verdict.message}};
  }
  if (!verdict.warnings.empty()) response["warnings"] = verdict.warnings;
  if (verdict.allowed && !verdict.patch.is_null()) {
    response["patchType"] = "JSONPatch";
    response["patch"] = encode_base64(dump(verdict.patch));
  }
  return dump({{"apiVersion", kVersion}, {"kind", "AdmissionReview"}, {"response", response}});
}

json patch_of(json given, json wanted) {
  given.erase("status");
  wanted.erase("status");
  json patch = json::diff(given, wanted);
  return patch.empty() ? json() : patch;
}

Verdict judge(AdmissionRequest request, bool defaulting, const sdk::StoreHost& host,
              sdk::Reader& reader) {
  Verdict verdict;
  if (!request.judged) return verdict;
  sdk::ObjectKind kind;
  kind.group = request.resource.group;
  kind.version = request.resource.version;
  kind.kind = request.resource.kind;
  kind.plural = request.resource.plural;
  kind.namespaced = request.resource.namespaced;
  // The host parses them again: what it need not share the memory with is let go.
  const std::string before = dump(std::exchange(request.old_object, json()));
  const std::string after = dump(request.object);
  if (!defaulting && request.op != WriteOp::kCreate) request.object = json();
  const sdk::Admission answer = host.admit(request.op, kind, before, after, reader);
  verdict.warnings = answer.warnings;
  // Once: the other question finds it out, too.
  if (!defaulting && answer.admitted && takes_the_leaders_name(request)) {
    verdict.warnings.push_back(
        "metadata.name: \"" + request.name +
        "\": the leading controller keeps its table of nodes in EgressClusterInfos of such names; "
        "one that it does not need it deletes at once. What people set stands in the one named "
        "default");
  }
  verdict.denied = !answer.admitted;
  if (defaulting && answer.admitted) {
    if (!after.empty()) verdict.patch = patch_by(request, answer.object);
    return verdict;
  }
  for (const std::string& denial : answer.denials) {
    verdict.message += (verdict.message.empty() ? "" : "\n") + denial;
  }
  verdict.allowed = answer.admitted;
  if (!answer.admitted || request.op != WriteOp::kCreate) return verdict;
  const json patch = patch_by(request, answer.object);
  if (!patch.is_null()) {
    verdict.allowed = false;
    verdict.message =
        text_of(patch.front(), "path") +
        ": a default has not been filled in; try again, and if it stays so, install egw's "
        "MutatingWebhookConfiguration, which has the API server ask for defaults";
  }
  return verdict;
}

}  // namespace egw::kube
