"""The conformance kit: runs a datapath plugin through real packets and prints a table of what is required of it.
`egw plugin check` starts it; in the tree ctest does, once per plugin.

usage: kit.py LIBRARY [--plugin-config JSON] [--pair LIBRARY2] [--pair-config JSON] [--only WORD]... [--without WORD]...
              [--json FILE] [--junitxml=FILE] [--jobs N] [--list] [--shortfalls FILE]
LIBRARY: a path. --pair: LIBRARY is on the client node, LIBRARY2 on the gateways. --only, --without: a case or a group.
--shortfalls: what plugins of the tree are known to miss (shortfalls.txt); only this, and all of it, may fail.
Cases wait more than they work, so twice as many run side by side as there are CPUs.
Exit code 0: nothing failed; 1: something did; 2: it could not be run.
"""

import argparse
import glob
import json
import os
import shutil
import signal
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)

import suite  # noqa: E402  (the path must be set first)

# What the cases call, and the Debian package that has it.
TOOLS = {"ip": "iproute2", "bridge": "iproute2", "tc": "iproute2", "nsenter": "util-linux", "unshare": "util-linux",
         "mount": "mount", "sysctl": "procps", "nft": "nftables", "conntrack": "conntrack",
         "iptables-nft": "iptables", "ip6tables-nft": "iptables", "iptables-legacy": "iptables",
         "ip6tables-legacy": "iptables", "ipset": "ipset"}
ORDER = ("abi", "probe", "path", "closed", "guard", "flow", "icmp", "sctp", "beside", "peers", "repair", "scale")


def end(message):
    print(f"egw plugin check: {message}", file=sys.stderr)
    sys.exit(2)


def count(text):
    if not text.isdecimal() or not 1 <= int(text) <= 1000:
        raise argparse.ArgumentTypeError(f"'{text}' is no number from 1 to 1000")
    return int(text)


def arguments():
    parser = argparse.ArgumentParser(prog="egw plugin check", description="conformance kit for datapath plugins")
    parser.add_argument("library")
    parser.add_argument("--plugin-config", default="{}")
    parser.add_argument("--pair")
    parser.add_argument("--pair-config", default="{}")
    parser.add_argument("--only", action="append", default=[])
    parser.add_argument("--without", action="append", default=[])
    parser.add_argument("--json")
    parser.add_argument("--junitxml")
    parser.add_argument("--jobs", type=count, default=2 * (os.cpu_count() or 1))
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--shortfalls", help=argparse.SUPPRESS)
    return parser.parse_args()


def load_cases():
    modules = {os.path.basename(p)[:-3]: p for p in glob.glob(os.path.join(HERE, "cases", "*.py"))}
    for name in sorted(modules, key=lambda n: (ORDER.index(n) if n in ORDER else len(ORDER), n)):
        suite.load(modules[name], f"cases_{name}")


def chosen(only, without, pair):
    cases = [c for c in suite.CASES.values() if not (pair and c.solo)]

    def words(options):
        out = [w for o in options for w in o.split(",")]
        for w in out:
            if not any(w in (c.id, c.group) for c in cases):
                groups = list(dict.fromkeys(c.group for c in cases))
                end(f"'{w}': there is no such case or group{' for a pair' if pair else ''}; groups: {', '.join(groups)}; --list "
                    "shows the cases")
        return out
    wanted, unwanted = words(only), words(without)
    return [c for c in cases if (not wanted or c.id in wanted or c.group in wanted) and
            c.id not in unwanted and c.group not in unwanted]


def require_host():
    """Says what is missing on this machine, all at once."""
    if os.geteuid() != 0:
        end("the kit makes network namespaces, which needs root: run it as root")
    os.environ["PATH"] = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
    missing = sorted({t for t in TOOLS if shutil.which(t) is None})
    if missing:
        end(f"not found: {', '.join(missing)}; install {' '.join(sorted({TOOLS[t] for t in missing}))} "
            "(names of Debian's packages)")


def allowed_skips():
    with open(os.path.join(HERE, "skips.txt"), encoding="utf-8") as f:
        lines = [line for line in f if line.strip() and not line.startswith("#")]
    return {line.split("|")[0].strip(): line.split("|")[1].strip() for line in lines}


def read_shortfalls(path, plugins):
    """{(case, variant): where it is explained} of these plugins, from lines <plugin> | <case>[<variant>] | <where>."""
    out = {}
    if path:
        with open(path, encoding="utf-8") as f:
            for line in f:
                fields = [x.strip() for x in line.split("|")]
                if line.strip() and not line.startswith("#") and fields[0] in [p["name"] for p in plugins]:
                    case, _, variant = fields[1].partition("[")
                    out[case, variant.removesuffix("]")] = fields[2]
    return out


def excuse(results, shortfalls):
    """Marks the failures that are known; what is known and does not fail any more has failed: its line must go."""
    for (case, variant), where in shortfalls.items():
        for r in results.get(case, []):
            if r["name"] != variant or r["result"] == "skip":
                continue
            if r["result"] == "fail":
                r.update(result="short", seen=f"known shortfall ({where}): {r['seen']}")
            else:
                r.update(result="fail", seen="passes, though it is listed as a shortfall: take its line off")


def judge(case, results, allowed):
    """One requirement of the table from the results of its variants: (result, what was seen)."""
    failed = [r for r in results if r["result"] == "fail"]
    skipped = [r for r in results if r["result"] == "skip"]
    reason = skipped[0]["seen"] if skipped else ""
    if skipped and (case.id not in allowed or not reason.startswith(allowed[case.id].split(":")[0])):
        return "fail", f"skipped without standing in skips.txt: {reason}"
    if failed:
        first = failed[0]
        where = f"{first['name']}: " if first["name"] else ""
        more = f" (and {len(failed) - 1} of {len(results)} variants more)" if len(failed) > 1 else ""
        return "fail", where + first["seen"] + more
    short = [r for r in results if r["result"] == "short"]
    if short:
        return "short", f"{short[0]['name']}: {short[0]['seen']}" if short[0]["name"] else short[0]["seen"]
    return ("skip", reason) if skipped else ("pass", "")


def report(cases, results, plugins):
    allowed = allowed_skips()
    rows = []
    for case in cases:
        found = results[case.id]
        result, seen = judge(case, found, allowed)
        rows.append({"id": case.id, "sentence": case.sentence, "result": result, "seen": seen, "variants": found})
    counts = {kind: sum(r["result"] == kind for r in rows) for kind in ("pass", "fail", "skip", "short")}
    return {"version": 1, "plugins": plugins, "kernel": os.uname().release, "passed": counts["pass"],
            "failed": counts["fail"], "skipped": counts["skip"], "requirements": rows,
            **({"short": counts["short"]} if counts["short"] else {})}


def print_table(document, seconds):
    width = max(len(r["id"]) for r in document["requirements"])
    for r in document["requirements"]:
        print(f"{r['id']:<{width}}  {r['result']:<5} {r['sentence']}")
        if r["seen"]:
            print(f"{'':<{width}}        {r['seen']}")
    who = " with ".join(f"{p['name']} {p['version']}" for p in document["plugins"])
    short = f", {document['short']} known to fall short" if "short" in document else ""
    print(f"\n{who}: {len(document['requirements'])} requirements, {document['passed']} passed, {document['failed']} "
          f"failed, {document['skipped']} skipped{short}, in {seconds:.0f} s")


def no_result(reason):
    """What the file of --json holds where a result is none."""
    return {"version": 1, "error": reason, "plugins": [], "kernel": os.uname().release, "passed": 0, "failed": 0,
            "skipped": 0, "requirements": []}


def write_json(path, document):
    """All of it or nothing: a file is replaced by a new one beside it. A pipe or a terminal gets results alone."""
    if not path:
        return
    place = os.path.realpath(path)
    ordinary = os.path.isfile(place) or not os.path.exists(place)
    if not ordinary and "error" in document:
        return
    new = f"{place}.new" if ordinary else place
    try:
        with open(new, "w", encoding="utf-8") as f:
            json.dump(document, f, indent=1)
            f.write("\n")
        if ordinary:
            os.replace(new, place)
    except OSError as error:
        end(f"--json {path}: {error.strerror}")


def write_junit(path, document):
    import xml.etree.ElementTree as ElementTree  # pylint: disable=import-outside-toplevel  (only in the tree)
    root = ElementTree.Element("testsuite", name="-".join(p["name"] for p in document["plugins"]))
    for r in document["requirements"]:
        listed = r["result"] == "fail" and not any(v["result"] == "fail" for v in r["variants"])
        for v in r["variants"]:
            case = ElementTree.SubElement(root, "testcase", name=r["id"] + (f"[{v['name']}]" if v["name"] else ""),
                                          classname=root.get("name"), time=f"{v['seconds']:.3f}")
            if v["result"] == "fail" or listed:
                ElementTree.SubElement(case, "failure", message=r["seen"] if listed else v["seen"])
            elif v["result"] in ("skip", "short"):
                ElementTree.SubElement(case, "skipped", message=v["seen"])
            if v["figures"]:
                ElementTree.SubElement(case, "system-out").text = "\n".join(v["figures"])
    os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
    ElementTree.ElementTree(root).write(path)


def print_cases(cases):
    for c in cases:
        print(f"{c.id}  ({len(c.variants())})  {c.sentence}")


def told(tell, *args):
    """Whether the output has taken what tell() prints: its reader may have gone, its disk be full."""
    try:
        tell(*args)
        sys.stdout.flush()
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what is still buffered
        print(f"egw plugin check: standard output: cannot be written ({error.strerror})", file=sys.stderr)
        return False
    return True


def main():
    args = arguments()
    # rig.py, which the cases import, reads these.
    os.environ.update(EGW_DATAPATH=os.path.abspath(args.library), EGW_DATAPATH_CONFIG=args.plugin_config,
                      EGW_GATEWAY_DATAPATH=os.path.abspath(args.pair or args.library),
                      EGW_GATEWAY_DATAPATH_CONFIG=args.pair_config if args.pair else args.plugin_config,
                      EGW_RIG_PREFIX=f"kit{os.getpid()}w")
    load_cases()
    cases = chosen(args.only, args.without, args.pair)
    if args.list:
        return 0 if told(print_cases, cases) else 1
    # From here on the file says that there is no result, until there is one.
    write_json(args.json, no_result("the run has not come to its end"))
    require_host()
    import runner  # pylint: disable=import-outside-toplevel  (reads the environment)
    begin, known = time.monotonic(), runner.children()
    runner.adopt_orphans()
    for signo in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(signo, lambda number, _: sys.exit(128 + number))
    try:
        plugins = runner.introduce(sorted({args.library, args.pair or args.library}, key=[args.library, args.pair].index))
        results = runner.run(cases, args.jobs)
    except runner.CannotRun as error:
        write_json(args.json, no_result(str(error)))
        end(str(error))
    except KeyboardInterrupt:
        write_json(args.json, no_result("interrupted"))
        print("egw plugin check: interrupted", file=sys.stderr)
        return 130
    finally:
        runner.sweep(known)
    excuse(results, read_shortfalls(args.shortfalls, plugins))
    document = report(cases, results, plugins)
    write_json(args.json, document)
    if args.junitxml:
        write_junit(args.junitxml, document)
    complete = told(print_table, document, time.monotonic() - begin)
    return 1 if document["failed"] or not complete else 0


if __name__ == "__main__":
    sys.exit(main())
