// The table of verbs and what they share (verbs.hpp).
#include "egw/app/verbs.hpp"

#include <fmt/format.h>

#include "egw/app/console.hpp"

namespace egw::app {

const std::vector<Verb>& all_verbs() {
  static const std::vector<Verb> kVerbs{
      controller_verb(),     agent_verb(),        apply_verb(),
      check_verb(),          get_verb(),          delete_verb(),
      status_verb(),         why_verb(),          drain_verb(),
      undrain_verb(),        vip_move_verb(),     plugin_list_verb(),
      plugin_inspect_verb(), plugin_check_verb(), purge_verb(),
      uninstall_verb(),      version_verb()};
  return kVerbs;
}

std::unique_ptr<Config> load(Context& context, int& exit_code) {
  auto config = load_config(context.input);
  if (!config) {
    context.console.error(config.error().to_string());
    exit_code = kUsage;
    return nullptr;
  }
  for (const auto& warning : config->warnings) context.console.warning(warning);
  return std::make_unique<Config>(*std::move(config));
}

std::unique_ptr<Session> open_store(Context& context, int& exit_code) {
  const auto config = load(context, exit_code);
  return config == nullptr ? nullptr : open_store(context, *config, exit_code);
}

std::unique_ptr<Session> open_store(Context& context, const Config& config, int& exit_code,
                                    host::StoreUse use) {
  auto session = Session::open(config, context.console, use);
  if (session) return *std::move(session);
  context.console.error(session.error().to_string());
  exit_code = exit_code_of(session.error());
  return nullptr;
}

int usage_error(Context& context, const std::string& verb, const std::string& message) {
  context.console.error(fmt::format("egw {}: {}; see: egw {} --help", verb, message, verb));
  return kUsage;
}

int finish(Context& context, int code) {
  return context.console.flush() ? code : std::max(code, kRefused);
}

}  // namespace egw::app
