// See codec_support.hpp.
#include "egw/model/codec_support.hpp"

#include <charconv>

namespace egw::model {

using nlohmann::json;

namespace detail {
namespace {

void read_labels(const Cursor& c, Labels& out) {
  c.members([&out](const std::string& key, const Cursor& value) {
    if (value.value()->is_null()) {
      value.mismatch("a string");
      return;
    }
    // Keys come sorted.
    value.get(out.emplace_hint(out.end(), key, std::string())->second);
  });
}

}  // namespace

void read_type(const Cursor& document, const KindInfo& kind) {
  std::string text;
  document["kind"].get(text);
  if (!text.empty() && text != kind.kind) {
    document["kind"].mismatch(kind.kind);
    return;
  }
  text.clear();
  document["apiVersion"].get(text);
  if (!text.empty() && text != kind.api_version()) {
    document["apiVersion"].mismatch(kind.api_version());
  }
}

void read_meta(const Cursor& metadata, ObjectMeta& out) {
  metadata["name"].get(out.name);
  metadata["namespace"].get(out.ns);
  metadata["uid"].get(out.uid);
  std::string revision;
  const Cursor revision_at = metadata["resourceVersion"];
  revision_at.get(revision);
  if (!revision.empty()) {
    const char* end = revision.data() + revision.size();
    const auto [stop, problem] = std::from_chars(revision.data(), end, out.revision);
    if (problem != std::errc() || stop != end) revision_at.mismatch("a decimal number as a string");
  }
  metadata["generation"].get_int(out.generation, 0);
  metadata["creationTimestamp"].get_time(out.created_ms);
  metadata["deletionTimestamp"].get_time(out.deleted_ms);
  read_labels(metadata["labels"], out.labels);
  read_labels(metadata["annotations"], out.annotations);
  metadata["finalizers"].get(out.finalizers);
}

void read_owner(const Cursor& metadata, const KindInfo& one, const KindInfo& other,
                std::string& name, std::string& uid) {
  metadata["ownerReferences"].each([&](const Cursor& owner) {
    std::string kind;
    owner["kind"].get(kind);
    if (kind != one.kind && kind != other.kind) return;
    owner["name"].get(name);
    owner["uid"].get(uid);
  });
}

void write_owner(json& metadata, const KindInfo& kind, const std::string& name,
                 const std::string& uid) {
  metadata["ownerReferences"] = json::array(
      {{{"apiVersion", kind.api_version()}, {"kind", kind.kind}, {"name", name}, {"uid", uid}}});
}

void read_conditions(const Cursor& list, Conditions& out) {
  list.each([&out](const Cursor& c) {
    Condition condition;
    std::string status;
    const std::size_t before = c.faults();
    c["type"].get(condition.type);
    c["status"].get(status);
    c["reason"].get(condition.reason);
    c["message"].get(condition.message);
    c["lastTransitionTime"].get_time(condition.transition_ms);
    if (c.faults() != before) return;
    if (status != "True" && status != "False" && status != "Unknown") {
      c["status"].mismatch("True, False or Unknown");
      return;
    }
    condition.status =
        status == "Unknown" ? ConditionStatus::unknown() : ConditionStatus(status == "True");
    out.push_back(std::move(condition));
  });
}

void read_selector(const Cursor& c, std::optional<LabelSelector>& out) {
  if (c.present()) out = read_selector(c);
}

void put(json& out, const char* key, const std::string& value) {
  if (!value.empty()) out[key] = value;
}
void put(json& out, const char* key, const std::vector<std::string>& value) {
  if (!value.empty()) out[key] = value;
}
void put(json& out, const char* key, bool value) {
  if (value) out[key] = true;
}
void put(json& out, const char* key, std::uint64_t value) {
  if (value != 0) out[key] = value;
}
void put(json& out, const char* key, std::int64_t value) {
  if (value != 0) out[key] = value;
}
void put_object(json& out, const char* key, json value) {
  if (!value.empty()) out[key] = std::move(value);
}
void put_time(json& out, const char* key, std::int64_t unix_ms) {
  if (unix_ms != 0) out[key] = format_time(unix_ms);
}

json document_of(const KindInfo& kind, const ObjectMeta& meta) {
  json m{{"name", meta.name}};
  put(m, "namespace", meta.ns);
  put(m, "uid", meta.uid);
  if (meta.revision != 0) m["resourceVersion"] = std::to_string(meta.revision);
  put(m, "generation", meta.generation);
  put_time(m, "creationTimestamp", meta.created_ms);
  put_time(m, "deletionTimestamp", meta.deleted_ms);
  if (!meta.labels.empty()) m["labels"] = meta.labels;
  if (!meta.annotations.empty()) m["annotations"] = meta.annotations;
  put(m, "finalizers", meta.finalizers);
  return {{"apiVersion", kind.api_version()}, {"kind", kind.kind}, {"metadata", std::move(m)}};
}

json conditions_json(const Conditions& conditions) {
  json out = json::array();
  for (const Condition& c : conditions) {
    // metav1.Condition requires every one of these.
    out.push_back({{"type", c.type},
                   {"status", to_string(c.status)},
                   {"reason", c.reason},
                   {"message", c.message},
                   {"lastTransitionTime", format_time(c.transition_ms)}});
  }
  return out;
}

}  // namespace detail

Result<ObjectMeta> decode_meta(const json& document) {
  std::vector<Error> faults;
  const Cursor root(document, faults);
  ObjectMeta out;
  if (document.is_object()) {
    detail::read_meta(root["metadata"], out);
  } else {
    root.mismatch("an object with apiVersion, kind and metadata");
  }
  if (!faults.empty()) return tl::unexpected(std::move(faults.front()));
  return out;
}

std::vector<Error> metadata_faults(const json& document) {
  std::vector<Error> faults;
  const Cursor root(document, faults);
  if (!document.is_object()) return faults;
  const Cursor metadata = root["metadata"];
  ObjectMeta unused;
  std::string text;
  detail::read_meta(metadata, unused);
  if (!faults.empty() && faults.front().object == "metadata") return faults;
  metadata["generateName"].get(text);
  metadata["ownerReferences"].each([&text](const Cursor& owner) {
    for (const char* key : {"apiVersion", "kind", "name", "uid"}) owner[key].get(text);
  });
  metadata["managedFields"].each([&text](const Cursor& entry) { entry["manager"].get(text); });
  return faults;
}

}  // namespace egw::model
