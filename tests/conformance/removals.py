"""How to take single objects of a datapath away, made from what came to a node with the first full change: so that a
new datapath needs no list of its own. Called by the cases of the kit.
"""

import json
import shlex
import sys

from kernel import came
from rig import HERE, net

_MOST = 12  # nftables objects in one go: enough for each kind of three tables
_BUILT_IN = ("PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING")


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
    """The same for what came of nftables tables, iptables chains, ipsets, traffic control, programs and pins."""
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
    for line in came(before, after, "tcx"):
        device, place = line.split()[:2]
        out[f"program {line}"] = f"{shlex.quote(sys.executable)} {shlex.quote(HERE)}/bpf.py detach {device} {place}"
    pins = [line for line in came(before, after, "bpf") if "/" not in line.removeprefix("/sys/fs/bpf/")]
    return out | {f"pins {line}": f"rm -rf {line}" for line in pins}


def _nft_kinds(before, after):
    """For each table that came: one removal of each kind, of the table itself, a base chain's and another chain's rules,
    an element of a set and of a map."""
    lines = [(kind, json.loads(text)) for kind, text in (line.split(" ", 1) for line in came(before, after, "nftables"))]
    with_rules = {(w["family"], w["table"], w["chain"]) for kind, w in lines if kind == "rule"}
    out = {}
    for kind, what in lines:
        place = f"{what['family']} {what['name' if kind == 'table' else 'table']}"
        kinds, where = out.setdefault(place, {}), f"{place} {what.get('name', '')}"
        if kind == "table":
            kinds["table"] = (place, f"nft delete table {place}")
        elif kind == "chain" and (what["family"], what["table"], what["name"]) in with_rules:
            kinds.setdefault("rules of a base chain," if "hook" in what else "rules of a chain,", (where, f"nft flush chain {where}"))
        elif kind in ("set", "map") and what.get("elem") and not {"dynamic", "timeout"} & set(what.get("flags", [])):
            element = {**{k: what[k] for k in ("family", "table", "name")}, "elem": what["elem"][:1]}
            command = json.dumps({"nftables": [{"delete": {"element": element}}]})
            kinds.setdefault(f"element of {kind}", (where, f"echo {shlex.quote(command)} | nft -j -f -"))
    return [[(f"{kind} {where}", command) for kind, (where, command) in kinds.items()] for kinds in out.values()]


def _ipset_kinds(rig, node, before, after):
    """An element of one set of each type and family."""
    ours = {line[6:] for line in came(before, after, "ipset") if line.startswith("Name: ")}
    types, out = {}, {}
    for line in net.run(*rig.inside(node, "sh", "-c", "ipset save 2>/dev/null || true")).splitlines():
        verb, name, *words = line.split()
        if verb == "create":
            types[name] = " ".join(words[:3])
        elif name in ours:
            out.setdefault(f"element of ipset {types[name]}", f"ipset del {name} {words[0]}")
    return out


def one_of_each(rig, node, before, after, turn):
    """One removal of each kind of firewall_removals() instead of all, since each has to be waited for. Of many nftables
    tables each is met, and each kind, in an order that `turn` decides, but not each kind in every table."""
    tables, everything = _nft_kinds(before, after), firewall_removals(before, after)
    rounds = max(map(len, tables), default=0)
    chosen = [kinds[(i + turn + r) % len(kinds)] for r in range(rounds) for i, kinds in enumerate(tables) if r < len(kinds)]
    out = dict(chosen[:max(_MOST, len(tables))]) | _ipset_kinds(rig, node, before, after)
    seen = set()
    for what, command in everything.items():
        words = what.split()
        kind = {"program": tuple(words[2:]), "clsact": words[-1].rstrip("0123456789"), "pins": what}.get(words[0])
        if "tables-" in words[0]:
            kind = (*words[:2], words[2] in _BUILT_IN)
        if kind is not None and kind not in seen:
            seen.add(kind)
            out[what] = command
    return out
