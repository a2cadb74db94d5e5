"""The tables of docs/performance.md from what performance.py has measured, and the facts of the machine beside them."""

import os
import platform
import re
import subprocess
import time

from judge import COUNTS, interval, median, ratios

BEGIN, END = "<!-- begin: written by tests/bench/performance.py -->", "<!-- end -->"
NAMES = {"plain": "plain routing", "tracked": "routing with conntrack", "tunnel": "bare tunnel"}


def name(key):
    layout, count = key
    return NAMES.get(layout, layout) + ("" if count is None else f", {count:,}")


def number(value):
    """Three digits, none of them in an exponent."""
    whole = len(str(int(abs(value)))) if abs(value) >= 1 else 0
    return f"{value:,.{max(0, 3 - whole)}f}"


def cell(rounds):
    """Median and 90 % interval."""
    if not rounds:
        return ""
    low, high = interval(rounds)
    return f"{number(median(rounds))} [{number(low)}, {number(high)}]"


def flows_cell(figures):
    """The rate, and what it leaves out, if anything."""
    counts = [f"{sum(figures[c]):.0f} {c}" for c in COUNTS if sum(figures.get(c, []))]
    return cell([f / 1000 for f in figures.get("per_second", [])]) + (f" ({', '.join(counts)})" if counts else "")


def table(head, rows):
    lines = ["| " + " | ".join(head) + " |", "| --- |" + " ---: |" * (len(head) - 1)]
    return lines + ["| " + " | ".join(row) + " |" for row in rows]


def rate_rows(results):
    """A row per layout and size, its columns from four measures."""
    pps, trips, flows, stream = (results.get(m, {}) for m in ("packets", "latency", "flows", "stream"))
    keys = list(next(f for f in (pps, trips, flows, stream) if f))
    order = list(dict.fromkeys(layout for layout, _ in keys))
    rows = []
    for key in sorted(keys, key=lambda k: (order.index(k[0]), k[1] or 0)):
        base = ("plain" if "no policy" in key[0] or key[0] == "tracked" else "tunnel", None)
        own = pps.get(key, {}).get("pps", [])
        added = {f: [t - p for t, p in zip(trips[key][f], trips["plain", None][f], strict=True)] if trips else []
                 for f in ("p50_us", "p99_us")}
        rows.append([name(key), cell([p / 1000 for p in own]), cell(ratios(own, pps[base]["pps"]) if own else []),
                     cell(added["p50_us"]), cell(added["p99_us"]),
                     flows_cell(flows.get(key, {})),
                     cell(stream.get(key, {}).get("gbit_per_second", []))])
    return rows


def bystander_rows(pps):
    """Pods without policy beside the two kinds of node that they may have had before."""
    bases = [pps[base, None]["pps"] for base in ("plain", "tracked")]
    return [[name(key), *(cell(ratios(figures["pps"], base)) for base in bases)]
            for key, figures in sorted(pps.items(), key=lambda item: (item[0][0], item[0][1] or 0))
            if "no policy" in key[0] or key == ("tracked", None)]


BYSTANDERS = ("layout, policies", "of plain routing", "of routing with conntrack")
RATES = ("layout, policies", "1,000 packets/s", "of the base", "added round trip p50, us", "added p99, us",
         "1,000 new flows/s", "TCP, Gbit/s")
TIMES = {"first_ms": "from nothing", "cold_ms": "all policies at once", "again_ms": "the same again", "flip_ms": "1,000 ids move, client",
         "gateway_flip_ms": "1,000 ids move, gateway", "take_over_ms": "1,000 ids taken over"}


def machine():
    """What the figures depend on; nothing that names the machine."""
    with open("/proc/cpuinfo", encoding="utf-8") as f:
        text = f.read()
    model = re.search(r"^model name\s*: (.*)$", text, re.M)
    virtual = ", virtual" if re.search(r"^flags\s*:.*\bhypervisor\b", text, re.M) else ""
    spectre = "/sys/devices/system/cpu/vulnerabilities/spectre_v2"
    mitigation = ""
    if os.path.exists(spectre):
        with open(spectre, encoding="utf-8") as f:
            mitigation = f.read().split(";")[0].strip()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2 ** 30
    nft = subprocess.run(["nft", "--version"], capture_output=True, text=True, check=True).stdout.split()[1]
    return (f"{os.cpu_count()} CPUs ({model[1] if model else platform.machine()}{virtual}), {memory:.0f} GiB, "
            f"Linux {platform.release().split('-')[0]}, spectre_v2: {mitigation or 'not told'}, nftables {nft}")


def document(results, verdicts, rounds, seconds):
    """The lines between the marks."""
    out = [f"{time.strftime('%Y-%m-%d', time.gmtime())}, {rounds} rounds, {seconds / 60:.0f} min; {machine()}.", "",
           f"### Bars: {sum(v.met and v.sure for v in verdicts)} met, {sum(not v.sure for v in verdicts)} within noise, "
           f"{sum(not v.met for v in verdicts)} missed", ""]
    out += table(("bar", "measured", "required", "verdict"),
                 [[v.what, cell(v.rounds) + f" {v.unit}".rstrip(), f"{'<=' if v.at_most else '>='} {v.bar} {v.unit}".rstrip(),
                   v.word if v.met else f"**{v.word}**"] for v in verdicts])
    if any(m in results for m in ("packets", "latency", "flows", "stream")):
        out += ["", "### Rates", "", *table(RATES, rate_rows(results))]
    if "packets" in results:
        out += ["", "### Pods without policy", "", *table(BYSTANDERS, bystander_rows(results["packets"]))]
    if "program" in results:
        out += ["", "### Programming, ms", "", *table(("datapath, policies", *TIMES.values()), [
            [name(key), *(cell(figures[f]) for f in TIMES)] for key, figures in results["program"].items()])]
    return out


def write(path, *what):
    with open(path, encoding="utf-8") as f:
        text = f.read()
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise RuntimeError(f"{path}: has no lines {BEGIN} and {END} to write between")
    with open(path, "w", encoding="utf-8") as f:
        f.write("\n".join([before + BEGIN, "", *document(*what), "", END]) + after)
