// Questions to plugins and what came of them (plugin_health.hpp).
#include "egw/runtime/plugin_health.hpp"

#include <algorithm>
#include <nlohmann/json.hpp>

namespace egw::runtime {
namespace asio = boost::asio;

void PluginHealth::add(std::string plugin, Ask ask) {
  plugins_.push_back({std::move(plugin), std::move(ask), {}});
}

void PluginHealth::stop() {
  stopping_ = true;
  wakeup_.notify();
}

void PluginHealth::again() {
  soon_ = true;
  wakeup_.notify();
}

asio::awaitable<void> PluginHealth::look_at(std::size_t index) {
  const auto answer = co_await plugins_[index].ask();
  Plugin& plugin = plugins_[index];
  metrics_.plugin_healthy(plugin.name, answer.has_value());
  const std::string now = answer ? std::string() : answer.error().to_string();
  if (now == plugin.trouble) co_return;
  if (now.empty()) {
    log_.info("a plugin is well again", {{"plugin", plugin.name}});
  } else {
    log_.warn("a plugin is not well", {{"plugin", plugin.name}, {"error", now}});
  }
  plugin.trouble = now;
  if (!stopping_) on_change_();
}

asio::awaitable<void> PluginHealth::run() {
  while (!stopping_) {
    soon_ = false;
    for (std::size_t i = 0; i < plugins_.size() && !stopping_; ++i) co_await look_at(i);
    const bool well = std::all_of(plugins_.begin(), plugins_.end(),
                                  [](const Plugin& plugin) { return plugin.trouble.empty(); });
    const std::int64_t next =
        clock_.steady_ms() + (well ? period_ms_ : std::min(period_ms_, kAgainMs));
    while (!stopping_ && !soon_ && clock_.steady_ms() < next) co_await wakeup_.wait(next);
  }
}

const std::string& PluginHealth::trouble(std::string_view plugin) const {
  static const std::string none;
  const auto found = std::find_if(plugins_.begin(), plugins_.end(),
                                  [&](const Plugin& known) { return known.name == plugin; });
  return found == plugins_.end() ? none : found->trouble;
}

nlohmann::json PluginHealth::state() const {
  nlohmann::json out = nlohmann::json::object();
  for (const Plugin& plugin : plugins_) {
    out[plugin.name] = plugin.trouble.empty() ? "ok" : plugin.trouble;
  }
  return out;
}

}  // namespace egw::runtime
