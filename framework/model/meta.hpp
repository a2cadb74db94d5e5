// What every object has: kind, key, metadata, labels, conditions.
#pragma once

#include <boost/container/flat_map.hpp>
#include <compare>
#include <concepts>
#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "egw/model/result.hpp"

namespace egw::model {

enum class Kind : std::uint8_t {
  kEgressGateway,
  kEgressPolicy,
  kEgressClusterPolicy,
  kEgressTunnel,
  kEgressEndpointSlice,
  kEgressClusterEndpointSlice,
  kEgressClusterInfo,
  kNode,
  kPod,
  kNamespace,
  kEvent,
  kCalicoIpPool,
  kServiceCidr,
};

struct KindInfo {
  Kind id;
  std::string_view group;    // "" for the core kinds
  std::string_view version;  // "v1beta1" or "v1"
  std::string_view kind;     // "EgressGateway"
  std::string_view singular;
  std::string_view plural;
  std::string_view short_name;
  bool namespaced;
  [[nodiscard]] std::string api_version() const;  // "group/version" or "v1"
};

[[nodiscard]] std::span<const KindInfo> all_kinds();
[[nodiscard]] const KindInfo& info(Kind kind);
// By kind, plural, singular or short name, any case. nullptr: unknown.
[[nodiscard]] const KindInfo* find_kind(std::string_view name);
// Kubernetes' own kinds that describe nodes and pods: egw reads them, others write them, status
// included.
[[nodiscard]] constexpr bool is_core(Kind kind) {
  return kind == Kind::kNode || kind == Kind::kPod || kind == Kind::kNamespace;
}

// Namespace is empty for cluster-scoped objects.
struct Key {
  std::string ns;
  std::string name;
  [[nodiscard]] std::string to_string() const { return ns.empty() ? name : ns + "/" + name; }
  friend auto operator<=>(const Key&, const Key&) = default;
};
struct KeyHash {
  std::size_t operator()(const Key& key) const noexcept {
    const std::size_t a = std::hash<std::string>{}(key.ns);
    return std::hash<std::string>{}(key.name) ^ (a * 0x9e3779b97f4a7c15ULL);
  }
};

// As sorted vectors: every Pod of a node carries some, and a map would weigh more than what is in
// it.
using Labels = boost::container::flat_map<std::string, std::string>;

struct ObjectMeta {
  std::string name;
  std::string ns;
  std::string uid;
  std::uint64_t revision = 0;  // metadata.resourceVersion
  std::int64_t generation = 0;
  std::int64_t created_ms = 0;  // creationTimestamp, Unix ms; 0: not stored yet
  std::int64_t deleted_ms = 0;  // deletionTimestamp; 0: not being deleted
  Labels labels;
  Labels annotations;
  std::vector<std::string> finalizers;
  [[nodiscard]] Key key() const { return {ns, name}; }
};

// metav1.ConditionStatus: True, False or Unknown. As a bool it is whether it is True; who says the
// opposite of that to somebody looks at is_unknown() as well.
class ConditionStatus {
 public:
  constexpr ConditionStatus() = default;  // False
  template <std::same_as<bool> B>         // no text or number: "False" would be True
  constexpr ConditionStatus(B value) : word_(value ? Word::kTrue : Word::kFalse) {}
  static constexpr ConditionStatus unknown() {
    ConditionStatus out;
    out.word_ = Word::kUnknown;
    return out;
  }
  constexpr explicit operator bool() const { return word_ == Word::kTrue; }
  [[nodiscard]] constexpr bool is_unknown() const { return word_ == Word::kUnknown; }
  friend bool operator==(ConditionStatus, ConditionStatus) = default;

 private:
  enum class Word : std::uint8_t { kFalse, kTrue, kUnknown };
  Word word_ = Word::kFalse;
};
[[nodiscard]] std::string_view to_string(ConditionStatus status);

// metav1.Condition.
struct Condition {
  std::string type;
  ConditionStatus status;
  std::string reason;  // CamelCase, stable
  std::string message;
  std::int64_t transition_ms = 0;
  friend bool operator==(const Condition&, const Condition&) = default;
};
using Conditions = std::vector<Condition>;

// Sets a condition; the transition time changes only when the status does. Returns whether anything
// changed.
bool set_condition(Conditions& conditions, Condition wanted, std::int64_t now_ms);
bool remove_condition(Conditions& conditions, std::string_view type);
[[nodiscard]] const Condition* find_condition(const Conditions& conditions, std::string_view type);

// RFC 3339 with seconds (metav1.Time) and with microseconds (metav1.MicroTime); parse takes both.
[[nodiscard]] std::string format_time(std::int64_t unix_ms);
[[nodiscard]] std::string format_micro_time(std::int64_t unix_ms);
[[nodiscard]] Result<std::int64_t> parse_time(std::string_view text);

}  // namespace egw::model
