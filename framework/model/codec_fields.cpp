// Which fields each kind knows: for people who mistype one (called by admission), and for statuses
// with fields of a newer version, which a write keeps (called by the codecs).
#include <fmt/format.h>

#include <algorithm>
#include <span>

#include "egw/model/codec_support.hpp"

namespace egw::model {
namespace {

using nlohmann::json;

// A field's name and the fields below it; no fields below: anything may stand there (its type is
// the codec's business).
struct Field {
  std::string_view name;
  std::span<const Field> below;
};

constexpr Field kExpression[] = {{"key", {}}, {"operator", {}}, {"values", {}}};
constexpr Field kSelector[] = {{"matchLabels", {}}, {"matchExpressions", kExpression}};

constexpr Field kPools[] = {
    {"ipv4", {}}, {"ipv6", {}}, {"ipv4DefaultEIP", {}}, {"ipv6DefaultEIP", {}}};
constexpr Field kNodeSelector[] = {{"selector", kSelector}, {"policy", {}}};
constexpr Field kGatewaySpec[] = {{"clusterDefault", {}},
                                  {"ippools", kPools},
                                  {"nodeSelector", kNodeSelector},
                                  {"allowedNamespaces", kSelector}};

constexpr Field kEgressIp[] = {
    {"ipv4", {}}, {"ipv6", {}}, {"useNodeIP", {}}, {"allocatorPolicy", {}}};
// namespaceSelector on a namespaced policy is known and denied by a rule of its own.
constexpr Field kAppliedTo[] = {
    {"podSelector", kSelector}, {"podSubnet", {}}, {"namespaceSelector", kSelector}};
constexpr Field kPolicySpec[] = {{"egressGatewayName", {}}, {"egressIP", kEgressIp},
                                 {"appliedTo", kAppliedTo}, {"destSubnet", {}},
                                 {"priority", {}},          {"failurePolicy", {}}};

constexpr Field kAutoDetect[] = {{"podCidrMode", {}}, {"clusterIP", {}}, {"nodeIP", {}}};
constexpr Field kEndpoint[] = {{"pod", {}}, {"ns", {}}, {"node", {}}, {"ipv4", {}}, {"ipv6", {}}};

constexpr Field kInfoSpec[] = {{"autoDetect", kAutoDetect}, {"extraCidr", {}}};

// ---- statuses. kAny stands for every name: a map.
constexpr std::string_view kAny = "*";
constexpr Field kCondition[] = {
    {"type", {}}, {"status", {}}, {"reason", {}}, {"message", {}}, {"lastTransitionTime", {}}};
constexpr Field kPolicyRef[] = {{"name", {}}, {"namespace", {}}, {"uid", {}}};
constexpr Field kEip[] = {
    {"ipv4", {}},     {"ipv6", {}},       {"useNodeIP", {}},       {"id", {}},
    {"epoch", {}},    {"movingFrom", {}}, {"unservedSince", {}},   {"unserved", {}},
    {"leftNode", {}}, {"leftWhy", {}},    {"policies", kPolicyRef}};
constexpr Field kGatewayNode[] = {{"name", {}}, {"status", {}}, {"eips", kEip}};
constexpr Field kUsage[] = {
    {"ipv4Total", {}}, {"ipv4Free", {}}, {"ipv6Total", {}}, {"ipv6Free", {}}};
constexpr Field kGatewayStatus[] = {{"term", {}},           {"nodeList", kGatewayNode},
                                    {"unplaced", kEip},     {"ipUsage", kUsage},
                                    {"roundRobinLast", {}}, {"conditions", kCondition}};
constexpr Field kFamilies[] = {{"ipv4", {}}, {"ipv6", {}}};
constexpr Field kPolicyStatus[] = {{"eip", kFamilies}, {"node", {}}, {"conditions", kCondition}};
constexpr Field kParent[] = {{"name", {}}, {"ipv4", {}}, {"ipv6", {}}, {"mac", {}}, {"macs", {}}};
constexpr Field kTunnel[] = {{"ipv4", {}}, {"ipv6", {}}, {"mac", {}}, {"parent", kParent}};
constexpr Field kRealised[] = {{"term", {}}, {"revision", {}}};
constexpr Field kTunnelStatus[] = {
    {"tunnel", kTunnel},     {"mark", {}},        {"phase", {}},       {"lastHeartbeatTime", {}},
    {"realised", kRealised}, {"unreachable", {}}, {"lostSubnets", {}}, {"conditions", kCondition}};
constexpr Field kByNode[] = {{kAny, kFamilies}};
constexpr Field kRetired[] = {{"id", {}}, {"revision", {}}};
constexpr Field kPeer[] = {{"name", {}},       {"underlayIPv4", {}}, {"underlayIPv6", {}},
                           {"tunnelIPv4", {}}, {"tunnelIPv6", {}},   {"mac", {}},
                           {"parentMAC", {}},  {"podCIDRs", {}},     {"macs", {}}};
constexpr Field kInfoStatus[] = {
    {"podCidrMode", {}}, {"clusterIP", kFamilies}, {"nodeIP", kByNode},       {"podCIDR", kByNode},
    {"extraCidr", {}},   {"nextEgressId", {}},     {"retired", kRetired},     {"term", {}},
    {"leader", {}},      {"peers", kPeer},         {"conditions", kCondition}};

// metav1.ObjectMeta.
constexpr Field kMetadata[] = {{"name", {}},
                               {"generateName", {}},
                               {"namespace", {}},
                               {"selfLink", {}},
                               {"uid", {}},
                               {"resourceVersion", {}},
                               {"generation", {}},
                               {"creationTimestamp", {}},
                               {"deletionTimestamp", {}},
                               {"deletionGracePeriodSeconds", {}},
                               {"labels", {}},
                               {"annotations", {}},
                               {"ownerReferences", {}},
                               {"finalizers", {}},
                               {"managedFields", {}}};

constexpr Field kTop[] = {
    {"apiVersion", {}}, {"kind", {}}, {"metadata", kMetadata}, {"spec", {}}, {"status", {}}};
constexpr Field kSliceTop[] = {
    {"apiVersion", {}}, {"kind", {}}, {"metadata", kMetadata}, {"endpoints", kEndpoint}};

// Edits (insert, delete, replace, swap two neighbours) from a to b, whatever their case.
std::size_t distance(std::string_view a, std::string_view b) {
  const auto lower = [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; };
  std::vector<std::vector<std::size_t>> d(a.size() + 1, std::vector<std::size_t>(b.size() + 1));
  for (std::size_t i = 0; i <= a.size(); ++i) d[i][0] = i;
  for (std::size_t j = 0; j <= b.size(); ++j) d[0][j] = j;
  for (std::size_t i = 1; i <= a.size(); ++i) {
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const bool same = lower(a[i - 1]) == lower(b[j - 1]);
      d[i][j] = std::min({d[i - 1][j] + 1, d[i][j - 1] + 1, d[i - 1][j - 1] + (same ? 0U : 1U)});
      if (i > 1 && j > 1 && lower(a[i - 1]) == lower(b[j - 2]) &&
          lower(a[i - 2]) == lower(b[j - 1])) {
        d[i][j] = std::min(d[i][j], d[i - 2][j - 2] + 1);
      }
    }
  }
  return d[a.size()][b.size()];
}

std::string lower(std::string_view text) {
  std::string out(text);
  for (char& c : out) c = c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c;
  return out;
}

// The field that was probably meant, as the end of its path; empty: nothing is near enough to be
// worth naming.
std::string closest(std::string_view name, std::span<const Field> known) {
  if (name.size() > 64) return {};
  std::string best;
  std::size_t best_distance = std::max<std::size_t>(2, name.size() / 3) + 1;
  for (const Field& f : known) {
    const std::size_t d = distance(name, f.name);
    if (d < best_distance) {
      best_distance = d;
      best = f.name;
    }
  }
  if (!best.empty()) return best;
  for (const Field& f : known) {  // a level too high
    for (const Field& below : f.below) {
      if (below.name == name) return fmt::format("{}.{}", f.name, name);
    }
  }
  for (const Field& f : known) {  // egressGatewayName for gateway
    if (name.size() >= 4 && lower(f.name).find(lower(name)) != std::string::npos) {
      return std::string(f.name);
    }
  }
  if (known.data() == kSelector) return fmt::format("matchLabels.{}", name);
  return {};
}

// nullptr: there is no such field.
const Field* find(std::span<const Field> known, std::string_view name) {
  for (const Field& f : known) {
    if (f.name == name || f.name == kAny) return &f;
  }
  return nullptr;
}

void look(const json& value, const std::string& path, std::span<const Field> known,
          std::vector<UnknownField>& out) {
  if (value.is_array()) {
    for (std::size_t i = 0; i < value.size(); ++i) {
      look(value[i], fmt::format("{}[{}]", path, i), known, out);
    }
    return;
  }
  if (!value.is_object()) return;
  const auto full = [&path](std::string_view name) {
    return path.empty() ? std::string(name) : fmt::format("{}.{}", path, name);
  };
  for (auto it = value.begin(); it != value.end(); ++it) {
    const Field* field = find(known, it.key());
    if (field == nullptr) {
      const std::string hint = closest(it.key(), known);
      out.push_back({full(it.key()), hint.empty() ? std::string() : full(hint)});
    } else if (!field->below.empty()) {
      look(*it, full(it.key()), field->below, out);
    }
  }
}

// By which the elements of a list in a status are known again.
constexpr std::string_view kIdentity[] = {"id", "type", "name", "namespace"};

bool same_element(const json& a, const json& b, std::span<const Field> known) {
  return a.is_object() && b.is_object() &&
         std::all_of(std::begin(kIdentity), std::end(kIdentity), [&](std::string_view key) {
           if (find(known, key) == nullptr) return true;
           const auto x = a.find(key);
           const auto y = b.find(key);
           return x == a.end() ? y == b.end() : y != b.end() && *x == *y;
         });
}

// The parts of a value that are not known, in their places; null: there are none.
json unknown_parts(const json& value, std::span<const Field> known) {
  json out;
  if (value.is_array()) {
    for (const json& element : value) {
      json parts = unknown_parts(element, known);
      if (parts.is_null()) continue;
      for (const std::string_view key : kIdentity) {
        if (const auto it = element.find(key); it != element.end()) parts[std::string(key)] = *it;
      }
      out.push_back(std::move(parts));
    }
  } else if (value.is_object()) {
    for (auto it = value.begin(); it != value.end(); ++it) {
      const Field* field = find(known, it.key());
      if (field == nullptr) {
        out[it.key()] = *it;
      } else if (!field->below.empty()) {
        json parts = unknown_parts(*it, field->below);
        if (!parts.is_null()) out[it.key()] = std::move(parts);
      }
    }
  }
  return out;
}

// The opposite. What they belonged to and is no longer there takes them with it.
void put_parts(json& value, const json& parts, std::span<const Field> known) {
  if (value.is_array()) {
    for (json& element : value) {
      const auto of = std::find_if(parts.begin(), parts.end(),
                                   [&](const json& p) { return same_element(p, element, known); });
      if (of != parts.end()) put_parts(element, *of, known);
    }
    return;
  }
  for (auto it = parts.begin(); it != parts.end(); ++it) {
    const Field* field = find(known, it.key());
    if (field == nullptr) {
      value[it.key()] = *it;
    } else if (const auto in = value.find(it.key());
               in != value.end() && in->type() == it->type() && !field->below.empty()) {
      put_parts(*in, *it, field->below);
    }
  }
}

std::span<const Field> status_of(Kind kind) {
  switch (kind) {
    case Kind::kEgressGateway:
      return kGatewayStatus;
    case Kind::kEgressPolicy:
    case Kind::kEgressClusterPolicy:
      return kPolicyStatus;
    case Kind::kEgressTunnel:
      return kTunnelStatus;
    case Kind::kEgressClusterInfo:
      return kInfoStatus;
    default:
      return {};
  }
}

std::span<const Field> spec_of(Kind kind) {
  switch (kind) {
    case Kind::kEgressGateway:
      return kGatewaySpec;
    case Kind::kEgressPolicy:
    case Kind::kEgressClusterPolicy:
      return kPolicySpec;
    case Kind::kEgressClusterInfo:
      return kInfoSpec;
    default:
      return {};
  }
}

}  // namespace

std::string detail::unknown_status(Kind kind, const json& document) {
  const auto status = document.find("status");
  if (status == document.end() || !status->is_object()) return {};
  const json parts = unknown_parts(*status, status_of(kind));
  return parts.is_null() ? std::string() : parts.dump();
}

void detail::restore_unknown(Kind kind, const std::string& unknown, json& status) {
  if (!unknown.empty()) put_parts(status, json::parse(unknown), status_of(kind));
}

std::vector<UnknownField> find_unknown_fields(Kind kind, const json& document) {
  std::vector<UnknownField> out;
  if (info(kind).group != kGroup) return out;
  const bool slice =
      kind == Kind::kEgressEndpointSlice || kind == Kind::kEgressClusterEndpointSlice;
  look(document, "", slice ? std::span<const Field>(kSliceTop) : std::span<const Field>(kTop), out);
  // EgressTunnel.spec knows no field at all.
  if (!slice && document.is_object() && document.contains("spec")) {
    look(document["spec"], "spec", spec_of(kind), out);
  }
  return out;
}

std::vector<std::string> unknown_fields(Kind kind, const json& document) {
  std::vector<std::string> out;
  for (UnknownField& f : find_unknown_fields(kind, document)) out.push_back(std::move(f.path));
  return out;
}

}  // namespace egw::model
