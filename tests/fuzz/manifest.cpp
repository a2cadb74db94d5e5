// A manifest file: YAML or JSON text to documents to resources. What decodes is the same after
// another round through JSON, and what is written as YAML reads as the same document.
#include "egw/app/manifest.hpp"

#include "egw/app/yaml.hpp"
#include "egw/model/codec.hpp"
#include "egw/model/resources.hpp"
#include "fuzz/fuzz.hpp"

using namespace egw;
using fuzz::require;
using nlohmann::json;

namespace {

template <class R>
void decode(const json& document) {
  const auto resource = model::decode<R>(document);
  if (!resource) {
    require(!resource.error().message.empty(), "a refusal says why");
    return;
  }
  const json encoded = model::encode(*resource);
  const auto again = model::decode<R>(encoded);
  require(again.has_value(), "what was encoded decodes");
  require(model::encode(*again) == encoded, "encoding is stable");
}

void decode_by_kind(model::Kind kind, const json& document) {
  switch (kind) {
    case model::Kind::kEgressGateway:
      return decode<model::EgressGateway>(document);
    case model::Kind::kEgressPolicy:
      return decode<model::EgressPolicy>(document);
    case model::Kind::kEgressClusterPolicy:
      return decode<model::EgressClusterPolicy>(document);
    case model::Kind::kEgressTunnel:
      return decode<model::EgressTunnel>(document);
    case model::Kind::kEgressClusterInfo:
      return decode<model::EgressClusterInfo>(document);
    case model::Kind::kNode:
      return decode<model::Node>(document);
    case model::Kind::kPod:
      return decode<model::Pod>(document);
    case model::Kind::kNamespace:
      return decode<model::Namespace>(document);
    default:
      return;
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const auto documents = app::read_yaml(fuzz::text(data, size), "input", 1 << 20);
  if (!documents) {
    require(!documents.error().to_string().empty(), "a refusal says why");
    return 0;
  }
  for (const json& document : *documents) {
    const std::string text = app::write_yaml(document);
    const auto again = app::read_yaml(text, "again", 64 << 20);
    require(again.has_value(), "what was written reads");
    require(again->size() == 1 && again->front() == document, "and is the same document");
    const auto manifest = app::to_manifest(document, "default", "input");
    if (!manifest) continue;
    (void)model::find_unknown_fields(manifest->kind, manifest->document);
    decode_by_kind(manifest->kind, manifest->document);
    // The first apply may note what it has given.
    const json once = app::merge_applied(manifest->kind, manifest->document, manifest->document);
    const json twice = app::merge_applied(manifest->kind, once, manifest->document);
    require(app::same_but_status(twice, once), "applied once more it is unchanged");
  }
  return 0;
}
