"""How long a datapath takes to program N policies with ten endpoints each, and to move egress ids to another owner: the
plugin's own times, as the host measures them. Used by performance.py."""

from judge import median
from layouts import datapath_rig, policies

FIRST = 100  # of the egress ids and classes; below are the rig's own
FLIPPED = 1000


def egress(id_, owner, serve):
    """owner: a peer's name or "self"."""
    i = id_ - FIRST
    return {"id": id_, "kind": "address", "ipv4": f"10.7.{i // 250}.{i % 250 + 1}", "ipv6": f"fd00:7::{i + 1:x}",
            "mayServe": serve, **({"owner": "self"} if owner == "self" else {"owner": "peer", "ownerPeer": owner})}


def whole(rig, count, owner="n2", serve=False):
    """Node n1's state with `count` policies, each with an egress id of its own."""
    change = policies(rig.change("n1"), count, egress_of=lambda p: FIRST + p, first=FIRST)
    change["egresses"] += [egress(FIRST + p, owner, serve) for p in range(count)]
    return change


def move(rig, count, owner, serve):
    """Up to 1,000 egress ids get another owner; milliseconds."""
    answer = rig.delta("n1", egresses=[egress(FIRST + p, owner, serve) for p in range(min(count, FLIPPED))])
    if not answer["ok"] or answer["failures"]:
        raise RuntimeError(f"moving egress ids: {answer}")
    if answer["needFull"]:
        raise RuntimeError("the datapath wants a full apply for egress ids that move")
    return answer["tookUs"] / 1000


def one_round(rig, count):
    driver, out = rig.driver("n1"), {}
    out["first_ms"] = rig.apply_file("n1", whole(rig, count))
    out["again_ms"] = rig.apply_file("n1", whole(rig, count))
    driver.must("purge")
    rig.apply_file("n1", rig.change("n1"))
    out["cold_ms"] = rig.apply_file("n1", whole(rig, count))
    out["flip_ms"] = median([move(rig, count, owner, False) for owner in ("n3", "n2", "n3")])
    rig.apply_file("n1", whole(rig, count, serve=True))
    out["gateway_flip_ms"] = median([move(rig, count, owner, True) for owner in ("n3", "n2", "n3")])
    out["take_over_ms"] = move(rig, count, "self", True)
    driver.must("purge")
    return out


def measure(datapaths, sizes, rounds):
    """{(datapath, policies): {figure: rounds}}"""
    rigs = {d: datapath_rig(d, nodes=3) for d in datapaths}
    times = {(d, count): {} for d in datapaths for count in sizes}
    try:
        for rig in rigs.values():
            rig.__enter__()
            rig.driver("n1")
        for _round in range(rounds):
            for (d, count), figures in times.items():
                for figure, ms in one_round(rigs[d], count).items():
                    figures.setdefault(figure, []).append(ms)
    finally:
        for rig in rigs.values():
            rig.__exit__()
    return times
