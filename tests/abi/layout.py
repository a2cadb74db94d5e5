"""The layout of the plugin ABI: every struct, field and number of the C headers as a text, one line each, and the
rules by which it may change (docs/abi.md).

usage: layout.py dump INCLUDE_DIR          prints the layout of INCLUDE_DIR/egw/abi/*.h
       layout.py check INCLUDE_DIR FILE... compares it with checked-in ones, FILE being called MAJOR.MINOR.txt
Needs a C compiler and abidw (abigail-tools)."""

import pathlib
import re
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as xml


def compiled(include_dir, folder):
    """abidw's description of all types in the headers."""
    headers = sorted(pathlib.Path(include_dir).glob("egw/abi/*.h"))
    structs = [s for h in headers for s in re.findall(r"^typedef struct (egw_\w+) \{", h.read_text(), re.M)]
    enums = [e for h in headers for e in re.findall(r"^typedef enum (egw_\w+) \{", h.read_text(), re.M)]
    if not structs or not enums:
        sys.exit(f"no types found in {include_dir}/egw/abi")
    source = "".join(f'#include "egw/abi/{h.name}"\n' for h in headers)
    source += "".join(f"{t}* use_{t}(void);\n{t}* use_{t}(void) {{ return 0; }}\n" for t in structs + enums)
    (folder / "types.c").write_text(source)
    subprocess.run(["cc", "-std=c11", "-g", "-shared", "-fPIC", "-I", include_dir, "-o", folder / "types.so",
                    folder / "types.c"], check=True)
    out = subprocess.run(["abidw", "--no-corpus-path", "--no-comp-dir-path", folder / "types.so"],
                         check=True, capture_output=True, text=True).stdout
    return xml.fromstring(out), structs, enums


class Types:
    def __init__(self, root):
        self.by_id = {e.get("id"): e for e in root.iter() if e.get("id")}

    def name(self, type_id):
        """As it would be written in C."""
        element = self.by_id.get(type_id)
        if element is None:
            return "void"
        tag = element.tag
        if tag == "pointer-type-def":
            inner = self.by_id.get(element.get("type-id"))
            if inner is not None and inner.tag == "function-type":
                return self.function(inner)
            return self.name(element.get("type-id")) + "*"
        if tag == "qualified-type-def":
            return "const " + self.name(element.get("type-id")) if element.get("const") else \
                self.name(element.get("type-id"))
        if tag == "array-type-def":
            counts = "".join(f"[{s.get('length')}]" for s in element.iter("subrange"))
            return self.name(element.get("type-id")) + counts
        return element.get("name")

    def function(self, element):
        answer = self.name(element.find("return").get("type-id"))
        return f"{answer} (*)({', '.join(self.name(p.get('type-id')) for p in element.findall('parameter'))})"


def dump(include_dir):
    """{"struct egw_x": size, "struct egw_x.field": "offset size type", "enum egw_y.NAME": value}, in order."""
    with tempfile.TemporaryDirectory() as name:
        root, structs, enums = compiled(include_dir, pathlib.Path(name))
    types, out = Types(root), {}
    text = "".join(p.read_text() for p in pathlib.Path(include_dir).glob("egw/abi/*.h"))
    version = tuple(int(re.search(rf"define EGW_ABI_{w} (\d+)", text).group(1)) for w in ("MAJOR", "MINOR"))
    found = {e.get("name"): e for e in root.iter() if e.tag in ("class-decl", "enum-decl") and not
             e.get("is-declaration-only")}
    for struct in sorted(structs):
        element = found[struct]
        out[f"struct {struct}"] = int(element.get("size-in-bits")) // 8
        for member in element.findall("data-member"):
            var = member.find("var-decl")
            out[f"struct {struct}.{var.get('name')}"] = \
                f"{int(member.get('layout-offset-in-bits')) // 8} {types.name(var.get('type-id'))}"
    for enum in sorted(enums):
        for value in found[enum].findall("enumerator"):
            out[f"enum {enum}.{value.get('name')}"] = int(value.get("value"))
    for name, value in sorted(re.findall(r"^#define (EGW_\w+) +\(?(\w+(?: << \d+)?)\)?", text, re.M)):
        if name not in ("EGW_ABI_MAJOR", "EGW_ABI_MINOR") and not name.endswith("_H"):
            out[f"define {name}"] = value
    return version, out


def violations(version, now, before_version, before):
    """What breaks a plugin that was built when the layout was `before`: sentences."""
    wrong = []
    if version[0] != before_version[0]:
        return []  # a new major: everything may change
    named = {(key.split(".")[0], value): key for key, value in now.items() if "." in key and key not in before}
    reserved = {named[place] for key, old in before.items() if key not in now and ".reserved" in key and
                (place := (key.split(".")[0], old)) in named}  # it was zero, and zero means "not given"
    for key, old in before.items():
        new = now.get(key)
        if new is None and ".reserved" in key and (key.split(".")[0], old) in named:
            continue
        if new is None:
            wrong.append(f"{key} is gone")
        elif isinstance(old, int) and key.startswith("struct "):
            if new < old:
                wrong.append(f"{key} has shrunk from {old} to {new} bytes")
            elif new > old and f"{key}.struct_size" not in before:
                wrong.append(f"{key} has no struct_size and may not grow ({old} to {new} bytes)")
        elif new != old:
            wrong.append(f"{key} was \"{old}\" and is \"{new}\"")
    added = [key for key in now if key not in before]
    for key in added:
        struct = key.split(".")[0]
        if key.startswith("struct ") and "." in key and struct in before and key not in reserved:
            offset = int(str(now[key]).split()[0])
            if offset < before[struct]:
                wrong.append(f"{key} is new and stands at {offset}, inside what was there before")
    changed = added or any(now.get(k) != v for k, v in before.items())
    if changed and version == before_version:
        wrong.append(f"the layout differs from that of ABI {version[0]}.{version[1]}: raise EGW_ABI_MINOR and check in "
                     f"`layout.py dump` as {version[0]}.{version[1] + 1}.txt ({(added or ['a change'])[0]})")
    return wrong


def written(path):
    out = {}
    for line in pathlib.Path(path).read_text().splitlines():
        key, value = line.split(": ", 1)
        out[key] = int(value) if re.fullmatch(r"-?\d+", value) and not key.startswith("define") else value
    return tuple(int(n) for n in pathlib.Path(path).stem.split(".")), out


def check(include_dir, files):
    version, now = dump(include_dir)
    wrong = []
    known = [written(f) for f in files]
    for before_version, before in known:
        wrong += [f"since {before_version[0]}.{before_version[1]}: {w}"
                  for w in violations(version, now, before_version, before)]
    if version not in [v for v, _ in known]:
        wrong.append(f"there is no checked-in layout of ABI {version[0]}.{version[1]}")
    return wrong


def main():
    if sys.argv[1:2] == ["dump"] and len(sys.argv) == 3:
        for key, value in dump(sys.argv[2])[1].items():
            print(f"{key}: {value}")
    elif sys.argv[1:2] == ["check"] and len(sys.argv) > 3:
        wrong = check(sys.argv[2], sys.argv[3:])
        print("\n".join(wrong) or "the layout is as it was, or has grown at its ends")
        sys.exit(1 if wrong else 0)
    else:
        sys.exit(__doc__)


if __name__ == "__main__":
    main()
