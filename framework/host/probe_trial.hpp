// The first probe of a datapath, in a forked child: one that crashes there is refused, and the
// agent goes on. Called by datapath_proxy.cpp.
#pragma once

#include <chrono>
#include <functional>
#include <string>
#include <vector>

#include "egw/host/datapath.hpp"

namespace egw::host {

using ProbeAnswer = Result<std::vector<ProbeFinding>>;

// Runs `probe` in the child and brings its answer back. Blocks for at most `patience`.
[[nodiscard]] ProbeAnswer probe_in_child(const std::function<ProbeAnswer()>& probe,
                                         const std::string& label,
                                         std::chrono::milliseconds patience);

}  // namespace egw::host
