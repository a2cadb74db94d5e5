// iptables-legacy, read by getsockopt, and the xtables matches and targets that it shares with
// iptables-nft. linux/netfilter_ipv4/ip_tables.h; net/netfilter/xt_mark.c, xt_connmark.c.
#include <arpa/inet.h>
#include <linux/if.h>
#include <linux/netfilter.h>
#include <linux/netfilter/xt_CONNMARK.h>
#include <linux/netfilter/xt_MARK.h>
#include <linux/netfilter/xt_TPROXY.h>
#include <linux/netfilter/xt_conntrack.h>
#include <linux/netfilter/xt_state.h>
#include <linux/netfilter/xt_tcpudp.h>
#include <linux/netfilter_ipv4/ip_tables.h>
#include <linux/netfilter_ipv6/ip6_tables.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <fstream>

#include "egw/sdk/status.hpp"
#include "firewall.hpp"

namespace egw::common {
namespace {

// A copy of the struct at the beginning of `bytes`, if they are enough. No std::optional: the
// kernel's structs end in flexible arrays, which must come last.
template <class T>
struct Read {
  bool whole = false;
  T value{};
  explicit Read(std::string_view bytes) : whole(bytes.size() >= sizeof(T)) {
    if (whole) std::memcpy(&value, bytes.data(), sizeof(T));
  }
  explicit operator bool() const { return whole; }
  const T* operator->() const { return &value; }
  const T& operator*() const { return value; }
};

template <class T>
Read<T> read_as(std::string_view bytes) {
  return Read<T>(bytes);
}

std::string name_of(const char* text, std::size_t room) {
  return std::string(text, ::strnlen(text, room));
}

Condition other() { return {}; }

Condition ports(const std::uint16_t (&range)[2], bool inverted) {
  Condition c;
  c.field = Condition::Field::kPort;
  c.inverted = inverted;
  c.numbers = {{range[0], range[1]}};
  return c;
}

bool all_ports(const std::uint16_t (&range)[2]) { return range[0] == 0 && range[1] == 0xffff; }

void read_conntrack(std::string_view info, FirewallRule& rule) {
  // Revisions 1 to 3 begin alike; the states stand after the addresses and the ports.
  const auto m = read_as<xt_conntrack_mtinfo2>(info);
  if (!m) {
    rule.conditions.push_back(other());
    return;
  }
  if ((m->match_flags & XT_CONNTRACK_STATE) != 0) {
    Condition c;
    c.field = Condition::Field::kState;
    c.inverted = (m->invert_flags & XT_CONNTRACK_STATE) != 0;
    c.bits = m->state_mask;  // the same bits as nftables'
    rule.conditions.push_back(c);
  }
  if ((m->match_flags & ~XT_CONNTRACK_STATE) != 0) rule.conditions.push_back(other());
}

// The part that both revisions share, and the mode, which stands elsewhere in the second one.
MarkUse connmark_write(const xt_connmark_tginfo1& t, unsigned mode, MarkUse& mark) {
  switch (mode) {
    case XT_CONNMARK_SET:
      return mark_write(t.ctmask, t.ctmark);
    case XT_CONNMARK_SAVE:  // ct = (ct & ~ctmask) ^ (mark & nfmask)
      mark.tested |= t.nfmask == 0xffffffff ? 0 : t.nfmask;
      return {0, t.ctmask | t.nfmask, false};
    case XT_CONNMARK_RESTORE:  // mark = (mark & ~nfmask) ^ (ct & ctmask)
      mark.set |= t.nfmask | t.ctmask;
      return {};
    default:
      return {};
  }
}

}  // namespace

void read_xt_match(std::string_view name, unsigned revision, std::string_view info,
                   FirewallRule& rule) {
  if (name == "comment") return;
  if (name == "mark" || name == "connmark") {
    if (const auto m = read_as<xt_mark_mtinfo1>(info); m && revision >= 1) {
      (name == "mark" ? rule.mark : rule.ct_mark) |= mark_test(m->mask, m->mark, m->invert != 0);
    }
    rule.conditions.push_back(other());
  } else if (name == "conntrack" && revision >= 2) {
    read_conntrack(info, rule);
  } else if (name == "state") {
    Condition c = other();
    if (const auto m = read_as<xt_state_info>(info)) {
      c.field = Condition::Field::kState;
      c.bits = m->statemask;
    }
    rule.conditions.push_back(c);
  } else if (name == "udp" || name == "tcp") {
    // Both begin with source and destination ports; of tcp's flags nothing is known.
    const auto m = read_as<xt_udp>(info);
    const bool known = m && name == "udp";
    if (known && !all_ports(m->dpts)) {
      rule.conditions.push_back(ports(m->dpts, (m->invflags & XT_UDP_INV_DSTPT) != 0));
    }
    if (!known || !all_ports(m->spts)) rule.conditions.push_back(other());
  } else {
    rule.conditions.push_back(other());
  }
}

void read_xt_target(std::string_view name, unsigned revision, std::string_view info,
                    FirewallRule& rule) {
  if (name == "REJECT") {
    rule.verdict = Verdict::kDrop;
  } else if (name == "MARK") {
    if (const auto t = read_as<xt_mark_tginfo2>(info); t && revision >= 2) {
      rule.mark |= mark_write(t->mask, t->mark);
    }
  } else if (name == "CONNMARK") {
    const auto t = read_as<xt_connmark_tginfo1>(info);
    const auto longer = read_as<xt_connmark_tginfo2>(info);
    if (t && revision == 1) rule.ct_mark |= connmark_write(*t, t->mode, rule.mark);
    if (longer && revision >= 2) rule.ct_mark |= connmark_write(*t, longer->mode, rule.mark);
  } else if (name == "TPROXY") {
    if (const auto t = read_as<xt_tproxy_target_info_v1>(info)) {
      rule.mark |= mark_write(t->mark_mask, t->mark_value);
    }
  } else if (name == "NFQUEUE") {
    rule.verdict = Verdict::kUnclear;
  }
}

namespace {

// What differs between the two families of the legacy interface.
struct V4 {
  using Info = ipt_getinfo;
  using Entries = ipt_get_entries;
  using Entry = ipt_entry;
  static constexpr int kFamily = AF_INET, kLevel = SOL_IP;
  static constexpr int kGetInfo = IPT_SO_GET_INFO, kGetEntries = IPT_SO_GET_ENTRIES;
  static constexpr const char* kKind = "iptables-legacy";
  static constexpr const char* kNames = "/proc/thread-self/net/ip_tables_names";
  static void head(const Entry& e, FirewallRule& rule) {
    const ipt_ip& ip = e.ip;
    const bool addresses = ip.smsk.s_addr != 0 || ip.dmsk.s_addr != 0;
    common_head(ip.iniface, ip.iniface_mask, ip.outiface, ip.outiface_mask, ip.proto, ip.invflags,
                addresses || (ip.flags & IPT_F_FRAG) != 0, rule);
  }
  static void common_head(const char* in, const unsigned char* in_mask, const char* out,
                          const unsigned char* out_mask, unsigned protocol, unsigned invflags,
                          bool more, FirewallRule& rule);
};

struct V6 {
  using Info = ip6t_getinfo;
  using Entries = ip6t_get_entries;
  using Entry = ip6t_entry;
  static constexpr int kFamily = AF_INET6, kLevel = SOL_IPV6;
  static constexpr int kGetInfo = IP6T_SO_GET_INFO, kGetEntries = IP6T_SO_GET_ENTRIES;
  static constexpr const char* kKind = "ip6tables-legacy";
  static constexpr const char* kNames = "/proc/thread-self/net/ip6_tables_names";
  static void head(const Entry& e, FirewallRule& rule) {
    const ip6t_ip6& ip = e.ipv6;
    bool addresses = false;
    for (int i = 0; i < 16; ++i) addresses |= (ip.smsk.s6_addr[i] | ip.dmsk.s6_addr[i]) != 0;
    const unsigned protocol = (ip.flags & IP6T_F_PROTO) != 0 ? ip.proto : 0;
    V4::common_head(ip.iniface, ip.iniface_mask, ip.outiface, ip.outiface_mask, protocol,
                    ip.invflags, addresses, rule);
  }
};

// "" when any interface will do.
std::string interface_pattern(const char* name, const unsigned char* mask) {
  const std::size_t compared = ::strnlen(reinterpret_cast<const char*>(mask), IFNAMSIZ);
  const std::string text = name_of(name, IFNAMSIZ);
  if (compared == 0) return {};
  return compared > text.size() ? text : text.substr(0, compared) + "*";
}

void V4::common_head(const char* in, const unsigned char* in_mask, const char* out,
                     const unsigned char* out_mask, unsigned protocol, unsigned invflags, bool more,
                     FirewallRule& rule) {
  const auto interface = [&](Condition::Field field, const char* name, const unsigned char* mask,
                             unsigned inverted) {
    const std::string pattern = interface_pattern(name, mask);
    if (pattern.empty()) return;
    Condition c;
    c.field = field;
    c.names = {pattern};
    c.inverted = (invflags & inverted) != 0;
    rule.conditions.push_back(c);
  };
  interface(Condition::Field::kIn, in, in_mask, IPT_INV_VIA_IN);
  interface(Condition::Field::kOut, out, out_mask, IPT_INV_VIA_OUT);
  if (protocol != 0) {
    Condition c;
    c.field = Condition::Field::kProtocol;
    c.numbers = {{protocol, protocol}};
    c.inverted = (invflags & XT_INV_PROTO) != 0;
    rule.conditions.push_back(c);
  }
  if (more) rule.conditions.push_back({});
}

template <class F>
class LegacyTable {
 public:
  LegacyTable(const typename F::Info& info, std::string_view entries)
      : info_(info), entries_(entries) {}

  void read(FirewallTable& out) {
    name_chains();
    std::string chain;
    unsigned number = 0;
    for (std::size_t at = 0; at < entries_.size();) {
      const auto entry = read_as<typename F::Entry>(entries_.substr(at));
      if (!entry || entry->next_offset < sizeof(*entry) ||
          entry->target_offset > entry->next_offset || entry->next_offset > entries_.size() - at) {
        return;
      }
      if (const auto named = chains_.find(at); named != chains_.end()) {
        chain = named->second.name;
        number = 0;
        if (named->second.user) {  // the entry that carries the name is no rule
          out.chains[chain];
          at += entry->next_offset;
          continue;
        }
      }
      FirewallChain& into = out.chains[chain];
      FirewallRule rule = read_rule(*entry, entries_.substr(at, entry->next_offset), at);
      rule.name = "rule " + std::to_string(++number);
      if (is_policy(at)) {
        into.policy_drop = rule.verdict == Verdict::kDrop;
        if (chain == "INPUT") into.hook = FilterHook::kInput;
        if (chain == "FORWARD") into.hook = FilterHook::kForward;
      } else {
        into.rules.push_back(std::move(rule));
      }
      at += entry->next_offset;
    }
  }

 private:
  struct Named {
    std::string name;
    bool user = false;
  };

  void name_chains() {
    static const char* const kHooks[NF_INET_NUMHOOKS] = {"PREROUTING", "INPUT", "FORWARD", "OUTPUT",
                                                         "POSTROUTING"};
    for (unsigned hook = 0; hook < NF_INET_NUMHOOKS; ++hook) {
      if ((info_.valid_hooks & (1U << hook)) != 0)
        chains_[info_.hook_entry[hook]].name = kHooks[hook];
    }
    for (std::size_t at = 0; at < entries_.size();) {
      const auto entry = read_as<typename F::Entry>(entries_.substr(at));
      if (!entry || entry->next_offset < sizeof(*entry)) return;
      const std::string_view target = target_of(*entry, at);
      if (const auto t = read_as<xt_error_target>(target);
          t && name_of(t->target.u.user.name, sizeof(t->target.u.user.name)) == XT_ERROR_TARGET) {
        chains_[at] = {name_of(t->errorname, sizeof(t->errorname)), true};
      }
      at += entry->next_offset;
    }
  }

  [[nodiscard]] bool is_policy(std::size_t at) const {
    for (unsigned hook = 0; hook < NF_INET_NUMHOOKS; ++hook) {
      if ((info_.valid_hooks & (1U << hook)) != 0 && info_.underflow[hook] == at) return true;
    }
    return false;
  }

  std::string_view target_of(const typename F::Entry& entry, std::size_t at) const {
    if (entry.target_offset > entry.next_offset || entry.next_offset > entries_.size() - at) {
      return {};
    }
    return entries_.substr(at + entry.target_offset, entry.next_offset - entry.target_offset);
  }

  FirewallRule read_rule(const typename F::Entry& entry, std::string_view bytes, std::size_t at) {
    FirewallRule rule;
    F::head(entry, rule);
    for (std::size_t m = sizeof(entry); m < entry.target_offset;) {
      const auto match = read_as<xt_entry_match>(bytes.substr(m));
      if (!match || match->u.match_size < sizeof(*match) ||
          match->u.match_size > entry.target_offset - m) {
        rule.conditions.push_back({});
        break;
      }
      read_xt_match(name_of(match->u.user.name, sizeof(match->u.user.name)), match->u.user.revision,
                    bytes.substr(m + sizeof(*match), match->u.match_size - sizeof(*match)), rule);
      m += match->u.match_size;
    }
    read_target(target_of(entry, at), at + entry.next_offset, rule);
    return rule;
  }

  void read_target(std::string_view bytes, std::size_t next, FirewallRule& rule) {
    const auto target = read_as<xt_entry_target>(bytes);
    if (!target) return;
    const std::string name = name_of(target->u.user.name, sizeof(target->u.user.name));
    if (name != XT_STANDARD_TARGET) {
      read_xt_target(name, target->u.user.revision, bytes.substr(sizeof(*target)), rule);
      return;
    }
    const auto standard = read_as<xt_standard_target>(bytes);
    if (!standard) return;
    const int verdict = standard->verdict;
    if (verdict == XT_RETURN) {
      rule.verdict = Verdict::kReturn;
    } else if (verdict < 0) {
      rule.verdict = -verdict - 1 == NF_ACCEPT ? Verdict::kAccept
                     : -verdict - 1 == NF_DROP ? Verdict::kDrop
                                               : Verdict::kUnclear;
    } else if (static_cast<std::size_t>(verdict) != next) {  // else: no target at all
      // The target is the first rule of a chain; its name stands in the entry before it.
      rule.verdict = Verdict::kJump;
      rule.target = chain_with_first_rule(static_cast<std::size_t>(verdict));
    }
  }

  [[nodiscard]] std::string chain_with_first_rule(std::size_t first) const {
    for (const auto& [at, named] : chains_) {
      if (!named.user) continue;
      const auto entry = read_as<typename F::Entry>(entries_.substr(at));
      if (entry && at + entry->next_offset == first) return named.name;
    }
    return {};
  }

  const typename F::Info& info_;
  std::string_view entries_;
  std::map<std::size_t, Named> chains_;
};

template <class F>
std::optional<FirewallTable> read_table(int fd, const std::string& name) {
  for (int attempt = 0; attempt < 5; ++attempt) {
    typename F::Info info{};
    name.copy(info.name, sizeof(info.name) - 1);
    socklen_t length = sizeof(info);
    if (::getsockopt(fd, F::kLevel, F::kGetInfo, &info, &length) != 0) return std::nullopt;
    std::vector<char> buffer(sizeof(typename F::Entries) + info.size);
    typename F::Entries request{};
    name.copy(request.name, sizeof(request.name) - 1);
    request.size = info.size;
    std::memcpy(buffer.data(), &request, sizeof(request));
    length = static_cast<socklen_t>(buffer.size());
    if (::getsockopt(fd, F::kLevel, F::kGetEntries, buffer.data(), &length) != 0) {
      if (errno == EAGAIN) continue;  // replaced between the two calls
      return std::nullopt;
    }
    FirewallTable out{F::kKind, {}, name, F::kFamily == AF_INET, F::kFamily == AF_INET6, {}};
    const std::string_view entries(buffer.data() + sizeof(typename F::Entries), info.size);
    LegacyTable<F>(info, entries).read(out);
    return out;
  }
  return std::nullopt;
}

template <class F>
void read_family(std::vector<FirewallTable>& out) {
  // Asking for a table that nobody uses would make it: only those that exist are looked at.
  std::ifstream names(F::kNames);
  int fd = -1;
  for (std::string name; std::getline(names, name);) {
    if (fd < 0) fd = ::socket(F::kFamily, SOCK_RAW | SOCK_CLOEXEC, IPPROTO_RAW);
    if (fd < 0) return;
    if (auto table = read_table<F>(fd, name)) out.push_back(std::move(*table));
  }
  if (fd >= 0) ::close(fd);
}

}  // namespace

std::vector<FirewallTable> read_legacy_iptables() {
  std::vector<FirewallTable> out;
  read_family<V4>(out);
  read_family<V6>(out);
  return out;
}

}  // namespace egw::common
