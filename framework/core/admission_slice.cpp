// Rules of EgressEndpointSlice and EgressClusterEndpointSlice.
#include <fmt/format.h>

#include "egw/core/admission_support.hpp"
#include "egw/model/json_reader.hpp"
#include "egw/model/text.hpp"

namespace egw::core::detail {
namespace {

using model::Address;
using model::Family;
using nlohmann::json;

// One entry of an endpoint's ipv4 or ipv6; `where` is its path.
void review_address(Review& review, const std::string& where, const json& entry, Family family) {
  if (!entry.is_string()) return;  // told already
  const auto& text = entry.get_ref<const std::string&>();
  const auto address = Address::parse(text);
  if (!address) return review.deny(where, address.error().message);
  if (address->family() == family) return;
  review.deny(where, fmt::format("{} is not {}; want an address of that family", text,
                                 family_name(family)));
}

void review_addresses(Review& review, const std::string& where, const json& endpoint) {
  std::size_t count = 0;
  bool known = true;
  for (const auto& [key, family] : {std::pair{"ipv4", Family::kV4}, {"ipv6", Family::kV6}}) {
    const std::string path = fmt::format("{}.{}", where, key);
    known = known && review.clean(path);
    const auto list = endpoint.find(key);
    if (list == endpoint.end() || !list->is_array()) continue;
    count += list->size();
    for (std::size_t i = 0; i < list->size(); ++i) {
      review_address(review, fmt::format("{}[{}]", path, i), (*list)[i], family);
    }
  }
  if (count == 0 && known) {
    review.deny(where, fmt::format("pod \"{}\" has no addresses; want one or more in ipv4 or ipv6",
                                   text_at(endpoint, {"pod"})));
  }
}

void review_pod(Review& review, const std::string& where, const json& endpoint) {
  const auto denied = [&](const char* key, std::string_view text, std::string_view want) {
    const std::string path = fmt::format("{}.{}", where, key);
    if (review.clean(path)) {
      review.deny(path, fmt::format("\"{}\": want {}", model::shortened(text, 100), want));
    }
  };
  const std::string pod = text_at(endpoint, {"pod"});
  if (!model::is_subdomain(pod))
    denied("pod", pod, fmt::format("the name of a pod: {}", model::kSubdomain));
  const std::string node = text_at(endpoint, {"node"});
  if (!node.empty() && !model::is_subdomain(node)) {
    denied("node", node, fmt::format("the name of a node: {}", model::kSubdomain));
  }
  const std::string ns = text_at(endpoint, {"ns"});
  if (review.kind == model::Kind::kEgressClusterEndpointSlice) {
    if (!model::is_label(ns))
      denied("ns", ns, fmt::format("the pod's namespace: {}", model::kLabel));
    return;
  }
  // Whom an EgressPolicy selects: pods of its own namespace.
  const std::string own = text_at(review.doc, {"metadata", "namespace"});
  if (!ns.empty() && ns != own && review.clean("metadata.namespace")) {
    denied("ns", ns, fmt::format("{}, the namespace of this EgressEndpointSlice", own));
  }
}

}  // namespace

void review_slice(Review& review) {
  const auto endpoints = review.doc.find("endpoints");
  if (endpoints == review.doc.end() || !endpoints->is_array()) return;
  if (endpoints->size() > review.settings.max_endpoints_per_slice) {
    review.deny("endpoints",
                fmt::format("{} entries; want at most {} "
                            "(feature.maxNumberEndpointPerSlice): make more slices",
                            endpoints->size(), review.settings.max_endpoints_per_slice));
  }
  for (std::size_t i = 0; i < endpoints->size(); ++i) {
    const json& endpoint = (*endpoints)[i];
    if (!endpoint.is_object()) continue;  // told already
    const std::string where = fmt::format("endpoints[{}]", i);
    review_pod(review, where, endpoint);
    review_addresses(review, where, endpoint);
  }
}

}  // namespace egw::core::detail
