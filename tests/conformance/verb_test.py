"""`egw plugin check` as an author meets it: from an installation, with libraries that are wrong in themselves, without
root, interrupted. Run by ctest with pytest."""

import json
import os
import pathlib
import shutil
import signal
import subprocess
import tempfile
import time

import pytest

BUILD = os.environ["EGW_BUILD_DIR"]
PLUGINS = os.path.join(BUILD, "lib", "egw", "plugins")
NETLINK = os.path.join(PLUGINS, "egw-datapath-netlink.so")
EXAMPLE = os.path.join(BUILD, "lib", "egw", "example", "egw-datapath-example.so")


def check(*args, egw=os.path.join(BUILD, "bin", "egw"), **kwargs):
    env = {k: v for k, v in os.environ.items() if not k.startswith("EGW_")}
    return subprocess.run([egw, *args], capture_output=True, text=True, check=False, timeout=200, env=env, **kwargs)


def wrong(name):
    return os.path.join(BUILD, "lib", "egw", "wrong", f"egw-datapath-wrong-{name}.so")


without_wrong = pytest.mark.skipif(not os.path.exists(wrong("prints")), reason="not with a sanitizer: no wrong datapaths")


def refused(done, *words):
    """Exit code 2 and one sentence that has these words."""
    assert done.returncode == 2, (done.stdout, done.stderr)
    for word in words:
        assert word in done.stderr, done.stderr
    assert "Traceback" not in done.stderr


@pytest.fixture(name="installed", scope="module")
def fixture_installed():
    """egw, its plugins and the kit below a prefix of their own, reached by nothing of the source tree. Not below pytest's
    folder, which every pytest that begins closes to other users again."""
    with tempfile.TemporaryDirectory(prefix="egw-installed-") as folder:
        prefix = pathlib.Path(folder)
        prefix.chmod(0o755)
        done = subprocess.run(["cmake", "--install", BUILD, "--prefix", folder], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        yield prefix


def test_the_installed_kit(installed, tmp_path):
    out = tmp_path / "result.json"
    done = check("plugin", "check", "netlink", "--only", "path-source", "--only", "repair-health", "--json", str(out),
                 egw=str(installed / "bin" / "egw"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 requirements, 2 passed, 0 failed, 0 skipped" in done.stdout
    result = json.loads(out.read_text())
    assert result["version"] == 1 and result["passed"] == 2
    assert result["plugins"][0]["name"] == "netlink"
    assert result["plugins"][0]["file"].startswith(str(installed))
    assert [v["name"] for v in result["requirements"][0]["variants"]] == ["client", "owner", "standby"]
    assert not list((installed / "share").rglob("__pycache__"))


def test_a_library_outside_the_plugin_folder(tmp_path):
    """By its path, with all of the abi group: the example has no kernel behind it."""
    folder = tmp_path / "mine"
    folder.mkdir(mode=0o755)
    shutil.copy(EXAMPLE, folder)
    done = check("plugin", "check", str(folder / "egw-datapath-example.so"), "--only", "abi")
    assert done.returncode == 0, done.stdout + done.stderr
    assert " 0 failed" in done.stdout


def test_a_skeleton_fails_where_packets_count():
    done = check("plugin", "check", EXAMPLE, "--only", "path-source")
    assert done.returncode == 1
    assert "path-source  fail" in done.stdout and "10.6.1.56" in done.stdout


def test_a_mixed_pair():
    done = check("plugin", "check", NETLINK, "--pair", EXAMPLE, "--only", "path-source")
    assert done.returncode == 1, "the example on the gateways carries nothing"
    assert "netlink" in done.stdout and "with example" in done.stdout


def test_broken_libraries(tmp_path):
    tmp_path.chmod(0o755)
    text = tmp_path / "egw-datapath-text.so"
    text.write_text("no library")
    refused(check("plugin", "check", str(text)), "egw-datapath-text.so", "ELF")
    open_ = tmp_path / "egw-datapath-open.so"
    shutil.copy(EXAMPLE, open_)
    open_.chmod(0o777)
    refused(check("plugin", "check", str(open_)), "egw-datapath-open.so", "chmod")
    renamed = tmp_path / "egw-datapath-renamed.so"
    shutil.copy(EXAMPLE, renamed)
    refused(check("plugin", "check", str(renamed)), "renamed", "example")
    refused(check("plugin", "check", str(tmp_path / "mine.so")), "egw-datapath-NAME.so")
    refused(check("plugin", "check", str(tmp_path / "egw-datapath-none.so")), "egw-datapath-none.so")
    refused(check("plugin", "check", "none"), "none")
    refused(check("plugin", "check", NETLINK, "--pair", str(text)), "egw-datapath-text.so", "ELF")


def test_wrong_words(tmp_path):
    refused(check("plugin", "check"), "plugin check")
    refused(check("plugin", "check", "netlink", "--only", "nonsense"), "nonsense", "groups")
    config = tmp_path / "egw.yaml"
    config.write_text("plugins: {datapath: {name: netlink, config: {nonsense: 1}}}")
    refused(check("--config", str(config), "plugin", "check", "netlink", "--only", "abi-full"), "nonsense")
    config.write_text("plugins: {datapath: {name: ebpf}}")
    refused(check("--config", str(config), "plugin", "check", "netlink"), "plugins.datapath.name", "netlink")
    config.write_text("plugins: 7")
    refused(check("--config", str(config), "plugin", "check", "netlink"), "plugins")


def test_the_driver_answers_what_it_cannot_read(tmp_path):
    """As docs/write-a-datapath.md has it used, a line each: nothing ends it but the end of its input."""
    asked = ["no JSON", '{"op": "apply", "file": "none.json"}', '{"op": "nonsense"}', "[]", '{"op": "health"}']
    driver = [os.path.join(BUILD, "bin", "egw-datapath-driver"), os.path.dirname(EXAMPLE), "example", str(tmp_path / "state")]
    done = subprocess.run(driver, input="\n".join(asked), capture_output=True, text=True, check=False, timeout=60)
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert [a["ok"] for a in answers] == [False, False, False, False, True] and done.returncode == 0, (answers, done.stderr)
    assert "parse error" in answers[0]["error"] and answers[1]["error"] == "none.json: cannot be opened"
    assert subprocess.run([*driver, "{"], input="", capture_output=True, check=False, timeout=60).returncode == 2


def test_an_output_that_takes_nothing():
    env = {k: v for k, v in os.environ.items() if not k.startswith("EGW_")}
    for words in (["--list"], ["--only", "abi-full"]):
        with open("/dev/full", "w", encoding="ascii") as full:
            done = subprocess.run([os.path.join(BUILD, "bin", "egw"), "plugin", "check", EXAMPLE, *words], stdout=full,
                                  stderr=subprocess.PIPE, text=True, check=False, timeout=200, env=env)
        assert done.returncode == 1, done.stderr
        assert "standard output: cannot be written (No space left on device)" in done.stderr and "Traceback" not in done.stderr


def test_options_that_say_nothing():
    for jobs in ("0", "-3", "x", "99999999999"):
        refused(check("plugin", "check", "netlink", "--jobs", jobs), "--jobs", "number", "plugin check --help")
    for option in ("--jobs", "--only", "--pair", "--json"):
        refused(check("plugin", "check", "netlink", option, ""), f"{option}: is empty")
    refused(check("plugin", "check", "netlink", "--only", ",abi"), "groups")


def test_the_file_of_an_agent_that_chooses_itself(tmp_path):
    config = tmp_path / "egw.yaml"
    config.write_text("plugins: {datapath: {name: auto, config: {netlink: {nonsense: 1}}}}")
    refused(check("--config", str(config), "plugin", "check", "netlink", "--only", "abi-full"), "nonsense")
    refused(check("--config", str(config), "plugin", "check", EXAMPLE, "--pair", NETLINK, "--only", "path-source"), "nonsense")
    done = check("--config", str(config), "plugin", "check", EXAMPLE, "--only", "abi-full")
    assert done.returncode == 0, "the part of another plugin does not concern this one: " + done.stdout + done.stderr
    config.write_text("plugins: {datapath: {name: netlink, config: {nonsense: 1}}}")
    refused(check("--config", str(config), "plugin", "check", EXAMPLE, "--pair", NETLINK, "--only", "path-source"), "nonsense")


@without_wrong
def test_a_plugin_that_writes_to_stdout():
    done = check("plugin", "check", wrong("prints"), "--only", "abi-full,path-source")
    assert done.returncode == 0, done.stdout + done.stderr


@without_wrong
def test_a_plugin_that_ends_its_process(tmp_path):
    out = tmp_path / "result.json"
    out.write_text('{"passed": 100}')
    refused(check("plugin", "check", wrong("exits-in-open"), "--json", str(out)), "exits-in-open", "must not end the process")
    result = json.loads(out.read_text())
    assert "must not end the process" in result["error"] and result["requirements"] == []


def test_no_earlier_result_is_left(tmp_path):
    out = tmp_path / "result.json"
    out.write_text('{"passed": 100}')
    refused(check("plugin", "check", str(tmp_path / "egw-datapath-none.so"), "--json", str(out)), "none")
    assert list(tmp_path.iterdir()) == []
    refused(check("plugin", "check", "netlink", "--json", str(tmp_path / "missing" / "result.json")), "--json")


@without_wrong
def test_processes_of_a_plugin_are_ended():
    done = check("plugin", "check", wrong("leaves-a-process"), "--only", "abi-plugin,abi-close")
    assert done.returncode == 0, done.stdout + done.stderr
    lines = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout.splitlines()
    assert [line for line in lines if "egw-datapath-driver" in line and "wrong-leaves-a-process" in line] == []


@without_wrong
def test_a_plugin_that_hangs_is_not_waited_for_again_and_again():
    begin = time.monotonic()
    done = check("plugin", "check", wrong("hangs"), "--jobs", "2")
    assert done.returncode == 1 and time.monotonic() - begin < 90
    assert "apply hangs: " in done.stdout and "did not come back within 30 s" in done.stdout
    assert "scale-packet" in done.stdout and "not run: apply hangs" in done.stdout


def test_the_list_needs_nothing():
    done = check("plugin", "check", NETLINK, "--list")
    assert done.returncode == 0 and "path-source" in done.stdout


def as_nobody():
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)


def test_without_root(installed):
    done = check("plugin", "check", "netlink", egw=str(installed / "bin" / "egw"), preexec_fn=as_nobody, cwd="/")
    refused(done, "root")


def test_missing_tools_are_named(installed, tmp_path):
    """/usr/sbin and /sbin hidden: what stands there is missing."""
    script = (f"mount -t tmpfs tmpfs /usr/sbin && {installed}/bin/egw plugin check netlink --only abi-full")
    env = {k: v for k, v in os.environ.items() if not k.startswith("EGW_")}
    done = subprocess.run(["unshare", "--mount", "--propagation", "private", "sh", "-c", script], capture_output=True,
                          text=True, check=False, env=env, cwd=tmp_path)
    refused(done, "nft", "nftables", "iptables", "conntrack")


def namespaces(pid):
    return [n for n in os.listdir("/run/netns") if n.startswith(f"kit{pid}w")] if os.path.isdir("/run/netns") else []


@pytest.mark.parametrize("signo", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_it_leaves_nothing(signo):
    env = {k: v for k, v in os.environ.items() if not k.startswith("EGW_")}
    process = subprocess.Popen([os.path.join(BUILD, "bin", "egw"), "plugin", "check", NETLINK, "--only", "flow"], env=env,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)
    end = time.monotonic() + 20
    while len(namespaces(process.pid)) < 5 and time.monotonic() < end:
        time.sleep(0.05)
    assert namespaces(process.pid)
    os.killpg(process.pid, signo) if signo == signal.SIGINT else process.send_signal(signo)  # Ctrl-C reaches the group
    process.communicate(timeout=30)
    assert process.returncode == 128 + signo
    assert namespaces(process.pid) == []
    # What has ended and waits for its new parent, the machine's first process, is no matter of the kit.
    lines = subprocess.run(["ps", "-s", str(process.pid), "-o", "stat=,args="], capture_output=True, text=True,
                           check=False).stdout.splitlines()
    assert [line for line in lines if not line.startswith("Z")] == []
