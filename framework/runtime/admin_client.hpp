// Asks a running agent or controller of this machine through its admin socket (framework/runtime/
// admin API: GET /state /observe /counters, POST /log-level). Called by framework/app (`status
// --local`).
#pragma once

#include <chrono>
#include <filesystem>
#include <string>

#include "egw/model/result.hpp"

namespace egw::runtime {

// <state_dir>/agent.sock, <state_dir>/controller.sock; mode 0600.
[[nodiscard]] std::filesystem::path admin_socket(const std::filesystem::path& state_dir,
                                                 const std::string& role);

// The body of a 200 answer (JSON text). kUnavailable: nobody listens there. body empty: GET, else
// POST.
[[nodiscard]] Result<std::string> admin_call(
    const std::filesystem::path& socket, const std::string& target, const std::string& body = {},
    std::chrono::milliseconds timeout = std::chrono::milliseconds{5000});

}  // namespace egw::runtime
