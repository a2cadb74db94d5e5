"""What the rounds of a measurement say: medians with intervals, ratios, and whether a bar is met. No input or output.

Rounds are values of the same length, in their order: the n-th round of one layout was measured beside the n-th of another.
"""

import dataclasses
import math


def median(values):
    ordered, n = sorted(values), len(values)
    return (ordered[(n - 1) // 2] + ordered[n // 2]) / 2


def interval(values):
    """The 90 % interval of the median, whatever the distribution: between two of the values, chosen by the binomial
    distribution of how many lie below the true median. Fewer than five cannot give 90 %: smallest and largest."""
    ordered, n, k, tail = sorted(values), len(values), 0, 0.0
    while 2 * (tail := tail + math.comb(n, k) / 2 ** n) <= 0.1:
        k += 1
    return ordered[max(0, k - 1)], ordered[n - max(1, k)]


COUNTS = ("lost", "late")  # figures of which every single one matters


def one_figure(name, rounds):
    return sum(rounds) if name in COUNTS else median(rounds)


def ratios(above, below):
    return [a / b for a, b in zip(above, below, strict=True)]


@dataclasses.dataclass
class Verdict:
    """A bar and what was measured. It is missed when the whole interval lies on its wrong side; while the bar lies inside
    the interval another run may say the opposite."""
    what: str
    bar: float
    rounds: list
    at_most: bool = False  # the bar is a limit, not the least
    unit: str = ""

    @property
    def value(self):
        return median(self.rounds)

    @property
    def met(self):
        low, high = interval(self.rounds)
        return low <= self.bar if self.at_most else high >= self.bar

    @property
    def sure(self):
        low, high = interval(self.rounds)
        return not low < self.bar < high

    @property
    def word(self):
        if not self.sure:
            return "within noise, median " + ("above" if self.value > self.bar else "below" if self.value < self.bar else "on it")
        return "met" if self.met else "missed"


# Of the bare tunnel's packets per second at 5,000 policies; of plain routing's for a pod without policy.
TUNNEL = {"netlink": 0.62, "iptables": 0.52, "ebpf": 0.64, "ebpf-fast": 0.72}
BYSTANDER = {"netlink": 0.80, "iptables": 0.75, "ebpf": 0.85, "ebpf-fast": 0.85}
FLAT = 0.93  # of its own figure with one policy
# ms for 5,000 policies with 50,000 endpoints, and for 1,000 egress ids that move to another owner
COLD = {"netlink": 500, "iptables": 2000, "ebpf": 100, "ebpf-fast": 100}
FLIP = {"netlink": 20, "iptables": 20, "ebpf": 5, "ebpf-fast": 5}


def judge_packets(pps):
    """pps: {(layout, policies or None): rounds}. The bars whose layouts were measured."""
    out = []

    def add(what, above, below, bar):
        if above in pps and below in pps:
            out.append(Verdict(what, bar, ratios(pps[above], pps[below])))
    for d, bar in TUNNEL.items():
        add(f"{d}, 5,000 policies / bare tunnel", (d, 5000), ("tunnel", None), bar)
        add(f"{d}, 5,000 policies / 1 policy", (d, 5000), (d, 1), FLAT)
        add(f"{d}, pod without policy / plain routing", (f"{d}, no policy", 5000), ("plain", None), BYSTANDER[d])
    add("netlink, 5,000 policies / tunnel with NAT", ("netlink", 5000), ("tunnel with NAT", None), 0.85)
    add("netlink, 5,000 policies / rule per policy, 1,000", ("netlink", 5000), ("rule per policy", 1000), 40)
    return out


def judge_flows(flows):
    """flows: {(layout, policies or None): {figure: rounds}}. A bar if a datapath was measured: of how many connections a
    packet had to be sent again, or was never answered."""
    lost = [sum(figures["lost"]) for (layout, _), figures in flows.items() if layout.split(",")[0] in TUNNEL]
    return [Verdict("new connections that lost a packet, all datapaths", 0, [sum(lost)], at_most=True)] if lost else []


def judge_programming(times):
    """times: {(datapath, policies): {figure: rounds}}."""
    out = []
    for (d, count), figures in times.items():
        if count != 5000:
            continue
        for figure, what, bar in (("first_ms", "5,000 policies from nothing", COLD), ("cold_ms", "5,000 policies", COLD),
                                  ("flip_ms", "1,000 egress ids move, client", FLIP),
                                  ("gateway_flip_ms", "1,000 egress ids move, gateway", FLIP)):
            out.append(Verdict(f"{d}, {what}", bar[d], figures[figure], at_most=True, unit="ms"))
    return out
