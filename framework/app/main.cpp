// egw: agent, controller and the operator's commands in one binary.
#include <fmt/format.h>

#include <csignal>
#include <cstdlib>
#include <exception>
#include <string>
#include <vector>

#include "egw/app/console.hpp"
#include "egw/app/options.hpp"
#include "egw/app/verbs.hpp"

namespace {

std::string from_environment(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

int run(const std::vector<std::string>& argv, egw::app::Console& console) {
  const auto& verbs = egw::app::all_verbs();
  const auto line = egw::app::parse_command_line(argv, verbs, from_environment("EGW_CONFIG"),
                                                 from_environment("EGW_PLUGIN_DIR"));
  if (!line) {
    console.error(line.error().to_string());
    return egw::app::kUsage;
  }
  if (line->help) {
    console.out(line->verb == nullptr ? help_text(verbs, line->group) : help_text(*line->verb));
    return console.flush() ? egw::app::kDone : egw::app::kRefused;
  }
  if (line->version) return egw::app::print_version(console);
  egw::app::Context context{line->input, line->args, console};
  return line->verb->run(context);
}

}  // namespace

int main(int argc, char** argv) {
  // A reader that goes away is an error of the write, not the end of the process.
  std::signal(SIGPIPE, SIG_IGN);
  egw::app::Console console;
  try {
    return run(std::vector<std::string>(argv + 1, argv + argc), console);
  } catch (const std::exception& e) {
    console.error(fmt::format("internal: {}", e.what()));
    return egw::app::kRefused;
  }
}
