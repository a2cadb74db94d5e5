// A tree of chains in which a packet finds one rule among thousands by few comparisons: four bits
// of a key per level, levels only where there are more than a handful of rules. Keys are egress
// ids, addresses, MACs. Pure. Used by rules.cpp.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

namespace egw::iptables {

// Chain -> its rules, without "-A CHAIN".
using Chains = std::map<std::string, std::vector<std::string>>;

struct RadixLeaf {
  std::string key;      // bytes, most significant first; all leaves of one tree of one length
  unsigned length = 0;  // in bits: how much of the key the rule matches
  std::string rule;     // with its own match
};

struct RadixShape {
  // The match for keys that begin with the first `length` bits of `key`.
  std::function<std::string(const std::string& key, unsigned length)> match;
  std::string jump;               // "-j" (comes back when nothing matches) or "-g"
  std::vector<std::string> last;  // rules at the end of every chain
};

inline constexpr std::size_t kRadixList = 8;  // so many rules need no tree

// Leaves sorted by key, none inside another. The chain `name` is the root.
void add_radix(const std::string& name, const std::vector<RadixLeaf>& leaves,
               const RadixShape& shape, Chains& out);

// Egress ids as keys, and their match.
[[nodiscard]] std::string id_key(std::uint32_t id);
[[nodiscard]] std::string id_match(const std::string& key, unsigned length);
// Runs of ids that are whole blocks: sorted ids in, (first id, key length) out.
[[nodiscard]] std::vector<std::pair<std::uint32_t, unsigned>> id_blocks(
    const std::vector<std::uint32_t>& ids);

}  // namespace egw::iptables
