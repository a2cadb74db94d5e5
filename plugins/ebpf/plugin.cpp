// The plugin's entry and configuration: the datapath on nftables with BPF programs at the
// interfaces.
#include <nlohmann/json.hpp>

#include "common/config.hpp"
#include "programs.hpp"

namespace egw::ebpf {
namespace {

constexpr std::string_view kSchemaText = R"({
  "$schema": "http://json-schema.org/draft-07/schema#",
  "type": "object",
  "additionalProperties": false,
  "properties": {
    "rulePreference": {
      "type": "integer", "minimum": 1, "maximum": 32000, "default": 1,
      "description": "The first of five preferences of ip rules; must come before other people's rules."
    },
    "routeTable": {
      "type": "integer", "minimum": 1, "maximum": 4294967295, "default": 6645623,
      "description": "The routing table of the tunnel; nobody else's."
    },
    "attach": {
      "type": "string", "enum": ["auto", "tcx", "clsact"], "default": "auto",
      "description": "How programs are attached: tcx (Linux 6.6), clsact, or tcx where the kernel has it."
    },
    "fastPath": {
      "type": "boolean", "default": false,
      "description": "TCP and UDP go straight into the tunnel and back, past FORWARD rules and NetworkPolicy."
    },
    "pinPath": {
      "type": "string", "default": "/sys/fs/bpf/egw",
      "description": "A folder in a bpffs that outlives the process: maps and links are pinned there."
    }
  }
})";

std::string text_of(const nlohmann::json& config, const char* key, const char* fallback) {
  const auto at = config.find(key);
  if (at == config.end()) return fallback;
  if (!at->is_string()) {
    throw common::wrong_config("wants a text, not " + at->dump(), key);
  }
  return at->get<std::string>();
}

Config config_of(std::string_view text) {
  const auto json =
      common::parse_config(text, {"rulePreference", "routeTable", "attach", "fastPath", "pinPath"});
  Config out;
  out.numbers = common::parse_numbers(json);
  out.pin_path = text_of(json, "pinPath", out.pin_path.c_str());
  if (out.pin_path.empty() || out.pin_path[0] != '/') {
    throw common::wrong_config("wants an absolute path, not '" + out.pin_path + "'", "pinPath");
  }
  if (const auto at = json.find("fastPath"); at != json.end()) {
    if (!at->is_boolean()) {
      throw common::wrong_config("wants true or false, not " + at->dump(), "fastPath");
    }
    out.fast_path = at->get<bool>();
  }
  const std::string attach = text_of(json, "attach", "auto");
  if (attach != "auto" && attach != "tcx" && attach != "clsact") {
    throw common::wrong_config("wants auto, tcx or clsact, not '" + attach + "'", "attach");
  }
  out.attach = attach == "tcx"      ? Attach::kTcx
               : attach == "clsact" ? Attach::kClsact
                                    : Attach::kAuto;
  return out;
}

class EbpfDatapath : public common::NftDatapath {
 public:
  EbpfDatapath(std::string_view config, std::string_view state_dir, sdk::DatapathHost host)
      : NftDatapath("ebpf", config_of(config).numbers, host,
                    std::make_unique<BpfPrograms>(config_of(config), state_dir, host)) {}
  static sdk::Status probe(std::string_view text, const sdk::NodeConfig& node,
                           sdk::ProbeSink& out) {
    const Config config = config_of(text);
    const sdk::Status programs = probe_programs(config, out);
    const sdk::Status rest = common::probe_nftables("ebpf", config.numbers, false, node, out);
    return programs.ok() ? rest : programs;
  }
};

}  // namespace
}  // namespace egw::ebpf

EGW_DATAPATH_PLUGIN(egw::ebpf::EbpfDatapath, "ebpf", "0.1.0", egw::ebpf::kSchemaText);
