// The configuration as one JSON tree (config_tree.hpp).
#include "egw/app/config_tree.hpp"

#include <fmt/format.h>

#include <array>
#include <utility>

#include "egw/app/schema.hpp"
#include "egw/app/yaml.hpp"
#include "egw/host/schema_check.hpp"

namespace egw::app {
namespace {

using nlohmann::json;

// Old spelling, short spelling.
constexpr std::array<std::pair<std::string_view, std::string_view>, 8> kSpellings{{
    {"feature.gatewayFailover.tunnelMonitorPeriod", "feature.tunnelMonitorPeriod"},
    {"feature.gatewayFailover.tunnelUpdatePeriod", "feature.tunnelUpdatePeriod"},
    {"feature.gatewayFailover.eipEvictionTimeout", "feature.eipEvictionTimeout"},
    {"feature.datapathMode", "plugins.datapath.name"},
    {"agent.healthServer.port", "agent.healthPort"},
    {"agent.prometheus.port", "agent.metricsPort"},
    {"controller.healthServer.port", "controller.healthPort"},
    {"controller.prometheus.port", "controller.metricsPort"},
}};

const json kNull;

json::json_pointer pointer(std::string_view path) {
  json::json_pointer out;
  std::size_t begin = 0;
  for (;;) {
    const std::size_t dot = path.find('.', begin);
    out.push_back(std::string(path.substr(begin, dot - begin)));
    if (dot == std::string_view::npos) return out;
    begin = dot + 1;
  }
}

std::string join(const std::string& path, const std::string& key) {
  return path.empty() ? key : path + "." + key;
}

Result<void> use_short_spellings(json& document, const std::string& source) {
  for (const auto& [old_path, short_path] : kSpellings) {
    const auto from = pointer(old_path);
    if (!document.contains(from)) continue;
    const auto to = pointer(short_path);
    json value = document[from];
    if (document.contains(to) && document[to] != value) {
      return fail(Errc::kInvalid, source,
                  fmt::format("{} is {} and {} is {}; they mean the same, give one of them",
                              old_path, value.dump(), short_path, document[to].dump()));
    }
    document[to] = std::move(value);
    document[from.parent_pointer()].erase(from.back());
  }
  return {};
}

// A known key without a value ("agent:") is a key that is not given.
void drop_empty(json& document, const json& schema) {
  const auto properties = schema.find("properties");
  if (!document.is_object() || properties == schema.end()) return;
  for (auto it = document.begin(); it != document.end();) {
    const auto sub = properties->find(it.key());
    if (sub != properties->end() && it->is_null()) {
      it = document.erase(it);
      continue;
    }
    if (sub != properties->end()) drop_empty(*it, *sub);
    ++it;
  }
}

// Takes the keys that the schema marks as without effect out of `document`.
void take_ignored(json& document, const json& schema, const std::string& path,
                  std::map<std::string, std::vector<std::string>>& ignored) {
  const auto properties = schema.find("properties");
  if (!document.is_object() || properties == schema.end()) return;
  for (auto it = document.begin(); it != document.end();) {
    const auto sub = properties->find(it.key());
    if (sub != properties->end() && sub->contains("x-egw-ignored")) {
      ignored[(*sub)["x-egw-ignored"].get<std::string>()].push_back(join(path, it.key()));
      it = document.erase(it);
      continue;
    }
    if (sub != properties->end()) take_ignored(*it, *sub, join(path, it.key()), ignored);
    ++it;
  }
}

}  // namespace

Result<void> ConfigTree::add(json document, const std::string& source) {
  const json schema = json::parse(config_schema_text());
  drop_empty(document, schema);
  if (auto fault = host::find_schema_fault(document, schema)) {
    return fail(Errc::kInvalid, fault->path.empty() ? source : source + ": " + fault->path,
                std::move(fault->message));
  }
  take_ignored(document, schema, "", ignored_);
  if (auto ok = use_short_spellings(document, source); !ok) return ok;
  merge(root_, std::move(document), "", source);
  return {};
}

// Maps are merged, everything else is replaced. A plugin's `config` of a later source adds to it.
void ConfigTree::merge(json& into, json from, const std::string& path, const std::string& source) {
  if (!into.is_object()) into = json::object();
  for (auto& [key, value] : from.items()) {
    const std::string here = join(path, key);
    if (value.is_object()) {
      merge(into[key], std::move(value), here, source);
    } else {
      into[key] = std::move(value);
      sources_[here] = source;
    }
  }
}

const json& ConfigTree::at(const std::string& path) const {
  const auto p = pointer(path);
  return root_.contains(p) ? root_[p] : kNull;
}

std::string ConfigTree::where(const std::string& path) const {
  const auto found = sources_.lower_bound(path);
  if (found != sources_.end() && found->first.starts_with(path)) {
    return found->second + ": " + path;
  }
  return path;
}

Result<json> parse_set(const std::string& text) {
  const std::size_t equals = text.find('=');
  const std::string source = "--set " + text;
  if (equals == std::string::npos || equals == 0) {
    return fail(Errc::kInvalid, source, "expected key.path=value");
  }
  auto value = read_yaml_value(std::string_view(text).substr(equals + 1), source);
  if (!value) return value;
  const std::string path = text.substr(0, equals);
  if (path.front() == '.' || path.back() == '.' || path.find("..") != std::string::npos ||
      path.size() > 256) {
    return fail(Errc::kInvalid, source, "expected key.path=value with a dotted path of keys");
  }
  json document = *std::move(value);
  std::size_t end = path.size();
  for (;;) {
    const std::size_t dot = path.rfind('.', end - 1);
    const std::size_t begin = dot == std::string::npos ? 0 : dot + 1;
    json outer = json::object();
    outer[path.substr(begin, end - begin)] = std::move(document);
    document = std::move(outer);
    if (begin == 0) return document;
    end = dot;
  }
}

}  // namespace egw::app
