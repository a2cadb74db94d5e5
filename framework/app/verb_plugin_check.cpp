// `egw plugin check`: finds the library and the conformance kit, then becomes the kit, which is a
// Python program (tests/conformance, installed below share/egw).
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstring>

#include "egw/app/console.hpp"
#include "egw/app/verbs.hpp"
#include "egw/host/plugin_host.hpp"
#include "egw/runtime/auto_datapath.hpp"

namespace egw::app {
namespace {

namespace fs = std::filesystem;

constexpr const char* kPython = "/usr/bin/python3";

struct Library {
  fs::path file;
  std::string name;
};

// WORD is a library's path, or a name in the plugin folder. The host judges it as it would for an
// agent; its refusal is said here, in one sentence.
std::optional<Library> find_library(Context& context, const Config& config,
                                    const std::string& word) {
  Library out{config.runtime.plugin_dir / ("egw-datapath-" + word + ".so"), word};
  if (word.find('/') != std::string::npos || word.ends_with(".so")) {
    out.file = fs::absolute(word);
    const std::string stem = out.file.stem().string();
    if (!stem.starts_with("egw-datapath-") || out.file.extension() != ".so") {
      context.console.error(fmt::format(
          "{}: is called neither egw-datapath-NAME.so nor by a plugin's name: rename the library",
          word));
      return std::nullopt;
    }
    out.name = stem.substr(std::string("egw-datapath-").size());
  }
  Config of_its_folder = config;
  of_its_folder.runtime.plugin_dir = out.file.parent_path();
  const PluginFolder folder(of_its_folder);
  const auto info = folder.host().inspect(host::PluginKind::kDatapath, out.name);
  if (!info) {
    context.console.error(info.error().to_string());
    return std::nullopt;
  }
  if (!info->problem.empty()) {
    context.console.error(fmt::format("{}: {}", info->file.string(), info->problem));
    return std::nullopt;
  }
  return out;
}

// What plugins.datapath.config says of the plugin of that name. With `auto` each has a part of its
// own.
std::string config_of(const Config& config, const Library& library) {
  const auto& chosen = config.runtime.datapath;
  if (chosen.name == runtime::kAutomatic) {
    const auto own = chosen.config.find(library.name);
    return own != chosen.config.end() ? own->dump() : "{}";
  }
  return chosen.name == library.name && !chosen.config.is_null() ? chosen.config.dump() : "{}";
}

// What is wrong with the words themselves; "": nothing.
std::string wrong_words(const Context& context) {
  if (const auto only = context.args.options.find("only"); only != context.args.options.end()) {
    for (const auto& word : only->second) {
      if (word.empty()) return "--only: expected a case or a group of cases, got nothing";
    }
  }
  if (!context.args.has("jobs")) return "";
  const std::string jobs = context.args.get("jobs");
  int number = 0;
  const auto [end, fault] = std::from_chars(jobs.data(), jobs.data() + jobs.size(), number);
  if (fault == std::errc() && end == jobs.data() + jobs.size() && number >= 1 && number <= 1000) {
    return "";
  }
  return fmt::format("--jobs: expected a number from 1 to 1000, got \"{}\"", jobs);
}

// An earlier run's result must not be taken for this one's, whatever becomes of it.
void forget_result(const Context& context) {
  std::error_code ignored;
  const fs::path file = context.args.has("json") ? context.args.get("json") : "";
  if (!context.args.has("list") && fs::is_regular_file(file, ignored)) fs::remove(file, ignored);
}

// The kit of this binary's installation or build tree.
fs::path kit_program() {
  return default_plugin_dir().parent_path().parent_path().parent_path() /
         "share/egw/conformance/kit.py";
}

// Replaces this process; comes back only if that fails.
int become(Context& context, const std::vector<std::string>& words) {
  std::vector<char*> argv;
  for (const auto& w : words) argv.push_back(const_cast<char*>(w.c_str()));
  argv.push_back(nullptr);
  (void)context.console.flush();
  execv(kPython, argv.data());
  context.console.error(fmt::format("{}: {}: install python3 (Debian: apt-get install python3)",
                                    kPython, std::strerror(errno)));
  return kUsage;
}

// The libraries of the nodes: the one, or the client's and the gateways'.
std::optional<std::vector<Library>> find_libraries(Context& context, const Config& config) {
  std::vector<std::string> words{context.args.positional[0]};
  if (context.args.has("pair")) words.push_back(context.args.get("pair"));
  std::vector<Library> out;
  for (const auto& word : words) {
    auto library = find_library(context, config, word);
    if (!library) return std::nullopt;
    out.push_back(std::move(*library));
  }
  return out;
}

int run_check(Context& context) {
  if (const auto wrong = wrong_words(context); !wrong.empty()) {
    return usage_error(context, "plugin check", wrong);
  }
  forget_result(context);
  int code = kDone;
  const auto config = load(context, code);
  if (config == nullptr) return code;
  const auto libraries = find_libraries(context, *config);
  if (!libraries) return kUsage;
  const std::string& named = config->runtime.datapath.name;
  const bool ours = std::any_of(libraries->begin(), libraries->end(),
                                [&](const Library& l) { return l.name == named; });
  if (context.args.has("config") && named != runtime::kAutomatic && !ours) {
    return usage_error(context, "plugin check",
                       fmt::format("{}: plugins.datapath.name is \"{}\", the library's is \"{}\"",
                                   context.args.get("config"), named, libraries->front().name));
  }
  const fs::path kit = kit_program();
  if (!fs::exists(kit)) {
    context.console.error(fmt::format(
        "{}: the conformance kit is not there: install egw with cmake --install", kit.string()));
    return kUsage;
  }
  std::vector<std::string> words{kPython, "-B", kit.string(), libraries->front().file.string(),
                                 "--plugin-config=" + config_of(*config, libraries->front())};
  if (libraries->size() > 1) {
    words.push_back("--pair=" + libraries->back().file.string());
    words.push_back("--pair-config=" + config_of(*config, libraries->back()));
  }
  if (const auto only = context.args.options.find("only"); only != context.args.options.end()) {
    for (const auto& word : only->second) words.push_back("--only=" + word);
  }
  for (const char* name : {"json", "jobs"}) {
    if (context.args.has(name))
      words.push_back(fmt::format("--{}={}", name, context.args.get(name)));
  }
  if (context.args.has("list")) words.emplace_back("--list");
  return become(context, words);
}

}  // namespace

Verb plugin_check_verb() {
  Verb v;
  v.name = "plugin check";
  v.usage = "LIBRARY | NAME [--only CASE]... [--pair LIBRARY] [--json FILE]";
  v.summary = "Run the conformance kit against a datapath plugin";
  v.details =
      "Makes network namespaces of its own, sends packets through the plugin, and prints what is\n"
      "required of a datapath with pass, fail or skip. Needs root, python3 and iproute2, "
      "nftables,\n"
      "iptables, ipset, conntrack. The plugin is given plugins.datapath.config of --config, or "
      "the\n"
      "part of that name where plugins.datapath.name is auto.\n"
      "Exit code 0: nothing failed; 1: something did; 2: it could not be run.\n\n"
      "examples:\n  egw plugin check netlink\n"
      "  egw plugin check ./build/egw-datapath-mine.so --json result.json\n"
      "  egw plugin check mine --pair netlink --only flow --only beside-masquerade";
  v.options = {{"only", 0, "CASE", "a case or a group of cases; repeatable"},
               {"pair", 0, "LIBRARY", "another datapath, for the gateway nodes"},
               {"json", 0, "FILE", "the result as JSON"},
               {"jobs", 0, "N", "how many cases run side by side; else twice the CPUs"},
               {"list", 0, "", "print the cases and run none"}};
  v.min_args = v.max_args = 1;
  v.run = run_check;
  return v;
}

}  // namespace egw::app
