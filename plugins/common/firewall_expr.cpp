// See firewall_expr.hpp.
#include "firewall_expr.hpp"

#include <arpa/inet.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nf_tables_compat.h>

#include <algorithm>
#include <cstring>

namespace egw::common {
namespace {

std::uint32_t host_u32(std::string_view bytes) {
  std::uint32_t out = 0;
  if (bytes.size() >= sizeof(out)) std::memcpy(&out, bytes.data(), sizeof(out));
  return out;
}

// Big endian, 1 to 4 bytes: protocols and ports.
std::uint32_t network_number(std::string_view bytes) {
  std::uint32_t out = 0;
  for (const char c : bytes.substr(0, 4)) out = out << 8U | static_cast<unsigned char>(c);
  return out;
}

// The nf_tables registers: four of 16 bytes, or sixteen of 4, over the same space.
std::size_t slot_of(std::uint32_t reg) {
  return (reg <= NFT_REG_4 ? (reg - NFT_REG_1) * 4 : reg - NFT_REG32_00) & 15U;
}

}  // namespace

std::string value_of(const nlattr* data) {
  return std::string(Attributes(data, NFTA_DATA_MAX).bytes(NFTA_DATA_VALUE));
}

Verdict verdict_of(const nlattr* data, std::string& target) {
  const Attributes d(data, NFTA_DATA_MAX);
  const Attributes v(d[NFTA_DATA_VERDICT], NFTA_VERDICT_MAX);
  target = v.text(NFTA_VERDICT_CHAIN);
  switch (static_cast<std::int32_t>(v.be32(NFTA_VERDICT_CODE))) {
    case NF_ACCEPT:
      return Verdict::kAccept;
    case NF_DROP:
      return Verdict::kDrop;
    case NFT_JUMP:
      return Verdict::kJump;
    case NFT_GOTO:
      return Verdict::kGoto;
    case NFT_RETURN:
      return Verdict::kReturn;
    case NFT_CONTINUE:
    case NFT_BREAK:
      return Verdict::kNone;
    default:
      return Verdict::kUnclear;
  }
}

void RuleReader::expression(std::string_view name, const nlattr* data) {
  if (name == "meta") {
    meta(Attributes(data, NFTA_META_MAX));
  } else if (name == "ct") {
    ct(Attributes(data, NFTA_CT_MAX));
  } else if (name == "payload") {
    payload(Attributes(data, NFTA_PAYLOAD_MAX));
  } else if (name == "immediate") {
    immediate(Attributes(data, NFTA_IMMEDIATE_MAX));
  } else if (name == "bitwise") {
    bitwise(Attributes(data, NFTA_BITWISE_MAX));
  } else if (name == "cmp") {
    compare(Attributes(data, NFTA_CMP_MAX));
  } else if (name == "range") {
    range(Attributes(data, NFTA_RANGE_MAX));
  } else if (name == "lookup") {
    lookup(Attributes(data, NFTA_LOOKUP_MAX));
  } else if (name == "reject") {
    rule_.verdict = Verdict::kDrop;
  } else if (name == "match") {
    const Attributes a(data, NFTA_MATCH_MAX);
    read_xt_match(a.text(NFTA_MATCH_NAME), a.be32(NFTA_MATCH_REV), a.bytes(NFTA_MATCH_INFO), rule_);
  } else if (name == "target") {
    const Attributes a(data, NFTA_TARGET_MAX);
    read_xt_target(a.text(NFTA_TARGET_NAME), a.be32(NFTA_TARGET_REV), a.bytes(NFTA_TARGET_INFO),
                   rule_);
  } else if (name == "byteorder") {
    // Same value, other order; only ports and such, whose comparisons say what they mean.
  } else if (name == "queue") {
    rule_.verdict = Verdict::kUnclear;
  } else if (name != "counter" && name != "log" && name != "notrack" && name != "objref" &&
             name != "masq" && name != "nat" && name != "redir") {
    unknown();
  }
}

Register& RuleReader::reg(std::uint32_t number) { return registers_[slot_of(number)]; }

// Loads something into a register, or asks something (limit, fib, socket ...).
void RuleReader::unknown() {
  registers_.fill({});
  ask({});
}

void RuleReader::meta(const Attributes& a) {
  const std::uint32_t key = a.be32(NFTA_META_KEY);
  if (a.has(NFTA_META_SREG)) {
    if (key == NFT_META_MARK) write(reg(a.be32(NFTA_META_SREG)), Register::Kind::kMark, rule_.mark);
    return;
  }
  Register r;
  r.kind = Register::Kind::kField;
  switch (key) {
    case NFT_META_MARK:
      r.kind = Register::Kind::kMark;
      break;
    case NFT_META_IIF:
    case NFT_META_IIFNAME:
      r.field = Condition::Field::kIn;
      r.by_index = key == NFT_META_IIF;
      break;
    case NFT_META_OIF:
    case NFT_META_OIFNAME:
      r.field = Condition::Field::kOut;
      r.by_index = key == NFT_META_OIF;
      break;
    case NFT_META_L4PROTO:
      r.field = Condition::Field::kProtocol;
      break;
    case NFT_META_NFPROTO:
      r.field = Condition::Field::kFamily;
      break;
    default:
      break;
  }
  reg(a.be32(NFTA_META_DREG)) = r;
}

void RuleReader::ct(const Attributes& a) {
  const std::uint32_t key = a.be32(NFTA_CT_KEY);
  if (a.has(NFTA_CT_SREG)) {
    if (key == NFT_CT_MARK)
      write(reg(a.be32(NFTA_CT_SREG)), Register::Kind::kCtMark, rule_.ct_mark);
    return;
  }
  Register r;
  r.kind = key == NFT_CT_MARK ? Register::Kind::kCtMark : Register::Kind::kField;
  if (key == NFT_CT_STATE) r.field = Condition::Field::kState;
  reg(a.be32(NFTA_CT_DREG)) = r;
}

void RuleReader::payload(const Attributes& a) {
  if (a.has(NFTA_PAYLOAD_SREG)) return;
  const std::uint32_t base = a.be32(NFTA_PAYLOAD_BASE), offset = a.be32(NFTA_PAYLOAD_OFFSET),
                      length = a.be32(NFTA_PAYLOAD_LEN);
  Register r;
  r.kind = Register::Kind::kField;
  const bool v6 = context_.family == NFPROTO_IPV6;
  if (base == NFT_PAYLOAD_TRANSPORT_HEADER && offset == 2 && length == 2) {
    r.field = Condition::Field::kPort;
  } else if (base == NFT_PAYLOAD_NETWORK_HEADER && length == 1 && offset == (v6 ? 6U : 9U) &&
             (v6 || context_.family == NFPROTO_IPV4)) {
    r.field = Condition::Field::kProtocol;
  }
  reg(a.be32(NFTA_PAYLOAD_DREG)) = r;
}

void RuleReader::immediate(const Attributes& a) {
  if (a.be32(NFTA_IMMEDIATE_DREG) == NFT_REG_VERDICT) {
    rule_.verdict = verdict_of(a[NFTA_IMMEDIATE_DATA], rule_.target);
    return;
  }
  Register r;
  r.kind = Register::Kind::kConstant;
  r.value = host_u32(value_of(a[NFTA_IMMEDIATE_DATA]));
  reg(a.be32(NFTA_IMMEDIATE_DREG)) = r;
}

void RuleReader::bitwise(const Attributes& a) {
  Register r = reg(a.be32(NFTA_BITWISE_SREG));
  const std::uint32_t op = a.be32(NFTA_BITWISE_OP);
  if (op == NFT_BITWISE_BOOL) {
    const std::uint32_t mask = host_u32(value_of(a[NFTA_BITWISE_MASK]));
    const std::uint32_t flip = host_u32(value_of(a[NFTA_BITWISE_XOR]));
    if (!r.moved) r.source &= mask;
    r.value = (r.value & mask) | flip;
    r.flipped = (r.flipped & mask) ^ flip;
    if (r.field == Condition::Field::kState && flip == 0) {
      r.state_mask = mask;
    } else if (r.kind == Register::Kind::kField) {
      r.field = Condition::Field::kOther;
    }
  } else if (op == NFT_BITWISE_LSHIFT || op == NFT_BITWISE_RSHIFT) {
    const std::uint32_t by = host_u32(value_of(a[NFTA_BITWISE_DATA])) & 31U;
    r.value = op == NFT_BITWISE_LSHIFT ? r.value << by : r.value >> by;
    r.moved = true;
    r.field = Condition::Field::kOther;
  } else {
    r = {};
  }
  reg(a.be32(NFTA_BITWISE_DREG)) = r;
}

// The mark that `into` names becomes `from`.
void RuleReader::write(const Register& from, Register::Kind into, MarkUse& use) {
  if (from.kind == into && !from.moved) {
    use.set |= ~from.source | from.flipped;
    if (from.source == 0) use.overwritten = true;
    return;
  }
  use.overwritten = true;
  // Of a value that is not known nothing is claimed but that it replaces all.
  if (from.kind == Register::Kind::kConstant || from.is_mark()) use.set |= from.value;
}

Condition RuleReader::condition(const Register& r, bool inverted) {
  Condition c;
  c.field = r.kind == Register::Kind::kField ? r.field : Condition::Field::kOther;
  c.inverted = inverted;
  return c;
}

// Adds one value, or an inclusive range, to what the field may be.
void RuleReader::admit(const Register& r, Condition& c, const std::string& low,
                       const std::string& high) {
  switch (c.field) {
    case Condition::Field::kIn:
    case Condition::Field::kOut:
      c.names.push_back(interface_name(r, low));
      break;
    case Condition::Field::kState:
      c.bits |= host_u32(low);
      break;
    case Condition::Field::kFamily:
    case Condition::Field::kProtocol:
    case Condition::Field::kPort:
      c.numbers.emplace_back(network_number(low), network_number(high));
      break;
    case Condition::Field::kOther:
      break;
  }
}

std::string RuleReader::interface_name(const Register& r, const std::string& bytes) const {
  if (r.by_index) {
    const auto at = context_.links.find(host_u32(bytes));
    return at == context_.links.end() ? std::string("?") : at->second;
  }
  const std::string name(bytes.c_str());
  return name.size() == bytes.size() && bytes.size() < 16 ? name + "*" : name;
}

void RuleReader::compare(const Attributes& a) {
  const Register& r = reg(a.be32(NFTA_CMP_SREG));
  const std::uint32_t op = a.be32(NFTA_CMP_OP);
  const std::string value = value_of(a[NFTA_CMP_DATA]);
  const bool equal = op == NFT_CMP_EQ, unequal = op == NFT_CMP_NEQ;
  if (r.is_mark()) {
    if (!r.moved && (equal || unequal)) {
      use_of(r) |= mark_test(r.source, host_u32(value) ^ r.flipped, unequal);
    } else {
      use_of(r).tested |= r.source;
    }
    ask({});
    return;
  }
  Condition c = condition(r, unequal);
  if (c.field == Condition::Field::kState && r.state_mask) {
    // "ct state a,b": (state & mask) != 0.
    c.bits = *r.state_mask;
    c.inverted = equal;
    if (host_u32(value) != 0) c = Condition{};
  } else if (equal || unequal) {
    admit(r, c, value, value);
  } else if (c.field == Condition::Field::kProtocol || c.field == Condition::Field::kPort) {
    const std::uint32_t bound = network_number(value);
    if (op == NFT_CMP_LT || op == NFT_CMP_LTE) {
      if (bound > 0 || op == NFT_CMP_LTE) c.numbers = {{0, op == NFT_CMP_LT ? bound - 1 : bound}};
    } else {
      c.numbers = {{op == NFT_CMP_GT ? bound + 1 : bound, kWhole}};
    }
  } else {
    c = Condition{};
  }
  ask(std::move(c));
}

void RuleReader::range(const Attributes& a) {
  const Register& r = reg(a.be32(NFTA_RANGE_SREG));
  if (r.is_mark()) use_of(r).tested |= r.source;
  Condition c = condition(r, a.be32(NFTA_RANGE_OP) == NFT_RANGE_NEQ);
  const bool numbers = c.field == Condition::Field::kProtocol || c.field == Condition::Field::kPort;
  if (!numbers) c = Condition{};
  admit(r, c, value_of(a[NFTA_RANGE_FROM_DATA]), value_of(a[NFTA_RANGE_TO_DATA]));
  ask(std::move(c));
}

void RuleReader::lookup(const Attributes& a) {
  const Register key = reg(a.be32(NFTA_LOOKUP_SREG));
  const bool verdict = a.has(NFTA_LOOKUP_DREG) && a.be32(NFTA_LOOKUP_DREG) == NFT_REG_VERDICT;
  const bool inverted = (a.be32(NFTA_LOOKUP_FLAGS) & NFT_LOOKUP_F_INV) != 0;
  if (key.is_mark()) marks_in(key, std::string(a.text(NFTA_LOOKUP_SET)));
  if (a.has(NFTA_LOOKUP_DREG) && !verdict) {
    reg(a.be32(NFTA_LOOKUP_DREG)) = Register{};
    ask({});
    return;
  }
  const bool known = key.kind == Register::Kind::kField && !key.state_mask &&
                     key.field != Condition::Field::kOther;
  const auto* list = known ? context_.elements(std::string(a.text(NFTA_LOOKUP_SET))) : nullptr;
  if (verdict) {
    rule_.verdict = Verdict::kUnclear;
    if (list != nullptr) verdicts = *list;
    verdict_key = key;
    return;
  }
  Condition c = list == nullptr ? Condition{} : condition(key, inverted);
  if (list != nullptr) admit_all(key, c, *list);
  ask(std::move(c));
}

// Marks looked up in a set: every bit that the key still has, or, of whole marks, those listed.
void RuleReader::marks_in(const Register& key, const std::string& set) {
  MarkUse& use = use_of(key);
  const auto* list = key.source == kWhole && !key.moved ? context_.elements(set) : nullptr;
  if (list == nullptr) {
    use.tested |= key.source == kWhole ? 0 : key.source;
    return;
  }
  for (const Element& e : *list) {
    if (!e.end) use.tested |= host_u32(e.key);
  }
}

// Intervals are listed as their begin and, flagged, the first value behind them.
void RuleReader::admit_all(const Register& key, Condition& c, const std::vector<Element>& list) {
  const bool intervals =
      std::any_of(list.begin(), list.end(), [](const Element& e) { return e.end; });
  if (!intervals) {
    for (const Element& e : list) admit(key, c, e.key, e.key);
    return;
  }
  if (c.field != Condition::Field::kProtocol && c.field != Condition::Field::kPort) {
    c = Condition{};
    return;
  }
  std::vector<std::pair<std::uint32_t, bool>> bounds;
  for (const Element& e : list) bounds.emplace_back(network_number(e.key), e.end);
  std::sort(bounds.begin(), bounds.end());
  for (std::size_t i = 0; i < bounds.size(); ++i) {
    if (bounds[i].second) continue;
    const std::uint32_t last = i + 1 < bounds.size() ? bounds[i + 1].first - 1 : 0xffff;
    c.numbers.emplace_back(bounds[i].first, last);
  }
}

}  // namespace egw::common
