// What the codecs share: metadata, conditions, the frame of a document. For codec_*.cpp only.
#pragma once

#include <optional>
#include <string_view>

#include "egw/model/codec.hpp"
#include "egw/model/json_reader.hpp"

namespace egw::model::detail {

inline constexpr std::uint32_t kMaxEgressId = 16383;  // 14 bits: see EipStatus::id

// Checks apiVersion and kind where they are given (items of a list have neither).
void read_type(const Cursor& document, const KindInfo& kind);
void read_meta(const Cursor& metadata, ObjectMeta& out);
// The owner of one of two kinds in metadata.ownerReferences, and the list of one that says so.
void read_owner(const Cursor& metadata, const KindInfo& one, const KindInfo& other,
                std::string& name, std::string& uid);
void write_owner(nlohmann::json& metadata, const KindInfo& kind, const std::string& name,
                 const std::string& uid);
void read_conditions(const Cursor& list, Conditions& out);
void read_selector(const Cursor& c, std::optional<LabelSelector>& out);

// apiVersion, kind, metadata.
nlohmann::json document_of(const KindInfo& kind, const ObjectMeta& meta);
nlohmann::json conditions_json(const Conditions& conditions);

// Sets out[key] unless the value is the one that absence means.
void put(nlohmann::json& out, const char* key, const std::string& value);
void put(nlohmann::json& out, const char* key, const std::vector<std::string>& value);
void put(nlohmann::json& out, const char* key, bool value);
void put(nlohmann::json& out, const char* key, std::uint64_t value);
void put(nlohmann::json& out, const char* key, std::int64_t value);
void put_object(nlohmann::json& out, const char* key, nlohmann::json value);  // unless empty
void put_time(nlohmann::json& out, const char* key, std::int64_t unix_ms);

// What the document's status has that this version does not know, as JSON; empty: nothing.
[[nodiscard]] std::string unknown_status(Kind kind, const nlohmann::json& document);
// Puts it back: elements of lists, which have changed since, are known by id, type, name,
// namespace.
void restore_unknown(Kind kind, const std::string& unknown, nlohmann::json& status);

// Runs body(root cursor, resource) over the document.
template <class R, class Body>
R read_document(const nlohmann::json& document, std::vector<Error>& faults, Body&& body) {
  const Cursor root(document, faults);
  R out;
  if (!document.is_object()) {
    root.mismatch("an object with apiVersion, kind and metadata");
  } else {
    read_type(root, info(R::kKind));
    read_meta(root["metadata"], out.meta);
    body(root, out);
    if constexpr (requires { out.unknown_status; }) {
      out.unknown_status = unknown_status(R::kKind, document);
    }
  }
  return out;
}

// One of a fixed set of words; an empty word leaves `out` as it is.
template <class E, std::size_t N>
void read_word(const Cursor& c, E& out, const std::pair<std::string_view, E> (&words)[N]) {
  std::string text;
  c.get(text);
  if (text.empty()) return;
  std::string known;
  for (const auto& [word, value] : words) {
    if (word == text) {
      out = value;
      return;
    }
    known.append(known.empty() ? "" : ", ").append(word);
  }
  c.mismatch("one of " + known);
}

}  // namespace egw::model::detail
