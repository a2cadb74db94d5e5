// Rules that nft 1.0.6 has no words for, as the kernel's own expressions: a map's result or a
// packet's priority put into some bits of a mark, the other bits kept. Shifting two registers as
// one number moves bits from one into the other, which every kernel since 5.7 can do; "or" of two
// registers needs 6.13. Pure. Used by ruleset.cpp; written to the kernel by nft.cpp.
#pragma once

#include <cstdint>
#include <string>

namespace egw::common {

// A run of bits of a 32-bit mark.
struct Field {
  unsigned shift = 0, width = 32;
};

// Registers are 32 bits, numbered 0..15; whoever writes a rule says which.
class Expressions {
 public:
  // NFT_META_*, NFT_CT_* keys.
  Expressions& load_meta(std::uint32_t key, unsigned to);
  Expressions& store_meta(std::uint32_t key, unsigned from);
  Expressions& load_ct(std::uint32_t key, unsigned to);
  Expressions& store_ct(std::uint32_t key, unsigned from);
  Expressions& load_link_layer(std::uint32_t offset, std::uint32_t length, unsigned to);
  // to = from's data in the map; without an element the rule ends here and does nothing more.
  Expressions& look_up(const std::string& map, unsigned from, unsigned to);
  Expressions& constant(std::uint32_t value, unsigned to);
  // (from & mask) ^ flip
  Expressions& mask(unsigned from, unsigned to, std::uint32_t mask, std::uint32_t flip);
  Expressions& shift_right(unsigned from, unsigned to, unsigned bits);
  // to = mark with `value` in the field; uses registers to .. to + 3, which must not hold the two.
  Expressions& insert(unsigned mark, unsigned value, Field field, unsigned to);
  Expressions& accept();

  // The content of NFTA_RULE_EXPRESSIONS.
  [[nodiscard]] const std::string& bytes() const { return bytes_; }

 private:
  Expressions& add(const char* name, const std::string& attributes);
  Expressions& shift(unsigned from, unsigned to, unsigned registers, bool left, unsigned bits);

  std::string bytes_;
};

}  // namespace egw::common
