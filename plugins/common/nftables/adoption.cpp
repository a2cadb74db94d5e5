#include "adoption.hpp"

#include <algorithm>
#include <cstring>
#include <unordered_map>

namespace egw::common {
namespace {

std::uint32_t u32_at(const std::string& bytes) {
  std::uint32_t v = 0;
  if (bytes.size() >= sizeof(v)) std::memcpy(&v, bytes.data(), sizeof(v));
  return v;
}

// The class's number and its entry, from an element of the map of that length.
std::pair<std::uint32_t, ClassEntry> entry_of(Table t, unsigned length, const std::string& key,
                                              const std::string& data) {
  sdk::Address address;
  address.family = t == Table::kIp ? 4 : 6;
  const std::size_t bytes = std::min(key.size() - sizeof(std::uint32_t), address.size());
  std::memcpy(address.bytes.data(), key.data() + sizeof(std::uint32_t), bytes);
  return {u32_at(key), {sdk::Prefix(address, length), u32_at(data)}};
}

void learn_classes(Nft& nft, Table t, KeptNumbers<ClassEntries>& out) {
  std::unordered_map<std::uint32_t, ClassEntries> classes;
  const std::string maps(Ruleset::kPrefixMaps);
  for (const auto& [name, set] : nft.sets(t)) {
    if (name.size() < 2 || name.compare(0, maps.size(), maps) != 0) continue;
    const auto length =
        static_cast<unsigned>(std::strtoul(name.c_str() + maps.size(), nullptr, 10));
    if (length > 128 || name != Ruleset::prefix_map(t, static_cast<std::uint8_t>(length)).name) {
      continue;
    }
    for (const auto& [key, data] : nft.elements(t, name, false)) {
      if (key.size() < sizeof(std::uint32_t)) continue;
      auto [number, entry] = entry_of(t, length, key, data);
      classes[number].push_back(entry);
    }
  }
  for (auto& [number, entries] : classes) {
    std::sort(entries.begin(), entries.end());
    out.learn(entries, number & kMaxClass);
  }
}

}  // namespace

Bound read_bound(Nft& nft) {
  Bound held;
  for (const Table t : kFamilies) {
    if (!nft.table_exists(t)) continue;
    for (const auto& [id, zone] : nft.elements(t, "zone", false)) {
      std::uint16_t value = 0;
      std::memcpy(&value, zone.data(), std::min(zone.size(), sizeof(value)));
      held.zones.insert(value);
    }
    for (const auto& [key, none] : nft.elements(t, "eips", false)) {
      held.eips.insert(register_to_address(key));
    }
    for (const auto& [key, chain] : nft.elements(t, "endpoints", false)) {
      held.endpoints.insert(register_to_address(key));
    }
    held.cluster[static_cast<std::size_t>(t)] = nft.ranges(t, std::string(Ruleset::kClusterSet));
  }
  return held;
}

void learn_numbers(Nft& nft, const Ruleset& rules, Numbering& out) {
  for (const Table t : kFamilies) {
    if (!rules.enabled(t)) continue;
    for (const auto& [mac, number] : nft.elements(t, "peers", false)) {
      sdk::Mac key{};
      if (mac.size() != key.size()) continue;
      std::copy(mac.begin(), mac.end(), key.begin());
      out.peers.learn(key, u32_at(number));
    }
    for (const auto& [number, chain] : nft.elements(t, "shapes", true)) {
      const std::uint32_t shape = (u32_at(number) & ~kClassBit) >> kShapeShift;
      if (shape <= kMaxShapes) out.shapes[static_cast<std::size_t>(t)].learn(chain, shape);
    }
    learn_classes(nft, t, out.classes[static_cast<std::size_t>(t)]);
  }
}

}  // namespace egw::common
