// Admission's entry: shape, names and unknown fields of every kind, then the rules of the kind
// (admission_gateway.cpp, admission_policy.cpp, admission_slice.cpp).
#include "egw/core/admission.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>

#include "egw/core/admission_support.hpp"
#include "egw/model/codec.hpp"
#include "egw/model/text.hpp"

namespace egw::core {
namespace {

using detail::Review;
using detail::text_at;
using model::Kind;
using nlohmann::json;

void review_name(Review& review) {
  const model::KindInfo& kind = model::info(review.kind);
  const std::string name = text_at(review.doc, {"metadata", "name"});
  const bool generated = name.empty() && !text_at(review.doc, {"metadata", "generateName"}).empty();
  if (!generated && !model::is_subdomain(name) && review.clean("metadata.name")) {
    review.spoil({Errc::kInvalid, "metadata.name",
                  fmt::format("\"{}\": want {}", model::shortened(name, 100), model::kSubdomain)});
  }
  if (review.kind == Kind::kNamespace && model::is_subdomain(name) && !model::is_label(name)) {
    review.deny("metadata.name",
                fmt::format("\"{}\": want 1 to 63 lower-case letters, digits and '-'",
                            model::shortened(name, 100)));
  }
  const std::string ns = text_at(review.doc, {"metadata", "namespace"});
  if (!review.clean("metadata.namespace")) return;
  if (kind.namespaced && !model::is_label(ns)) {
    review.deny("metadata.namespace",
                fmt::format("\"{}\": want the namespace of the {}: {}", model::shortened(ns, 100),
                            kind.kind, model::kLabel));
  } else if (!kind.namespaced && !ns.empty()) {
    review.deny("metadata.namespace",
                fmt::format("\"{}\": {} is cluster-wide; leave the namespace out",
                            model::shortened(ns, 100), kind.kind));
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

// Whether `old`, a map or a list, has that already.
bool had(const json& old, const std::string& name, const json& value) {
  if (old.is_array()) return std::find(old.begin(), old.end(), value) != old.end();
  const auto it = old.is_object() ? old.find(name) : old.end();
  return old.is_object() && it != old.end() && *it == value;
}

void review_label(Review& review, const std::string& at, const std::string& key,
                  const std::string& value) {
  if (!model::is_label_key(key)) {
    review.deny(at,
                fmt::format("\"{}\": want {}", model::shortened(key, 100), model::kWantLabelKey));
  }
  if (!model::is_label_value(value)) {
    review.deny(
        fmt::format("{}.{}", at, model::shortened(key, 100)),
        fmt::format("\"{}\": want {}", model::shortened(value, 100), model::kWantLabelValue));
  }
}

void review_annotation(Review& review, const std::string& at, const std::string& key) {
  std::string lower = key;
  for (char& c : lower) c = c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c;
  if (model::is_label_key(lower)) return;
  review.deny(at, fmt::format("\"{}\": want a key as labels have them: up to 63 letters, digits, "
                              "'-', '_', '.', with an optional DNS prefix and '/'",
                              model::shortened(key, 100)));
}

void review_finalizer(Review& review, const std::string& at, const std::string& name) {
  if (!model::is_label_key(name)) {
    review.deny(at, fmt::format("\"{}\": want a name with a domain, like example.org/backup",
                                model::shortened(name, 100)));
  } else if (name.find('/') == std::string::npos) {
    review.warn(
        at, fmt::format("\"{}\": prefer a name with a domain, like example.org/{}", name, name));
  }
}

// Rules of the API server for what every object may carry. What is stored already stays.
void review_metadata(Review& review) {
  constexpr std::size_t kMaxAnnotations = 256UL * 1024;
  const json none;
  const auto of = [&none](const json& doc, const char* key) -> const json& {
    const json::json_pointer at(std::string("/metadata/") + key);
    return doc.is_object() && doc.contains(at) ? doc.at(at) : none;
  };
  std::size_t size = 0;
  for (const char* key : {"labels", "annotations", "finalizers"}) {
    const std::string at = std::string("metadata.") + key;
    const json& now = of(review.doc, key);
    const json& before = of(review.old_doc, key);
    if (!now.is_structured() || !review.clean(at)) continue;
    for (const auto& [name, value] : now.items()) {
      if (!value.is_string()) continue;  // told
      const auto& text = value.get_ref<const std::string&>();
      const bool annotation = key[0] == 'a';
      size += annotation ? name.size() + text.size() : 0;
      if (had(before, name, value)) continue;
      if (now.is_array()) {
        review_finalizer(review, fmt::format("{}[{}]", at, name), text);
      } else if (annotation) {
        review_annotation(review, at, name);
      } else {
        review_label(review, at, name, text);
      }
    }
  }
  if (size > kMaxAnnotations) {
    review.deny("metadata.annotations",
                fmt::format("{} bytes in all; want at most {}", size, kMaxAnnotations));
  }
}

void review_node(Review& review) {
  const json& doc = review.doc;
  const auto cidr = [&review](const std::string& path, const std::string& text) {
    const auto prefix = model::Prefix::parse(text);
    if (prefix && text.find('/') != std::string::npos) return;
    review.deny(
        path, prefix ? fmt::format("\"{}\": want a prefix with its length, like {}/24", text, text)
                     : prefix.error().message);
  };
  if (!review.clean("spec") || !review.clean("status.addresses")) return;
  const auto cidrs = detail::texts_at(doc, {"spec", "podCIDRs"});
  for (std::size_t i = 0; i < cidrs.size(); ++i)
    cidr(fmt::format("spec.podCIDRs[{}]", i), cidrs[i]);
  if (const std::string one = text_at(doc, {"spec", "podCIDR"}); !one.empty()) {
    cidr("spec.podCIDR", one);
    if (!cidrs.empty() && cidrs.front() != one) {
      review.deny("spec.podCIDR",
                  fmt::format("\"{}\", but spec.podCIDRs[0] is \"{}\"; want the same, "
                              "or podCIDRs alone",
                              one, cidrs.front()));
    }
  }
  const json::json_pointer at("/status/addresses");
  if (!doc.contains(at) || !doc.at(at).is_array()) return;
  for (std::size_t i = 0; i < doc.at(at).size(); ++i) {
    const json& entry = doc.at(at)[i];
    const std::string type = text_at(entry, {"type"});
    if (type != "InternalIP" && type != "ExternalIP") continue;
    const auto address = model::Address::parse(text_at(entry, {"address"}));
    if (address) continue;
    review.deny(fmt::format("status.addresses[{}].address", i), address.error().message);
  }
}

// As with a status subresource: a write of the object leaves the status as it was.
void keep_status(Review& review) {
  review.doc.erase("status");
  if (review.old_doc.is_object() && review.old_doc.contains("status")) {
    review.doc["status"] = review.old_doc["status"];
  }
}

bool is_slice(Kind kind) {
  return kind == Kind::kEgressEndpointSlice || kind == Kind::kEgressClusterEndpointSlice;
}

// The member that holds what people ask of an object of the kind.
const char* content_of(Kind kind) { return is_slice(kind) ? "endpoints" : "spec"; }

bool same_content(const Review& review) {
  const json none;
  const auto content = [&](const json& doc) -> const json& {
    const auto it = doc.find(content_of(review.kind));
    return it == doc.end() ? none : *it;
  };
  return review.old_doc.is_object() && content(review.doc) == content(review.old_doc);
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

// Of selectors; lists of addresses have words of their own.
void review_sizes(Review& review, const json& value, const std::string& path) {
  const auto is = [&path](std::string_view name) { return path.ends_with(name); };
  if ((is(".values") || is(".matchExpressions") || is(".matchLabels")) &&
      value.size() > detail::kMaxEntries) {
    review.deny(path,
                fmt::format("{} entries; want at most {}", value.size(), detail::kMaxEntries));
    return;
  }
  for (const auto& [key, below] : value.items()) {
    if (!below.is_structured()) continue;
    review_sizes(
        review, below,
        value.is_array() ? fmt::format("{}[{}]", path, key) : fmt::format("{}.{}", path, key));
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
  if (review.doc.contains("spec") && review.doc["spec"].is_object()) {
    review_sizes(review, review.doc["spec"], "spec");
  }
  if (review.kind == Kind::kEgressGateway) detail::review_gateway(review);
  if (review.kind == Kind::kEgressPolicy || review.kind == Kind::kEgressClusterPolicy) {
    detail::review_policy(review);
  }
  if (review.kind == Kind::kEgressClusterInfo) detail::review_cluster_info(review);
  if (is_slice(review.kind)) detail::review_slice(review);
}

// Tells all faults, not the first: a rule is left out only where its answer would follow from a
// fault that is told.
void review_write(Review& review) {
  const bool ours = model::info(review.kind).group == model::kGroup;
  // What is in the status is neither taken nor judged.
  if (ours && review.doc.is_object()) review.doc.erase("status");
  // Whoever changes labels or takes a finalizer off is not asked about a spec that was once
  // accepted.
  const bool judged = !ours || !same_content(review);
  for (const Error& fault : faults_of(review.kind, review.doc)) {
    if (judged || !fault.object.starts_with(content_of(review.kind))) review.spoil(fault);
  }
  if (!review.doc.is_object()) return;
  for (const Error& fault : model::metadata_faults(review.doc)) {
    if (!review.spoilt.contains(fault.object)) review.spoil(fault);
  }
  review_name(review);
  review_metadata(review);
  if (review.kind == Kind::kNode) review_node(review);
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
    if (more != 0) sayings.push_back("and " + model::counted(more, what) + ": not listed");
  };
  add(review.answer.denials, review.more_denials, "more fault");
  add(review.answer.warnings, review.more_warnings, "more warning");
}

}  // namespace

namespace detail {
namespace {

using IndexedPrefixes = std::vector<std::pair<std::size_t, model::Prefix>>;

// Prefixes that leave nothing outside the cluster.
void warn_of_everything(Review& review, model::Family family, const IndexedPrefixes& prefixes) {
  std::vector<model::Prefix> all;
  for (const auto& [i, prefix] : prefixes) all.push_back(prefix);
  if (!model::cover_everything(family, all)) return;
  review.warn("spec.extraCidr",
              fmt::format("covers every {} address: what is in it is left alone, so no policy "
                          "steers any {} packet; want the networks that pods reach directly",
                          family_name(family), family_name(family)));
}

// Policies with a destSubnet that lies in an own prefix of the cluster.
void warn_of_swallowed(Review& review, std::size_t index, const model::Prefix& own) {
  std::vector<std::string> swallowed;
  for (const Kind kind : {Kind::kEgressPolicy, Kind::kEgressClusterPolicy}) {
    review.reader.each(kind, [&](const json& policy) {
      if (swallowed.size() > 5) return;
      for (const std::string& text : texts_at(policy, {"spec", "destSubnet"})) {
        const auto prefix = model::Prefix::parse(text);
        if (!prefix || prefix->family() != own.family() || prefix->length() < own.length() ||
            !own.contains(prefix->first())) {
          continue;
        }
        swallowed.push_back(swallowed.size() < 5
                                ? fmt::format("{} ({})", key_of(policy).to_string(), text)
                                : "...");
        return;
      }
    });
  }
  if (swallowed.empty()) return;
  review.warn(fmt::format("spec.extraCidr[{}]", index),
              fmt::format("{} is the cluster's own then: these policies no longer steer what their "
                          "destSubnet names there: {}",
                          own.to_string(), joined(swallowed)));
}

}  // namespace

void review_cluster_info(Review& review) {
  const std::string name = text_at(review.doc, {"metadata", "name"});
  const std::string shown = name.empty() ? text_at(review.doc, {"metadata", "generateName"}) : name;
  const std::string_view prefix = "peers-";
  unsigned shard = 0;
  const bool is_shard = [&] {
    // The leader knows no peers-01.
    if (!name.starts_with(prefix) || name.substr(prefix.size()).starts_with('0')) return false;
    const char* end = name.data() + name.size();
    const auto [stop, problem] = std::from_chars(name.data() + prefix.size(), end, shard);
    return problem == std::errc() && stop == end && shard >= 1;
  }();
  if (name != model::kClusterInfoName && !is_shard && review.clean("metadata.name")) {
    review.deny("metadata.name",
                fmt::format("{}\"{}\": there is one EgressClusterInfo for people, named default; "
                            "change that one",
                            name.empty() ? "generateName " : "", shown));
  }
  std::vector<Error> told;
  const auto info = model::decode<model::EgressClusterInfo>(review.doc, told);
  const auto prefixes = read_prefixes(review, "spec.extraCidr", info.spec.extra_cidr);
  for (const auto family : {model::Family::kV4, model::Family::kV6}) {
    warn_of_everything(review, family, prefixes);
  }
  for (const auto& [i, own] : prefixes) {
    if (own.length() != 0) warn_of_swallowed(review, i, own);
  }
  if (review.doc.contains("spec")) make_canonical(review.doc["spec"], "extraCidr");
}

}  // namespace detail

std::vector<std::string> status_faults(Kind kind, const json& document) {
  const json none;
  const json alone{{"status", document.value("status", json())}};
  const ObjectReader reader;
  const model::Settings settings;
  Review review{AdmitOp::kUpdate, kind, none, alone, reader, settings, {}};
  for (const Error& fault : faults_of(kind, alone)) review.spoil(fault);
  if (kind == Kind::kEgressTunnel && review.answer.admitted) {
    std::vector<Error> unused;
    const auto& status = model::decode<model::EgressTunnel>(alone, unused).status;
    if (status.phase == model::TunnelPhase::kUnknown) {
      review.deny("status.phase",
                  fmt::format("\"{}\": want one of {}", status.phase_word, model::tunnel_phases()));
    }
  }
  tell_of_more(review);
  return std::move(review.answer.denials);
}

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
