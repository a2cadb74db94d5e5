// Which fields each kind knows, for people who mistype one. Called by admission.
#include <fmt/format.h>

#include <algorithm>
#include <span>

#include "egw/model/codec.hpp"
#include "egw/model/json_reader.hpp"

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
constexpr Field kInfoSpec[] = {{"autoDetect", kAutoDetect}, {"extraCidr", {}}};

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
    {"apiVersion", {}}, {"kind", {}}, {"metadata", kMetadata}, {"endpoints", {}}};

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

// Empty: nothing is near enough to be worth naming.
std::string_view closest(std::string_view name, std::span<const Field> known) {
  if (name.size() > 64) return {};
  std::string_view best;
  std::size_t best_distance = std::max<std::size_t>(2, name.size() / 3) + 1;
  for (const Field& f : known) {
    const std::size_t d = distance(name, f.name);
    if (d < best_distance) {
      best_distance = d;
      best = f.name;
    }
  }
  return best;
}

constexpr std::size_t kMaxFound = 20;  // a person reads no more at once

void look(const json& value, const std::string& path, std::span<const Field> known,
          std::vector<UnknownField>& out) {
  if (value.is_array()) {
    for (std::size_t i = 0; i < value.size() && out.size() < kMaxFound; ++i) {
      look(value[i], fmt::format("{}[{}]", path, i), known, out);
    }
    return;
  }
  if (!value.is_object()) return;
  const auto full = [&path](std::string_view name) {
    return path.empty() ? std::string(name) : fmt::format("{}.{}", path, name);
  };
  for (auto it = value.begin(); it != value.end() && out.size() < kMaxFound; ++it) {
    const auto* field = std::find_if(known.data(), known.data() + known.size(),
                                     [&](const Field& f) { return f.name == it.key(); });
    if (field == known.data() + known.size()) {
      const std::string_view hint = closest(it.key(), known);
      out.push_back({full(it.key()), hint.empty() ? std::string() : full(hint)});
    } else if (!field->below.empty()) {
      look(*it, full(it.key()), field->below, out);
    }
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
