"""probe: other people's rules on our mark bits, and filters that drop the tunnel, with real rules; nothing is
changed by looking."""

import re
import subprocess

import pytest
from rig import Rig, net


@pytest.fixture(name="rig", scope="module")
def fixture_rig():
    with Rig(nodes=1) as rig:
        yield rig


@pytest.fixture(name="clean", autouse=True)
def fixture_clean(rig):
    """Every test begins without rules; legacy tables stay but empty."""
    yield
    sh(rig, "nft flush ruleset; for t in iptables-legacy ip6tables-legacy; do for b in filter mangle nat raw; do "
            "if grep -qx $b /proc/net/$(echo $t | sed 's/tables-legacy/_tables_names/'); then "
            "$t -w -t $b -F; $t -w -t $b -X; fi; done; done; "
            "for t in iptables-legacy ip6tables-legacy; do if grep -qx filter /proc/net/$(echo $t | sed "
            "'s/tables-legacy/_tables_names/'); then $t -w -P FORWARD ACCEPT; $t -w -P INPUT ACCEPT; fi; done; "
            "ip rule | sed -n 's/^77:.*/77/p' | while read p; do ip rule del pref $p; done")


def lines(text):
    """nft wants a new line before and after a closing brace of a chain."""
    return re.sub(r"}(?=\s*(chain|}))", "}\n", re.sub(r"\s*}", "\n}", text))


def sh(rig, command):
    net.enter(rig.ns("n1"), "sh", "-ec", lines(command) if "nft '" in command else command)


def nft(rig, text):
    net.enter(rig.ns("n1"), "nft", "-f", "-", stdin=lines(text))


def probe(rig, **node):
    """{code: [message of each failed finding]} and whether the datapath may run."""
    answer = rig.driver("n1").must("probe", node={**rig.node_config("n1"), **node})
    failed = {}
    for f in answer["findings"]:
        if not f["ok"]:
            failed.setdefault(f["code"], []).append(f["message"])
    return failed, answer["findings"]


def state(rig):
    return net.enter(rig.ns("n1"), "sh", "-c", "nft -a list ruleset; ip rule; ip -6 rule; ip route show table all; "
                     "cat /proc/net/ip_tables_names /proc/net/ip6_tables_names; ip -o link; sysctl -a 2>/dev/null "
                     "| grep -v -e random -e nf_conntrack_count -e vmstat -e fs. -e kernel. -e net.netfilter.nf_log")


NFT = "table inet foreign {{ chain pre {{ type filter hook prerouting priority -150; {} }} }}"
# What a rule says -> words that the finding must have.
CONFLICTS = {
    "nft tests our bit": (NFT.format("meta mark & 0x01000000 == 0x01000000 accept"),
                          "table inet foreign, chain pre, rule handle", "0x01000000", "marks.slotMask", "tests"),
    "nft sets our bit": (NFT.format("meta mark set meta mark | 0x04000000"), "sets bits 0x04000000"),
    "nft clears our bits": (NFT.format("meta mark set meta mark & 0x00ffffff"), "sets bits 0xff000000"),
    "nft sets a whole mark with our bit": (NFT.format("meta mark set 0x20000001"), "sets bits 0x20000000"),
    "nft matches a whole mark with our bit": (NFT.format("meta mark 0x20000001 drop"), "tests bits 0x20000000"),
    "nft matches any mark": (NFT.format("meta mark != 0 accept"), "tests bits 0xff000000"),
    "nft set of marks": (NFT.format("meta mark { 0x1, 0x40000000 } accept"), "tests bits 0x40000000"),
    "nft verdict map of marks": (NFT.format("meta mark & 0xf0000000 vmap { 0x10000000 : drop }"),
                                 "tests bits 0xf0000000"),
    "nft range of marks": (NFT.format("meta mark 1-0x1fffffff drop"), "tests bits"),
    "nft in a chain of its own": ("table ip a { chain c { ct mark & 0x02000000 != 0 drop } }",
                                  "table ip a, chain c", "connection mark", "marks.ctMask"),
    "nft restores the mark": (NFT.format("meta mark set ct mark"), "packet mark"),
    "nft saves the mark": (NFT.format("ct mark set meta mark"), "connection mark"),
    "nft shifts": (NFT.format("meta mark set (ct mark & 0xff) << 24"), "sets bits 0xff000000 of the packet mark"),
    "nft in bridge": ("table bridge b { chain c { type filter hook prerouting priority 0; meta mark set meta mark "
                      "| 0x80000000; } }", "table bridge b, chain c"),
}
COMMANDS = {
    "iptables-nft tests": ("iptables-nft -w -t mangle -A PREROUTING -m mark --mark 0x1000000/0x1000000 -j ACCEPT",
                           "table ip mangle, chain PREROUTING, rule handle", "tests bits 0x01000000"),
    "ip6tables-nft sets": ("ip6tables-nft -w -t mangle -A FORWARD -j MARK --or-mark 0x2000000",
                           "table ip6 mangle, chain FORWARD", "sets bits 0x02000000"),
    "iptables-nft connmark": ("iptables-nft -w -t mangle -A PREROUTING -j CONNMARK --restore-mark", "packet mark"),
    "iptables-legacy tests": ("iptables-legacy -w -t mangle -A PREROUTING -s 10.0.0.0/8 -m mark --mark "
                              "0x1000000/0x1000000 -j ACCEPT",
                              "iptables-legacy table mangle, chain PREROUTING, rule 1", "tests bits 0x01000000"),
    "iptables-legacy in a chain": ("iptables-legacy -w -t filter -N mine; iptables-legacy -w -A mine -i eth9 -j RETURN; "
                                   "iptables-legacy -w -A mine -j MARK --set-xmark 0x8000000/0xf000000; "
                                   "iptables-legacy -w -A FORWARD -j mine",
                                   "iptables-legacy table filter, chain mine, rule 2", "sets bits 0x0f000000"),
    "ip6tables-legacy saves": ("ip6tables-legacy -w -t mangle -A POSTROUTING -j CONNMARK --save-mark",
                               "ip6tables-legacy table mangle, chain POSTROUTING, rule 1", "connection mark"),
    "ip rule": ("ip rule add pref 77 fwmark 0x4000000/0xff000000 lookup 99", "ip rule", "0xff000000"),
}


@pytest.mark.parametrize("case", CONFLICTS)
def test_rules_on_our_bits_are_refused_by_name(rig, case):
    text, *words = CONFLICTS[case]
    nft(rig, text)
    conflict(rig, words)


@pytest.mark.parametrize("case", COMMANDS)
def test_iptables_rules_on_our_bits_are_refused_by_name(rig, case):
    command, *words = COMMANDS[case]
    sh(rig, command)
    conflict(rig, words)


def test_what_nftables_does_not_take_is_named(rig):
    """A chain of the trial's name at another hook: its transaction fails, as where the kernel lacks something."""
    nft(rig, 'table netdev egw-try { chain e { type filter hook ingress device "lo" priority 0; } }')
    before = state(rig)
    failed, findings = probe(rig)
    assert list(failed) == ["Nftables"] and "netdev egress hook (Linux 5.16)" in failed["Nftables"][0], findings
    assert state(rig) == before


def conflict(rig, words):
    before = state(rig)
    failed, findings = probe(rig)
    assert list(failed) == ["MarkConflict"] and len(failed["MarkConflict"]) == 1, findings
    for word in words:
        assert word in failed["MarkConflict"][0], failed
    assert state(rig) == before
    refused = rig.driver("n1").ask("probe", node=rig.node_config("n1"))
    assert refused["ok"] and any(f.get("advisory") is False and not f["ok"] for f in refused["findings"]), refused


HARMLESS = {
    "kube-proxy": "iptables-nft -w -t nat -N KUBE-MARK-MASQ; iptables-nft -w -t nat -A KUBE-MARK-MASQ -j MARK --or-mark "
                  "0x4000; iptables-nft -w -t nat -A POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN; "
                  "iptables-nft -w -t nat -A POSTROUTING -j MARK --xor-mark 0x4000; "
                  "iptables-nft -w -t nat -A POSTROUTING -j MASQUERADE --random-fully; "
                  "iptables-nft -w -A FORWARD -m mark --mark 0x8000/0x8000 -j DROP",
    "kube-proxy, legacy": "iptables-legacy -w -t nat -N KUBE-MARK-MASQ; iptables-legacy -w -t nat -A KUBE-MARK-MASQ -j "
                          "MARK --or-mark 0x4000; iptables-legacy -w -t nat -A POSTROUTING -m mark ! --mark "
                          "0x4000/0x4000 -j RETURN; iptables-legacy -w -t nat -A POSTROUTING -j MARK --xor-mark 0x4000",
    "kube-proxy, nftables": "nft 'table ip kube-proxy { chain c { meta mark set meta mark | 0x00004000; meta mark & "
                            "0x00004000 == 0 return; meta mark set meta mark ^ 0x00004000 } }'",
    "Cilium": "iptables-nft -w -t mangle -A PREROUTING -m mark --mark 0x200/0xf00 -j ACCEPT; ip rule add pref 77 fwmark "
              "0x200/0xf00 lookup 2004",
    "a whole mark without our bits": "nft 'table ip a { chain c { meta mark 0x539 accept } }'",
    "not a whole mark": "nft 'table ip a { chain c { meta mark != 0x539 accept } }'",
    "connmark under a mask": "iptables-nft -w -t mangle -A PREROUTING -j CONNMARK --restore-mark --nfmask 0xff --ctmask 0xff",
    "masquerade and filters": "nft 'table inet f { chain c { type filter hook forward priority 0; ct state established "
                              "accept; iifname \"x\" oifname \"y\" tcp dport 80 accept; } chain n { type nat hook "
                              "postrouting priority 100; oifname \"eth0\" masquerade } }'",
    "egw's own tables": "nft 'table ip egw { chain c { meta mark set meta mark | 0x04000000 } }'",
}


@pytest.mark.parametrize("case", HARMLESS)
def test_harmless_rules_pass(rig, case):
    sh(rig, HARMLESS[case])
    failed, findings = probe(rig)
    assert failed == {}
    passed = [f for f in findings if f["code"] == "MarkConflict"]
    assert len(passed) == 1 and passed[0]["ok"] and "looked at" in passed[0]["message"]


def test_other_masks_other_conflicts(rig):
    """The operator's masks decide: Calico's 0xffff0000 with egw moved out of its way, and not."""
    sh(rig, "iptables-nft -w -t mangle -A PREROUTING -m mark --mark 0x10000/0x10000 -j ACCEPT")
    assert probe(rig)[0] == {}
    assert "MarkConflict" in probe(rig, slotMask=0x00ff0000)[0]


@pytest.mark.parametrize("command", [
    "nft 'table ip a { chain c { meta mark set 1 } }'",
    "nft 'table ip a { chain c { ct mark set 1 } }'",
    "iptables-nft -w -t mangle -A PREROUTING -i eth7 -j MARK --set-mark 1",
    "iptables-legacy -w -t mangle -A PREROUTING -i eth7 -j MARK --set-mark 1"])
def test_overwriting_the_whole_mark_is_a_remark(rig, command):
    sh(rig, command)
    failed, findings = probe(rig)
    assert list(failed) == ["MarkOverwritten"], findings
    assert all(f["advisory"] for f in findings if not f["ok"])


def test_many_conflicts_are_counted(rig):
    nft(rig, "table ip a { chain c { " + "meta mark & 0x01000000 != 0 drop; " * 25 + "} }")
    failed, _ = probe(rig)
    assert len(failed["MarkConflict"]) == 11 and "15 further rules" in failed["MarkConflict"][-1]


# ---- FORWARD and INPUT -----------------------------------------------------------------------

FORWARD = "table inet filter {{ chain forward {{ type filter hook forward priority 0; policy {}; {} }} }}"
INPUT = "table inet filter {{ chain input {{ type filter hook input priority 0; policy {}; {} }} }}"
DROPPING = {
    "FORWARD policy": (FORWARD.format("drop", ""), "TunnelForward", "chain forward: its policy drops",
                       "egress.vxlan", "(IPv4)", "(IPv6)", "into", "from"),
    "FORWARD policy, others accepted": (FORWARD.format("drop", "iifname \"lo\" accept; iifname { \"lo\", \"br9\" } tcp "
                                                       "dport 22 accept; iifname \"br9\" oifname \"br9\" accept"),
                                        "TunnelForward", "its policy drops packets from egress.vxlan"),
    "only established": (FORWARD.format("drop", "ct state established,related accept"), "TunnelForward",
                         "open a connection"),
    "only established, by a map": (FORWARD.format("drop", "ct state vmap { established : accept, invalid : drop }"),
                                   "TunnelForward", "open a connection"),
    "a rule of its own": (FORWARD.format("accept", "oifname \"egress.vxlan\" drop"), "TunnelForward",
                          "rule handle", "oifname \"egress.vxlan\" drop"),
    "reject at the end": (FORWARD.format("accept", "jump zone; reject") .replace("table inet filter {", "table inet "
                          "filter { chain zone { iifname \"br9\" accept; } "), "TunnelForward", "reject"),
    "INPUT policy": (INPUT.format("drop", "ct state established,related accept; iif lo accept; tcp dport { 22, 80 } "
                                  "accept; udp dport { 53, 8472 } accept; meta l4proto icmp accept"),
                     "TunnelInput", "chain input: its policy drops", "UDP port 7789", "accept udp dport 7789"),
    "INPUT rule": (INPUT.format("accept", "udp dport 7000-8000 drop"), "TunnelInput", "udp dport 7000-8000 drop"),
    "INPUT policy of firewalld's manner": (
        "table inet firewalld { chain filter_INPUT { type filter hook input priority 10; policy accept; ct state { "
        "established, related } accept; iifname \"lo\" accept; ct state invalid drop; jump zones; reject with icmpx "
        "admin-prohibited; } chain zones { iifname \"eth0\" goto zone_public; } chain zone_public { tcp dport 22 accept; "
        "ip6 daddr fe80::/64 udp dport 546 accept; } }", "TunnelInput", "reject"),
}
DROPPING_COMMANDS = {
    "iptables-nft policy": ("iptables-nft -w -P FORWARD DROP", "TunnelForward", "table ip filter, chain FORWARD: its policy"),
    "iptables-nft, as docker does": ("iptables-nft -w -P FORWARD DROP; iptables-nft -w -N DOCKER-USER; iptables-nft -w -A "
                                     "DOCKER-USER -j RETURN; iptables-nft -w -A FORWARD -j DOCKER-USER; iptables-nft -w -A "
                                     "FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT; "
                                     "iptables-nft -w -A FORWARD -i docker0 -j ACCEPT",
                                     "TunnelForward", "packets from egress.vxlan"),
    "iptables-legacy policy": ("iptables-legacy -w -P FORWARD DROP", "TunnelForward",
                               "iptables-legacy table filter, chain FORWARD: its policy"),
    "ip6tables-legacy policy": ("ip6tables-legacy -w -P FORWARD DROP", "TunnelForward", "ip6tables-legacy table filter",
                                "(IPv6)"),
    "iptables-legacy rule": ("iptables-legacy -w -A FORWARD -i lo -j ACCEPT; iptables-legacy -w -A FORWARD -j DROP",
                             "TunnelForward", "chain FORWARD: rule 2 drops"),
    "iptables-legacy REJECT": ("iptables-legacy -w -N last; iptables-legacy -w -A last -j REJECT; iptables-legacy -w -A "
                               "FORWARD -m conntrack --ctstate ESTABLISHED -j ACCEPT; iptables-legacy -w -A FORWARD -j last",
                               "TunnelForward", "chain last: rule 1 drops", "open a connection"),
    "iptables-legacy INPUT": ("iptables-legacy -w -A INPUT -p udp --dport 7789 -j DROP", "TunnelInput",
                              "chain INPUT: rule 1 drops"),
    "iptables-nft INPUT": ("iptables-nft -w -A INPUT -p udp -m udp --dport 7789 -j DROP", "TunnelInput",
                           "chain INPUT: rule handle"),
    "iptables-nft INPUT policy": ("iptables-nft -w -P INPUT DROP; iptables-nft -w -A INPUT -p tcp --dport 22 -j ACCEPT; "
                                  "iptables-nft -w -A INPUT -m state --state ESTABLISHED -j ACCEPT", "TunnelInput",
                                  "its policy drops"),
}


def dropped(rig, code, words):
    failed, findings = probe(rig)
    assert list(failed) == [code], findings
    for word in words:
        assert word in failed[code][0], failed
    assert all(f["advisory"] for f in findings if not f["ok"]), "a firewall is a remark"


@pytest.mark.parametrize("case", DROPPING)
def test_a_filter_that_drops_the_tunnel_is_named(rig, case):
    text, code, *words = DROPPING[case]
    nft(rig, text)
    dropped(rig, code, words)


@pytest.mark.parametrize("case", DROPPING_COMMANDS)
def test_an_iptables_filter_that_drops_the_tunnel_is_named(rig, case):
    command, code, *words = DROPPING_COMMANDS[case]
    sh(rig, command)
    dropped(rig, code, words)


PASSING = {
    "accept by device": FORWARD.format("drop", "iifname \"egress.vxlan\" accept; oifname \"egress.vxlan\" accept"),
    "accept by a set": FORWARD.format("drop", "iifname { \"egress.vxlan\", \"br9\" } accept; oifname \"egress*\" accept"),
    "established, and by address": FORWARD.format("drop", "ct state established,related accept; ip saddr 10.244.0.0/16 "
                                                  "accept; ip6 saddr fd00:244::/32 accept"),
    "accept first": FORWARD.format("drop", "accept; drop"),
    "unclear": FORWARD.format("drop", "ip saddr vmap { 10.0.0.1 : accept }; ip6 saddr fd00::1 accept"),
    "drops others": FORWARD.format("accept", "iifname \"br9\" drop; tcp dport 25 drop; ct state invalid drop; meta nfproto "
                                   "ipv4 ip daddr 192.0.2.1 drop"),
    "input by port": INPUT.format("drop", "udp dport { 53, 7789 } accept"),
    "input by ports": INPUT.format("drop", "udp dport { 53, 7000-8000 } accept"),
    "input by interface": INPUT.format("drop", "iifname \"eth0\" accept"),
    "input by index": INPUT.format("drop", "iif \"eth0\" accept"),
    "input by peer": INPUT.format("drop", "ip saddr 10.6.0.0/16 accept"),
    "input of untracked": INPUT.format("drop", "ct state established,untracked accept"),
}


@pytest.mark.parametrize("case", PASSING)
def test_a_filter_that_lets_the_tunnel_pass_is_not_named(rig, case):
    nft(rig, PASSING[case])
    failed, findings = probe(rig)
    assert failed == {}, findings


@pytest.mark.parametrize("tool", ["iptables-nft", "iptables-legacy"])
def test_an_iptables_filter_that_lets_the_tunnel_pass(rig, tool):
    sh(rig, f"{tool} -w -P FORWARD DROP; {tool} -w -N ok; {tool} -w -A FORWARD -j ok; {tool} -w -A ok -i egress.vxlan -j "
            f"ACCEPT; {tool} -w -A ok -o egress+ -j ACCEPT; {tool} -w -P INPUT DROP; "
            f"{tool} -w -A INPUT -p udp -m multiport --dports 7789,8472 -j ACCEPT")
    failed, findings = probe(rig)
    assert failed == {}, findings


def test_looking_makes_no_table(rig):
    """Asking the kernel for an iptables-legacy table would make it: probe does not."""
    with Rig(nodes=1) as fresh:
        fresh.driver("n1").must("probe", node=fresh.node_config("n1"))
        assert net.enter(fresh.ns("n1"), "cat", "/proc/net/ip_tables_names", "/proc/net/ip6_tables_names") == ""


def test_the_answer_comes_quickly_beside_a_large_firewall(rig):
    """Ten thousand rules, as kube-proxy writes them."""
    rules = "\n".join(f"add rule ip kube c{i % 100} ip daddr 10.96.{i // 250}.{i % 250} tcp dport 80 counter meta mark set "
                      "meta mark or 0x4000" for i in range(10000))
    done = subprocess.run(net.inside(rig.ns("n1"), "nft", "-f", "-"), text=True, capture_output=True, check=False,
                          input="add table ip kube\n" + "\n".join(f"add chain ip kube c{i}" for i in range(100)) + "\n" + rules)
    assert done.returncode == 0, done.stderr
    failed, findings = probe(rig)  # the host's deadline for probe is 5 s
    assert failed == {}
    assert any("100" in f["message"] and "looked at" in f["message"] for f in findings), findings
