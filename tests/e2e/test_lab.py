"""What lab/up and lab/down leave alone, and what they leave behind: nothing of others, nothing of their own."""

import os
import signal
import subprocess
import sys
import time

import pytest

from conftest import ROOT, ready
from lab import net
from lab.cluster import Cluster, build_dir
from lab.folder import LONGEST, RUN
from lab.pod import bpffs_of

# A root of its own, in which a `lab/down /` that obeyed would find only this test's files to remove.
SANDBOX = """
root=$1; tree=$2; shift 2
mount -t tmpfs tmpfs "$root"
for folder in usr "${tree#/}"; do
  mkdir -p "$root/$folder"
  mount --bind "/$folder" "$root/$folder"
  mount -o remount,bind,ro "$root/$folder"
done
cp -d /bin /sbin /lib /lib64 "$root"
mkdir -p "$root"/{tmp/v,run/v,run/egw-lab/{lab,full,empty,torn,other}}
touch "$root"/{tmp/v,run/v,run/egw-lab/{lab,full}}/file
echo '{"name": "lab", "args": {"store": "local"}, "pods": {}, "namespaces": []}' |
  tee "$root"/{tmp/v,run/egw-lab/{lab,other}}/cluster.json >/dev/null
echo '{"name"' >"$root/run/egw-lab/torn/cluster.json"
ln -s /tmp/v "$root/run/egw-lab/link"
ln -s /tmp/v "$root/run/egw-lab/lab/inside"
mkdir "$root/run/egw-lab/linked"
ln -s /tmp/v/cluster.json "$root/run/egw-lab/linked/cluster.json"
find_files() { (cd "$root" && find run tmp | sort); }
find_files >"$root/before"
code=0
chroot "$root" "$tree/lab/down" "$@" || code=$?
find_files | diff "$root/before" - | sed -n 's/^[<>]/gone/p'
exit $code
"""


def down_in_sandbox(folder, *words):
    """Exit code, what it said, and what was removed."""
    done = subprocess.run(["unshare", "-m", "--propagation", "private", "bash", "-euc", SANDBOX, "sandbox", folder, ROOT, *words],
                          capture_output=True, text=True, check=False)
    gone = [line[5:] for line in done.stdout.splitlines() if line.startswith("gone ")]
    return done.returncode, done.stdout + done.stderr, gone


@pytest.mark.parametrize("word", ["/tmp/v", "../v", "../../tmp/v", "", ".", "..", "/", "a/b", "lab/", "./lab", "-x-", "*", "Lab",
                                  "lab\n", "a" * (LONGEST + 1)])
def test_what_is_no_name_of_a_cluster_is_refused_and_nothing_goes(tmp_path, word):
    code, said, gone = down_in_sandbox(tmp_path, "--", word)
    assert (code, gone) == (1, []), said
    assert f"lab/down: {word!r} is no name for a cluster" in said and "a-z, 0-9 and '-'" in said


@pytest.mark.parametrize("word", ["none", "full", "empty", "torn", "link", "linked", "other"])
def test_a_folder_that_is_not_a_clusters_does_not_go(tmp_path, word):
    code, said, gone = down_in_sandbox(tmp_path, word)
    assert (code, gone) == (1, []), said
    assert "nothing was touched" in said or "no cluster named 'none' runs here" in said


def test_a_cluster_goes_and_what_a_link_in_it_names_stays(tmp_path):
    code, said, gone = down_in_sandbox(tmp_path)
    assert code == 0, said
    assert gone and all(f.startswith("run/egw-lab/lab") for f in gone), gone
    # One name that is refused does not keep the others.
    code, said, gone = down_in_sandbox(tmp_path, "full", "lab")
    assert code == 1 and "cluster lab is gone" in said and "run/egw-lab/lab" in gone, said


def command(*words):
    return [sys.executable, "-m", "lab.main", *words]


def run(*words, **kwargs):
    return subprocess.run(command(*words), cwd=ROOT, capture_output=True, text=True, check=False, timeout=60, **kwargs)


def left(name):
    return net.named(f"{name}-"), os.path.lexists(os.path.join(RUN, name))


def test_a_cluster_whose_name_goes_on_with_a_dash_stays():
    first = Cluster.claim("e2edash", nodes=1, gateways=1, controllers=1)
    second = Cluster.claim(f"{first.name}-n1", nodes=1, gateways=1, controllers=1)
    try:
        first.up(start=False)
        second.up(start=False)
        own, others = list(first.namespaces), list(second.namespaces)
        assert len(own) == len(others) == 4
        assert run("down", first.name).returncode == 0
        assert [n for n in own if net.exists(n)] == [] and all(map(net.exists, others))
        # The name is free again, beside the other.
        assert Cluster.claim(first.name, nodes=1, gateways=1, controllers=1).name == first.name
    finally:
        first.down()
        second.down()
    assert left(first.name) == ([], False)


@pytest.mark.skipif(not os.path.exists(os.path.join(build_dir(), "lib", "egw", "plugins", "egw-datapath-ebpf.so")),
                    reason="the ebpf datapath is not built")
@pytest.mark.parametrize("datapath", ["ebpf", "auto"])
def test_what_a_cluster_pins_in_the_bpffs_goes_with_it(datapath):
    cluster = Cluster.claim("e2ebpf", nodes=2, gateways=1, controllers=1, settings={"plugins": {"datapath": {"name": datapath}}})
    pins = bpffs_of(cluster.dir)
    try:
        cluster.up()
        ready(cluster)
        assert len(os.listdir(pins)) == len(cluster.nodes)
    finally:
        cluster.down()
    assert left(cluster.name) == ([], False) and not os.path.exists(pins)


def test_an_up_that_fails_removes_what_it_made_and_nothing_else():
    """It fails at its first pod, whose namespace is somebody else's."""
    net.add("e2efail-pod1")
    try:
        done = run("up", "--name", "e2efail", "--nodes", "1", "--gateways", "1")
        assert done.returncode == 1
        assert done.stderr.startswith("lab/up: there is a network namespace e2efail-pod1 already"), done.stderr
        assert left("e2efail") == (["e2efail-pod1"], False)
    finally:
        net.remove("e2efail-pod1")


def test_a_datapath_that_is_not_there_is_refused():
    done = run("up", "--name", "e2enone", "--datapath", "netlnk")
    assert done.returncode == 2 and "'netlnk': want one of " in done.stderr and "netlink" in done.stderr, done.stderr
    assert left("e2enone") == ([], False)


def started(name, what):
    """An up that has come to its namespace `what`."""
    p = subprocess.Popen(command("up", "--name", name), cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    while not net.exists(f"{name}-{what}"):
        assert p.poll() is None, p.stderr.read()
        time.sleep(0.002)
    return p


@pytest.mark.parametrize("what", ["ul", "n2", "pod1"])
def test_an_up_that_is_interrupted_twice_leaves_nothing(what):
    p = started("e2eint", what)
    p.send_signal(signal.SIGINT)
    while net.exists("e2eint-ul"):
        time.sleep(0.002)
    while os.path.exists(os.path.join(RUN, "e2eint")):  # it is being taken down
        p.send_signal(signal.SIGINT)
        time.sleep(0.002)
    assert p.wait(60) == 130, p.stderr.read()
    assert left("e2eint") == ([], False)


@pytest.mark.parametrize("what", ["ul", "n2", "pod1"])
def test_an_up_that_is_killed_can_be_taken_down(what):
    p = started("e2ekill", what)
    p.kill()
    p.wait()
    assert os.path.exists(os.path.join(RUN, "e2ekill"))
    done = run("down", "e2ekill")
    assert done.returncode == 0, done.stderr
    assert left("e2ekill") == ([], False)


@pytest.mark.parametrize("name", ["a/b", "..", "", "x" * (LONGEST + 1)])
def test_up_refuses_what_down_would_refuse(name):
    before = sorted(os.listdir(RUN)) if os.path.isdir(RUN) else []
    done = run("up", "--name", name)
    assert done.returncode == 1 and done.stderr.startswith(f"lab/up: {name!r} is no name for a cluster"), done.stderr
    assert [f for f in os.listdir(RUN) if f not in before and f.startswith((name[:1] or "x", "."))] == []


@pytest.mark.parametrize("verb", ["up", "down", "cut", "quickstart"])
def test_without_root_one_sentence_says_so(verb):
    words = ["n1"] if verb == "cut" else []
    done = subprocess.run([os.path.join(ROOT, "lab", verb), *words], capture_output=True, text=True, check=False,
                          user=65534, group=65534, extra_groups=[])
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"lab/{verb}: network namespaces need root: run it as root\n"


@pytest.mark.parametrize("verb", ["up", "down", "cut", "quickstart"])
def test_help_builds_nothing_and_needs_no_root(verb):
    done = subprocess.run([os.path.join(ROOT, "lab", verb), "--help"], capture_output=True, text=True, check=False,
                          user=65534, group=65534, extra_groups=[])
    assert done.returncode == 0 and done.stdout.startswith(f"usage: lab/{verb} "), done.stderr
    assert "building" not in done.stdout + done.stderr


def test_what_up_proposes_works():
    """The lines that it prints, as they stand there: objects of the samples, and a pod that leaves with their EIP."""
    done = run("up", "--name", "e2etry", "--nodes", "2", "--gateways", "1", "--controllers", "1")
    try:
        assert done.returncode == 0, done.stderr
        proposed = dict(line.split(maxsplit=1) for line in done.stdout.replace("a pod", "pod").splitlines()[1:])
        subprocess.run(proposed["verbs"], shell=True, check=True, timeout=60)
        before = subprocess.run(proposed["pod"], shell=True, check=True, capture_output=True, text=True, timeout=60).stdout
        assert before == "10.244.1.10\n"
        subprocess.run(proposed["EIPs"], shell=True, check=True, timeout=60)
        until = time.monotonic() + 10
        while (seen := subprocess.run(proposed["pod"], shell=True, check=False, capture_output=True, text=True,
                                      timeout=60).stdout) != "10.6.1.56\n":
            assert time.monotonic() < until, seen
    finally:
        run("down", "e2etry")
    assert left("e2etry") == ([], False)
