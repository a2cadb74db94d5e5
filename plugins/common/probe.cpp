// probe(): whether this kernel can carry the datapath, and who else is in the way. Changes nothing.
#include "probe.hpp"

#include <linux/capability.h>
#include <linux/fib_rules.h>
#include <linux/netfilter/nf_conntrack_common.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "firewall_nft.hpp"
#include "plan.hpp"
#include "rtnl.hpp"
#include "tunnel.hpp"

namespace egw::common {
namespace {

bool has_net_admin() {
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  __user_cap_data_struct data[2] = {};
  if (::syscall(SYS_capget, &header, data) != 0) return false;
  return (data[0].effective & (1U << CAP_NET_ADMIN)) != 0;
}

std::string text_of(std::uint8_t family, const Rule& rule) {
  return std::string("ip ") + (family == AF_INET6 ? "-6 " : "") + "rule " + rule.text();
}

constexpr std::size_t kMostConflicts = 10;  // of one kind that are named

// " (meta mark 0x1 drop)", or nothing.
std::string quoted_text(const FirewallTable& table, const std::string& chain,
                        const FirewallRule& rule) {
  const std::string text = rule_text(table, chain, rule);
  return text.empty() ? "" : " (" + text + ")";
}

// What a rule does with our bits of a mark: "" when nothing.
std::string use_text(const MarkUse& use, std::uint32_t ours, const char* which, const char* key) {
  if (!use.uses(ours)) return {};
  const bool tests = (use.tested & ours) != 0, sets = (use.set & ours) != 0;
  return std::string(tests && sets ? "tests and sets"
                     : tests       ? "tests"
                                   : "sets") +
         " bits " + mark_text((use.tested | use.set) & ours) + " of the " + which + ", which " +
         key + " " + mark_text(ours) + " gives to egw";
}

// Looks at every rule of others for our mark bits.
class MarkFindings {
 public:
  MarkFindings(const sdk::NodeConfig& node, sdk::ProbeSink& out) : node_(node), out_(out) {}

  void look_at(const FirewallTable& table) {
    // Of the iptables datapath: ours, whichever datapath asks.
    const auto ours = [](const std::string& chain) { return chain.rfind("EGW-", 0) == 0; };
    for (const auto& [name, chain] : table.chains) {
      if (ours(name)) continue;
      std::uint64_t before = 0;  // a verdict map gives several rules of one handle
      for (const FirewallRule& rule : chain.rules) {
        if (ours(rule.target)) continue;
        if (rule.handle == 0 || rule.handle != before) look_at(table, name, rule);
        before = rule.handle;
      }
    }
  }
  [[nodiscard]] std::size_t conflicts() const { return conflicts_; }
  static std::string further(std::size_t found) {
    const std::size_t more = found - kMostConflicts;
    return "and " + std::to_string(more) + (more == 1 ? " further rule" : " further rules");
  }
  void finish() {
    if (conflicts_ == 0) {
      out_.finding(true, "MarkConflict",
                   "no other rule uses mark bits " + mark_text(node_.slot_mask) +
                       " or connection mark bits " + mark_text(node_.ct_mask) + "; " +
                       std::to_string(rules_) + " nftables and iptables rules looked at");
    }
    if (conflicts_ > kMostConflicts) {
      out_.finding(false, "MarkConflict", further(conflicts_));
    }
    if (overwriting_ > kMostConflicts) {
      out_.finding(false, "MarkOverwritten", further(overwriting_));
    }
  }

 private:
  void look_at(const FirewallTable& table, const std::string& chain, const FirewallRule& rule) {
    ++rules_;
    const std::string mark = use_text(rule.mark, node_.slot_mask, "packet mark", "marks.slotMask");
    const std::string ct = use_text(rule.ct_mark, node_.ct_mask, "connection mark", "marks.ctMask");
    const bool overwrites = rule.mark.overwritten || rule.ct_mark.overwritten;
    if (mark.empty() && ct.empty() && !overwrites) return;
    const bool conflict = !mark.empty() || !ct.empty();
    if ((conflict ? ++conflicts_ : ++overwriting_) > kMostConflicts) return;
    const std::string where =
        table.where(chain) + ", " + rule.name + quoted_text(table, chain, rule) + " ";
    if (conflict) {
      const std::string key = mark.empty() ? "marks.ctMask"
                              : ct.empty() ? "marks.slotMask"
                                           : "marks.slotMask and marks.ctMask";
      out_.finding(false, "MarkConflict",
                   where + mark + (mark.empty() || ct.empty() ? "" : " and ") + ct + "; set " +
                       key + " to bits that nobody uses, or change the rule");
    } else {
      out_.finding(
          false, "MarkOverwritten",
          where + "writes the whole " +
              (rule.mark.overwritten ? "packet mark" : "connection mark") +
              ", egw's bits with it: packets of pods that it matches lose their way; let it "
              "write under a mask");
    }
  }

  const sdk::NodeConfig& node_;
  sdk::ProbeSink& out_;
  std::size_t conflicts_ = 0, overwriting_ = 0, rules_ = 0;
};

struct TunnelQuestion {
  const char* code;
  std::string what;  // "pods' packets that go into egress.vxlan"
  std::string help;
  TunnelPacket packet;
};

// The packets that others have to let pass.
std::vector<TunnelQuestion> tunnel_questions(const sdk::NodeConfig& node) {
  std::vector<TunnelQuestion> out;
  const std::string& device = node.tunnel_device;
  const std::string port = std::to_string(node.tunnel_port);
  TunnelPacket input;
  input.hook = FilterHook::kInput;
  input.family = node.underlay.is_v6() ? 6 : 4;
  input.device = device;
  input.in = node.parent_device;
  input.state = NF_CT_STATE_UNTRACKED_BIT;
  input.protocol = IPPROTO_UDP;
  input.port = node.tunnel_port;
  out.push_back({"TunnelInput", "the tunnel's packets from other nodes (UDP port " + port + ")",
                 "accept udp dport " + port + " that comes in by " + node.parent_device, input});
  for (const std::uint8_t family : {std::uint8_t{4}, std::uint8_t{6}}) {
    if (!(family == 4 ? node.enable_ipv4 : node.enable_ipv6)) continue;
    const std::string words = family == 4 ? "IPv4" : "IPv6";
    for (const bool established : {false, true}) {
      TunnelPacket in, to;
      in.family = to.family = family;
      in.device = to.device = device;
      in.state = to.state = NF_CT_STATE_BIT(established ? IP_CT_ESTABLISHED : IP_CT_NEW);
      in.in = device;
      to.out = device;
      const std::string kind = established ? " of running connections (" + words + ")"
                                           : " that open a connection (" + words + ")";
      out.push_back({"TunnelForward", "packets into " + device + kind,
                     "accept what goes out by " + device, to});
      out.push_back({"TunnelForward", "packets from " + device + kind,
                     "accept what comes in by " + device, in});
    }
  }
  return out;
}

// One finding for each table and reason, with all that it drops.
void look_for_drops(const std::vector<FirewallTable>& tables, const sdk::NodeConfig& node,
                    sdk::ProbeSink& out) {
  bool all_pass = true;
  const auto questions = tunnel_questions(node);
  for (const FirewallTable& table : tables) {
    std::map<std::string, std::vector<const TunnelQuestion*>> by_reason;
    for (const TunnelQuestion& q : questions) {
      const auto dropped = where_dropped(table, q.packet);
      if (!dropped) continue;
      std::string reason = table.where(dropped->chain) + ": " + dropped->by;
      if (dropped->rule != nullptr) reason += quoted_text(table, dropped->chain, *dropped->rule);
      by_reason[reason].push_back(&q);
    }
    for (const auto& [reason, dropped] : by_reason) {
      std::string what, help;
      for (const TunnelQuestion* q : dropped) {
        what += (what.empty() ? "" : ", ") + q->what;
        if (help.find(q->help) == std::string::npos) help += (help.empty() ? "" : ", ") + q->help;
      }
      out.finding(false, dropped.front()->code, reason + " drops " + what + "; " + help);
      all_pass = false;
    }
  }
  if (all_pass) {
    out.finding(true, "TunnelForward", "no FORWARD or INPUT chain drops the tunnel for certain");
  }
}

// Others' `ip rule`s: those that use our mark bits forbid to run.
bool look_at_rules(NetlinkSocket& route, const ProbedDatapath& datapath,
                   const sdk::NodeConfig& node, sdk::ProbeSink& out) {
  bool usable = true;
  for (const std::uint8_t family : {std::uint8_t{AF_INET}, std::uint8_t{AF_INET6}}) {
    for (const auto& foreign : foreign_rules(route, family)) {
      const Rule& r = foreign.rule;
      const bool uses = (r.mask & node.slot_mask) != 0 &&
                        (r.mask != 0xffffffffU || (r.mark & node.slot_mask) != 0);
      if (uses) {
        usable = false;
        out.finding(false, "MarkConflict",
                    text_of(family, r) + " uses mark bits of " + mark_text(node.slot_mask) +
                        "; set marks.slotMask to bits that nobody uses");
      }
      if (r.preference > 0 && r.preference < datapath.preference + datapath.preferences &&
          r.preference + datapath.preferences > datapath.preference) {
        out.finding(true, "RulePreference", text_of(family, r) + " stands among egw's preferences");
      }
    }
  }
  return usable;
}

// A remark: IPv4 goes on.
void look_at_mtu(const Link& parent, const sdk::NodeConfig& node, sdk::ProbeSink& out) {
  if (!node.enable_ipv6) return;
  const std::string narrow = too_narrow(tunnel_spec(node), parent.mtu);
  out.finding(narrow.empty(), "TunnelMtu",
              !narrow.empty() ? narrow
                              : "uplink " + node.parent_device + " has MTU " +
                                    std::to_string(parent.mtu) + ": IPv6 fits into the tunnel");
}

}  // namespace

sdk::Status probe_host(const ProbedDatapath& datapath, const sdk::NodeConfig& node,
                       sdk::ProbeSink& out) {
  const auto unusable = [&] {
    return sdk::fail(sdk::Code::kUnsupported, "the " + std::string(datapath.name) +
                                                  " datapath cannot run here; see findings");
  };
  bool usable = true;
  const auto finding = [&](bool passed, std::string_view code, const std::string& message,
                           bool forbids = true) {
    out.finding(passed, code, message);
    if (!passed && forbids) usable = false;
  };
  const sdk::Status valid = check_node(node);
  finding(valid.ok(), "NodeConfiguration", valid.ok() ? "complete" : valid.text());
  finding(has_net_admin(), "Privileges",
          has_net_admin() ? "CAP_NET_ADMIN is there"
                          : "CAP_NET_ADMIN is missing: run as root or add the capability");
  auto route = NetlinkSocket::open(NETLINK_ROUTE);
  auto netfilter = NetlinkSocket::open(NETLINK_NETFILTER);
  const bool tools = datapath.tools();
  if (!tools || !valid.ok() || !route || !netfilter) return unusable();
  const auto parent = find_link(*route, node.parent_device);
  finding(parent.has_value(), "Underlay",
          parent ? "interface " + node.parent_device + " exists"
                 : "interface " + node.parent_device + " does not exist");
  if (parent) look_at_mtu(*parent, node, out);
  if (!look_at_rules(*route, datapath, node, out)) usable = false;
  // What others' filters do with marks and with the tunnel. Remarks but for conflicts.
  std::vector<FirewallTable> tables = read_nftables(*netfilter, *route);
  for (FirewallTable& table : read_legacy_iptables()) tables.push_back(std::move(table));
  MarkFindings marks(node, out);
  for (const FirewallTable& table : tables) marks.look_at(table);
  marks.finish();
  if (marks.conflicts() != 0) usable = false;
  look_for_drops(tables, node, out);
  const auto forwarding = [&](const std::string& key) {
    const bool on = read_sysctl(key) == "1";
    finding(on, "Forwarding",
            on ? key + " is on"
               : key +
                     " is 0: pods' packets are not routed; switch it on or allow "
                     "feature.manageForwarding",
            false);
  };
  if (node.enable_ipv4) forwarding("net/ipv4/ip_forward");
  if (node.enable_ipv6) forwarding("net/ipv6/conf/all/forwarding");
  return usable ? sdk::ok() : unusable();
}

}  // namespace egw::common
