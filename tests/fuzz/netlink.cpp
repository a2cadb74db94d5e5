// What the kernel sends, as the plugins read it: netlink messages into attributes, nested; xtables
// matches and targets and nftables expressions into what probe judges. The kernel is trusted to
// send true things; that nothing is read outside the message is held here.
#include "common/netlink.hpp"

#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>

#include <cstring>
#include <vector>

#include "common/firewall_expr.hpp"
#include "fuzz/fuzz.hpp"

using namespace egw;

namespace {

void read_all(const common::Attributes& a, int max) {
  for (int type = 0; type <= max; ++type) {
    (void)a.u8(type);
    (void)a.be16(type);
    (void)a.be32(type);
    (void)a.text(type);
    (void)a.address(type);
    (void)common::bytes_of(a[type]);
  }
}

void expressions(const nlattr* list) {
  static const std::map<std::uint32_t, std::string> kLinks{{1, "lo"}, {2, "eth0"}};
  static const std::vector<common::Element> kElements{{std::string("\0\x16", 2), false, {}, {}},
                                                      {std::string("\0\x17", 2), true, {}, {}}};
  const common::RuleReader::Context context{2, kLinks,
                                            [](const std::string&) { return &kElements; }};
  common::FirewallRule rule;
  common::RuleReader reader(context, rule);
  if (list == nullptr) return;
  int rest = nla_len(list);
  for (const auto* e = static_cast<const nlattr*>(nla_data(list)); nla_ok(e, rest);
       e = nla_next(e, &rest)) {
    const common::Attributes expression(e, NFTA_EXPR_MAX);
    reader.expression(expression.text(NFTA_EXPR_NAME), expression[NFTA_EXPR_DATA]);
  }
  common::FirewallTable table{"nftables", "ip", "t", true, true, {}};
  table.chains["c"] = {common::FilterHook::kForward, true, {rule}};
  common::TunnelPacket packet;
  packet.device = packet.in.emplace("egress.vxlan");
  (void)common::where_dropped(table, packet);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  // Aligned as a receive buffer is.
  std::vector<std::uint32_t> aligned((size + 3) / 4);
  std::memcpy(aligned.data(), data, size);
  int rest = static_cast<int>(size);
  for (const auto* h = reinterpret_cast<const nlmsghdr*>(aligned.data()); nlmsg_ok(h, rest);
       h = nlmsg_next(const_cast<nlmsghdr*>(h), &rest)) {
    const common::Attributes rule(h, sizeof(nfgenmsg), NFTA_RULE_MAX);
    read_all(rule, NFTA_RULE_MAX);
    expressions(rule[NFTA_RULE_EXPRESSIONS]);
  }
  if (size > 2) {
    static const char* const kNames[] = {"mark",     "connmark", "conntrack", "state",
                                         "udp",      "tcp",      "REJECT",    "MARK",
                                         "CONNMARK", "TPROXY",   "NFQUEUE",   "x"};
    common::FirewallRule rule;
    const std::string_view info = fuzz::text(data + 2, size - 2);
    common::read_xt_match(kNames[data[0] % 12], data[1] % 4, info, rule);
    common::read_xt_target(kNames[data[0] % 12], data[1] % 4, info, rule);
  }
  return 0;
}
