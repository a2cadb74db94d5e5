// The trial of a library: a forked child opens it, calls its entry and reads the descriptor, so
// that a library that crashes, hangs or exits does so there. Called by library.cpp.
#pragma once

#include <chrono>
#include <filesystem>
#include <string>

#include "egw/host/plugin_host.hpp"

namespace egw::host {

// Fills `info` as the child read it; returns what is wrong as the rest of a sentence that begins
// with the file, or empty. Blocks for at most `patience`. What the library prints meanwhile is
// discarded.
[[nodiscard]] std::string try_library(const std::filesystem::path& file, PluginKind kind,
                                      const std::string& name, PluginInfo& info,
                                      std::chrono::milliseconds patience);

}  // namespace egw::host
