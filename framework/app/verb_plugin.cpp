// `egw plugin list`, `egw plugin inspect`, `egw version`.
#include <fmt/format.h>
#include <spdlog/version.h>

#include <boost/version.hpp>

#include "egw/abi/types.h"
#include "egw/app/console.hpp"
#include "egw/app/table.hpp"
#include "egw/app/verbs.hpp"
#include "egw/app/yaml.hpp"
#include "egw/host/plugin_host.hpp"
#include "egw/runtime/datapath_record.hpp"

namespace egw::app {
namespace {

using nlohmann::json;

std::string abi_of(const host::PluginInfo& p) {
  return fmt::format("{}.{}", p.abi_major, p.abi_minor);
}

std::string or_none(const std::string& text) { return text.empty() ? "<none>" : text; }

// "yes" of the datapath that has programmed this node, else why `datapath: auto` has not chosen it.
std::string in_use(const host::PluginInfo& p,
                   const std::optional<runtime::DatapathRecord>& record) {
  if (p.kind != host::PluginKind::kDatapath || !record) return "";
  if (record->now.choice.name == p.name) return "yes";
  const auto why = record->others.find(p.name);
  return why == record->others.end() ? "" : "no: " + why->second;
}

json to_json(const host::PluginInfo& p) {
  json out{{"file", p.file.string()}, {"usable", p.problem.empty()}};
  if (!p.problem.empty()) out["problem"] = p.problem;
  if (p.name.empty()) return out;
  out["kind"] = host::to_string(p.kind);
  out["name"] = p.name;
  out["version"] = p.version;
  out["abi"] = abi_of(p);
  out["buildTag"] = p.build_tag;
  if (!p.layout.empty()) out["layout"] = p.layout;
  out["capabilities"] = fmt::format("{:#x}", p.capabilities);
  json schema = json::parse(p.config_schema, nullptr, false);
  out["configSchema"] = schema.is_discarded() ? json(p.config_schema) : std::move(schema);
  return out;
}

std::string rendered(const json& document, const std::string& format) {
  return format == "json" ? write_json(document) : write_yaml(document);
}

int run_list(Context& context) {
  const std::string format = context.args.get("output", "table");
  if (format != "table" && format != "json" && format != "yaml") {
    return usage_error(context, "plugin list", "-o: expected table, json or yaml");
  }
  int code = kDone;
  const auto config = load(context, code);
  if (config == nullptr) return code;
  const PluginFolder folder(*config);
  const auto plugins = folder.host().list();
  if (plugins.empty()) {
    context.console.error(fmt::format("{}: the plugin folder holds no plugin: check --plugin-dir",
                                      config->runtime.plugin_dir.string()));
    return kRefused;
  }
  if (plugins.size() == 1 && plugins[0].file == config->runtime.plugin_dir) {
    context.console.error(fmt::format("{}: {}", plugins[0].file.string(), plugins[0].problem));
    return kUsage;
  }
  const auto& state_dir = config->runtime.state_dir;
  const auto record = runtime::read_datapath_record(state_dir);
  if (const auto fault = runtime::datapath_record_fault(state_dir); !fault.empty()) {
    context.console.warning(fmt::format("{} {}: which datapath is in use here is not known",
                                        runtime::datapath_record(state_dir).string(), fault));
  }
  if (format != "table") {
    json list = json::array();
    for (const auto& p : plugins) {
      list.push_back(to_json(p));
      if (const std::string used = in_use(p, record); !used.empty()) list.back()["inUse"] = used;
    }
    context.console.out(rendered(list, format));
    return finish(context, kDone);
  }
  std::vector<std::string> titles{"KIND", "NAME", "VERSION", "ABI", "FILE", "USABLE"};
  if (record) titles.emplace_back("IN USE HERE");
  Table table(std::move(titles));
  for (const auto& p : plugins) {
    const bool known = !p.name.empty();
    std::vector<std::string> row{known ? std::string(host::to_string(p.kind)) : "<none>",
                                 or_none(p.name),
                                 or_none(p.version),
                                 known ? abi_of(p) : "<none>",
                                 p.file.filename().string(),
                                 p.problem.empty() ? "yes" : "no: " + p.problem};
    if (record) row.push_back(or_none(in_use(p, record)));
    table.add(std::move(row));
  }
  context.console.out(table.format());
  return finish(context, kDone);
}

// All plugins of that name, of whatever kind; "kind/name" is one.
int run_inspect(Context& context) {
  const std::string format = context.args.get("output", "yaml");
  if (format != "json" && format != "yaml") {
    return usage_error(context, "plugin inspect", "-o: expected json or yaml");
  }
  int code = kDone;
  const auto config = load(context, code);
  if (config == nullptr) return code;
  const PluginFolder folder(*config);
  const std::string& wanted = context.args.positional[0];
  int found = 0;
  for (const auto& p : folder.host().list()) {
    const std::string full = fmt::format("{}/{}", host::to_string(p.kind), p.name);
    if (p.name != wanted && full != wanted && p.file.filename() != wanted) continue;
    if (found++ > 0 && format == "yaml") context.console.out("---\n");
    context.console.out(rendered(to_json(p), format));
    if (!p.problem.empty()) code = kRefused;
  }
  if (found == 0) {
    context.console.error(fmt::format("there is no plugin \"{}\" in {}; egw plugin list shows them",
                                      wanted, config->runtime.plugin_dir.string()));
    return kRefused;
  }
  return finish(context, code);
}

int run_version(Context& context) { return print_version(context.console); }

}  // namespace

int print_version(Console& console) {
  console.out(fmt::format("egw {}\nplugin ABI {}.{}\ncompiler {}\n", EGW_VERSION, EGW_ABI_MAJOR,
                          EGW_ABI_MINOR,
#ifdef __clang__
                          "clang " __clang_version__
#else
                          "g++ " __VERSION__
#endif
                          ));
  console.out(fmt::format(
      "libraries: boost {}.{}.{}, fmt {}.{}.{}, nlohmann-json {}.{}.{}, spdlog "
      "{}.{}.{}\n",
      BOOST_VERSION / 100000, BOOST_VERSION / 100 % 1000, BOOST_VERSION % 100, FMT_VERSION / 10000,
      FMT_VERSION / 100 % 100, FMT_VERSION % 100, NLOHMANN_JSON_VERSION_MAJOR,
      NLOHMANN_JSON_VERSION_MINOR, NLOHMANN_JSON_VERSION_PATCH, SPDLOG_VER_MAJOR, SPDLOG_VER_MINOR,
      SPDLOG_VER_PATCH));
  return console.flush() ? kDone : kRefused;
}

Verb plugin_list_verb() {
  Verb v;
  v.name = "plugin list";
  v.usage = "[-o table|json|yaml]";
  v.summary = "List the plugin libraries, usable or not";
  v.details =
      "examples:\n  egw plugin list\n  egw --plugin-dir build/release/lib/egw/plugins plugin list";
  v.options = {{"output", 'o', "FORMAT", "table, json or yaml"}};
  v.run = run_list;
  return v;
}

Verb plugin_inspect_verb() {
  Verb v;
  v.name = "plugin inspect";
  v.usage = "NAME | KIND/NAME | FILE";
  v.summary = "Show a plugin with the schema of its configuration";
  v.details =
      "Exit code 1 if it is not there or not usable.\n\n"
      "examples:\n  egw plugin inspect netlink\n  egw plugin inspect statestore/local -o json";
  v.options = {{"output", 'o', "FORMAT", "yaml or json"}};
  v.min_args = v.max_args = 1;
  v.run = run_inspect;
  return v;
}

Verb version_verb() {
  Verb v;
  v.name = "version";
  v.summary = "Print the versions of egw, its plugin ABI and its libraries";
  v.run = run_version;
  return v;
}

}  // namespace egw::app
