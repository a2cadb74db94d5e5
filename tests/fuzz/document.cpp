// What the local store takes and gives: documents as somebody wrote them, and the selectors of
// lists and watches. Up to the first line break: the selectors ("fields;labels"); then the
// document.
#include "local/document.hpp"

#include <nlohmann/json.hpp>

#include "fuzz/fuzz.hpp"
#include "local/filter.hpp"

using namespace egw;
using fuzz::require;
using nlohmann::json;

namespace {

local::Place place() {
  sdk::ObjectKind kind;
  kind.group = "egressgateway.spidernet.io";
  kind.version = "v1beta1";
  kind.kind = "EgressPolicy";
  kind.plural = "egresspolicies";
  kind.namespaced = true;
  return {kind, "default", "web"};
}

void write(const local::Place& where, const json& document, const json& other) {
  const json first = local::created(where, document, "uid-1", "2026-01-01T00:00:00Z");
  const auto stored = local::parse_document(where, first.dump());
  require(stored.ok(), "what was created is a good document");
  if (const auto next = local::updated(where, first, other); next.ok()) {
    json changed = *next;
    local::count_generation(first, changed);
    local::set_revision(changed, 7);
    require(local::parse_document(where, changed.dump()).ok(), "and so is an update");
  }
  (void)local::with_status(first, other);
  const json going = local::marked_deleted(first, "2026-01-01T00:00:01Z");
  require(local::is_being_deleted(going), "marked as deleted");
  (void)local::has_finalizers(going);
  require(json::accept(local::tombstone(going)), "a tombstone is JSON");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view all = fuzz::text(data, size);
  const auto line = all.find('\n');
  const std::string_view selectors = all.substr(0, line);
  const std::string_view text = line == std::string_view::npos ? "" : all.substr(line + 1);
  const auto half = selectors.find(';');
  const auto filter = local::Filter::parse(
      selectors.substr(0, half), half == std::string_view::npos ? "" : selectors.substr(half + 1));
  const auto where = place();
  const auto document = local::parse_document(where, text);
  if (!document.ok()) return 0;
  if (filter.ok()) {
    // The look at the text, which spares parsing, must not differ from the look at the document.
    require(filter->matches(std::string_view(document->dump())) == filter->matches(*document),
            "both ways agree");
  }
  write(where, *document, *document);
  return 0;
}
