// A value out of a test plugin's configuration, which the host has checked: "key":"value" in
// compact JSON. Used by the plugins of this folder, so that they need no JSON library.
#pragma once

#include <string>
#include <string_view>

// Empty: it is not there.
inline std::string value_of(std::string_view json, const std::string& key) {
  const std::string mark = "\"" + key + "\":\"";
  const auto at = json.find(mark);
  if (at == std::string_view::npos) return {};
  const auto from = at + mark.size();
  return std::string(json.substr(from, json.find('"', from) - from));
}
