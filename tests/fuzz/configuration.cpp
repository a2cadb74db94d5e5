// A configuration file, and `--set` on top of it. The last line may be a `--set`: it begins with
// "--set ". A fault of the schema is one line.
#include "egw/app/config_tree.hpp"
#include "egw/app/yaml.hpp"
#include "fuzz/fuzz.hpp"

using namespace egw;
using fuzz::require;

namespace {

void add(app::ConfigTree& tree, nlohmann::json document, const char* source) {
  const auto before = tree.root();
  const auto added = tree.add(std::move(document), source);
  if (added) return;
  const std::string words = added.error().to_string();
  require(!words.empty() && words.find('\n') == std::string::npos, "a refusal is one line");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  std::string_view text = fuzz::text(data, size);
  std::string set;
  if (const auto at = text.rfind("--set "); at != std::string_view::npos) {
    set = text.substr(at + 6);
    text = text.substr(0, at);
  }
  app::ConfigTree tree;
  if (auto documents = app::read_yaml(text, "input", 1 << 20)) {
    for (auto& document : *documents) add(tree, std::move(document), "input");
  }
  if (auto parsed = app::parse_set(set)) add(tree, std::move(*parsed), "--set");
  (void)tree.at("feature.gatewayFailover.enable");
  (void)tree.where("feature.vxlan.port");
  return 0;
}
