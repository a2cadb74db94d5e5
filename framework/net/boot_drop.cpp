// See boot_drop.hpp. rtnetlink(7), fib_rules(linux/fib_rules.h), by libnl-route.
#include "egw/net/boot_drop.hpp"

#include <linux/fib_rules.h>
#include <linux/rtnetlink.h>
#include <netlink/netlink.h>
#include <netlink/route/rule.h>

#include <memory>
#include <string>

#include "egw/net/netlink.hpp"

namespace egw::net {
namespace {

constexpr const char* kWhose = "boot drop (CAP_NET_ADMIN is needed)";

using NlAddress = std::unique_ptr<nl_addr, NetlinkFree>;
using Rule = std::unique_ptr<rtnl_rule, NetlinkFree>;

Result<NetlinkSocket> connect_to_kernel() {
  NetlinkSocket socket(nl_socket_alloc());
  if (!socket) return fail(Errc::kInternal, kWhose, "no memory for a netlink socket");
  if (const int code = nl_connect(socket.get(), NETLINK_ROUTE); code < 0) {
    return netlink_error(kWhose, "no netlink socket", code);
  }
  return socket;
}

int native(model::Family family) { return family == model::Family::kV4 ? AF_INET : AF_INET6; }

NlAddress to_nl(const model::Prefix& prefix) {
  const bool v4 = prefix.family() == model::Family::kV4;
  NlAddress address(
      nl_addr_build(native(prefix.family()), prefix.address().bytes().data(), v4 ? 4U : 16U));
  if (address) nl_addr_set_prefixlen(address.get(), static_cast<int>(prefix.length()));
  return address;
}

// inside: null: drop.
Result<void> add_rule(nl_sock* socket, const model::Prefix& from, const model::Prefix* inside) {
  const Rule rule(rtnl_rule_alloc());
  const NlAddress source = to_nl(from);
  if (!rule || !source) return fail(Errc::kInternal, kWhose, "no memory for a rule");
  rtnl_rule_set_family(rule.get(), native(from.family()));
  rtnl_rule_set_protocol(rule.get(), kBootRuleProtocol);
  rtnl_rule_set_src(rule.get(), source.get());
  if (inside != nullptr) {
    const NlAddress destination = to_nl(*inside);
    if (!destination) return fail(Errc::kInternal, kWhose, "no memory for a rule");
    rtnl_rule_set_prio(rule.get(), kBootRulePreference);
    rtnl_rule_set_dst(rule.get(), destination.get());
    rtnl_rule_set_action(rule.get(), FR_ACT_TO_TBL);
    rtnl_rule_set_table(rule.get(), RT_TABLE_MAIN);
  } else {
    rtnl_rule_set_prio(rule.get(), kBootRulePreference + 1);
    rtnl_rule_set_action(rule.get(), FR_ACT_BLACKHOLE);
  }
  const int code = rtnl_rule_add(socket, rule.get(), NLM_F_CREATE | NLM_F_EXCL);
  if (code < 0 && code != -NLE_EXIST)
    return netlink_error(kWhose, "rule for " + from.to_string(), code);
  return {};
}

bool is_ours(rtnl_rule* rule) {
  std::uint8_t protocol = 0;
  const std::uint32_t preference = rtnl_rule_get_prio(rule);
  return rtnl_rule_get_protocol(rule, &protocol) == 0 && protocol == kBootRuleProtocol &&
         (preference == kBootRulePreference || preference == kBootRulePreference + 1);
}

}  // namespace

Result<void> raise_boot_drop(const std::vector<model::Prefix>& pods,
                             const std::vector<model::Prefix>& inside) {
  auto socket = connect_to_kernel();
  if (!socket) return tl::unexpected(socket.error());
  for (const auto& pod : pods) {
    // What pods may reach first, so that nothing inside is dropped in between.
    for (const auto& prefix : inside) {
      if (prefix.family() != pod.family()) continue;
      if (auto added = add_rule(socket->get(), pod, &prefix); !added) return added;
    }
    if (auto added = add_rule(socket->get(), pod, nullptr); !added) return added;
  }
  return {};
}

Result<unsigned> lower_boot_drop() {
  auto socket = connect_to_kernel();
  if (!socket) return tl::unexpected(socket.error());
  unsigned removed = 0;
  for (const int family : {AF_INET, AF_INET6}) {
    nl_cache* all = nullptr;
    const int listed = rtnl_rule_alloc_cache(socket->get(), family, &all);
    if (listed == -NLE_AF_NOSUPPORT) continue;  // the kernel was booted without it
    if (listed < 0) return netlink_error(kWhose, "rules cannot be listed", listed);
    const std::unique_ptr<nl_cache, NetlinkFree> cache(all);
    for (nl_object* object = nl_cache_get_first(all); object != nullptr;
         object = nl_cache_get_next(object)) {
      auto* rule = reinterpret_cast<rtnl_rule*>(object);
      if (!is_ours(rule)) continue;
      if (const int code = rtnl_rule_delete(socket->get(), rule, 0); code < 0) {
        return netlink_error(kWhose, "a rule cannot be removed", code);
      }
      ++removed;
    }
  }
  return removed;
}

}  // namespace egw::net
