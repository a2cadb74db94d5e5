// Admission's entry: shape, names and unknown fields of every kind, then the rules of the kind
// (admission_gateway.cpp, admission_policy.cpp).
#include "egw/core/admission.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>

#include "egw/core/admission_support.hpp"
#include "egw/model/codec.hpp"

namespace egw::core {
namespace {

using detail::Review;
using detail::text_at;
using model::Kind;
using nlohmann::json;

bool lower_or_digit(char c) { return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9'); }

// RFC 1123 label as Kubernetes has it.
bool is_label(std::string_view text) {
  return !text.empty() && text.size() <= 63 && lower_or_digit(text.front()) &&
         lower_or_digit(text.back()) && std::all_of(text.begin(), text.end(), [](char c) {
           return lower_or_digit(c) || c == '-';
         });
}

// RFC 1123 subdomain as Kubernetes has it: up to 253 characters, its parts of any length.
bool is_subdomain(std::string_view text) {
  if (text.empty() || text.size() > 253) return false;
  char before = '.';
  for (const char c : text) {
    const bool edge = c == '.' || before == '.';
    if (!lower_or_digit(c) && c != '-' && c != '.') return false;
    if (edge && (c == '-' || before == '-' || c == before)) return false;
    before = c;
  }
  return lower_or_digit(before);
}

void review_name(Review& review) {
  const model::KindInfo& kind = model::info(review.kind);
  const std::string name = text_at(review.doc, {"metadata", "name"});
  const bool generated = name.empty() && !text_at(review.doc, {"metadata", "generateName"}).empty();
  if (!generated && !is_subdomain(name)) {
    review.deny("metadata.name",
                fmt::format("\"{}\": want 1 to 253 lower-case letters, digits, '-' and '.', with a "
                            "letter or digit at both ends",
                            name.substr(0, 100)));
  }
  const std::string ns = text_at(review.doc, {"metadata", "namespace"});
  if (kind.namespaced && !is_label(ns)) {
    review.deny("metadata.namespace",
                fmt::format("\"{}\": want the namespace of the {}: 1 to 63 lower-case letters, "
                            "digits and '-'",
                            ns.substr(0, 100), kind.kind));
  } else if (!kind.namespaced && !ns.empty()) {
    review.deny("metadata.namespace",
                fmt::format("\"{}\": {} is cluster-wide; leave the namespace out",
                            ns.substr(0, 100), kind.kind));
  }
}

template <class R>
void review_shape_as(Review& review) {
  if (auto decoded = model::decode<R>(review.doc); !decoded) review.deny(decoded.error());
}

void review_shape(Review& review) {
  switch (review.kind) {
    case Kind::kEgressGateway:
      return review_shape_as<model::EgressGateway>(review);
    case Kind::kEgressPolicy:
      return review_shape_as<model::EgressPolicy>(review);
    case Kind::kEgressClusterPolicy:
      return review_shape_as<model::EgressClusterPolicy>(review);
    case Kind::kEgressTunnel:
      return review_shape_as<model::EgressTunnel>(review);
    case Kind::kEgressClusterInfo:
      return review_shape_as<model::EgressClusterInfo>(review);
    case Kind::kNode:
      return review_shape_as<model::Node>(review);
    case Kind::kPod:
      return review_shape_as<model::Pod>(review);
    case Kind::kNamespace:
      return review_shape_as<model::Namespace>(review);
    case Kind::kEvent:
      return review_shape_as<model::Event>(review);
    case Kind::kCalicoIpPool:
      return review_shape_as<model::CalicoIpPool>(review);
    case Kind::kServiceCidr:
      return review_shape_as<model::ServiceCidr>(review);
    case Kind::kEgressEndpointSlice:
      return review_shape_as<model::EgressEndpointSlice>(review);
    case Kind::kEgressClusterEndpointSlice:
      return review_shape_as<model::EgressClusterEndpointSlice>(review);
  }
}

void review_unknown_fields(Review& review) {
  for (const model::UnknownField& field : model::find_unknown_fields(review.kind, review.doc)) {
    review.deny(field.path, field.closest.empty()
                                ? fmt::format("unknown field; {} has none of that name here",
                                              model::info(review.kind).kind)
                                : fmt::format("unknown field; did you mean {}?", field.closest));
  }
}

// As with a status subresource: a write of the object leaves the status as it was.
void keep_status(Review& review) {
  review.doc.erase("status");
  if (review.old_doc.is_object() && review.old_doc.contains("status")) {
    review.doc["status"] = review.old_doc["status"];
  }
}

bool same_spec(const Review& review) {
  const json none;
  const auto spec = [&none](const json& doc) -> const json& {
    const auto it = doc.find("spec");
    return it == doc.end() ? none : *it;
  };
  return review.old_doc.is_object() && spec(review.doc) == spec(review.old_doc);
}

void review_deletion(Review& review) {
  const std::string name = text_at(review.old_doc, {"metadata", "name"});
  if (review.kind == Kind::kEgressGateway) detail::review_gateway_deletion(review);
  if (review.kind == Kind::kEgressClusterInfo && name == model::kClusterInfoName) {
    review.deny(
        "metadata.name",
        "\"default\": this EgressClusterInfo holds the cluster's prefixes and the memory of "
        "egress ids and cannot be deleted; change its spec instead");
  }
}

void review_write(Review& review) {
  const bool ours = model::info(review.kind).group == model::kGroup;
  // What is in the status is neither taken nor judged.
  if (ours && review.doc.is_object()) review.doc.erase("status");
  review_shape(review);
  if (!review.answer.admitted) return;
  review_name(review);
  if (!ours) return;
  // Whoever changes labels or takes a finalizer off is not asked about a spec that was once
  // accepted.
  if (!same_spec(review)) {
    review_unknown_fields(review);
    if (!review.answer.admitted) return;
    if (review.kind == Kind::kEgressGateway) detail::review_gateway(review);
    if (review.kind == Kind::kEgressPolicy || review.kind == Kind::kEgressClusterPolicy) {
      detail::review_policy(review);
    }
    if (review.kind == Kind::kEgressClusterInfo) detail::review_cluster_info(review);
  }
  keep_status(review);
}

}  // namespace

namespace detail {

void review_cluster_info(Review& review) {
  const std::string name = text_at(review.doc, {"metadata", "name"});
  const std::string_view prefix = "peers-";
  unsigned shard = 0;
  const bool is_shard = [&] {
    if (name.substr(0, prefix.size()) != prefix) return false;
    const char* end = name.data() + name.size();
    const auto [stop, problem] = std::from_chars(name.data() + prefix.size(), end, shard);
    return problem == std::errc() && stop == end && shard >= 1;
  }();
  if (name != model::kClusterInfoName && !is_shard) {
    review.deny("metadata.name",
                fmt::format("\"{}\": there is one EgressClusterInfo for people, named default; "
                            "change that one",
                            name));
  }
  const auto info = model::decode<model::EgressClusterInfo>(review.doc);
  if (!info) return review.deny(info.error());
  read_prefixes(review, "spec.extraCidr", info->spec.extra_cidr);
}

}  // namespace detail

AdmitAnswer admit(AdmitOp op, Kind kind, const json& old_object, const json& new_object,
                  const ObjectReader& reader, const model::Settings& settings, json& object) {
  Review review{op, kind, old_object, new_object, reader, settings, {}};
  if (op == AdmitOp::kDelete) {
    review_deletion(review);
    return std::move(review.answer);
  }
  review_write(review);
  if (review.answer.admitted) object = std::move(review.doc);
  return std::move(review.answer);
}

}  // namespace egw::core
