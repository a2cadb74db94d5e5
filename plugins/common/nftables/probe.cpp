// probe(): whether this kernel and libnftables can carry the datapath.
#include "common/probe.hpp"

#include "datapath.hpp"

namespace egw::common {

sdk::Status probe_nftables(std::string_view name, const Numbers& numbers,
                           const sdk::NodeConfig& node, sdk::ProbeSink& out) {
  const auto tools = [&] {
    auto nft = Nft::open();
    out.finding(nft.ok(), "Nftables", nft.ok() ? "libnftables works" : nft.status().text());
    return nft.ok();
  };
  return probe_host({name, numbers.rule_preference, kRules, tools}, node, out);
}

}  // namespace egw::common
