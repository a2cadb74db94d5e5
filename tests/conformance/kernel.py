"""What the kernel of a node holds, as comparable text: so that a case can judge a datapath without knowing how it is
made. Called by the cases of the kit and by removals.py.
"""

import contextlib
import json
import os

import bpf
import sockets
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
    # Legacy tables that a kernel has once made stay, empty: what runs may leave them, what looks must not make them.
    "xtables": "for f in ip ip6; do sed \"s/^/$f /\" /proc/net/${f}_tables_names; done 2>/dev/null",
}
# What others' tools leave, too, and what therefore only counts when nobody had reason to change anything.
_STAYS = ("xtables", "empty chains")


def _without_counts(value):
    if isinstance(value, dict):
        return {k: _without_counts(v) for k, v in value.items() if k not in ("packets", "bytes")}
    return [_without_counts(v) for v in value] if isinstance(value, list) else value


def _nft(text):
    """Rules, sets and chains of `nft -j list ruleset` without handles; and apart from them what says nothing: an empty
    base chain that accepts, and a table with nothing else in it. iptables leaves such ones behind."""
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
    meant = [(k, w) for k, w in bare if (k == "chain" and (w["family"], w["table"], w["name"]) in used) or
             (k == "table" and (w["family"], w["name"]) in tables)]

    def words(objects):
        return sorted(f"{k} {json.dumps(w, sort_keys=True)}" for k, w in objects)
    return words(out + meant), words(x for x in bare if x not in meant)


def held(pid):
    """Descriptors of a process by which BPF programs, maps and links stay in the kernel: {kind: how many}."""
    out = {}
    for name in os.listdir(f"/proc/{pid}/fdinfo"):
        with contextlib.suppress(OSError), open(f"/proc/{pid}/fdinfo/{name}", encoding="utf-8") as f:
            for line in f:
                if line.startswith(("prog_id:", "map_id:", "link_id:")):
                    out[line.split("_")[0]] = out.get(line.split("_")[0], 0) + 1
                    break
    return out


def snapshot(rig, node):
    """{kind: sorted lines} of everything in the node's namespaces that a datapath may have made."""
    looks = {**_LOOKS, "nftables": "nft -j list ruleset"}
    script = "\n".join(f"echo '{_MARK}{kind}'\n{look}" for kind, look in looks.items())
    parts = net.run(*rig.inside(node, "sh", "-c", script + "\ntrue")).split(_MARK)[1:]
    texts = dict(part.split("\n", 1) for part in parts)
    seen = {kind: sorted(line.strip() for line in texts[kind].splitlines() if line.strip()) for kind in _LOOKS}
    seen["nftables"], seen["empty chains"] = _nft(texts["nftables"])
    seen["tcx"] = sorted(" ".join(x) for x in sockets.inside(rig.ns(node), bpf.programs))
    return seen


def difference(before, after, looked=False):
    """{kind: [lines that came or went]}; empty when both are the same. looked: nobody had reason to change anything."""
    out = {}
    for kind, lines in after.items():
        if kind in _STAYS and not looked:
            continue
        changed = [f"+ {x}" for x in lines if x not in before[kind]] + [f"- {x}" for x in before[kind] if x not in lines]
        if changed or len(lines) != len(before[kind]):
            out[kind] = changed or [f"{len(before[kind])} lines became {len(lines)}"]
    return out


def came(before, after, kind):
    return [line for line in after[kind] if line not in before[kind]]
