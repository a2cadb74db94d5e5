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

// RFC 1123 label as Kubernetes has it.
bool is_label(std::string_view text) {
  return text.size() <= 63 && detail::is_subdomain(text) &&
         text.find('.') == std::string_view::npos;
}

void review_name(Review& review) {
  const model::KindInfo& kind = model::info(review.kind);
  const std::string name = text_at(review.doc, {"metadata", "name"});
  const bool generated = name.empty() && !text_at(review.doc, {"metadata", "generateName"}).empty();
  if (!generated && !detail::is_subdomain(name) && review.clean("metadata.name")) {
    review.spoil({Errc::kInvalid, "metadata.name",
                  fmt::format("\"{}\": want {}", name.substr(0, 100), detail::kSubdomain)});
  }
  const std::string ns = text_at(review.doc, {"metadata", "namespace"});
  if (!review.clean("metadata.namespace")) return;
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
std::vector<Error> faults_as(const json& document) {
  std::vector<Error> faults;
  static_cast<void>(model::decode<R>(document, faults));
  return faults;
}

// Every field of the document that has not the form that its kind gives it.
std::vector<Error> faults_of(Kind kind, const json& document) {
  switch (kind) {
    case Kind::kEgressGateway:
      return faults_as<model::EgressGateway>(document);
    case Kind::kEgressPolicy:
      return faults_as<model::EgressPolicy>(document);
    case Kind::kEgressClusterPolicy:
      return faults_as<model::EgressClusterPolicy>(document);
    case Kind::kEgressTunnel:
      return faults_as<model::EgressTunnel>(document);
    case Kind::kEgressClusterInfo:
      return faults_as<model::EgressClusterInfo>(document);
    case Kind::kNode:
      return faults_as<model::Node>(document);
    case Kind::kPod:
      return faults_as<model::Pod>(document);
    case Kind::kNamespace:
      return faults_as<model::Namespace>(document);
    case Kind::kEvent:
      return faults_as<model::Event>(document);
    case Kind::kCalicoIpPool:
      return faults_as<model::CalicoIpPool>(document);
    case Kind::kServiceCidr:
      return faults_as<model::ServiceCidr>(document);
    case Kind::kEgressEndpointSlice:
      return faults_as<model::EgressEndpointSlice>(document);
    case Kind::kEgressClusterEndpointSlice:
      return faults_as<model::EgressClusterEndpointSlice>(document);
  }
  return {};
}

// Whether there is something at a path of members.
bool is_there(const json& doc, std::string_view path) {
  const json* at = &doc;
  while (!path.empty()) {
    const std::size_t dot = std::min(path.find('.'), path.size());
    if (!at->is_object()) return false;
    const auto it = at->find(std::string(path.substr(0, dot)));
    if (it == at->end() || it->is_null()) return false;
    at = &*it;
    path.remove_prefix(std::min(dot + 1, path.size()));
  }
  return true;
}

// Those in `but` are not told.
void review_unknown_fields(Review& review, const std::vector<std::string>& but) {
  for (const model::UnknownField& field : model::find_unknown_fields(review.kind, review.doc)) {
    if (std::find(but.begin(), but.end(), field.path) != but.end()) continue;
    review.spoil({Errc::kInvalid, field.path,
                  field.closest.empty()
                      ? fmt::format("unknown field; {} has none of that name here",
                                    model::info(review.kind).kind)
                      : fmt::format("unknown field; did you mean {}?", field.closest)});
    // What is there under a wrong name is not told to be missing as well.
    if (!field.closest.empty() && !is_there(review.doc, field.closest)) {
      review.spoilt.insert(field.closest);
    }
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

// Prefixes of the cluster in objects of others: one that cannot be read would be no prefix of the
// cluster's.
void review_foreign_prefixes(Review& review) {
  const auto look = [&](const std::string& path, const std::string& text) {
    if (!review.clean(path)) return;
    if (const auto prefix = model::Prefix::parse(text); !prefix) {
      review.deny(path, prefix.error().message);
    }
  };
  if (review.kind == Kind::kCalicoIpPool) look("spec.cidr", text_at(review.doc, {"spec", "cidr"}));
  if (review.kind == Kind::kServiceCidr) {
    const auto cidrs = detail::texts_at(review.doc, {"spec", "cidrs"});
    for (std::size_t i = 0; i < cidrs.size(); ++i) look(fmt::format("spec.cidrs[{}]", i), cidrs[i]);
  }
}

void review_rules(Review& review) {
  review_unknown_fields(review, {});
  if (review.spoilt.contains("spec")) return;
  if (review.kind == Kind::kEgressGateway) detail::review_gateway(review);
  if (review.kind == Kind::kEgressPolicy || review.kind == Kind::kEgressClusterPolicy) {
    detail::review_policy(review);
  }
  if (review.kind == Kind::kEgressClusterInfo) detail::review_cluster_info(review);
}

// Tells all faults, not the first: a rule is left out only where its answer would follow from a
// fault that is told.
void review_write(Review& review) {
  const bool ours = model::info(review.kind).group == model::kGroup;
  // What is in the status is neither taken nor judged.
  if (ours && review.doc.is_object()) review.doc.erase("status");
  // Whoever changes labels or takes a finalizer off is not asked about a spec that was once
  // accepted.
  const bool judged = !ours || !same_spec(review);
  for (const Error& fault : faults_of(review.kind, review.doc)) {
    if (judged || !fault.object.starts_with("spec")) review.spoil(fault);
  }
  if (!review.doc.is_object()) return;
  review_name(review);
  if (!ours) return review_foreign_prefixes(review);
  if (judged) {
    review_rules(review);
  } else {
    review_unknown_fields(review, model::unknown_fields(review.kind, review.old_doc));
  }
  keep_status(review);
}

void tell_of_more(Review& review) {
  const auto add = [](std::vector<std::string>& sayings, std::size_t more, const char* what) {
    if (more != 0) sayings.push_back(fmt::format("and {} more {}: not listed", more, what));
  };
  add(review.answer.denials, review.more_denials, "faults");
  add(review.answer.warnings, review.more_warnings, "warnings");
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
  if (name != model::kClusterInfoName && !is_shard && review.clean("metadata.name")) {
    review.deny("metadata.name",
                fmt::format("\"{}\": there is one EgressClusterInfo for people, named default; "
                            "change that one",
                            name));
  }
  std::vector<Error> told;
  const auto info = model::decode<model::EgressClusterInfo>(review.doc, told);
  read_prefixes(review, "spec.extraCidr", info.spec.extra_cidr);
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
  tell_of_more(review);
  if (review.answer.admitted) object = std::move(review.doc);
  return std::move(review.answer);
}

}  // namespace egw::core
