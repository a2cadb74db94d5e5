// probe(): whether this kernel can carry the datapath, and who else is in the way. Changes nothing.
#include <linux/capability.h>
#include <linux/fib_rules.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "common/tunnel.hpp"
#include "datapath.hpp"

namespace egw::netlink {
namespace {

bool has_net_admin() {
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  __user_cap_data_struct data[2] = {};
  if (::syscall(SYS_capget, &header, data) != 0) return false;
  return (data[0].effective & (1U << CAP_NET_ADMIN)) != 0;
}

std::string text_of(std::uint8_t family, const common::Rule& rule) {
  return std::string("ip ") + (family == AF_INET6 ? "-6 " : "") + "rule " + rule.text();
}

}  // namespace

sdk::Status NetlinkDatapath::probe(std::string_view config, const sdk::NodeConfig& node,
                                   sdk::ProbeSink& out) {
  bool usable = true;
  const auto finding = [&](bool passed, std::string_view code, const std::string& message,
                           bool forbids = true) {
    out.finding(passed, code, message);
    if (!passed && forbids) usable = false;
  };
  const Numbers numbers = parse_config(config);
  const sdk::Status valid = check_node(node);
  finding(valid.ok(), "NodeConfiguration", valid.ok() ? "complete" : valid.text());
  finding(has_net_admin(), "Privileges",
          has_net_admin() ? "CAP_NET_ADMIN is there"
                          : "CAP_NET_ADMIN is missing: run as root or add the capability");
  auto route = common::NetlinkSocket::open(NETLINK_ROUTE);
  auto nft = Nft::open();
  finding(nft.ok(), "Nftables", nft.ok() ? "libnftables works" : nft.status().text());
  if (!valid.ok() || !route || !nft) {
    return sdk::fail(sdk::Code::kUnsupported, "the netlink datapath cannot run here; see findings");
  }
  const auto parent = common::find_link(*route, node.parent_device);
  finding(parent.has_value(), "Underlay",
          parent ? "interface " + node.parent_device + " exists"
                 : "interface " + node.parent_device + " does not exist");
  for (const std::uint8_t family : {std::uint8_t{AF_INET}, std::uint8_t{AF_INET6}}) {
    for (const auto& foreign : common::foreign_rules(*route, family)) {
      const common::Rule& r = foreign.rule;
      const bool uses = (r.mask & node.slot_mask) != 0 &&
                        (r.mask != 0xffffffffU || (r.mark & node.slot_mask) != 0);
      if (uses) {
        finding(false, "MarkConflict",
                text_of(family, r) + " uses mark bits of " + mark_text(node.slot_mask) +
                    "; set marks.slotMask to bits that nobody uses");
      }
      if (r.preference > 0 && r.preference < numbers.rule_preference + kRules &&
          r.preference + kRules > numbers.rule_preference) {
        finding(true, "RulePreference", text_of(family, r) + " stands among egw's preferences");
      }
    }
  }
  const auto forwarding = [&](const std::string& key) {
    const bool on = common::read_sysctl(key) == "1";
    finding(on, "Forwarding",
            on ? key + " is on"
               : key +
                     " is 0: pods' packets are not routed; switch it on or allow "
                     "feature.manageForwarding",
            false);
  };
  if (node.enable_ipv4) forwarding("net/ipv4/ip_forward");
  if (node.enable_ipv6) forwarding("net/ipv6/conf/all/forwarding");
  if (usable) return sdk::ok();
  return sdk::fail(sdk::Code::kUnsupported, "the netlink datapath cannot run here; see findings");
}

}  // namespace egw::netlink
