// See config.hpp.
#include "config.hpp"

#include <nlohmann/json.hpp>

#include "egw/sdk/status.hpp"
#include "files.hpp"

namespace egw::local {

using nlohmann::json;

namespace {

[[noreturn]] void refuse(const std::string& key, const std::string& wanted) {
  throw sdk::Failure(sdk::Code::kInvalid, "wanted " + wanted, "config." + key);
}

// `own`: the key that this plugin has besides path and gate.
json parse(std::string_view text, const std::string& own) {
  if (text.empty()) return json::object();
  json config = json::parse(text, nullptr, false);
  if (config.is_null()) return json::object();
  if (!config.is_object()) {
    throw sdk::Failure(sdk::Code::kInvalid, "the configuration must be an object");
  }
  for (const auto& [key, value] : config.items()) {
    if (key != "path" && key != "gate" && key != own) refuse(key, "no such key");
  }
  return config;
}

void read_path(const json& config, const char* key, bool may_be_empty, std::string& out) {
  const auto it = config.find(key);
  if (it == config.end()) return;
  if (!it->is_string()) refuse(key, "an absolute path");
  std::string path = it->get<std::string>();
  const bool fine = path.empty() ? may_be_empty : path.front() == '/' && path.back() != '/';
  if (!fine || path.size() > 4000 || path.find('\0') != std::string::npos) {
    refuse(key, "an absolute path of a file");
  }
  out = std::move(path);
}

void read_file(const json& config, FileConfig& out) {
  read_path(config, "path", false, out.path);
  out.path = resolve(out.path);
  read_path(config, "gate", true, out.gate);
}

}  // namespace

StoreConfig parse_store_config(std::string_view text) {
  const json config = parse(text, "keptRevisions");
  StoreConfig out;
  read_file(config, out);
  if (const auto it = config.find("keptRevisions"); it != config.end()) {
    if (!it->is_number_integer() || *it < 10 || *it > 1'000'000) {
      refuse("keptRevisions", "a whole number from 10 to 1000000");
    }
    out.kept_revisions = it->get<std::uint64_t>();
  }
  return out;
}

ElectionConfig parse_election_config(std::string_view text) {
  const json config = parse(text, "stampTimeout");
  ElectionConfig out;
  read_file(config, out);
  if (const auto it = config.find("stampTimeout"); it != config.end()) {
    if (!it->is_number() || *it < 0.2 || *it > 3600) {
      refuse("stampTimeout", "seconds from 0.2 to 3600");
    }
    out.stamp_timeout =
        std::chrono::milliseconds(static_cast<std::int64_t>(it->get<double>() * 1000));
  }
  return out;
}

}  // namespace egw::local
