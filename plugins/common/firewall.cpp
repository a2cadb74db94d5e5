// Judging a firewall that has been read: pure.
#include "firewall.hpp"

#include <algorithm>

namespace egw::common {
namespace {

constexpr int kDepth = 32;  // of jumps; the kernel allows 16

enum class Match : std::uint8_t { kNo, kMaybe, kYes };

Match negate(Match m, bool inverted) {
  if (!inverted || m == Match::kMaybe) return m;
  return m == Match::kYes ? Match::kNo : Match::kYes;
}

bool name_matches(const std::string& pattern, const std::string& name) {
  if (!pattern.empty() && pattern.back() == '*') {
    return name.compare(0, pattern.size() - 1, pattern, 0, pattern.size() - 1) == 0;
  }
  return pattern == name;
}

Match match_interface(const Condition& c, const std::optional<std::string>& is,
                      const std::string& tunnel) {
  const auto matches = [&](const std::string& name) {
    return std::any_of(c.names.begin(), c.names.end(),
                       [&](const std::string& pattern) { return name_matches(pattern, name); });
  };
  if (is) return matches(*is) ? Match::kYes : Match::kNo;
  if (std::find(c.names.begin(), c.names.end(), "*") != c.names.end()) return Match::kYes;
  const bool only_tunnel = std::all_of(c.names.begin(), c.names.end(),
                                       [&](const std::string& n) { return n == tunnel; });
  return only_tunnel ? Match::kNo : Match::kMaybe;
}

Match match_number(const Condition& c, const std::optional<std::uint32_t>& is) {
  if (!is) return Match::kMaybe;
  return std::any_of(c.numbers.begin(), c.numbers.end(),
                     [&](const auto& r) { return r.first <= *is && *is <= r.second; })
             ? Match::kYes
             : Match::kNo;
}

Match match(const Condition& c, const TunnelPacket& p) {
  Match m = Match::kMaybe;
  switch (c.field) {
    case Condition::Field::kIn:
      m = match_interface(c, p.in, p.device);
      break;
    case Condition::Field::kOut:
      m = match_interface(c, p.out, p.device);
      break;
    case Condition::Field::kState:
      m = (p.state & c.bits) != 0 ? Match::kYes : Match::kNo;
      break;
    case Condition::Field::kFamily:
      m = match_number(c, p.family == 4 ? 2U : 10U);  // NFPROTO_IPV4, NFPROTO_IPV6
      break;
    case Condition::Field::kProtocol:
      m = match_number(c, p.protocol);
      break;
    case Condition::Field::kPort:
      m = match_number(c, p.port);
      break;
    case Condition::Field::kOther:
      break;
  }
  return negate(m, c.inverted);
}

Match match(const FirewallRule& rule, const TunnelPacket& p) {
  Match all = Match::kYes;
  for (const Condition& c : rule.conditions) all = std::min(all, match(c, p));
  return all;
}

class Walk {
 public:
  Walk(const FirewallTable& table, const TunnelPacket& packet) : table_(table), packet_(packet) {}

  enum class End : std::uint8_t { kAccepted, kDropped, kGoesOn };

  End chain(const std::string& name, int depth) {
    const auto at = table_.chains.find(name);
    if (at == table_.chains.end() || depth > kDepth) return unclear();
    for (const FirewallRule& rule : at->second.rules) {
      const Match m = match(rule, packet_);
      if (m == Match::kNo) continue;
      bool returns = false;
      const End end = verdict(name, rule, m == Match::kYes, depth, returns);
      if (end != End::kGoesOn) return end;
      if (returns) break;
    }
    return End::kGoesOn;
  }

  [[nodiscard]] bool may_be_accepted() const { return may_be_accepted_; }
  Dropped dropped;

 private:
  End unclear() {
    may_be_accepted_ = true;
    return End::kGoesOn;
  }

  End verdict(const std::string& chain_name, const FirewallRule& rule, bool certain, int depth,
              bool& returns) {
    switch (rule.verdict) {
      case Verdict::kNone:
        break;
      case Verdict::kAccept:
        if (certain) return End::kAccepted;
        may_be_accepted_ = true;
        break;
      case Verdict::kDrop:
        if (!certain) break;
        dropped = {chain_name, rule.name, &rule};
        return End::kDropped;
      case Verdict::kReturn:
        // It may skip a drop further down in this chain, but not one in the caller.
        if (!certain) return unclear();
        returns = true;
        break;
      case Verdict::kJump:
      case Verdict::kGoto: {
        const End end = chain(rule.target, depth + 1);
        if (certain && end != End::kGoesOn) return end;
        if (!certain && end == End::kAccepted) may_be_accepted_ = true;
        if (rule.verdict == Verdict::kGoto) {
          if (!certain) return unclear();
          returns = true;
        }
        break;
      }
      case Verdict::kUnclear:
        return unclear();
    }
    return End::kGoesOn;
  }

  const FirewallTable& table_;
  const TunnelPacket& packet_;
  bool may_be_accepted_ = false;
};

}  // namespace

void MarkUse::operator|=(const MarkUse& other) {
  tested |= other.tested;
  set |= other.set;
  overwritten = overwritten || other.overwritten;
}

MarkUse mark_test(std::uint32_t mask, std::uint32_t value, bool inverted) {
  if (mask != kWhole) return {mask, 0, false};
  // The whole mark: what it must be, or, for "not 0", every bit. "Not X" says nothing of ours.
  if (inverted) return {value == 0 ? kWhole : 0, 0, false};
  return {value, 0, false};
}

MarkUse mark_write(std::uint32_t mask, std::uint32_t value) {
  if (mask == kWhole) return {0, value, true};
  return {0, mask | value, false};
}

std::string FirewallTable::where(std::string_view chain) const {
  const std::string table = kind + " table " + (family.empty() ? "" : family + " ") + name;
  return chain.empty() ? table : table + ", chain " + std::string(chain);
}

std::optional<Dropped> where_dropped(const FirewallTable& table, const TunnelPacket& packet) {
  if (!(packet.family == 4 ? table.v4 : table.v6)) return std::nullopt;
  for (const auto& [name, chain] : table.chains) {
    if (chain.hook != packet.hook) continue;
    Walk walk(table, packet);
    const auto end = walk.chain(name, 0);
    if (walk.may_be_accepted()) continue;
    if (end == Walk::End::kDropped) return walk.dropped;
    if (end == Walk::End::kGoesOn && chain.policy_drop) return Dropped{name, "its policy", nullptr};
  }
  return std::nullopt;
}

}  // namespace egw::common
