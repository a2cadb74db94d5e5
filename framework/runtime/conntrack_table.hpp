// The kernel's connection table as metrics. Every datapath translates with it: when it is full, or
// all ports of an egress IP to one destination are taken, new connections are dropped, and only
// these numbers tell. Used by metrics.cpp for agents.
#pragma once

#include <prometheus/metric_family.h>

#include <filesystem>
#include <vector>

namespace egw::runtime {

// proc: what stands for /proc. Of the network namespace of the process; what the kernel does not
// tell is left out.
[[nodiscard]] std::vector<prometheus::MetricFamily> conntrack_families(
    const std::filesystem::path& proc = "/proc");

}  // namespace egw::runtime
