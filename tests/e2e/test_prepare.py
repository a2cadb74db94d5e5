"""cmake/prepare with the real apt and dpkg on a database and a repository of the test's own: it waits for whoever is at work,
says so, shows how far it is, and says why it fails. And what tests/run says to words that it does not know."""

import contextlib
import fcntl
import os
import re
import shutil
import subprocess

import pytest

from conftest import ROOT
from lab.cluster import build_dir

PACKAGES = [f"egw-test-{i}" for i in range(3)]


class Tree:
    """A tree with a build of one step, on a machine where its packages are missing."""

    def __init__(self, path):
        self.path, self.apt, self.dpkg = path / "tree", path / "apt", path / "root" / "var" / "lib" / "dpkg"
        for folder in (self.path / "cmake", self.apt / "lists" / "partial", self.apt / "archives" / "partial",
                       self.apt / "repository", self.dpkg / "info", self.dpkg / "updates"):
            folder.mkdir(parents=True)
        (self.dpkg / "status").touch()
        shutil.copy(os.path.join(ROOT, "cmake", "prepare"), self.path / "cmake")
        (self.path / "cmake" / "packages.txt").write_text("\n".join(PACKAGES) + "\n")
        (self.path / "CMakeLists.txt").write_text(
            'cmake_minimum_required(VERSION 3.25)\nproject(tree NONE)\nadd_custom_target(built ALL "${CMAKE_COMMAND}" -E echo made)\n')
        (self.path / "CMakePresets.json").write_text(
            '{"version": 3, "configurePresets": [{"name": "release", "generator": "Ninja", "binaryDir": "${sourceDir}/build/release"}]}')
        self._fill_repository(self.apt / "repository")
        self._configure()

    def _fill_repository(self, repository):
        lines = []
        for name in PACKAGES:
            control = self.apt / name / "DEBIAN" / "control"
            control.parent.mkdir(parents=True)
            text = f"Package: {name}\nVersion: 1\nArchitecture: all\nMaintainer: none <none@localhost>\nDescription: of a test\n"
            control.write_text(text)
            deb = repository / f"{name}.deb"
            subprocess.run(["dpkg-deb", "--build", control.parent.parent, deb], check=True, capture_output=True)
            sums = subprocess.run(["sha256sum", deb], check=True, capture_output=True, text=True).stdout.split()[0]
            lines.append(f"{text}Filename: ./{deb.name}\nSize: {deb.stat().st_size}\nSHA256: {sums}\n")
        (repository / "Packages").write_text("\n".join(lines))

    def _configure(self):
        (self.apt / "sources.list").write_text(f"deb [trusted=yes] file:{self.apt}/repository ./\n")
        (self.apt / "apt.conf").write_text("\n".join((
            f'Dir::State "{self.apt}/";', f'Dir::State::lists "{self.apt}/lists/";', f'Dir::State::status "{self.dpkg}/status";',
            f'Dir::Cache "{self.apt}/";', f'Dir::Etc::sourcelist "{self.apt}/sources.list";', 'Dir::Etc::sourceparts "/dev/null";',
            f'Dir::Log "{self.apt}/";', 'Dir::Etc::parts "/dev/null";', 'APT::Sandbox::User "root";',
            f'DPkg::Options {{ "--root={self.path.parent}/root"; "--log=/dev/null"; "--force-not-root"; }};', "")))

    def start(self, **more):
        environment = {**os.environ, "APT_CONFIG": str(self.apt / "apt.conf"), "DPKG_ADMINDIR": str(self.dpkg), **more}
        return subprocess.Popen([self.path / "cmake" / "prepare"], env=environment, stdout=subprocess.PIPE,
                                stderr=subprocess.STDOUT, text=True)

    def installed(self):
        return re.findall(r"^Package: (.*)\nStatus: install ok installed", (self.dpkg / "status").read_text(), re.M)


@pytest.fixture
def tree(tmp_path):
    return Tree(tmp_path)


def test_packages_are_installed_with_progress_shown_and_once(tree):
    out, _ = tree.start().communicate(timeout=60)
    assert tree.installed() == PACKAGES, out
    assert "== installing: " + " ".join(PACKAGES) in out and re.search(r"^   (fetching|installing) +\d+ %  \S", out, re.M), out
    assert "made" in out and len(out.splitlines()) < 20, out
    out, _ = tree.start().communicate(timeout=60)
    assert "installing" not in out and "== building" in out


def until(p, words):
    """The lines up to the one with the words."""
    said = []
    for line in p.stdout:
        said.append(line)
        if words in line:
            return said
    raise AssertionError(f"never said {words!r}: {said}")


@contextlib.contextmanager
def held(path, lock):
    with open(path, "a", encoding="ascii") as f:
        lock(f, fcntl.LOCK_EX)
        yield


@pytest.mark.parametrize("which", ["dpkg/lock-frontend", "dpkg/lock", "lists/lock", "archives/lock"])
def test_another_apt_or_dpkg_is_waited_for(tree, which):
    folder, name = which.split("/")
    with held((tree.dpkg if folder == "dpkg" else tree.apt / folder) / name, fcntl.lockf):
        p = tree.start()
        until(p, "== waiting for another apt or dpkg to end: ")
    rest, _ = p.communicate(timeout=60)
    assert p.returncode == 0 and tree.installed() == PACKAGES, rest
    assert "waiting" not in rest  # it is said once


def test_a_second_one_in_the_same_tree_waits_and_says_so(tree):
    (tree.path / "build").mkdir()
    with held(tree.path / "build" / "prepare.lock", fcntl.flock):
        p = tree.start()
        until(p, "== waiting: another cmake/prepare")
    rest, _ = p.communicate(timeout=60)
    assert p.returncode == 0 and tree.installed() == PACKAGES, rest
    both = [tree.start(), tree.start()]
    outputs = [b.communicate(timeout=60)[0] for b in both]
    assert [b.returncode for b in both] == [0, 0], outputs


def test_a_package_that_does_not_exist_is_named(tree):
    (tree.path / "cmake" / "packages.txt").write_text("egw-test-none\n")
    p = tree.start()
    out, _ = p.communicate(timeout=60)
    assert p.returncode != 0 and "Unable to locate package egw-test-none" in out and "cmake/prepare: " in out
    assert "== building" not in out


def run_tests(*words, **more):
    return subprocess.run([os.path.join(ROOT, "tests", "run"), *words], capture_output=True, text=True, check=False, timeout=30, **more)


@pytest.mark.parametrize("words, said", [
    (["--label"], "tests/run: --label needs a label: abi "), (["--label", "nonsense"], "tests/run: no test has the label 'nonsense'"),
    (["--label", ""], "no test has the label ''"), (["--label", "unit|abi"], "no test has the label 'unit|abi'"),
    (["--label", "uni"], "no test has the label 'uni'"), (["unit"], "unknown word 'unit'")])
def test_words_that_tests_run_does_not_know(words, said):
    done = run_tests(*words)
    assert (done.returncode, done.stdout) == (2, "") and said in done.stderr, done
    assert "labels: " in done.stderr or "usage: tests/run" in done.stderr


def test_tests_run_knows_every_label_and_no_other():
    printed = subprocess.run(["ctest", "--test-dir", build_dir(), "--print-labels"], capture_output=True, text=True, check=True).stdout
    labels = set(re.findall(r"^  (\S+)$", printed, re.M))
    known = set(run_tests("--label", "nonsense").stderr.split("labels: ")[1].split())
    assert labels | {"bench"} == known
    # A word that is known is gone on with: to the question who runs it.
    for label in known:
        done = run_tests("--label", label, user=65534, group=65534, extra_groups=[])
        assert (done.returncode, done.stderr) == (1, "tests/run: network namespaces need root: run it as root\n"), label
