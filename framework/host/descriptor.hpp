// Reads and judges a plugin's descriptor. Called in the trial's forked child, and again in this
// process after the library has been opened.
#pragma once

#include <string>

#include "egw/abi/plugin.h"
#include "egw/host/plugin_host.hpp"

namespace egw::host {

// Fills what can be read of `info`; returns what is wrong as the rest of a sentence that begins
// with the file, or empty. kind, name: as the file name says.
[[nodiscard]] std::string read_descriptor(const egw_plugin_descriptor* descriptor, PluginKind kind,
                                          const std::string& name, PluginInfo& info);

// "statestore" -> kStateStore. false: no such kind.
[[nodiscard]] bool parse_kind(std::string_view text, PluginKind& kind);
// The configuration's key: "plugins.stateStore".
[[nodiscard]] std::string config_key(PluginKind kind);
// [a-z0-9-]{1,32}
[[nodiscard]] bool is_plugin_name(std::string_view name);

// A copy of a struct by the version rule: what lies beyond the writer's size reads as zero.
template <class T>
[[nodiscard]] T read_struct(const T* data) {
  T out{};
  if (data == nullptr) return out;
  std::size_t size = data->struct_size;
  if (size > sizeof(T)) size = sizeof(T);
  __builtin_memcpy(&out, data, size);
  return out;
}

}  // namespace egw::host
