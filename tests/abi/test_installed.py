"""What a plugin author has: the headers, the CMake package and the example of `cmake --install --component dev`, in a
temporary prefix. The examples in C++, C and Rust and a third party's project are built with nothing else, and pass the
ABI's cases under the real host, and those of the conformance kit."""

import json
import os
import pathlib
import re
import shutil
import subprocess

import pytest

BUILD = pathlib.Path(os.environ["EGW_BUILD_DIR"])
ROOT = pathlib.Path(__file__).resolve().parents[2]
EGW, ABI_CHECK = BUILD / "bin" / "egw", BUILD / "bin" / "egw-abi-check"
CASES = ["descriptor", "open", "probe", "step before full", "full", "full again", "step", "step on another base",
         "delete what is not there", "partial failure", "observe", "counters", "sysctls", "health", "forget",
         "close and open", "hand over", "purge", "close"]


def run(*args, check=True, **kwargs):
    done = subprocess.run([str(a) for a in args], capture_output=True, text=True, check=False, **kwargs)
    assert not check or done.returncode == 0, f"{args}: {done.stdout}{done.stderr}"
    return done


@pytest.fixture(name="prefix", scope="module")
def fixture_prefix(tmp_path_factory):
    prefix = tmp_path_factory.mktemp("prefix") / "usr"
    run("cmake", "--install", BUILD, "--prefix", prefix, "--component", "dev")
    return prefix


def built(prefix, source, binary, *options):
    run("cmake", "-G", "Ninja", "-S", source, "-B", binary, f"-DCMAKE_PREFIX_PATH={prefix}",
        "-DCMAKE_BUILD_TYPE=Release", *options)
    run("cmake", "--build", binary)


def abi_cases(folder, name, tmp_path):
    """Runs the ABI's cases of a library; what is not skipped has passed."""
    folder.chmod(0o755)
    for library in folder.glob("egw-*.so"):
        library.chmod(0o755)
    done = run(ABI_CHECK, folder, name, tmp_path / "state", check=False)
    cases = json.loads(done.stdout)["cases"]
    assert [c["case"] for c in cases] == CASES, done.stdout
    assert done.returncode == 0, [c for c in cases if c["result"] == "fail"]
    inspected = json.loads(run(EGW, "--plugin-dir", folder, "plugin", "inspect", name, "-o", "json").stdout)
    assert inspected["usable"] and inspected["name"] == name
    run(EGW, "plugin", "check", folder / f"egw-datapath-{name}.so", "--only", "abi")
    exported = run("nm", "-D", "--defined-only", "--format=posix", folder / f"egw-datapath-{name}.so").stdout
    assert [line.split()[0] for line in exported.splitlines()] == ["egw_plugin_entry_v1"]
    return {c["case"]: c["result"] for c in cases}


def test_dev_is_what_an_author_needs_and_nothing_else(prefix):
    files = {str(p.relative_to(prefix)) for p in prefix.rglob("*") if p.is_file()}
    for wanted in ("include/egw/abi/datapath.h", "include/egw/sdk/datapath.hpp", "include/egw/sdk/testing.hpp",
                   "lib/cmake/egw/egwConfig.cmake", "lib/cmake/egw/plugin.map", "share/doc/egw/example/example.cpp",
                   "share/doc/egw/example/c/example.c", "share/doc/egw/example/rust/lib.rs"):
        assert wanted in files
    assert not [f for f in files if re.match(r"(s?bin|libexec|etc)/", f) or f.endswith(".so")]
    assert not [f for f in files if f.startswith("include/") and not re.match(r"include/egw/(abi|sdk)/\w+\.h(pp)?$", f)]


def test_each_header_stands_alone(prefix, tmp_path):
    """Only headers of the installation and of the language: nothing of the tree is needed."""
    for header in sorted((prefix / "include" / "egw").rglob("*.h*")):
        name = header.relative_to(prefix / "include")
        c = header.suffix == ".h"
        source = tmp_path / ("one.c" if c else "one.cpp")
        source.write_text(f'#include "{name}"\n')
        run(*(["cc", "-std=c11"] if c else ["c++", "-std=c++20"]), "-Wall", "-Wextra", "-Wpedantic", "-Werror",
            "-fsyntax-only", "-I", prefix / "include", source)


def test_third_party_project(prefix, tmp_path):
    """Copied out of the tree, so that it cannot find anything there."""
    source, binary = tmp_path / "source", tmp_path / "build"
    shutil.copytree(ROOT / "tests" / "abi" / "thirdparty", source)
    skeleton = [source / f for f in ("CMakeLists.txt", "plugin.cpp", "skeleton.hpp")]
    assert sum(len(f.read_text().splitlines()) for f in skeleton) < 150
    built(prefix, source, binary, "-DCMAKE_CXX_FLAGS=-Wall -Wextra -Wconversion -Wshadow -Werror")
    assert "100% tests passed" in run("ctest", "--test-dir", binary, "--output-on-failure").stdout
    results = abi_cases(binary / "plugins", "thirdparty", tmp_path)
    assert results["step"] == "pass" and results["hand over"] == "skip"


def test_its_unit_tests_can_fail(prefix, tmp_path):
    """A skeleton that forgets the deletes of a step."""
    source, binary = tmp_path / "source", tmp_path / "build"
    shutil.copytree(ROOT / "tests" / "abi" / "thirdparty", source)
    header = source / "skeleton.hpp"
    text = header.read_text()
    wrong = text.replace("if (sdk::Status s = held_.fits(change); !s.ok()) return s;", "")
    assert wrong != text
    header.write_text(wrong)
    built(prefix, source, binary)
    assert run("ctest", "--test-dir", binary, check=False).returncode != 0
    folder = binary / "plugins"
    done = run(ABI_CHECK, folder, "thirdparty", tmp_path / "state", check=False)
    failed = [c["case"] for c in json.loads(done.stdout)["cases"] if c["result"] == "fail"]
    assert done.returncode == 1 and failed == ["step before full", "step on another base"]


def test_example_in_cpp(prefix, tmp_path):
    built(prefix, prefix / "share/doc/egw/example", tmp_path / "build")
    assert abi_cases(tmp_path / "build", "example", tmp_path)["step"] == "pass"


def test_example_in_c(prefix, tmp_path):
    built(prefix, prefix / "share/doc/egw/example/c", tmp_path / "build", "-DCMAKE_C_FLAGS=-Werror")
    assert abi_cases(tmp_path / "build", "c-example", tmp_path)["step"] == "pass"


@pytest.mark.skipif(shutil.which("rustc") is None, reason="no rustc here: the example in Rust is not built")
def test_example_in_rust(prefix, tmp_path):
    library = tmp_path / "plugins" / "egw-datapath-rust-example.so"
    library.parent.mkdir()
    run("rustc", "--edition", "2021", "--crate-type", "cdylib", "-C", "opt-level=2", "-C", "panic=abort", "-D", "warnings",
        "-o", library, prefix / "share/doc/egw/example/rust/lib.rs")
    assert abi_cases(library.parent, "rust-example", tmp_path)["step"] == "pass"


@pytest.mark.parametrize("wanted, found", [("1.0", True), ("1.1", True), ("1.99", False), ("2.0", False), ("0.9", False)])
def test_versions_of_the_package_are_those_of_the_abi(prefix, tmp_path, wanted, found):
    (tmp_path / "CMakeLists.txt").write_text(f"cmake_minimum_required(VERSION 3.25)\nproject(p LANGUAGES C)\n"
                                             f"find_package(egw {wanted} REQUIRED)\n")
    done = run("cmake", "-S", tmp_path, "-B", tmp_path / "build", f"-DCMAKE_PREFIX_PATH={prefix}", check=False)
    assert (done.returncode == 0) == found, done.stderr


@pytest.mark.parametrize("call, says", [
    ("egw_add_plugin(router x SOURCES x.c)", "the kind is datapath, statestore or leaderelection"),
    ("egw_add_plugin(datapath My_Plugin SOURCES x.c)", "a name is 1 to 32 of a-z, 0-9 and -"),
    ("egw_add_plugin(datapath x x.c)", "wants SOURCES files")])
def test_wrong_use_of_the_function_is_told(prefix, tmp_path, call, says):
    (tmp_path / "x.c").write_text("int x;\n")
    (tmp_path / "CMakeLists.txt").write_text("cmake_minimum_required(VERSION 3.25)\nproject(p LANGUAGES C)\n"
                                             f"find_package(egw REQUIRED)\n{call}\n")
    done = run("cmake", "-S", tmp_path, "-B", tmp_path / "build", f"-DCMAKE_PREFIX_PATH={prefix}", check=False)
    assert done.returncode != 0 and says in re.sub(r"\s+", " ", done.stderr)
