// See document.hpp.
#include "document.hpp"

#include <algorithm>
#include <ctime>
#include <nlohmann/json.hpp>

#include "common/nesting.hpp"

namespace egw::local {

using nlohmann::json;
using sdk::Code;

namespace {

constexpr std::size_t kTombstoneLimit = std::size_t{16} * 1024;

bool lower_alnum(char c) { return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9'); }

// RFC 1123 label: lower case letters, digits, '-'; begins and ends with a letter or digit.
bool is_label(std::string_view s, std::size_t limit) {
  if (s.empty() || s.size() > limit || !lower_alnum(s.front()) || !lower_alnum(s.back())) {
    return false;
  }
  return std::all_of(s.begin(), s.end(), [](char c) { return lower_alnum(c) || c == '-'; });
}

bool is_subdomain(std::string_view s) {
  if (s.size() > 253) return false;
  while (true) {
    const std::size_t dot = s.find('.');
    if (!is_label(s.substr(0, dot), 253)) return false;
    if (dot == std::string_view::npos) return true;
    s.remove_prefix(dot + 1);
  }
}

sdk::Status invalid(const Place& place, std::string message) {
  return sdk::fail(Code::kInvalid, std::move(message), place.text());
}

const json* member(const json& object, const char* key) {
  const auto it = object.find(key);
  return it == object.end() || it->is_null() ? nullptr : &*it;
}

sdk::Status check_string(const Place& place, const json& object, const char* path, const char* key,
                         std::string_view wanted) {
  const json* value = member(object, key);
  if (value == nullptr) return sdk::ok();
  if (!value->is_string()) return invalid(place, std::string(path) + " must be a string");
  const auto& text = value->get_ref<const std::string&>();
  if (text.empty() || text == wanted) return sdk::ok();
  return invalid(place, std::string(path) + " is \"" + text + "\", but the write is for \"" +
                            std::string(wanted) + "\"");
}

sdk::Status check_string_map(const Place& place, const json& metadata, const char* key) {
  const json* map = member(metadata, key);
  if (map == nullptr) return sdk::ok();
  if (!map->is_object()) {
    return invalid(place, std::string("metadata.") + key + " must be a map of strings");
  }
  for (const auto& [name, value] : map->items()) {
    if (!value.is_string()) {
      return invalid(place, std::string("metadata.") + key + "." + name + " must be a string");
    }
  }
  return sdk::ok();
}

sdk::Status check_metadata(const Place& place, const json& document) {
  const json* metadata = member(document, "metadata");
  if (metadata == nullptr) return sdk::ok();
  if (!metadata->is_object()) return invalid(place, "metadata must be an object");
  if (auto s = check_string(place, *metadata, "metadata.name", "name", place.name); !s.ok()) {
    return s;
  }
  if (auto s = check_string(place, *metadata, "metadata.namespace", "namespace", place.ns);
      !s.ok()) {
    return s;
  }
  if (auto s = check_string_map(place, *metadata, "labels"); !s.ok()) return s;
  if (auto s = check_string_map(place, *metadata, "annotations"); !s.ok()) return s;
  if (const json* uid = member(*metadata, "uid"); uid != nullptr && !uid->is_string()) {
    return invalid(place, "metadata.uid must be a string");
  }
  const json* finalizers = member(*metadata, "finalizers");
  if (finalizers == nullptr) return sdk::ok();
  const auto is_name = [](const json& f) {
    return f.is_string() && !f.get_ref<const std::string&>().empty();
  };
  if (!finalizers->is_array() || !std::all_of(finalizers->begin(), finalizers->end(), is_name)) {
    return invalid(place, "metadata.finalizers must be a list of names");
  }
  return sdk::ok();
}

// Copies the member, or removes it where `from` has none.
void copy_member(const json& from, json& to, const char* key) {
  if (const json* value = member(from, key)) {
    to[key] = *value;
  } else {
    to.erase(key);
  }
}

// apiVersion, kind, name, namespace.
void set_identity(const Place& place, json& document) {
  document["apiVersion"] = place.api_version();
  document["kind"] = std::string(place.kind.kind);
  json& metadata = document["metadata"];
  if (!metadata.is_object()) metadata = json::object();
  metadata["name"] = std::string(place.name);
  if (place.ns.empty()) {
    metadata.erase("namespace");
  } else {
    metadata["namespace"] = std::string(place.ns);
  }
}

}  // namespace

std::string Place::api_version() const {
  return kind.group.empty() ? std::string(kind.version)
                            : std::string(kind.group) + "/" + std::string(kind.version);
}

std::string Place::text() const {
  std::string out(kind.kind);
  out += ' ';
  if (!ns.empty()) out.append(ns).append("/");
  return out.append(name.substr(0, 260));
}

sdk::Status check_place(const Place& place) {
  if (place.kind.kind.empty() || place.kind.version.empty()) {
    return sdk::fail(Code::kInvalid, "the kind of the object is not given");
  }
  if (!is_subdomain(place.name)) {
    return invalid(place,
                   "metadata.name must be a lower case RFC 1123 subdomain of at most 253 "
                   "characters (letters, digits, '-' and '.', e.g. \"my-gateway\")");
  }
  if (place.kind.namespaced && !is_label(place.ns, 63)) {
    return invalid(place,
                   place.ns.empty()
                       ? "the kind is namespaced: metadata.namespace must be given"
                       : "metadata.namespace must be a lower case RFC 1123 label of at most 63 "
                         "characters (letters, digits and '-')");
  }
  if (!place.kind.namespaced && !place.ns.empty()) {
    return invalid(place, "the kind is cluster-scoped: metadata.namespace must not be given");
  }
  return sdk::ok();
}

sdk::Outcome<json> parse_document(const Place& place, std::string_view text) {
  if (text.size() > kMaxDocument) {
    return invalid(place, "the object has " + std::to_string(text.size()) + " bytes, at most " +
                              std::to_string(kMaxDocument) + " are allowed");
  }
  if (common::nested_deeper_than(text, kMaxDepth)) {
    return invalid(place,
                   "the object is nested more than " + std::to_string(kMaxDepth) + " levels deep");
  }
  json document;
  try {
    document = json::parse(text);
  } catch (const json::exception& e) {
    return invalid(place, std::string("the object is not valid JSON: ") + e.what());
  }
  if (!document.is_object()) return invalid(place, "the object must be a JSON object");
  const std::string api_version = place.api_version();
  if (auto s = check_string(place, document, "apiVersion", "apiVersion", api_version); !s.ok()) {
    return s;
  }
  if (auto s = check_string(place, document, "kind", "kind", place.kind.kind); !s.ok()) return s;
  if (auto s = check_metadata(place, document); !s.ok()) return s;
  return document;
}

json created(const Place& place, json wanted, const std::string& uid, const std::string& now) {
  set_identity(place, wanted);
  json& metadata = wanted["metadata"];
  metadata["uid"] = uid;
  metadata["creationTimestamp"] = now;
  metadata["generation"] = 1;
  metadata.erase("resourceVersion");
  metadata.erase("deletionTimestamp");
  metadata.erase("deletionGracePeriodSeconds");
  if (!place.keeps_status()) wanted.erase("status");
  return wanted;
}

sdk::Outcome<json> updated(const Place& place, const json& stored, json wanted) {
  set_identity(place, wanted);
  const json& before = stored.at("metadata");
  const json& metadata = wanted["metadata"];
  const json* uid = member(metadata, "uid");
  if (uid != nullptr && *uid != "" && *uid != before.value("uid", "")) {
    return sdk::fail(Code::kConflict,
                     "the object was deleted and made anew since it was read (uid " +
                         before.value("uid", "") + " is stored, " + uid->get<std::string>() +
                         " was given); read it again",
                     place.text());
  }
  if (is_being_deleted(stored) && metadata.contains("finalizers")) {
    const json had = before.value("finalizers", json::array());
    for (const json& finalizer : metadata["finalizers"]) {
      if (std::find(had.begin(), had.end(), finalizer) == had.end()) {
        return invalid(place, "the object is being deleted: finalizer " + finalizer.dump() +
                                  " cannot be added any more");
      }
    }
  }
  restore_system_fields(place, stored, wanted);
  if (!place.keeps_status() || !wanted.contains("status")) copy_member(stored, wanted, "status");
  count_generation(stored, wanted);
  return wanted;
}

json with_status(const json& stored, const json& wanted) {
  json out = stored;
  copy_member(wanted, out, "status");
  return out;
}

json marked_deleted(const json& stored, const std::string& now) {
  json out = stored;
  if (is_being_deleted(stored)) return out;
  json& metadata = out["metadata"];
  metadata["deletionTimestamp"] = now;
  metadata["deletionGracePeriodSeconds"] = 0;
  metadata["generation"] = metadata.value("generation", 0) + 1;
  return out;
}

bool has_finalizers(const json& document) {
  const json* finalizers = member(document.at("metadata"), "finalizers");
  return finalizers != nullptr && !finalizers->empty();
}

bool is_being_deleted(const json& document) {
  return member(document.at("metadata"), "deletionTimestamp") != nullptr;
}

void restore_system_fields(const Place& place, const json& from, json& document) {
  set_identity(place, document);
  for (const char* key : {"uid", "creationTimestamp", "generation", "resourceVersion",
                          "deletionTimestamp", "deletionGracePeriodSeconds"}) {
    copy_member(from.at("metadata"), document["metadata"], key);
  }
}

void count_generation(const json& stored, json& document) {
  const auto rest = [](json d) {
    d.erase("metadata");
    d.erase("status");
    return d;
  };
  if (rest(stored) == rest(document)) return;
  document["metadata"]["generation"] = stored.at("metadata").value("generation", 0) + 1;
}

void set_revision(json& document, std::uint64_t revision) {
  document["metadata"]["resourceVersion"] = std::to_string(revision);
}

std::string tombstone(const json& document) {
  std::string whole = document.dump();
  if (whole.size() <= kTombstoneLimit) return whole;
  json small = {{"apiVersion", document.at("apiVersion")}, {"kind", document.at("kind")}};
  for (const char* key : {"name", "namespace", "uid", "resourceVersion", "creationTimestamp"}) {
    copy_member(document.at("metadata"), small["metadata"], key);
  }
  return small.dump();
}

std::string format_now(std::chrono::seconds ago) {
  const std::time_t now = std::time(nullptr) - static_cast<std::time_t>(ago.count());
  std::tm utc{};
  ::gmtime_r(&now, &utc);
  char text[32];
  std::strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%SZ", &utc);
  return text;
}

}  // namespace egw::local
