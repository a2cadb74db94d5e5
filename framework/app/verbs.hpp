// The commands of egw. Every one takes a Context and returns the exit code.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "egw/app/config.hpp"
#include "egw/app/options.hpp"
#include "egw/app/session.hpp"

namespace egw::app {

constexpr int kDone = 0;
constexpr int kRefused = 1;  // refused, not found, not healthy
constexpr int kUsage = 2;    // wrong usage or configuration

[[nodiscard]] const std::vector<Verb>& all_verbs();

// Shared by the verbs: loads the configuration (and says its warnings), opens the store; only one
// that writes objects of its own may make a store. On an error it is said and `exit_code` set; null
// then.
[[nodiscard]] std::unique_ptr<Config> load(Context& context, int& exit_code);
[[nodiscard]] std::unique_ptr<Session> open_store(Context& context, int& exit_code);
[[nodiscard]] std::unique_ptr<Session> open_store(Context& context, const Config& config,
                                                  int& exit_code,
                                                  host::StoreUse use = host::StoreUse::kLooks);
// Prints "Error: ..." with a hint at the verb's help; returns kUsage.
int usage_error(Context& context, const std::string& verb, const std::string& message);
// kRefused if results could not be written, else `code`.
int finish(Context& context, int code);

// verb_*.cpp
Verb apply_verb();
Verb check_verb();
Verb get_verb();
Verb delete_verb();
Verb status_verb();
Verb why_verb();
Verb plugin_list_verb();
Verb plugin_inspect_verb();
Verb plugin_check_verb();
Verb version_verb();
Verb purge_verb();
Verb uninstall_verb();
Verb drain_verb();
Verb undrain_verb();
Verb vip_move_verb();
Verb agent_verb();
Verb controller_verb();
int print_version(Console& console);

}  // namespace egw::app
