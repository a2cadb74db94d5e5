// See answer.hpp.
#include "answer.hpp"

#include <charconv>

#include "common/nesting.hpp"

namespace egw::kube {

using nlohmann::json;
using sdk::Code;

namespace {

constexpr int kMaxDepth = 100;
constexpr std::size_t kMaxMessage = 600;

std::string what_of(const Asked& asked) {
  return asked.object.empty() ? asked.resource : asked.object;
}

bool is_ours(const Asked& asked) {
  return asked.resource.find(".egressgateway.spidernet.io/") != std::string::npos;
}

sdk::Status not_found(const std::string& said, const json& status, const Asked& asked) {
  // Only an answer about an object names it; for an unknown path there is no name.
  if (!asked.object.empty() && !text_of(member_of(status, "details"), "name").empty()) {
    return sdk::fail(Code::kNotFound, said.empty() ? "there is no such object" : said,
                     what_of(asked));
  }
  return sdk::fail(
      Code::kUnavailable,
      "the API server does not serve " + asked.resource + " (404)" +
          (is_ours(asked) ? ": the CustomResourceDefinition is missing or has another version; "
                            "install those of this egw (kubectl apply -f config/crds)"
                          : ""),
      what_of(asked));
}

// Refused by what the cluster's owner has set up, not for want of a right or because of a schema.
bool by_admission(const std::string& said) {
  for (const char* words : {"admission webhook ", "ValidatingAdmissionPolicy ", "exceeded quota",
                            "because it is being terminated"}) {
    if (said.find(words) != std::string::npos) return true;
  }
  return false;
}

sdk::Status unexpected(int code, const std::string& said, const Asked& asked) {
  return sdk::fail(Code::kInternal,
                   "the API server answered " + asked.verb + " with " + std::to_string(code) +
                       (said.empty() ? "" : ": " + said),
                   what_of(asked));
}

}  // namespace

std::string one_line(std::string_view text) {
  std::string out(text.substr(0, kMaxMessage));
  for (char& c : out) {
    if (static_cast<unsigned char>(c) < ' ' || c == 127) c = ' ';
  }
  while (!out.empty() && out.back() == ' ') out.pop_back();
  return out;
}

sdk::Outcome<json> parse_object(std::string_view text) {
  if (common::nested_deeper_than(text, kMaxDepth)) {
    return sdk::fail(Code::kInternal, "the answer is nested more than " +
                                          std::to_string(kMaxDepth) + " levels deep");
  }
  json out = json::parse(text, nullptr, false);
  if (!out.is_object()) {
    return sdk::fail(Code::kInternal,
                     "the answer is no JSON object: \"" + one_line(text.substr(0, 80)) + "\"");
  }
  return out;
}

std::string text_of(const json& object, const char* key) {
  if (!object.is_object()) return {};
  const auto it = object.find(key);
  return it != object.end() && it->is_string() ? it->get<std::string>() : std::string();
}

const json& member_of(const json& object, const char* key) {
  static const json kEmpty = json::object();
  if (!object.is_object()) return kEmpty;
  const auto it = object.find(key);
  return it != object.end() && it->is_object() ? *it : kEmpty;
}

std::uint64_t revision_of(const json& object) {
  const std::string text = text_of(member_of(object, "metadata"), "resourceVersion");
  std::uint64_t out = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), out);
  return error == std::errc() && end == text.data() + text.size() ? out : 0;
}

bool another_was_faster(const sdk::Status& status) {
  return status.code == sdk::Code::kConflict || status.code == sdk::Code::kExists;
}

sdk::Status status_of(const HttpAnswer& answer, const Asked& asked) {
  if (answer.success()) return sdk::ok();
  // A refusal that was cut short is told by its number.
  if (answer.code / 100 == 2 || answer.code == 0 || answer.stopped) {
    return sdk::fail(Code::kUnavailable,
                     asked.verb + " got no " + (answer.code == 0 ? "" : "complete ") +
                         "answer from the API server: " + one_line(answer.error),
                     what_of(asked));
  }
  const sdk::Outcome<json> body = parse_object(answer.body);
  if (body.ok()) return status_of(answer.code, body.value(), asked);
  json status = json::object();
  status["message"] = answer.body.substr(0, kMaxMessage);
  return status_of(answer.code, status, asked);
}

sdk::Status status_of(int code, const json& status, const Asked& asked) {
  const std::string said = one_line(text_of(status, "message"));
  const std::string reason = text_of(status, "reason");
  const std::string what = what_of(asked);
  switch (code) {
    case 400:
    case 413:
    case 422:
      if (said.find("must not fall") != std::string::npos && asked.verb == "update status") {
        return sdk::fail(Code::kStaleTerm, said, what);
      }
      return sdk::fail(
          Code::kInvalid,
          (said.empty() ? "refused by the API server" : said) +
              // Nobody but egw writes it: the schema must be another one.
              (code == 422 && asked.verb == "update status" && is_ours(asked) && !by_admission(said)
                   ? "; install the CustomResourceDefinitions of this egw (kubectl apply "
                     "-f config/crds)"
                   : ""),
          what);
    case 401:
      return sdk::fail(Code::kUnavailable,
                       "the API server does not accept the credentials (401 Unauthorized): the "
                       "token or certificate has expired or belongs to another cluster",
                       what);
    case 403:
      if (by_admission(said)) return sdk::fail(Code::kDenied, said, what);
      return sdk::fail(Code::kDenied,
                       "no permission to " + asked.verb + " " + asked.resource +
                           " (403 Forbidden), which a role "
                           "of the chart's or the user's own must give: " +
                           said,
                       what);
    case 404:
      return not_found(said, status, asked);
    case 409:
      return sdk::fail(reason == "AlreadyExists" ? Code::kExists : Code::kConflict,
                       said.empty() ? "the object has changed" : said, what);
    case 410:
      return sdk::fail(Code::kConflict, "the revision is too old (410 Expired)", what);
    case 429:
    case 500:
    case 502:
    case 503:
    case 504:
      return sdk::fail(Code::kUnavailable,
                       "the API server cannot serve " + asked.verb + " now (" +
                           std::to_string(code) + ")" + (said.empty() ? "" : ": " + said),
                       what);
    default:
      return unexpected(code, said, asked);
  }
}

}  // namespace egw::kube
