// What a write makes of a document, by the conventions of the Kubernetes API (apimachinery,
// registry/rest: BeforeCreate, BeforeUpdate, BeforeDelete). Pure functions on JSON; used by
// store.cpp.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>

#include "egw/sdk/state_store.hpp"

namespace egw::local {

inline constexpr std::size_t kMaxDocument =
    std::size_t{1536} * 1024;          // bytes, as etcd's limit of a request
inline constexpr int kMaxDepth = 100;  // nested objects and arrays

// Where a document belongs; checked by check_place().
struct Place {
  sdk::ObjectKind kind;
  std::string_view ns, name;
  // A core kind's status is written by whoever writes the object: no kubelet does it here.
  [[nodiscard]] bool keeps_status() const { return kind.group.empty(); }
  [[nodiscard]] std::string api_version() const;
  [[nodiscard]] std::string text() const;  // "EgressPolicy default/web"
};

// Name an RFC 1123 subdomain of at most 253 bytes; namespace an RFC 1123 label, given exactly when
// the kind is namespaced.
[[nodiscard]] sdk::Status check_place(const Place& place);

// An object of at most kMaxDocument bytes and kMaxDepth levels whose apiVersion, kind, name and
// namespace, where given, are those of `place`, and whose metadata has the right types. kInvalid.
[[nodiscard]] sdk::Outcome<nlohmann::json> parse_document(const Place& place,
                                                          std::string_view text);

// now: RFC 3339. The results carry everything but the new resourceVersion.
[[nodiscard]] nlohmann::json created(const Place& place, nlohmann::json wanted,
                                     const std::string& uid, const std::string& now);
// kConflict when `wanted` names another uid; kInvalid when it adds a finalizer to an object that is
// being deleted.
[[nodiscard]] sdk::Outcome<nlohmann::json> updated(const Place& place, const nlohmann::json& stored,
                                                   nlohmann::json wanted);
[[nodiscard]] nlohmann::json with_status(const nlohmann::json& stored,
                                         const nlohmann::json& wanted);
// Sets deletionTimestamp; unchanged if it is set already.
[[nodiscard]] nlohmann::json marked_deleted(const nlohmann::json& stored, const std::string& now);

[[nodiscard]] bool has_finalizers(const nlohmann::json& document);
[[nodiscard]] bool is_being_deleted(const nlohmann::json& document);
// Puts the store's own fields of `from` into `document`, whatever somebody made of them between.
void restore_system_fields(const Place& place, const nlohmann::json& from,
                           nlohmann::json& document);
// Raises metadata.generation when anything but metadata and status differs.
void count_generation(const nlohmann::json& stored, nlohmann::json& document);
void set_revision(nlohmann::json& document, std::uint64_t revision);
// What the change log keeps of a deleted object: all of it if small, else who it was.
[[nodiscard]] std::string tombstone(const nlohmann::json& document);

// RFC 3339, seconds, UTC: so that texts compare as times do.
[[nodiscard]] std::string format_now(std::chrono::seconds ago = {});

}  // namespace egw::local
