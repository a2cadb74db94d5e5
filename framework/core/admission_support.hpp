// What the parts of admission share: the case under review and looks at other objects. For
// admission*.cpp only.
#pragma once

#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "egw/core/admission.hpp"
#include "egw/model/ip_pool.hpp"
#include "egw/model/names.hpp"
#include "egw/model/resources.hpp"

namespace egw::core::detail {

// One question to admission. `doc` is the document as it will be stored; the reviewers fill in
// defaults there.
struct Review {
  AdmitOp op;
  model::Kind kind;
  const nlohmann::json& old_doc;  // null on create
  nlohmann::json doc;             // null on delete
  const ObjectReader& reader;
  const model::Settings& settings;
  AdmitAnswer answer;
  std::set<std::string> spoilt = {};                // paths of what is not what it should be
  std::size_t more_denials = 0, more_warnings = 0;  // than are listed

  [[nodiscard]] bool creating() const { return old_doc.is_null(); }
  // A rule is broken; what stands at `path` can still be judged by other rules.
  void deny(std::string_view path, std::string_view text);
  // What stands there cannot be read: nothing follows from it.
  void spoil(const Error& error);
  // Whether that, what it stands in and what stands in it can all be read. Rules ask this where
  // the answer would follow from a fault that is told already.
  [[nodiscard]] bool clean(const std::string& path) const;
  void warn(std::string_view path, std::string_view text);
};

void review_gateway(Review& review);
void review_policy(Review& review);  // both kinds
void review_cluster_info(Review& review);
void review_slice(Review& review);  // both kinds
void review_gateway_deletion(Review& review);

// ---- documents -------------------------------------------------------------------------------
// The text at a path of object members; empty when it is not there or not a string.
[[nodiscard]] std::string text_at(const nlohmann::json& doc,
                                  std::initializer_list<const char*> path);
// The texts in the list at a path; those of its entries that are none are left out.
[[nodiscard]] std::vector<std::string> texts_at(const nlohmann::json& doc,
                                                std::initializer_list<const char*> path);
[[nodiscard]] model::Key key_of(const nlohmann::json& doc);
[[nodiscard]] bool is_cluster_default(const nlohmann::json& gateway_doc);
// doc[key] as an object, made if it is absent or null.
nlohmann::json& object_at(nlohmann::json& doc, const char* key);
// Copies from[key] to to[key] where `to` has nothing (absent, null or an empty string) there.
void inherit(nlohmann::json& to, const nlohmann::json& from, const char* key);
// metadata and spec alone: a gateway's status may name thousands of policies.
[[nodiscard]] nlohmann::json without_status(const nlohmann::json& doc);
[[nodiscard]] bool being_deleted(const nlohmann::json& doc);

// ---- other objects ---------------------------------------------------------------------------
// Names of policies that use a gateway, "namespace/name" or "name", at most `most` and then "...".
[[nodiscard]] std::vector<std::string> users_of(const ObjectReader& reader,
                                                const std::string& gateway, std::size_t most);
[[nodiscard]] std::string joined(const std::vector<std::string>& names);
// Labels of a namespace as selectors see them (model::namespace_labels).
[[nodiscard]] model::Labels namespace_labels(const ObjectReader& reader, const std::string& name);

// A prefix that belongs to the cluster, and what it is, for messages.
struct OwnPrefix {
  model::Prefix prefix;
  std::string what;  // "the service range"
};
// From EgressClusterInfo's status: service range, pod CIDRs, node addresses, extra CIDRs.
[[nodiscard]] std::vector<OwnPrefix> cluster_prefixes(const ObjectReader& reader);

// An address, prefix or range with its addresses as RFC 5952 has them; what is none, as it is. What
// is stored has one spelling, so that an address is found again by its text.
[[nodiscard]] std::string canonical(const std::string& text);
// That for a text, or for every text of a list, at doc[key], if it is there.
void make_canonical(nlohmann::json& doc, const char* key);

// Two texts that mean one address, or that are equal.
[[nodiscard]] bool same_address(const std::string& a, const std::string& b);

// ---- pairs -----------------------------------------------------------------------------------
struct Pair {
  model::Address v4, v6;
};
// The pairs of a gateway: those recorded in its status, and its defaults unless one of them has
// another partner there.
[[nodiscard]] std::vector<Pair> known_pairs(const nlohmann::json& gateway_doc);
// The first pair that holds exactly one of the two addresses: it contradicts them being a pair.
[[nodiscard]] const Pair* contradiction(const std::vector<Pair>& pairs, const model::Address& v4,
                                        const model::Address& v6);

// ---- lists of prefixes -----------------------------------------------------------------------
inline constexpr std::size_t kMaxEntries = 10000;  // of any list in a spec
// Denies what does not parse, says what was normalised; the prefixes that are good, with their
// index in `entries`.
std::vector<std::pair<std::size_t, model::Prefix>> read_prefixes(
    Review& review, std::string_view path, const std::vector<std::string>& entries);
[[nodiscard]] bool family_on(const model::Settings& settings, model::Family family);
[[nodiscard]] std::string_view family_name(model::Family family);    // "IPv4"
[[nodiscard]] std::string_view family_switch(model::Family family);  // "feature.enableIPv4"
// `value` at `path` is of a family that is switched off.
void deny_switched_off(Review& review, const std::string& path, const std::string& value,
                       model::Family family);

}  // namespace egw::core::detail
