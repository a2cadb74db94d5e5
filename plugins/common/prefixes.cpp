#include "prefixes.hpp"

#include <algorithm>
#include <functional>
#include <map>

namespace egw::common {

ClassEntries reduce(ClassEntries rules) {
  for (ClassEntry& r : rules) r.prefix.address = r.prefix.first();
  std::stable_sort(rules.begin(), rules.end(),
                   [](const auto& a, const auto& b) { return a.prefix < b.prefix; });
  ClassEntries out;
  std::vector<std::pair<sdk::Address, std::uint32_t>>
      open;  // last address, action; outermost first
  for (std::size_t i = 0; i < rules.size(); ++i) {
    const ClassEntry& r = rules[i];
    if (i + 1 < rules.size() && rules[i + 1].prefix == r.prefix) continue;
    while (!open.empty() && open.back().first < r.prefix.address) open.pop_back();
    if (r.action == (open.empty() ? kBypassNumber : open.back().second)) continue;
    open.emplace_back(r.prefix.last(), r.action);
    out.push_back(r);
  }
  return out;
}

ClassEntries expand(const ClassEntries& entries, unsigned step) {
  // A prefix made longer must not hide one that was longer before: the longest come last.
  ClassEntries ordered = entries;
  std::stable_sort(ordered.begin(), ordered.end(),
                   [](const auto& a, const auto& b) { return a.prefix.len < b.prefix.len; });
  std::map<sdk::Prefix, std::uint32_t> out;
  for (const ClassEntry& e : ordered) {
    const unsigned length = (e.prefix.len + step - 1) / step * step;
    const sdk::Address last = e.prefix.last();
    for (sdk::Prefix p(e.prefix.address, length);;) {
      out[p] = e.action;
      sdk::Address next = p.last();
      if (next == last || !next.increment()) break;
      p.address = next;
    }
  }
  ClassEntries result;
  for (const auto& [prefix, action] : out) result.push_back({prefix, action});
  return result;
}

std::uint32_t match(const ClassEntries& entries, const sdk::Address& destination) {
  const ClassEntry* best = nullptr;
  for (const ClassEntry& e : entries) {
    if (e.prefix.contains(destination) && (best == nullptr || e.prefix.len >= best->prefix.len)) {
      best = &e;
    }
  }
  return best == nullptr ? kBypassNumber : best->action;
}

Lengths lengths_of(const ClassEntries& entries) {
  Lengths out;
  for (const ClassEntry& e : entries) out.push_back(e.prefix.len);
  std::sort(out.begin(), out.end(), std::greater<>());
  out.erase(std::unique(out.begin(), out.end()), out.end());
  return out;
}

unsigned ladder_step(Table t) { return t == Table::kIp ? 2 : 4; }

Lengths ladder(Table t) {
  Lengths out;
  const int bits = t == Table::kIp ? 32 : 128;
  for (int length = bits; length >= 0; length -= static_cast<int>(ladder_step(t))) {
    out.push_back(static_cast<std::uint8_t>(length));
  }
  return out;
}

std::string shape_chain(const Lengths& lengths) {
  std::string out;
  for (const std::uint8_t length : lengths) {
    out += (out.empty() ? "l" : "_") + std::to_string(length);
  }
  return out;
}

std::string content_of(const ClassEntries& entries) {
  std::string bytes;
  for (const ClassEntry& e : entries) {
    bytes.append(reinterpret_cast<const char*>(e.prefix.address.bytes.data()),
                 e.prefix.address.size());
    bytes += static_cast<char>(e.prefix.len);
    bytes.append(reinterpret_cast<const char*>(&e.action), sizeof(e.action));
  }
  // 56 bits in 14 digits: with a letter before it 15 bytes, which std::string keeps without
  // allocation.
  return hex(fingerprint(bytes) & 0xffffffffffffffU, 14);
}

}  // namespace egw::common
