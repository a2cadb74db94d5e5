// The text of a Pod as a store plugin gives it: what is read straight is what the tree says.
#include <nlohmann/json.hpp>
#include <tuple>

#include "egw/model/codec.hpp"
#include "egw/model/pod_text.hpp"
#include "fuzz/fuzz.hpp"

using namespace egw;
using fuzz::require;

namespace {

auto parts(const model::Pod& p) {
  const model::ObjectMeta& m = p.meta;
  return std::tie(m.name, m.ns, m.uid, m.revision, m.generation, m.created_ms, m.deleted_ms,
                  m.labels, m.annotations, m.finalizers, p.node_name, p.host_network, p.finished,
                  p.ips);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text = fuzz::text(data, size);
  const auto quick = model::read_pod(text);
  if (!quick) return 0;
  const auto document = nlohmann::json::parse(text, nullptr, false);
  require(!document.is_discarded(), "what is read is JSON");
  const auto slow = model::decode<model::Pod>(document);
  require(slow.has_value(), "and has no fault");
  require(parts(*quick) == parts(*slow), "both ways agree");
  return 0;
}
