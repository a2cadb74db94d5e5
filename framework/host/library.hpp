// From a folder and a name to a checked, loaded library. Called by plugin_host.cpp. patience: for a
// library's entry.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "egw/abi/plugin.h"
#include "egw/host/plugin_host.hpp"

namespace egw::host {

// The *.so files of the folder with what their trials say, sorted by kind and name. Opens none of
// them in this process. A folder that cannot be read: one entry for the folder with the problem.
[[nodiscard]] std::vector<PluginInfo> list_libraries(const std::filesystem::path& folder,
                                                     std::chrono::milliseconds patience);

// The same for one library. kNotFound: no such file; the message names what there is.
[[nodiscard]] Result<PluginInfo> try_by_name(const std::filesystem::path& folder, PluginKind kind,
                                             const std::string& name,
                                             std::chrono::milliseconds patience);

struct Library {
  PluginInfo info;
  const void* ops = nullptr;  // valid for ever: a library is never unloaded
};

// Tries the library, then opens it in this process.
[[nodiscard]] Result<Library> load_library(const std::filesystem::path& folder, PluginKind kind,
                                           const std::string& name,
                                           std::chrono::milliseconds patience);

}  // namespace egw::host
