// The faults of the deliberately wrong datapaths (wrapper.hpp). Which case is to catch which stands
// in caught.txt.
#include <linux/bpf.h>
#include <linux/if_link.h>
#include <net/if.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "wrapper.hpp"

namespace wrong {
namespace {

// What a covered packet meets when its egress has no owner, instead of drop.
void leak_without_owner(Memory&, Edited& e) {
  for (auto& rules : e.rules) {
    for (auto& rule : rules) {
      for (const auto& egress : e.egresses) {
        if (egress.id == rule.egress_id && egress.owner == EGW_OWNER_NONE) {
          rule.action = EGW_ACTION_BYPASS;
        }
      }
    }
  }
}

void forget_ipv6(Memory&, Edited& e) {
  std::erase_if(e.endpoints, [](const egw_endpoint& p) { return p.address.family == 6; });
}

void forget_cluster_prefixes(Memory&, Edited& e) { e.node.cluster_prefixes = {}; }

void nodeip_is_bypass(Memory&, Edited& e) {
  for (auto& rules : e.rules) {
    for (auto& rule : rules) {
      if (rule.action == EGW_ACTION_NODEIP) rule.action = EGW_ACTION_BYPASS;
    }
  }
}

void drop_is_bypass(Memory&, Edited& e) {
  for (auto& rules : e.rules) {
    for (auto& rule : rules) {
      if (rule.action == EGW_ACTION_DROP) rule.action = EGW_ACTION_BYPASS;
    }
  }
}

// A rule inside another one's prefix does not count.
void widest_prefix_wins(Memory&, Edited& e) {
  for (auto& rules : e.rules) {
    const auto copy = rules;
    std::erase_if(rules, [&](const egw_class_rule& inner) {
      for (const auto& outer : copy) {
        const auto& a = outer.destination;
        const auto& b = inner.destination;
        if (a.addr.family == b.addr.family && a.len < b.len &&
            std::memcmp(a.addr.bytes, b.addr.bytes, a.len / 8) == 0) {
          return true;
        }
      }
      return false;
    });
  }
}

// An endpoint once known stays.
void never_prune(Memory& m, Edited& e) {
  for (const auto& p : e.endpoints) {
    m.endpoints[std::string(reinterpret_cast<const char*>(&p.address), sizeof(p.address))] = p;
  }
  if (e.change.full != 0 && !e.classes.empty()) {
    e.endpoints.clear();
    for (const auto& [key, p] : m.endpoints) e.endpoints.push_back(p);
  }
  e.change.deleted_endpoints = {};
}

void keep_peers(Memory&, Edited& e) { e.change.deleted_peers = {}; }

void only_the_owner_serves(Memory&, Edited& e) {
  for (auto& egress : e.egresses) egress.may_serve = egress.owner == EGW_OWNER_SELF ? 1 : 0;
}

bool nothing(Memory&, const egw_change&) { return true; }

bool for_ever(Memory&, const egw_change&) {
  while (true) pause();
}

bool print(Memory&, const egw_change&) {
  std::puts("a line on stdout");
  return false;
}

void start_a_daemon() {
  if (fork() != 0) return;
  setsid();
  while (true) pause();
}

void end_the_process() { _exit(0); }

bool not_the_second_time(Memory& m, const egw_change& c) { return c.full != 0 && m.applies > 0; }

// A process for each egress IP of a gateway, as a script of `iptables` lines would be.
void execute_per_egress(Memory&, Edited& e) {
  for (const auto& egress : e.egresses) {
    if (egress.may_serve != 0 && std::system("true") != 0) return;
  }
}

// A program that does nothing. It lasts as long as this process, as would one of a plugin that
// forgets to close a descriptor.
long load_program(std::uint32_t type, std::int32_t verdict) {
  const std::array<bpf_insn, 2> instructions{
      {{BPF_ALU64 | BPF_MOV | BPF_K, BPF_REG_0, 0, 0, verdict}, {BPF_JMP | BPF_EXIT, 0, 0, 0, 0}}};
  constexpr const char* kLicense = "GPL";
  bpf_attr load{};
  load.prog_type = type;
  load.insn_cnt = instructions.size();
  load.insns = reinterpret_cast<std::uintptr_t>(instructions.data());
  load.license = reinterpret_cast<std::uintptr_t>(kLicense);
  return syscall(SYS_bpf, BPF_PROG_LOAD, &load, sizeof(load));
}

// The same with a link and no pin, on the uplink.
bool leave_program(std::uint32_t type, std::uint32_t place, std::int32_t verdict,
                   std::uint32_t flags) {
  bpf_attr link{};
  link.link_create.prog_fd = static_cast<std::uint32_t>(load_program(type, verdict));
  link.link_create.target_ifindex = if_nametoindex("eth0");
  link.link_create.attach_type = place;
  link.link_create.flags = flags;
  return syscall(SYS_bpf, BPF_LINK_CREATE, &link, sizeof(link)) >= 0;
}

void leave_loaded() { load_program(BPF_PROG_TYPE_SCHED_CLS, 0); }

void leave_xdp() { leave_program(BPF_PROG_TYPE_XDP, BPF_XDP, XDP_PASS, XDP_FLAGS_SKB_MODE); }

void leave_tcx() {
  constexpr std::uint32_t kTcxEgress = 47;  // BPF_TCX_EGRESS, which Debian 12's headers lack
  if (leave_program(BPF_PROG_TYPE_SCHED_CLS, kTcxEgress, -1, 0)) return;
  // A kernel without tcx has classifiers.
  if (std::system("tc qdisc replace dev eth0 clsact") != 0) std::perror("wrong plugin");
}

// The right plugin is netlink; what is taken out of its tables below is what these names stand for.
constexpr const char* kRulePerEndpoint =
    "for f in ip ip6; do nft list table $f linear >/dev/null 2>&1 && nft delete table $f linear; "
    "done; "
    "n=$(nft list map ip egw endpoints | grep -o '10[.][0-9.]* :' | wc -l); test $n -gt 1000 || "
    "exit 0; "
    "(echo 'add table ip linear'; echo 'add chain ip linear c { type filter hook prerouting "
    "priority -95; }'; "
    "for i in $(seq 5000); do echo \"add rule ip linear c ip saddr 10.$((i / 250 + 128)).$((i % "
    "250)).1 counter\"; "
    "done) | nft -f -";

// 5,000 rules that are walked by what comes out of the tunnel, once the node has 3,000 peers; and
// by first packets, in nat, once it has 5,000 egress IPs.
#define FIVE_THOUSAND(HOOK, RULE)                                                                \
  "nft list table ip linear >/dev/null 2>&1 && nft delete table ip linear; (echo 'add table ip " \
  "linear'; echo 'add chain ip linear c { " HOOK                                                 \
  "; }'; echo 'add rule ip linear c iifname != egress.vxlan return'; for i in $(seq 5000); do "  \
  "echo \"add rule ip linear c " RULE                                                            \
  " 10.200.$((i / 250)).$((i % 250)) counter\"; done) | nft -f -"

constexpr const char* kRulePerPeer =
    "test $(bridge fdb show dev egress.vxlan | wc -l) -gt 1000 || exit 0; " FIVE_THOUSAND(
        "type filter hook prerouting priority -95", "ip saddr");
constexpr const char* kRulePerEip =
    "test $(nft list set ip egw eips | grep -o '10[.]7[.]' | wc -l) -gt 1000 || exit "
    "0; " FIVE_THOUSAND("type nat hook postrouting priority 50", "ip daddr");

constexpr Fault kFaults[] = {
    {.name = "does-nothing", .instead = nothing},
    {.name = "leaks-without-owner", .edit = leak_without_owner},
    {.name = "forgets-ipv6", .edit = forget_ipv6},
    {.name = "forgets-cluster-prefixes", .edit = forget_cluster_prefixes},
    {.name = "widest-prefix-wins", .edit = widest_prefix_wins},
    {.name = "nodeip-is-bypass", .edit = nodeip_is_bypass},
    {.name = "drop-is-bypass", .edit = drop_is_bypass},
    {.name = "never-prunes", .edit = never_prune},
    {.name = "keeps-peers", .edit = keep_peers},
    {.name = "only-the-owner-serves", .edit = only_the_owner_serves},
    {.name = "rebuilds", .purge_before_apply = true},
    {.name = "adopts-nothing", .purge_at_first_apply = true},
    {.name = "cleans-up-at-close", .purge_at_close = true},
    {.name = "repairs-nothing", .instead = not_the_second_time},
    {.name = "counts-no-repair", .counts_no_repair = true},
    {.name = "tells-no-drift", .tells_no_drift = true},
    {.name = "tells-no-tables", .hides_drift_of = "nftables"},
    {.name = "ebpf-tells-no-programs", .hides_drift_of = "BPF program"},
    {.name = "ebpf-tells-no-pins", .hides_drift_of = "BPF pins"},
    {.name = "iptables-tells-no-chains", .hides_drift_of = "chain"},
    {.name = "iptables-tells-no-sets", .hides_drift_of = "ipset"},
    {.name = "always-healthy", .always_healthy = true},
    {.name = "forgets-no-connection", .forgets_nothing = true},
    {.name = "purges-nothing", .purges_nothing = true},
    {.name = "purge-leaves-a-rule", .after_purge = "ip rule add pref 77 fwmark 0x5 lookup 77"},
    {.name = "purge-leaves-an-mtu", .after_purge = "ip link set eth0 mtu 1400"},
    {.name = "purge-leaves-promiscuity", .after_purge = "ip link set eth0 promisc on"},
    {.name = "purge-leaves-xdp", .at_purge = leave_xdp},
    {.name = "purge-leaves-a-program", .at_purge = leave_loaded},
    {.name = "purge-leaves-tcx", .at_purge = leave_tcx},
    {.name = "purge-leaves-a-qdisc", .after_purge = "tc qdisc replace dev eth0 root pfifo"},
    {.name = "purge-leaves-a-nexthop", .after_purge = "ip nexthop replace id 77 dev eth0"},
    {.name = "purge-leaves-a-policy",
     .after_purge = "ip xfrm policy update src 10.0.0.0/8 dst 10.9.0.0/16 dir out action block"},
    {.name = "purges-others", .after_purge = "nft flush ruleset"},
    {.name = "one-fails-all", .one_fails_all = true},
    {.name = "hides-failures", .unnamed_failures = true},
    {.name = "takes-any-base", .takes_any_base = true},
    {.name = "observes-text", .observes_text = true},
    {.name = "counts-backwards", .counts_backwards = true},
    {.name = "probe-changes",
     .after_probe = "nft add table ip probed; nft add chain ip probed c; "
                    "nft add rule ip probed c accept"},
    {.name = "probe-makes-chains",
     .after_probe = "nft 'add table ip probed; add chain ip probed c { type filter hook prerouting "
                    "priority 0; }'"},
    {.name = "probe-makes-tables", .after_probe = "iptables-legacy -w -t mangle -S"},
    {.name = "open-changes", .after_open = "ip rule add pref 78 fwmark 0x5 lookup 78"},
    {.name = "takes-forged-frames",
     .after_apply = "for t in ip ip6; do nft flush chain $t egw from_wire; done"},
    {.name = "eip-is-local",
     .after_apply = "ip addr show dev egress.vxlan | grep -q 172.31.0.2/ && "
                    "ip addr replace 10.6.1.56/32 dev eth0; true"},
    {.name = "masqueraded",
     .after_apply = "for t in ip ip6; do nft insert rule $t egw translate accept; done"},
    {.name = "clears-foreign-marks",
     .after_apply = "nft delete table inet clears 2>/dev/null; nft 'add table inet clears; "
                    "add chain inet clears c { type filter hook postrouting priority 299; }; "
                    "add rule inet clears c meta mark set 0'"},
    {.name = "hangs", .instead = for_ever},
    {.name = "prints", .instead = print},
    {.name = "leaves-a-process", .at_open = start_a_daemon},
    {.name = "exits-in-open", .at_open = end_the_process},
    {.name = "writes-sysctls",
     .after_apply = "echo 1 >/proc/sys/net/netfilter/nf_conntrack_tcp_be_liberal"},
    {.name = "linear-cost", .after_apply = kRulePerEndpoint},
    {.name = "linear-in-peers", .after_apply = kRulePerPeer},
    {.name = "linear-first-packet", .after_apply = kRulePerEip},
    {.name = "executes-per-egress", .edit = execute_per_egress},
};

}  // namespace

const Fault* find_fault(std::string_view name) {
  for (const auto& f : kFaults) {
    if (f.name == name) return &f;
  }
  return nullptr;
}

}  // namespace wrong
