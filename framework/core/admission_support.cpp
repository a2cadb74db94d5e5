// See admission_support.hpp.
#include "egw/core/admission_support.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "egw/model/codec.hpp"
#include "egw/model/text.hpp"

namespace egw::core::detail {

using model::Address;
using model::Family;
using model::Kind;
using model::Prefix;
using nlohmann::json;

namespace {

constexpr std::size_t kMaxSayings = 100;  // an answer goes through the API server

void say(std::vector<std::string>& out, std::size_t& more, std::string_view path,
         std::string_view text) {
  if (out.size() >= kMaxSayings) {
    ++more;
  } else {
    // Each is one line to whoever reads them.
    out.push_back(
        model::one_line(path.empty() ? std::string(text) : fmt::format("{}: {}", path, text)));
  }
}

const json* member(const json& doc, const char* key) {
  if (!doc.is_object()) return nullptr;
  const auto it = doc.find(key);
  return it == doc.end() || it->is_null() ? nullptr : &*it;
}

// The value at a path of object members; nullptr: not there.
const json* find_at(const json& doc, std::initializer_list<const char*> path) {
  const json* at = &doc;
  for (const char* key : path) {
    at = member(*at, key);
    if (at == nullptr) return nullptr;
  }
  return at;
}

void add_prefixes(std::vector<OwnPrefix>& out, const std::vector<std::string>& entries,
                  std::string_view what) {
  for (const std::string& entry : entries) {
    if (auto prefix = Prefix::parse(entry)) out.push_back({*prefix, std::string(what)});
  }
}

}  // namespace

void Review::deny(std::string_view path, std::string_view text) {
  answer.admitted = false;
  say(answer.denials, more_denials, path, text);
}

void Review::spoil(const Error& error) {
  deny(error.object, error.message);
  spoilt.insert(error.object);
}

bool Review::clean(const std::string& path) const {
  for (std::string up = path; !up.empty();) {
    if (spoilt.contains(up)) return false;
    const std::size_t end = up.find_last_of(".[");
    up.resize(end == std::string::npos ? 0 : end);
  }
  const auto holds_some = [this](const std::string& begin) {
    const auto it = spoilt.lower_bound(begin);
    return it != spoilt.end() && it->starts_with(begin);
  };
  return !holds_some(path + ".") && !holds_some(path + "[");
}

void Review::warn(std::string_view path, std::string_view text) {
  say(answer.warnings, more_warnings, path, text);
}

std::string text_at(const json& doc, std::initializer_list<const char*> path) {
  const json* at = find_at(doc, path);
  return at != nullptr && at->is_string() ? at->get<std::string>() : std::string();
}

std::vector<std::string> texts_at(const json& doc, std::initializer_list<const char*> path) {
  std::vector<std::string> out;
  const json* at = find_at(doc, path);
  if (at == nullptr || !at->is_array()) return out;
  for (const json& entry : *at) {
    if (entry.is_string()) out.push_back(entry.get<std::string>());
  }
  return out;
}

model::Key key_of(const json& doc) {
  return {text_at(doc, {"metadata", "namespace"}), text_at(doc, {"metadata", "name"})};
}

bool same_address(const std::string& a, const std::string& b) {
  const auto x = Address::parse(a);
  const auto y = Address::parse(b);
  return x && y ? *x == *y : a == b;
}

std::string canonical(const std::string& text) {
  if (text.find(':') == std::string::npos) return text;  // IPv4 has one spelling
  const auto spelt = [](const std::string& address) {
    const auto parsed = Address::parse(address);
    return parsed ? parsed->to_string() : address;
  };
  if (const std::size_t dash = text.find('-'); dash != std::string::npos) {
    return spelt(text.substr(0, dash)) + "-" + spelt(text.substr(dash + 1));
  }
  const std::size_t slash = std::min(text.find('/'), text.size());
  return spelt(text.substr(0, slash)) + text.substr(slash);
}

void make_canonical(json& doc, const char* key) {
  const auto it = doc.is_object() ? doc.find(key) : doc.end();
  if (!doc.is_object() || it == doc.end()) return;
  if (it->is_string()) *it = canonical(it->get<std::string>());
  if (!it->is_array()) return;
  for (json& entry : *it) {
    if (entry.is_string()) entry = canonical(entry.get<std::string>());
  }
}

bool is_cluster_default(const json& gateway_doc) {
  const json* at = find_at(gateway_doc, {"spec", "clusterDefault"});
  return at != nullptr && at->is_boolean() && at->get<bool>();
}

json& object_at(json& doc, const char* key) {
  json& value = doc[key];
  if (value.is_null()) value = json::object();
  return value;
}

void inherit(json& to, const json& from, const char* key) {
  const json* value = member(from, key);
  const json* present = member(to, key);
  if (value != nullptr && (present == nullptr || *present == "")) to[key] = *value;
}

json without_status(const json& doc) {
  json out = json::object();
  for (const char* key : {"metadata", "spec"}) {
    if (const json* value = member(doc, key)) out[key] = *value;
  }
  return out;
}

bool being_deleted(const json& doc) {
  return !text_at(doc, {"metadata", "deletionTimestamp"}).empty();
}

std::vector<std::string> users_of(const ObjectReader& reader, const std::string& gateway,
                                  std::size_t most) {
  std::vector<std::string> out;
  for (const Kind kind : {Kind::kEgressPolicy, Kind::kEgressClusterPolicy}) {
    reader.each(kind, [&](const json& policy) {
      if (out.size() > most) return;
      if (text_at(policy, {"spec", "egressGatewayName"}) != gateway) return;
      out.push_back(out.size() == most ? "..." : key_of(policy).to_string());
    });
  }
  return out;
}

std::string joined(const std::vector<std::string>& names) {
  return fmt::format("{}", fmt::join(names, ", "));
}

model::Labels namespace_labels(const ObjectReader& reader, const std::string& name) {
  if (const auto doc = reader.get(Kind::kNamespace, {"", name})) {
    if (const auto ns = model::decode<model::Namespace>(*doc)) {
      return model::namespace_labels(&*ns, name);
    }
  }
  return model::namespace_labels(nullptr, name);
}

std::vector<OwnPrefix> cluster_prefixes(const ObjectReader& reader) {
  std::vector<OwnPrefix> out;
  const auto doc = reader.get(Kind::kEgressClusterInfo, {"", std::string(model::kClusterInfoName)});
  if (!doc) return out;
  const auto info = model::decode<model::EgressClusterInfo>(*doc);
  if (!info) return out;
  const auto& status = info->status;
  const auto add = [&out](const model::EgressClusterInfo::Addresses& a, std::string_view what) {
    add_prefixes(out, a.ipv4, what);
    add_prefixes(out, a.ipv6, what);
  };
  add(status.cluster_ip, "the service range");
  for (const auto& [node, cidrs] : status.pod_cidr) add(cidrs, "the pod CIDR of node " + node);
  for (const auto& [node, ips] : status.node_ip) add(ips, "the address of node " + node);
  add_prefixes(out, status.extra_cidr, "spec.extraCidr of EgressClusterInfo default");
  return out;
}

std::vector<Pair> known_pairs(const json& gateway_doc) {
  std::vector<Pair> out;
  const auto gateway = model::decode<model::EgressGateway>(gateway_doc);
  if (!gateway) return out;
  const auto add = [&out](const std::string& v4, const std::string& v6) {
    const auto a = Address::parse(v4);
    const auto b = Address::parse(v6);
    if (a && b) out.push_back({*a, *b});
  };
  const auto add_all = [&](const std::vector<model::EipStatus>& eips) {
    for (const auto& eip : eips) add(eip.ipv4, eip.ipv6);
  };
  for (const auto& node : gateway->status.node_list) add_all(node.eips);
  add_all(gateway->status.unplaced);
  const auto v4 = Address::parse(gateway->spec.ippools.ipv4_default_eip);
  const auto v6 = Address::parse(gateway->spec.ippools.ipv6_default_eip);
  if (v4 && v6 && contradiction(out, *v4, *v6) == nullptr) out.push_back({*v4, *v6});
  return out;
}

const Pair* contradiction(const std::vector<Pair>& pairs, const Address& v4, const Address& v6) {
  const auto it = std::find_if(pairs.begin(), pairs.end(),
                               [&](const Pair& p) { return (p.v4 == v4) != (p.v6 == v6); });
  return it == pairs.end() ? nullptr : &*it;
}

std::vector<std::pair<std::size_t, Prefix>> read_prefixes(Review& review, std::string_view path,
                                                          const std::vector<std::string>& entries) {
  std::vector<std::pair<std::size_t, Prefix>> out;
  if (entries.size() > kMaxEntries) {
    review.deny(path, fmt::format("{} entries; want at most {}: write larger prefixes, or split "
                                  "the policy",
                                  entries.size(), kMaxEntries));
    return out;
  }
  for (std::size_t i = 0; i < entries.size(); ++i) {
    const std::string& entry = entries[i];
    const std::string where = fmt::format("{}[{}]", path, i);
    if (review.spoilt.contains(where)) continue;
    const auto prefix = Prefix::parse(entry);
    if (!prefix) {
      review.spoil({Errc::kInvalid, where, prefix.error().message});
      continue;
    }
    // Its own first address spelt by the user may differ in case; compare values.
    const auto written = Address::parse(std::string_view(entry).substr(0, entry.find('/')));
    if (written && *written != prefix->first()) {
      review.warn(where, fmt::format("{} is read as {}", entry, prefix->to_string()));
    }
    if (!family_on(review.settings, prefix->family())) {
      review.warn(where,
                  fmt::format("{} has no effect: {} is switched off ({})", entry,
                              family_name(prefix->family()), family_switch(prefix->family())));
    }
    out.emplace_back(i, *prefix);
  }
  return out;
}

bool family_on(const model::Settings& settings, Family family) {
  return family == Family::kV6 ? settings.enable_ipv6 : settings.enable_ipv4;
}
std::string_view family_name(Family family) { return family == Family::kV6 ? "IPv6" : "IPv4"; }
std::string_view family_switch(Family family) {
  return family == Family::kV6 ? "feature.enableIPv6" : "feature.enableIPv4";
}

void deny_switched_off(Review& review, const std::string& path, const std::string& value,
                       model::Family family) {
  review.deny(path, fmt::format("{}: {} is switched off ({}); switch it on or leave this out",
                                value, family_name(family), family_switch(family)));
}

}  // namespace egw::core::detail
