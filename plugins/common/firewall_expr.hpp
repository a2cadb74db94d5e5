// The expressions of one nftables rule, followed through the registers of nf_tables as far as they
// concern marks, interfaces, connection states, protocols and ports (linux/netfilter/nf_tables.h).
// What is not understood is an open question (Condition::Field::kOther). Used by firewall_nft.cpp.
#pragma once

#include <array>
#include <functional>

#include "firewall.hpp"

namespace egw::common {

// What a register holds.
struct Register {
  enum class Kind : std::uint8_t { kUnknown, kConstant, kMark, kCtMark, kField };
  Kind kind = Kind::kUnknown;
  std::uint32_t source = 0xffffffff;  // of a mark: bits that still can be seen
  std::uint32_t value = 0xffffffff;   // bits that can be set
  std::uint32_t flipped = 0;          // ^ after the &
  bool moved = false;                 // shifted: bits do not stand where they stood
  Condition::Field field = Condition::Field::kOther;
  bool by_index = false;                    // an interface by its index
  std::optional<std::uint32_t> state_mask;  // "ct state & mask"
  [[nodiscard]] bool is_mark() const { return kind == Kind::kMark || kind == Kind::kCtMark; }
};

struct Element {
  std::string key;
  bool end = false;
  Verdict verdict = Verdict::kNone;
  std::string target;
};

// A verdict as nf_tables carries it; target: of jump and goto.
[[nodiscard]] Verdict verdict_of(const nlattr* data, std::string& target);
[[nodiscard]] std::string value_of(const nlattr* data);  // of an NFTA_DATA_* nest

class RuleReader {
 public:
  struct Context {
    std::uint8_t family = 0;                            // NFPROTO_* of the table
    const std::map<std::uint32_t, std::string>& links;  // interface names by index
    // A set's elements; nullptr when it is not looked into.
    std::function<const std::vector<Element>*(const std::string& set)> elements;
  };
  RuleReader(const Context& context, FirewallRule& rule) : context_(context), rule_(rule) {}

  void expression(std::string_view name, const nlattr* data);

  // One rule for each element of its verdict map, if there is one.
  std::vector<Element> verdicts;
  Register verdict_key;
  [[nodiscard]] Condition key_condition() const { return condition(verdict_key, false); }
  // What the elements of a set allow the key to be.
  void admit_all(const Register& key, Condition& c, const std::vector<Element>& list);

 private:
  Register& reg(std::uint32_t number);
  void ask(Condition c) { rule_.conditions.push_back(std::move(c)); }
  MarkUse& use_of(const Register& r) {
    return r.kind == Register::Kind::kMark ? rule_.mark : rule_.ct_mark;
  }
  void unknown();
  void meta(const Attributes& a);
  void ct(const Attributes& a);
  void payload(const Attributes& a);
  void immediate(const Attributes& a);
  void bitwise(const Attributes& a);
  void compare(const Attributes& a);
  void range(const Attributes& a);
  void lookup(const Attributes& a);
  void marks_in(const Register& key, const std::string& set);
  // The mark that `into` names becomes `from`.
  static void write(const Register& from, Register::Kind into, MarkUse& use);
  [[nodiscard]] static Condition condition(const Register& r, bool inverted);
  // Adds one value, or an inclusive range, to what the field may be.
  void admit(const Register& r, Condition& c, const std::string& low, const std::string& high);
  [[nodiscard]] std::string interface_name(const Register& r, const std::string& bytes) const;

  const Context& context_;
  FirewallRule& rule_;
  std::array<Register, 16> registers_{};
};

}  // namespace egw::common
