"""probe looks at other people's rules, names those that contradict ours, and changes nothing."""

from kernel import difference, snapshot
from rig import Rig
from suite import case

NFT = ("nft add table inet foreign; nft add chain inet foreign pre '{{ type filter hook prerouting priority -150; }}'; "
       "nft add rule inet foreign pre {}")
# What a rule does, and a word by which its owner finds it.
CONFLICTS = {
    "nft tests": (NFT.format("meta mark and 0x01000000 == 0x01000000 accept"), "foreign"),
    "nft sets": (NFT.format("meta mark set meta mark or 0x04000000"), "foreign"),
    "nft clears": (NFT.format("meta mark set meta mark and 0x00ffffff"), "foreign"),
    "nft ct mark": (NFT.format("ct mark and 0x02000000 != 0 drop"), "foreign"),
    "iptables-nft tests": ("iptables-nft -w -t mangle -A PREROUTING -m mark --mark 0x1000000/0x1000000 -j ACCEPT", "mangle"),
    "ip6tables-nft sets": ("ip6tables-nft -w -t mangle -A FORWARD -j MARK --or-mark 0x2000000", "mangle"),
    "iptables-legacy tests": ("iptables-legacy -w -t mangle -A PREROUTING -m mark --mark 0x1000000/0x1000000 -j ACCEPT",
                              "mangle"),
    "ip6tables-legacy saves": ("ip6tables-legacy -w -t mangle -A POSTROUTING -j CONNMARK --save-mark", "mangle"),
    "ip rule": ("ip rule add pref 77 fwmark 0x4000000/0xff000000 lookup 99", "ip rule"),
}
HARMLESS = {
    "nothing": "true",
    "kube-proxy": "iptables-nft -w -t nat -A POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN; iptables-nft -w -t nat -A "
                  "POSTROUTING -j MARK --xor-mark 0x4000; iptables-nft -w -t nat -A POSTROUTING -j MASQUERADE --random-fully; "
                  "iptables-nft -w -A FORWARD -m mark --mark 0x8000/0x8000 -j DROP",
    "Cilium": "iptables-nft -w -t mangle -A PREROUTING -m mark --mark 0x200/0xf00 -j ACCEPT; ip rule add pref 77 fwmark "
              "0x200/0xf00 lookup 2004",
    "masquerade": "nft add table inet f; nft add chain inet f n '{ type nat hook postrouting priority 100; }'; nft add rule "
                  "inet f n oifname eth0 masquerade",
}
FILTERS = {
    "FORWARD, nft": "nft add table inet filter; nft add chain inet filter f '{ type filter hook forward priority 0; policy "
                    "drop; }'",
    "FORWARD, iptables-nft": "iptables-nft -w -P FORWARD DROP",
    "FORWARD, iptables-legacy": "iptables-legacy -w -P FORWARD DROP",
    "INPUT, nft": "nft add table inet filter; nft add chain inet filter i '{ type filter hook input priority 0; policy drop; }'",
    "INPUT, iptables-legacy": "iptables-legacy -w -A INPUT -p udp --dport 7789 -j DROP",
}


def probed(script, **node):
    """The failed findings beside what the script makes; nothing is changed by looking."""
    with Rig(nodes=1) as rig:
        rig.sh("n1", script)
        before = snapshot(rig, "n1")
        answer = rig.driver("n1").must("probe", node={**rig.node_config("n1"), **node})
        assert difference(before, snapshot(rig, "n1"), looked=True) == {}
        return [f for f in answer["findings"] if not f["ok"]]


@case("probe-conflict", "A foreign rule on our mark bits is a MarkConflict that forbids to run and names the rule", solo=True,
      rule=CONFLICTS)
def rules_on_our_bits(rule):
    script, word = rule
    failed = probed(script)
    assert [(f["code"], f["advisory"]) for f in failed] == [("MarkConflict", False)]
    assert word in failed[0]["message"]


@case("probe-harmless", "Rules of others that leave our bits alone are no finding", solo=True, script=HARMLESS)
def rules_that_leave_our_bits_alone(script):
    assert probed(script) == []


@case("probe-masks", "The configured masks decide which bits are ours", solo=True)
def the_masks_decide():
    script = "iptables-nft -w -t mangle -A PREROUTING -m mark --mark 0x10000/0x10000 -j ACCEPT"
    assert probed(script) == []
    assert [f["code"] for f in probed(script, slotMask=0x00ff0000)] == ["MarkConflict"]


@case("probe-filter", "A filter that drops the tunnel's packets is named in a remark", solo=True, script=FILTERS)
def a_filter_that_drops_the_tunnel(script):
    failed = probed(script)
    assert [f["code"] for f in failed if f["code"] not in ("TunnelForward", "TunnelInput")] == []
    assert failed != []
    assert all(f["advisory"] for f in failed)
