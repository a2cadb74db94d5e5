"""What the kernel of a node holds, as comparable text, and how to take single objects away: so that a case can judge
a datapath without knowing how it is made. Called by the cases of the kit.
"""

import json
import shlex

from rig import net

_MARK = "===== "  # begins the part of one kind
# Each prints nothing, rather than failing, where a kernel or a machine has no such thing.
_LOOKS = {
    # Name, PROMISC, MTU, XDP, qdisc, alias.
    "link": "ip -o link | sed -E 's/^[0-9]*: //; s/<[^>]*PROMISC[^>]*>/PROMISC/; s/<[^>]*>//; s/ state .*( alias .*)$/\\1/; "
            "s/ state .*//; s/id:[0-9]*//'",
    "nexthop": "ip nexthop",
    "xfrm": "ip xfrm policy",
    "address": "ip -o addr | sed 's/^[0-9]*: //; s/valid_lft.*//'",
    "rule": "ip rule; ip -6 rule",
    # A device that has just come up is told to be down for a moment.
    "route": "{ ip route show table all | grep -v ' cache'; ip -6 route show table all | grep -v -e ' cache' -e ' proto ra'; } | "
             "sed 's/ linkdown//'",
    "fdb": "bridge fdb show | grep -v -e ' dev pod' -e ' dev eth0'",
    "neighbour": "ip neigh show nud permanent",
    # A program that is loaded anew has another number, and the same tag.
    "tc": "for d in $(ls /sys/class/net); do tc qdisc show dev $d | sed \"s/^/$d /; s/ refcnt [0-9]*//\" | "
          "grep -v -e noqueue -e noop; tc filter show dev $d ingress; tc filter show dev $d egress; done 2>/dev/null | "
          "sed 's/:\\[[0-9]*\\]//; s/ id [0-9]*//'",
    # Pins of one device carry its number, and a device that comes back has another one.
    "bpf": "find /sys/fs/bpf -mindepth 1 | sed 's/[0-9]*$//'",
    "ipset": "ipset list 2>/dev/null | sed '/^Size in memory/d; /^References/d; /^Number of/d'",
    "iptables": "for t in iptables-legacy ip6tables-legacy; do for b in $(cat /proc/net/$(echo $t | sed "
                "'s/tables-legacy/_tables_names/') 2>/dev/null); do $t-save -t $b | sed \"s/^/$t $b /\" | "
                "grep -v -e ' [*]' -e ' #' -e COMMIT -e ':[A-Z]* ACCEPT' | sed 's/ \\[[0-9:]*\\]//'; done; done",
}


def _without_counts(value):
    if isinstance(value, dict):
        return {k: _without_counts(v) for k, v in value.items() if k not in ("packets", "bytes")}
    return [_without_counts(v) for v in value] if isinstance(value, list) else value


def _nft(text):
    """Rules, sets and chains of `nft -j list ruleset` without handles; an empty base chain that accepts, and a table
    with nothing else in it, say nothing: iptables leaves such ones behind."""
    out, bare = [], []
    for entry in json.loads(text or '{"nftables": []}')["nftables"]:
        (kind, what), = entry.items()
        if kind == "metainfo":
            continue
        what = _without_counts({k: v for k, v in what.items() if k != "handle"})
        if kind == "table" or (kind == "chain" and what.get("policy") == "accept"):
            bare.append((kind, what))
        else:
            out.append((kind, what))
    used = {(w["family"], w["table"], w.get("chain")) for _, w in out}
    tables = {(w["family"], w["table"]) for _, w in out}
    out += [(k, w) for k, w in bare if (k == "chain" and (w["family"], w["table"], w["name"]) in used) or
            (k == "table" and (w["family"], w["name"]) in tables)]
    return sorted(f"{k} {json.dumps(w, sort_keys=True)}" for k, w in out)


def snapshot(rig, node):
    """{kind: sorted lines} of everything in the node's namespaces that a datapath may have made."""
    looks = {**_LOOKS, "nftables": "nft -j list ruleset"}
    script = "\n".join(f"echo '{_MARK}{kind}'\n{look}" for kind, look in looks.items())
    parts = net.run(*rig.inside(node, "sh", "-c", script + "\ntrue")).split(_MARK)[1:]
    texts = dict(part.split("\n", 1) for part in parts)
    seen = {kind: sorted(line.strip() for line in texts[kind].splitlines() if line.strip()) for kind in _LOOKS}
    seen["nftables"] = _nft(texts["nftables"])
    return seen


def difference(before, after):
    """{kind: [lines that came or went]}; empty when both are the same."""
    out = {}
    for kind, lines in after.items():
        changed = [f"+ {x}" for x in lines if x not in before[kind]] + [f"- {x}" for x in before[kind] if x not in lines]
        if changed or len(lines) != len(before[kind]):
            out[kind] = changed or [f"{len(before[kind])} lines became {len(lines)}"]
    return out


def came(before, after, kind):
    return [line for line in after[kind] if line not in before[kind]]


def removals(rig, node, before, after, device="egress.vxlan"):
    """{what: shell command} that takes away one thing each of what came to a node: the device, its link's state, and
    every ip rule, route, FDB entry, neighbour and address."""
    out = {"device": f"ip link del {device}", "link state": f"ip link set {device} down"}
    for family in ("-4", "-6"):
        old, new = (set(text.splitlines()) for text in (
            "\n".join(before["rule"]), net.run(*rig.inside(node, "ip", family, "rule"))))
        for line in sorted({" ".join(x.split()) for x in new} - {" ".join(x.split()) for x in old}):
            out[f"rule {family} {line}"] = f"ip {family} rule del pref {line.split(':')[0]}"
        text = net.run(*rig.inside(node, "ip", family, "route", "show", "table", "all"))
        lines = {x.replace(" linkdown", "").strip() for x in text.splitlines()}
        for line in sorted(lines - set(before["route"])):
            if "proto kernel" not in line and " cache" not in line and not line.startswith("multicast"):
                out[f"route {family} {line}"] = f"ip {family} route del {line.replace(' pref medium', '')}"
    for line in came(before, after, "fdb"):
        out[f"FDB {line}"] = "bridge fdb del " + line.replace(" permanent", "").replace(" offload", "")
    for line in came(before, after, "neighbour"):
        out[f"neighbour {line}"] = f"ip neigh del {line.split()[0]} dev {line.split()[2]}"
    return {what: command for what, command in out.items() if shlex.split(command)}


def firewall_removals(before, after):
    """The same for what came of nftables tables, iptables chains, ipsets and traffic control."""
    out = {}
    for line in came(before, after, "nftables"):
        kind, what = line.split(" ", 1)
        if kind == "table":
            table = json.loads(what)
            out[f"nftables table {table['family']} {table['name']}"] = f"nft delete table {table['family']} {table['name']}"
        elif kind == "rule":
            rule = json.loads(what)
            place = f"{rule['family']} {rule['table']} {rule['chain']}"
            out[f"rules of chain {place}"] = f"nft flush chain {place}"
    for line in came(before, after, "iptables"):
        tool, table, rule = line.split(" ", 2)
        if rule.startswith("-A "):
            chain = rule.split()[1]
            out[f"{tool} {table} {chain}"] = f"{tool} -w -t {table} -F {chain}"
    for line in came(before, after, "ipset"):
        if line.startswith("Name: "):
            out[f"ipset {line[6:]}"] = f"ipset flush {line[6:]}"
    for line in came(before, after, "tc"):
        if "clsact" in line:
            out[f"clsact of {line.split()[0]}"] = f"tc qdisc del dev {line.split()[0]} clsact"
    return out
