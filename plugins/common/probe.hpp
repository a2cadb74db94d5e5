// probe() as far as all datapaths have it: node configuration, privileges, forwarding, and who else
// is in the way. Changes nothing. Called by datapath plugins.
#pragma once

#include <cstdint>
#include <functional>
#include <string_view>

#include "egw/sdk/datapath.hpp"

namespace egw::common {

struct ProbedDatapath {
  std::string_view name;         // as in the file name
  std::uint32_t preference = 0;  // of `ip rule`s: the first, and how many in a row
  std::uint32_t preferences = 0;
  std::function<bool()> tools;  // the datapath's own findings; false: it cannot run
};

[[nodiscard]] sdk::Status probe_host(const ProbedDatapath& datapath, const sdk::NodeConfig& node,
                                     sdk::ProbeSink& out);

}  // namespace egw::common
