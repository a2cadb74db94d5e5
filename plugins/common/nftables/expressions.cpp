#include "expressions.hpp"

#include <arpa/inet.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netlink.h>

#include <cstring>

namespace egw::common {
namespace {

std::string attribute(int type, const std::string& value) {
  const nlattr header{static_cast<std::uint16_t>(NLA_HDRLEN + value.size()),
                      static_cast<std::uint16_t>(type)};
  std::string out(reinterpret_cast<const char*>(&header), sizeof(header));
  out += value;
  out.resize(NLA_ALIGN(out.size()), '\0');
  return out;
}

std::string nest(int type, const std::string& value) {
  return attribute(type | NLA_F_NESTED, value);
}

std::string be32(int type, std::uint32_t value) {
  const std::uint32_t v = htonl(value);
  return attribute(type, std::string(reinterpret_cast<const char*>(&v), sizeof(v)));
}

// As it stands in a register: host byte order.
std::string data(int type, std::uint32_t value) {
  return nest(type, attribute(NFTA_DATA_VALUE,
                              std::string(reinterpret_cast<const char*>(&value), sizeof(value))));
}

std::string text(int type, const std::string& value) { return attribute(type, value + '\0'); }

std::uint32_t reg(unsigned number) { return NFT_REG32_00 + number; }

}  // namespace

Expressions& Expressions::add(const char* name, const std::string& attributes) {
  bytes_ += nest(NFTA_LIST_ELEM, text(NFTA_EXPR_NAME, name) + nest(NFTA_EXPR_DATA, attributes));
  return *this;
}

Expressions& Expressions::load_meta(std::uint32_t key, unsigned to) {
  return add("meta", be32(NFTA_META_KEY, key) + be32(NFTA_META_DREG, reg(to)));
}

Expressions& Expressions::store_meta(std::uint32_t key, unsigned from) {
  return add("meta", be32(NFTA_META_KEY, key) + be32(NFTA_META_SREG, reg(from)));
}

Expressions& Expressions::load_ct(std::uint32_t key, unsigned to) {
  return add("ct", be32(NFTA_CT_KEY, key) + be32(NFTA_CT_DREG, reg(to)));
}

Expressions& Expressions::store_ct(std::uint32_t key, unsigned from) {
  return add("ct", be32(NFTA_CT_KEY, key) + be32(NFTA_CT_SREG, reg(from)));
}

Expressions& Expressions::load_link_layer(std::uint32_t offset, std::uint32_t length, unsigned to) {
  return add("payload", be32(NFTA_PAYLOAD_DREG, reg(to)) +
                            be32(NFTA_PAYLOAD_BASE, NFT_PAYLOAD_LL_HEADER) +
                            be32(NFTA_PAYLOAD_OFFSET, offset) + be32(NFTA_PAYLOAD_LEN, length));
}

Expressions& Expressions::look_up(const std::string& map, unsigned from, unsigned to) {
  return add("lookup", text(NFTA_LOOKUP_SET, map) + be32(NFTA_LOOKUP_SREG, reg(from)) +
                           be32(NFTA_LOOKUP_DREG, reg(to)));
}

Expressions& Expressions::constant(std::uint32_t value, unsigned to) {
  return add("immediate", be32(NFTA_IMMEDIATE_DREG, reg(to)) + data(NFTA_IMMEDIATE_DATA, value));
}

Expressions& Expressions::mask(unsigned from, unsigned to, std::uint32_t mask, std::uint32_t flip) {
  return add("bitwise", be32(NFTA_BITWISE_SREG, reg(from)) + be32(NFTA_BITWISE_DREG, reg(to)) +
                            be32(NFTA_BITWISE_LEN, sizeof(mask)) + data(NFTA_BITWISE_MASK, mask) +
                            data(NFTA_BITWISE_XOR, flip));
}

// Several registers are one number, the first the most significant.
Expressions& Expressions::shift(unsigned from, unsigned to, unsigned registers, bool left,
                                unsigned bits) {
  return add("bitwise", be32(NFTA_BITWISE_SREG, reg(from)) + be32(NFTA_BITWISE_DREG, reg(to)) +
                            be32(NFTA_BITWISE_LEN, registers * 4U) +
                            be32(NFTA_BITWISE_OP, left ? NFT_BITWISE_LSHIFT : NFT_BITWISE_RSHIFT) +
                            data(NFTA_BITWISE_DATA, bits));
}

Expressions& Expressions::shift_right(unsigned from, unsigned to, unsigned bits) {
  return shift(from, to, 1, false, bits);
}

Expressions& Expressions::insert(unsigned mark, unsigned value, Field field, unsigned to) {
  const unsigned above = field.shift + field.width, high = to + 2, low = to + 3;
  if (above < 32) {
    // The bits above the field, then the value's lowest bits below them.
    shift(mark, high, 1, false, above);
    shift(value, low, 1, true, 32 - field.width);
    shift(high, to, 2, true, field.width);
  } else {
    mask(value, to, field.width == 32 ? 0xffffffffU : (1U << field.width) - 1, 0);
  }
  if (field.shift == 0) return *this;
  mask(to, high, 0xffffffff, 0);
  shift(mark, low, 1, true, 32 - field.shift);
  return shift(high, to, 2, true, field.shift);
}

Expressions& Expressions::accept() {
  return add("immediate", be32(NFTA_IMMEDIATE_DREG, NFT_REG_VERDICT) +
                              nest(NFTA_IMMEDIATE_DATA,
                                   nest(NFTA_DATA_VERDICT, be32(NFTA_VERDICT_CODE, NF_ACCEPT))));
}

}  // namespace egw::common
