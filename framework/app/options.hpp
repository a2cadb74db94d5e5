// The command line: global options, a verb, the verb's options and arguments. Knows no verb by
// name: the table of verbs is given (verbs.hpp).
#pragma once

#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "egw/app/config.hpp"
#include "egw/model/result.hpp"

namespace egw::app {

struct OptionSpec {
  std::string name;   // "output"
  char letter = 0;    // 'o'; 0: none
  std::string value;  // name of its value in the help; empty: a switch
  std::string help;
};

// What a verb is given.
struct Args {
  std::map<std::string, std::vector<std::string>> options;
  std::vector<std::string> positional;
  [[nodiscard]] bool has(const std::string& name) const { return options.contains(name); }
  // The last value given, or `otherwise`.
  [[nodiscard]] std::string get(const std::string& name, const std::string& otherwise = {}) const;
};

class Console;
struct Context {
  const ConfigInput& input;
  const Args& args;
  Console& console;
};

struct Verb {
  std::string name;     // "get"; a second word where it has one: "plugin list"
  std::string usage;    // "KIND [NAME]..."
  std::string summary;  // one line
  std::string details;  // paragraphs, examples
  std::vector<OptionSpec> options;
  std::size_t min_args = 0, max_args = 0;
  int (*run)(Context& context) = nullptr;
};

struct CommandLine {
  ConfigInput input;
  const Verb* verb = nullptr;  // null: only help or version was asked for
  Args args;
  bool help = false, version = false;
  std::string group;  // with help: "plugin" of "egw plugin --help"
};

// argv without the program's name. Errors carry a hint (exit code 2). env_*: EGW_CONFIG and
// EGW_PLUGIN_DIR, empty where not set.
[[nodiscard]] Result<CommandLine> parse_command_line(const std::vector<std::string>& argv,
                                                     std::span<const Verb> verbs,
                                                     const std::string& env_config,
                                                     const std::string& env_plugin_dir);

// All verbs, or those of a group ("plugin").
[[nodiscard]] std::string help_text(std::span<const Verb> verbs, const std::string& group = "");
[[nodiscard]] std::string help_text(const Verb& verb);

}  // namespace egw::app
