// The command line (options.hpp), with Boost.Program_options.
#include "egw/app/options.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <boost/program_options.hpp>

#include "egw/host/schema_check.hpp"
#include "egw/runtime/logging.hpp"

namespace egw::app {
namespace {

namespace po = boost::program_options;

constexpr const char* kArguments = "ARGUMENTS";  // the words that are not options

const std::vector<OptionSpec>& global_options() {
  static const std::vector<OptionSpec> kOptions{
      {"config", 0, "FILE", "configuration (YAML); also EGW_CONFIG"},
      {"set", 0, "KEY=VALUE",
       "one key of the configuration, e.g. feature.enableIPv6=true; repeatable"},
      {"plugin-dir", 0, "DIR", "folder of the plugin libraries; also EGW_PLUGIN_DIR"},
      {"log-level", 0, "LEVEL", "debug, info, warn or error"},
      {"help", 'h', "", "this text"},
      {"version", 0, "", "versions of egw and of its libraries"},
  };
  return kOptions;
}

std::string hint(const Verb* verb) {
  return verb == nullptr ? "see: egw --help" : fmt::format("see: egw {} --help", verb->name);
}

std::string flag(const OptionSpec& o) {
  const std::string letter = o.letter != 0 ? fmt::format("-{}, ", o.letter) : "    ";
  return letter + "--" + o.name + (o.value.empty() ? "" : " " + o.value);
}

std::string option_lines(const std::vector<OptionSpec>& options) {
  std::size_t width = 0;
  for (const auto& o : options) width = std::max(width, flag(o).size());
  std::string out;
  for (const auto& o : options) out += fmt::format("  {:<{}}  {}\n", flag(o), width, o.help);
  return out;
}

void describe(const std::vector<OptionSpec>& specs, po::options_description& out) {
  for (const auto& o : specs) {
    const std::string name = o.letter != 0 ? fmt::format("{},{}", o.name, o.letter) : o.name;
    if (o.value.empty()) {
      out.add_options()(name.c_str(), o.help.c_str());
    } else {
      out.add_options()(name.c_str(), po::value<std::vector<std::string>>()->composing(),
                        o.help.c_str());
    }
  }
}

bool takes_next_word(const std::string& word, const std::vector<OptionSpec>& options) {
  return std::any_of(options.begin(), options.end(), [&](const OptionSpec& o) {
    const bool same =
        word == "--" + o.name || (o.letter != 0 && word == fmt::format("-{}", o.letter));
    return same && !o.value.empty();
  });
}

// The index of the verb: the first word that is neither an option nor the value of one. A verb's
// own options may stand before it, too.
std::size_t first_word(const std::vector<std::string>& argv, std::span<const Verb> verbs) {
  for (std::size_t i = 0; i < argv.size(); ++i) {
    const std::string& word = argv[i];
    if (word.size() < 2 || word[0] != '-') return i;
    if (takes_next_word(word, global_options()) ||
        std::any_of(verbs.begin(), verbs.end(),
                    [&](const Verb& v) { return takes_next_word(word, v.options); })) {
      ++i;
    }
  }
  return argv.size();
}

std::string words_of(std::span<const Verb> verbs, std::string_view first) {
  std::string out;
  for (const auto& v : verbs) {
    if (v.name.starts_with(std::string(first) + " ")) {
      out += (out.empty() ? "" : ", ") + v.name.substr(first.size() + 1);
    }
  }
  return out;
}

// "help get" is "--help get".
std::vector<std::string> with_help_as_option(std::vector<std::string> argv,
                                             std::span<const Verb> verbs) {
  const std::size_t at = first_word(argv, verbs);
  if (at < argv.size() && argv[at] == "help") argv[at] = "--help";
  return argv;
}

bool asks_for_help(const std::vector<std::string>& argv) {
  return std::any_of(argv.begin(), argv.end(),
                     [](const std::string& word) { return word == "--help" || word == "-h"; });
}

struct Found {
  const Verb* verb;
  std::size_t words;
};

// The verb at argv[at], of one word or two.
Result<Found> find_verb(const std::vector<std::string>& argv, std::size_t at,
                        std::span<const Verb> verbs) {
  const std::string& first = argv[at];
  const std::string second = at + 1 < argv.size() ? argv[at + 1] : "";
  for (const auto& v : verbs) {
    if (v.name == first) return Found{&v, 1};
    if (v.name == first + " " + second) return Found{&v, 2};
  }
  const std::string inner = words_of(verbs, first);
  if (!inner.empty()) {
    return fail(Errc::kInvalid, "egw " + first,
                fmt::format("expected one of {} after it; see: egw {} --help", inner, first));
  }
  std::vector<std::string> names;
  for (const auto& v : verbs) names.push_back(v.name.substr(0, v.name.find(' ')));
  const std::string guess = host::nearest(first, names);
  return fail(Errc::kInvalid, "egw",
              guess.empty()
                  ? fmt::format("unknown command \"{}\"; see: egw --help", first)
                  : fmt::format("unknown command \"{}\"; did you mean \"{}\"?", first, guess));
}

Result<Args> parse(const std::vector<std::string>& words, const Verb* verb) {
  po::options_description described;
  describe(global_options(), described);
  if (verb != nullptr) describe(verb->options, described);
  described.add_options()(kArguments, po::value<std::vector<std::string>>());
  po::positional_options_description positional;
  positional.add(kArguments, -1);
  using Style = po::command_line_style::style_t;
  const int style = Style::unix_style & ~Style::allow_guessing;
  Args out;
  try {
    const auto parsed =
        po::command_line_parser(words).options(described).positional(positional).style(style).run();
    for (const auto& option : parsed.options) {
      if (option.string_key == kArguments) {
        out.positional.insert(out.positional.end(), option.value.begin(), option.value.end());
        continue;
      }
      auto& values = out.options[option.string_key];
      for (std::string value : option.value) {
        // "-o=yaml", as kubectl takes it.
        if (!option.original_tokens.empty() && !option.original_tokens[0].starts_with("--") &&
            value.starts_with("=")) {
          value.erase(0, 1);
        }
        values.push_back(std::move(value));
      }
    }
  } catch (const po::error& e) {
    return fail(Errc::kInvalid, "egw" + (verb == nullptr ? "" : " " + verb->name),
                fmt::format("{}; {}", e.what(), hint(verb)));
  }
  return out;
}

// What would else be taken for "not given", as when a script's variable is not set, or be looked at
// by some verbs only. An empty selector selects everything, as kubectl's.
Result<void> check_values(const Args& args) {
  for (const auto& [option, values] : args.options) {
    if (option != "selector" && std::find(values.begin(), values.end(), "") != values.end()) {
      return fail(Errc::kInvalid, fmt::format("--{}", option),
                  "is empty; expected a value, or leave the option out");
    }
  }
  const std::string level = args.get("log-level");
  if (args.has("log-level") && !runtime::parse_log_level(level)) {
    return fail(Errc::kInvalid, "--log-level",
                fmt::format("is \"{}\"; expected debug, info, warn or error", level));
  }
  return {};
}

ConfigInput config_input(const Args& args, const std::string& env_config,
                         const std::string& env_plugin_dir) {
  ConfigInput input;
  input.file = args.get("config", env_config);
  input.env_plugin_dir = env_plugin_dir;
  input.plugin_dir = args.get("plugin-dir");
  input.log_level = args.get("log-level");
  input.node_name = args.get("node-name");
  input.state_dir = args.get("state-dir");
  if (const auto sets = args.options.find("set"); sets != args.options.end()) {
    input.sets = sets->second;
  }
  return input;
}

Result<void> check_count(const Verb& verb, const Args& args) {
  const std::size_t n = args.positional.size();
  if (n < verb.min_args) {
    return fail(Errc::kInvalid, "egw " + verb.name,
                fmt::format("expected: egw {} {}; {}", verb.name, verb.usage, hint(&verb)));
  }
  if (n > verb.max_args) {
    return fail(
        Errc::kInvalid, "egw " + verb.name,
        fmt::format("unexpected argument \"{}\"; {}", args.positional[verb.max_args], hint(&verb)));
  }
  return {};
}

}  // namespace

std::string Args::get(const std::string& name, const std::string& otherwise) const {
  const auto found = options.find(name);
  return found == options.end() || found->second.empty() ? otherwise : found->second.back();
}

Result<CommandLine> parse_command_line(const std::vector<std::string>& given,
                                       std::span<const Verb> verbs, const std::string& env_config,
                                       const std::string& env_plugin_dir) {
  CommandLine out;
  const std::vector<std::string> argv = with_help_as_option(given, verbs);
  std::vector<std::string> words = argv;
  const std::size_t at = first_word(argv, verbs);
  if (at < argv.size()) {
    auto found = find_verb(argv, at, verbs);
    if (!found && asks_for_help(argv) && !words_of(verbs, argv[at]).empty()) {
      out.help = true;
      out.group = argv[at];
      return out;
    }
    if (!found) return tl::unexpected(std::move(found.error()));
    out.verb = found->verb;
    const auto begin = words.begin() + static_cast<std::ptrdiff_t>(at);
    words.erase(begin, begin + static_cast<std::ptrdiff_t>(found->words));
  }
  auto args = parse(words, out.verb);
  if (!args) return tl::unexpected(std::move(args.error()));
  out.args = *std::move(args);
  out.help = out.args.has("help");
  out.version = out.args.has("version");
  out.input = config_input(out.args, env_config, env_plugin_dir);
  if (auto ok = check_values(out.args); !ok) return tl::unexpected(std::move(ok.error()));
  if (out.help || out.version) return out;
  if (out.verb == nullptr)
    return fail(Errc::kInvalid, "egw", "a command is missing; see: egw --help");
  if (auto ok = check_count(*out.verb, out.args); !ok) return tl::unexpected(std::move(ok.error()));
  return out;
}

std::string help_text(std::span<const Verb> verbs, const std::string& group) {
  const auto lines = [&] {
    std::string out;
    for (const auto& v : verbs) {
      if (v.name.starts_with(group)) out += fmt::format("  {:<16}{}\n", v.name, v.summary);
    }
    return out;
  };
  if (!group.empty()) {
    return fmt::format("usage: egw {} COMMAND ...\n\ncommands:\n{}\n", group, lines()) +
           "A command's own options and examples: egw " + group +
           " COMMAND --help\nGlobal options: egw --help\n";
  }
  std::string out =
      "egw gives pods fixed source addresses (egress IPs) and moves them when a gateway node "
      "fails.\n\n"
      "usage: egw [--config FILE] [--set KEY=VALUE]... [--plugin-dir DIR] [--log-level LEVEL] "
      "COMMAND ...\n\ncommands:\n";
  return out + lines() + "\noptions, before or after the command:\n" +
         option_lines(global_options()) +
         "\nA command's own options and examples: egw COMMAND --help\n"
         "Exit codes: 0 done; 1 refused, not found or not healthy; 2 wrong usage or "
         "configuration.\n";
}

std::string help_text(const Verb& verb) {
  std::string out = fmt::format("{}\n\nusage: egw {}{}{}\n", verb.summary, verb.name,
                                verb.usage.empty() ? "" : " ", verb.usage);
  if (!verb.options.empty()) out += "\noptions:\n" + option_lines(verb.options);
  if (!verb.details.empty()) out += "\n" + verb.details + "\n";
  return out + "\nGlobal options: egw --help\n";
}

}  // namespace egw::app
