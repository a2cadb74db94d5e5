// Objects from files (manifest.hpp).
#include "egw/app/manifest.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <filesystem>
#include <map>
#include <optional>
#include <set>

#include "egw/app/table.hpp"
#include "egw/app/yaml.hpp"
#include "egw/host/schema_check.hpp"
#include "egw/model/codec.hpp"
#include "egw/model/resources.hpp"
#include "egw/model/text.hpp"

namespace egw::app {
namespace {

using model::Kind;
using nlohmann::json;

constexpr std::size_t kMaxManifest = 256UL * 1024 * 1024;
constexpr std::size_t kMaxObject = 1536UL * 1024;  // of the local store, and of etcd

std::string string_at(const json& document, const char* pointer) {
  const json::json_pointer p(pointer);
  if (!document.contains(p) || !document.at(p).is_string()) return "";
  return document.at(p).get<std::string>();
}

const model::KindInfo* kind_of(const json& document) {
  const std::string api = string_at(document, "/apiVersion");
  const std::string kind = string_at(document, "/kind");
  for (const auto& k : model::all_kinds()) {
    if (k.kind == kind && k.api_version() == api) return &k;
  }
  return nullptr;
}

std::string known_kinds() {
  std::string out;
  for (const auto& k : model::all_kinds()) out += (out.empty() ? "" : ", ") + std::string(k.kind);
  return out;
}

Error unknown_kind(const json& document, const std::string& source) {
  const std::string api = string_at(document, "/apiVersion");
  const std::string kind = string_at(document, "/kind");
  if (api.empty() || kind.empty()) {
    return {Errc::kInvalid, source, "apiVersion and kind must be given, as strings"};
  }
  for (const auto& k : model::all_kinds()) {
    if (k.kind == kind) {
      return {Errc::kInvalid, source,
              fmt::format("apiVersion of {} is \"{}\"; expected {}", kind, api, k.api_version())};
    }
  }
  std::vector<std::string> names;
  for (const auto& k : model::all_kinds()) names.emplace_back(k.kind);
  const std::string guess = host::nearest(kind, names);
  return {Errc::kInvalid, source,
          guess.empty()
              ? fmt::format("unknown kind {} ({}); expected one of {}", kind, api, known_kinds())
              : fmt::format("unknown kind {}; did you mean {}?", kind, guess)};
}

// One document, or each of a list's: of kind List, or of a kind's own as the API server answers
// with (NodeList, whose items do not say what they are).
void add_document(json document, const std::string& ns, const std::string& source,
                  std::vector<Result<Manifest>>& out) {
  constexpr std::string_view kList = "List";
  const std::string kind = document.is_object() ? string_at(document, "/kind") : "";
  if (!kind.ends_with(kList) || !document.contains("items") || !document["items"].is_array()) {
    return out.push_back(to_manifest(std::move(document), ns, source)), void();
  }
  const std::string of = kind.substr(0, kind.size() - kList.size());
  std::size_t number = 0;
  for (json& item : document["items"]) {
    if (!of.empty() && item.is_object()) {
      if (!item.contains("kind")) item["kind"] = of;
      if (!item.contains("apiVersion")) item["apiVersion"] = string_at(document, "/apiVersion");
    }
    add_document(std::move(item), ns, fmt::format("{} item {}", source, ++number), out);
  }
}

void add_documents(const std::string& path, const std::string& ns,
                   std::vector<Result<Manifest>>& out) {
  auto text = read_text(path, kMaxManifest);
  if (!text) return out.emplace_back(tl::unexpected(std::move(text.error()))), void();
  const std::string name = path == "-" ? "standard input" : path;
  YamlText read = read_yaml_documents(*text, name, kMaxManifest);
  if (read.documents.empty() && !read.mistake) {
    return out.emplace_back(fail(Errc::kInvalid, name, "holds no object")), void();
  }
  const bool several = read.documents.size() + (read.mistake ? 1 : 0) > 1;
  for (std::size_t i = 0; i < read.documents.size(); ++i) {
    json& document = read.documents[i];
    const std::string source = several ? fmt::format("{} document {}", name, i + 1) : name;
    add_document(std::move(document), ns, source, out);
  }
  if (!read.mistake) return;
  if (several) read.mistake->message += "; what follows it in the file is not read";
  out.emplace_back(tl::unexpected(*std::move(read.mistake)));
}

// A name in the metadata that is there and is no text.
std::optional<Error> not_a_text(const json& document, const char* field,
                                const model::KindInfo& kind, const std::string& source) {
  const auto metadata = document.find("metadata");
  if (metadata == document.end() || !metadata->is_object()) return std::nullopt;
  const auto value = metadata->find(field);
  if (value == metadata->end() || value->is_null() || value->is_string()) return std::nullopt;
  return Error{Errc::kInvalid, source,
               fmt::format("{}: metadata.{}: {}: want a string{}", kind.kind, field,
                           value->dump().substr(0, 100),
                           value->is_primitive() ? "; put it into quotes" : "")};
}

// Beyond what the store keeps: a mistyped field, or a namespace where there is none. Admission
// tells it.
void add_wrong_metadata(Kind kind, const json& wanted, json& metadata) {
  constexpr std::string_view kBegin = "metadata.";
  const json& given = wanted.at("metadata");
  std::vector<std::string> paths = model::unknown_fields(kind, wanted);
  for (const Error& fault : model::metadata_faults(wanted)) {
    const std::string& at = fault.object;
    paths.push_back(at.substr(0, at.find_first_of(".[", std::min(kBegin.size(), at.size()))));
  }
  for (const std::string& path : paths) {
    if (!path.starts_with(kBegin)) continue;
    const std::string name = path.substr(kBegin.size());
    if (given.contains(name)) metadata[name] = given.at(name);
  }
  if (!model::info(kind).namespaced && given.contains("namespace")) {
    metadata["namespace"] = given.at("namespace");
  }
}

bool is_own(const std::string& annotation) {
  return annotation.starts_with(std::string(model::kGroup) + "/");
}

// The labels and annotations that the last apply gave.
struct Applied {
  std::set<std::string> labels, annotations;
};

Applied applied_before(const json& stored) {
  Applied out;
  const json::json_pointer at("/metadata/annotations");
  if (!stored.is_object() || !stored.contains(at) || !stored.at(at).is_object()) return out;
  const auto text = [&stored, &at](std::string_view name) {
    const auto it = stored.at(at).find(std::string(name));
    return it != stored.at(at).end() && it->is_string() ? it->get<std::string>() : std::string();
  };
  const auto add = [](const json& from, const char* key, std::set<std::string>& to) {
    if (!from.is_object() || !from.contains(key)) return;
    for (const auto& [name, value] : from.at(key).items()) {
      to.insert(from.at(key).is_object() ? name
                : value.is_string()      ? value.get<std::string>()
                                         : "");
    }
  };
  const json own = json::parse(text(model::kAppliedAnnotation), nullptr, false);
  const json kubectl =
      json::parse(text("kubectl.kubernetes.io/last-applied-configuration"), nullptr, false);
  const json theirs = kubectl.is_object() ? kubectl.value("metadata", json()) : json();
  for (const json& record : {own, theirs}) {
    add(record, "labels", out.labels);
    add(record, "annotations", out.annotations);
  }
  return out;
}

// metadata[key] as the manifest has it now. One that is no map stands for admission to refuse.
void merge_texts(const json& given, const std::set<std::string>& before, const char* key,
                 json& metadata) {
  const json now = given.contains(key) && !given[key].is_null() ? given[key] : json::object();
  if (!now.is_object()) {
    metadata[key] = now;
    return;
  }
  json merged =
      metadata.contains(key) && metadata[key].is_object() ? metadata[key] : json::object();
  for (const std::string& name : before) {
    if (!is_own(name)) merged.erase(name);
  }
  for (const auto& [name, value] : now.items()) {
    if (name != model::kAppliedAnnotation) merged[name] = value;
  }
  if (merged.empty()) {
    metadata.erase(key);
  } else {
    metadata[key] = std::move(merged);
  }
}

// Leaves a record for the next apply.
void note_applied(const json& given, json& metadata) {
  json record = json::object();
  for (const char* key : {"labels", "annotations"}) {
    if (!given.contains(key) || !given[key].is_object()) continue;
    for (const auto& [name, value] : given[key].items()) {
      if (!is_own(name)) record[key].push_back(name);
    }
  }
  const std::string name(model::kAppliedAnnotation);
  if (!record.empty()) {
    if (!metadata.contains("annotations")) metadata["annotations"] = json::object();
    if (metadata["annotations"].is_object()) metadata["annotations"][name] = record.dump();
    return;
  }
  if (!metadata.contains("annotations") || !metadata["annotations"].is_object()) return;
  metadata["annotations"].erase(name);
  if (metadata["annotations"].empty()) metadata.erase("annotations");
}

int phase(Kind kind) {
  switch (kind) {
    case Kind::kNamespace:
    case Kind::kNode:
      return 0;
    case Kind::kEgressClusterInfo:
      return 1;
    case Kind::kEgressTunnel:
    case Kind::kEgressGateway:
      return 2;
    default:
      return 3;
  }
}

// Fields that cannot change once admission has looked them up; leaving them out asks for no change.
std::vector<json::json_pointer> looked_up(Kind kind) {
  switch (kind) {
    case Kind::kEgressPolicy:
    case Kind::kEgressClusterPolicy:
      return {json::json_pointer("/spec/egressGatewayName"),
              json::json_pointer("/spec/egressIP/ipv4"), json::json_pointer("/spec/egressIP/ipv6")};
    default:
      return {};
  }
}

// Whether the value's parent is a map, or nothing yet, so that the value can be set.
bool settable(const json& document, const json::json_pointer& pointer) {
  for (auto p = pointer.parent_pointer(); !p.empty(); p = p.parent_pointer()) {
    if (document.contains(p)) return document.at(p).is_object();
  }
  return document.is_object();
}

}  // namespace

std::string Manifest::label() const {
  return resource_name(kind) + "/" + model::one_line(key.name);
}

Result<Manifest> to_manifest(json document, const std::string& ns, const std::string& source) {
  if (!document.is_object()) {
    return fail(Errc::kInvalid, source, "expected an object with apiVersion, kind and metadata");
  }
  const model::KindInfo* kind = kind_of(document);
  if (kind == nullptr) return tl::unexpected(unknown_kind(document, source));
  Manifest out{kind->id, {"", string_at(document, "/metadata/name")}, {}, source};
  for (const char* field : {"name", "namespace"}) {
    if (auto wrong = not_a_text(document, field, *kind, source)) {
      return tl::unexpected(*std::move(wrong));
    }
  }
  if (out.key.name.empty()) {
    return fail(Errc::kInvalid, source, fmt::format("{}: metadata.name must be given", kind->kind));
  }
  const std::string own = string_at(document, "/metadata/namespace");
  if (kind->namespaced) {
    if (!own.empty() && !ns.empty() && own != ns) {
      return fail(Errc::kInvalid, source,
                  fmt::format("{} {} names the namespace {}, but -n says {}", kind->kind,
                              out.key.name, own, ns));
    }
    out.key.ns = !own.empty() ? own : !ns.empty() ? ns : "default";
    document["metadata"]["namespace"] = out.key.ns;
  }
  if (const std::size_t size = document.dump().size(); size > kMaxObject) {
    return fail(Errc::kInvalid, source,
                fmt::format("{}: the object has {} bytes as JSON; want at most {}", out.label(),
                            size, kMaxObject));
  }
  out.document = std::move(document);
  return out;
}

std::vector<Result<Manifest>> read_manifests(const std::vector<std::string>& paths,
                                             const std::string& ns) {
  std::vector<Result<Manifest>> out;
  for (const auto& path : paths) {
    std::error_code error;
    if (path == "-" || !std::filesystem::is_directory(path, error)) {
      add_documents(path, ns, out);
      continue;
    }
    std::vector<std::string> files;
    for (std::filesystem::directory_iterator it(path, error), last; !error && it != last;
         it.increment(error)) {
      const auto extension = it->path().extension();
      if (extension == ".yaml" || extension == ".yml" || extension == ".json") {
        files.push_back(it->path());
      }
    }
    if (error || files.empty()) {
      out.emplace_back(fail(
          Errc::kInvalid, path,
          error ? "cannot be read: " + error.message() : "holds no *.yaml, *.yml or *.json file"));
      continue;
    }
    std::sort(files.begin(), files.end());
    for (const auto& file : files) add_documents(file, ns, out);
  }
  return out;
}

ManifestSet read_in_order(const std::vector<std::string>& paths, const std::string& ns) {
  ManifestSet out;
  std::map<std::pair<Kind, model::Key>, std::string> sources;
  for (Result<Manifest>& m : read_manifests(paths, ns)) {
    if (!m) {
      out.unreadable.push_back(std::move(m.error()));
      out.unreadable.back().message = model::one_line(std::move(out.unreadable.back().message));
      continue;
    }
    const auto [before, first] = sources.emplace(std::pair(m->kind, m->key), m->source);
    if (first) {
      out.manifests.push_back(*std::move(m));
    } else {
      out.unreadable.push_back({Errc::kInvalid, m->source,
                                fmt::format("{}: stands in {} already: which of them is meant?",
                                            m->label(), before->second)});
    }
  }
  std::stable_sort(
      out.manifests.begin(), out.manifests.end(),
      [](const Manifest& a, const Manifest& b) { return phase(a.kind) < phase(b.kind); });
  return out;
}

void in_passes(const std::vector<Manifest>& manifests,
               const std::function<Attempt(std::size_t index)>& attempt) {
  for (std::size_t begin = 0, end = 0; begin < manifests.size(); begin = end) {
    std::vector<std::size_t> left;
    for (; end < manifests.size() && phase(manifests[end].kind) == phase(manifests[begin].kind);) {
      left.push_back(end++);
    }
    for (bool changed = true; changed && !left.empty();) {
      changed = false;
      std::vector<std::size_t> refused;
      for (const std::size_t i : left) {
        const Attempt done = attempt(i);
        if (done == Attempt::kRefused) refused.push_back(i);
        // What came before a refusal was known to it.
        changed = changed || (done == Attempt::kChanged && !refused.empty());
      }
      left = std::move(refused);
    }
  }
}

json merge_applied(Kind kind, const json& stored, const json& wanted) {
  json out = wanted;
  json metadata = stored.is_object() ? stored.value("metadata", json::object())
                                     : wanted.value("metadata", json::object());
  const json given = wanted.value("metadata", json::object());
  if (given.is_object()) {
    // Where nothing is stored they are another store's, or those of an object that has gone.
    if (!stored.is_object()) {
      metadata.erase("resourceVersion");
      metadata.erase("uid");
    }
    const Applied before = applied_before(stored);
    merge_texts(given, before.labels, "labels", metadata);
    merge_texts(given, before.annotations, "annotations", metadata);
    if (given.contains("finalizers")) metadata["finalizers"] = given["finalizers"];
    note_applied(given, metadata);
    add_wrong_metadata(kind, wanted, metadata);
  }
  out["metadata"] = std::move(metadata);
  if (!stored.is_object()) return out;
  out.erase("status");
  if (stored.contains("status")) out["status"] = stored["status"];
  for (const auto& pointer : looked_up(kind)) {
    if (!out.contains(pointer) && stored.contains(pointer) && settable(out, pointer)) {
      out[pointer] = stored.at(pointer);
    }
  }
  return out;
}

bool same_but_status(const json& a, const json& b) {
  const auto reduced = [](json document) {
    document.erase("status");
    if (document.contains("metadata") && document["metadata"].is_object()) {
      for (const char* key : {"resourceVersion", "generation", "managedFields"}) {
        document["metadata"].erase(key);
      }
      // Empty and absent are the same.
      for (const char* key : {"labels", "annotations", "finalizers"}) {
        auto& metadata = document["metadata"];
        if (metadata.contains(key) && metadata[key].empty()) metadata.erase(key);
      }
    }
    return document;
  };
  return reduced(a) == reduced(b);
}

Result<std::vector<Kind>> parse_kinds(const std::string& text) {
  std::vector<Kind> out;
  std::size_t begin = 0;
  for (;;) {
    const std::size_t comma = text.find(',', begin);
    const std::string word = text.substr(begin, comma - begin);
    const model::KindInfo* kind = model::find_kind(word);
    if (kind == nullptr) {
      std::vector<std::string> names;
      std::string shorts;
      for (const auto& k : model::all_kinds()) {
        names.emplace_back(k.plural);
        names.emplace_back(k.singular);
        shorts += (shorts.empty() ? "" : ", ") + std::string(k.short_name);
      }
      const std::string guess = host::nearest(word, names);
      return fail(Errc::kInvalid, "",
                  guess.empty()
                      ? fmt::format("there is no kind \"{}\"; known: {}", word, shorts)
                      : fmt::format("there is no kind \"{}\"; did you mean \"{}\"?", word, guess));
    }
    if (std::find(out.begin(), out.end(), kind->id) == out.end()) out.push_back(kind->id);
    if (comma == std::string::npos) return out;
    begin = comma + 1;
  }
}

}  // namespace egw::app
