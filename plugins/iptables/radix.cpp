#include "radix.hpp"

#include <algorithm>
#include <bit>
#include <utility>

#include "layout.hpp"

namespace egw::iptables {
namespace {

constexpr unsigned kIdBits = 16;  // of a key; the upper two are always zero

bool bit(const std::string& key, unsigned n) {
  return (static_cast<unsigned char>(key[n / 8]) >> (7 - n % 8) & 1U) != 0;
}

unsigned common_length(const std::string& a, const std::string& b, unsigned most) {
  unsigned n = 0;
  while (n < most && bit(a, n) == bit(b, n)) ++n;
  return n;
}

struct Range {
  std::size_t begin, end;
};

void add_node(const std::string& root, const std::string& name,
              const std::vector<RadixLeaf>& leaves, Range range, const RadixShape& shape,
              Chains& out) {
  std::vector<std::string>& rules = out[name];
  if (range.end - range.begin <= kRadixList) {
    for (std::size_t i = range.begin; i < range.end; ++i) rules.push_back(leaves[i].rule);
  } else {
    unsigned shortest = leaves[range.begin].length;
    for (std::size_t i = range.begin; i < range.end; ++i) {
      shortest = std::min(shortest, leaves[i].length);
    }
    const unsigned same =
        common_length(leaves[range.begin].key, leaves[range.end - 1].key, shortest);
    const unsigned next = (same / 4 + 1) * 4;
    std::vector<std::pair<std::string, Range>> children;
    for (std::size_t i = range.begin; i < range.end;) {
      std::size_t end = i + 1;
      if (leaves[i].length >= next) {
        while (end < range.end && leaves[end].length >= next &&
               common_length(leaves[i].key, leaves[end].key, next) == next) {
          ++end;
        }
      }
      if (end - i == 1) {
        rules.push_back(leaves[i].rule);
      } else {
        const std::string& key = leaves[i].key;
        std::string path;
        for (unsigned n = 0; n < next; ++n) path += bit(key, n) ? '1' : '0';
        const std::string child = root + "-" + common::hex(common::fingerprint(path), 10);
        std::string rule = shape.match(key, next);
        rule += ' ' + shape.jump + ' ' + child;
        rules.push_back(std::move(rule));
        children.emplace_back(child, Range{i, end});
      }
      i = end;
    }
    for (const auto& [child, part] : children) add_node(root, child, leaves, part, shape, out);
  }
  std::vector<std::string>& mine = out[name];
  mine.insert(mine.end(), shape.last.begin(), shape.last.end());
}

}  // namespace

void add_radix(const std::string& name, const std::vector<RadixLeaf>& leaves,
               const RadixShape& shape, Chains& out) {
  add_node(name, name, leaves, {0, leaves.size()}, shape, out);
}

std::string id_key(std::uint32_t id) {
  return {static_cast<char>(id >> 8 & 0xff), static_cast<char>(id & 0xff)};
}

std::string id_match(const std::string& key, unsigned length) {
  const std::uint32_t id = static_cast<std::uint32_t>(static_cast<unsigned char>(key[0])) << 8 |
                           static_cast<unsigned char>(key[1]);
  const std::uint32_t mask = kIdMask & ~((1U << (kIdBits - length)) - 1);
  return "-m mark --mark " + common::mark_text(id & mask) + "/" + common::mark_text(mask);
}

std::vector<std::pair<std::uint32_t, unsigned>> id_blocks(const std::vector<std::uint32_t>& ids) {
  std::vector<std::pair<std::uint32_t, unsigned>> out;
  for (std::size_t i = 0; i < ids.size();) {
    std::size_t run = 1;
    while (i + run < ids.size() && ids[i + run] == ids[i] + run) ++run;
    // The biggest aligned block that begins here and lies in the run.
    unsigned bits = ids[i] == 0 ? kIdBits : static_cast<unsigned>(std::countr_zero(ids[i]));
    while ((std::size_t{1} << bits) > run) --bits;
    out.emplace_back(ids[i], kIdBits - bits);
    i += std::size_t{1} << bits;
  }
  return out;
}

}  // namespace egw::iptables
