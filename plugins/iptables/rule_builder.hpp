// What rules.hpp promises in the making: chains of one family, by what their packets are. Used by
// rules.cpp (pods, what leaves) and tunnel_rules.cpp (the wire, what comes out of the tunnel).
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "rules.hpp"

namespace egw::iptables {

inline constexpr std::uint32_t kAll = 0xffffffff;
// No program listens there; without a listener the kernel drops. (The nat table takes no DROP.)
inline constexpr const char* kDropInNat = "-j NFQUEUE --queue-num 65535";

inline std::string hex(std::uint32_t v) { return common::mark_text(v); }

inline std::string reason(const std::string& name) {
  return "-m comment --comment egw-" + name + " ";
}
inline std::string drop(const std::string& match, const std::string& name) {
  return match + (match.empty() ? "" : " ") + reason(name) + "-j DROP";
}

inline std::string connection(const std::string& what) { return "-m conntrack " + what; }
inline const std::string kConfirmed = connection("--ctstatus CONFIRMED");
inline const std::string kFirst = connection("! --ctstatus CONFIRMED");
inline const std::string kTranslated = connection("--ctstate SNAT");

class RuleBuilder {
 public:
  RuleBuilder(Table t, const RuleInput& in)
      : t_(t), in_(in), marks_(in.node.slot_mask, in.node.ct_mask) {}

  FamilyRules build();

 private:
  XtRules& table(Xt x) { return out_[static_cast<std::size_t>(x)]; }
  std::vector<std::string>& chain(Xt x, const std::string& name) {
    return table(x).chains[std::string(kChainPrefix) + name];
  }
  void jump(Xt x, const std::string& builtin, const std::string& rule, bool last = false,
            bool again = false) {
    table(x).jumps.push_back({builtin, rule, last, again});
  }
  static std::string to(const std::string& name) {
    return "-j " + std::string(kChainPrefix) + name;
  }
  static std::string go(const std::string& name) {
    return "-g " + std::string(kChainPrefix) + name;
  }
  [[nodiscard]] std::uint32_t slot() const { return marks_.slot_mask(); }
  [[nodiscard]] std::string is(std::uint32_t value) const {
    return "-m mark --mark " + hex(value) + "/" + hex(slot());
  }
  [[nodiscard]] std::string is(Slot s) const { return is(marks_.value(s)); }
  [[nodiscard]] std::string is(Kind k) const { return is(value(marks_, k)); }
  [[nodiscard]] std::string is_not(std::uint32_t value) const {
    return "-m mark ! --mark " + hex(value) + "/" + hex(slot());
  }
  // The slot's value and an id, or a number, of zero.
  [[nodiscard]] std::string is_bare(std::uint32_t value) const {
    return "-m mark --mark " + hex(value) + "/" + hex(slot() | kIdMask);
  }
  static std::string set(std::uint32_t value, std::uint32_t mask) {
    return "-j MARK --set-xmark " + hex(value) + "/" + hex(mask);
  }
  [[nodiscard]] std::string peer_is(std::uint32_t value) const {
    return "-m connmark --mark " + hex(value) + "/" + hex(marks_.ct_mask());
  }
  [[nodiscard]] std::string peer_set(std::uint32_t value) const {
    return "-j CONNMARK --set-xmark " + hex(value) + "/" + hex(marks_.ct_mask());
  }
  // All bits: no peer's number, but a connection of a pod whose destination has been looked at.
  [[nodiscard]] std::uint32_t seen() const { return marks_.ct_mask(); }
  [[nodiscard]] std::string in_set(const std::string& what, const std::string& side) const {
    return "-m set --match-set " + set_name(t_, what) + " " + side;
  }
  [[nodiscard]] std::string map(const std::string& what, const std::string& side) const {
    return "-j SET --map-set " + set_name(t_, what) + " " + side + " --map-mark";
  }
  // Before a set is asked that has to have an answer: dropped without one.
  [[nodiscard]] std::string unanswered() const {
    return set(value(marks_, Kind::kDropped), slot() | kIdMask);
  }
  [[nodiscard]] bool ids_beside() const { return in_.companion && in_.serves; }
  [[nodiscard]] std::string device() const { return in_.node.tunnel_device; }
  [[nodiscard]] std::string port() const { return std::to_string(in_.node.tunnel_port); }
  [[nodiscard]] const sdk::Address& parent() const {
    return t_ == Table::kIp ? in_.node.parent_v4 : in_.node.parent_v6;
  }
  [[nodiscard]] const sdk::Prefix& tunnel_address() const {
    return t_ == Table::kIp ? in_.node.tunnel_v4 : in_.node.tunnel_v6;
  }

  void raw();
  void from_wire();
  void prerouting();
  void before_judgement();
  void judgement();
  void classes();
  void class_group(std::uint32_t group);
  void from_tunnel();
  void note_peer();
  void served();
  void to_peer();
  void postrouting();
  void leave();
  void nat();
  void translate();

  Table t_;
  const RuleInput& in_;
  Marks marks_;
  FamilyRules out_;
};

}  // namespace egw::iptables
