"""usage: include_table.py SOURCE_DIR : who may include whom (docs/how-it-works.md), for framework/ and plugins/."""
import pathlib
import re
import sys

# Folder of framework/ -> folders whose headers it may include besides its own.
FRAMEWORK = {
    "abi": set(),
    "sdk": {"abi"},
    "model": set(),
    "core": {"model"},
    "host": {"abi", "model"},
    "net": {"model"},
    "runtime": {"core", "host", "net", "model"},
    "app": {"core", "host", "net", "model", "runtime", "abi"},
}
PLUGIN = {"sdk", "abi"}  # and its own folder, and plugins/common
ABI_SYSTEM_HEADERS = {"stdint.h", "stddef.h"}
INCLUDE = re.compile(r'^\s*#\s*include\s*(?:"([^"]+)"|<([^>]+)>)', re.M)
SUFFIXES = {".h", ".hpp", ".cpp", ".c", ".in"}


def sources(folder):
    return sorted(f for f in folder.rglob("*") if f.suffix in SUFFIXES)


def egw_module(path):
    parts = path.split("/")
    return parts[1] if parts[0] == "egw" and len(parts) > 2 else None


def check_framework(root, wrong):
    count = 0
    for folder in sorted(p for p in (root / "framework").iterdir() if p.is_dir()):
        module = folder.name
        if module not in FRAMEWORK:
            wrong.append(f"framework/{module}: is not in the table")
            continue
        for file in sources(folder):
            for quoted, system in INCLUDE.findall(file.read_text()):
                count += 1
                name = quoted or system
                target = egw_module(name)
                if target is None:
                    if quoted:
                        wrong.append(f'{file.relative_to(root)}: "{name}" is not written as egw/<module>/<file>')
                    elif module == "abi" and name not in ABI_SYSTEM_HEADERS:
                        wrong.append(f"{file.relative_to(root)}: the ABI needs <{name}>")
                elif target != module and target not in FRAMEWORK[module]:
                    wrong.append(f"{file.relative_to(root)}: {module} may not include {target} ({name})")
    return count


def check_plugins(root, wrong):
    count = 0
    common = root / "plugins" / "common"
    for folder in sorted(p for p in (root / "plugins").iterdir() if p.is_dir()):
        for file in sources(folder):
            for quoted, system in INCLUDE.findall(file.read_text()):
                count += 1
                name = quoted or system
                target = egw_module(name)
                if target is not None:
                    if target not in PLUGIN:
                        wrong.append(f"{file.relative_to(root)}: a plugin may not include {target} ({name})")
                elif quoted and not any((base / name).is_file() for base in
                                        (file.parent, folder, common, common.parent)):
                    wrong.append(f'{file.relative_to(root)}: "{name}" is neither its own, nor plugins/common, nor the SDK')
                elif quoted and (common.parent / name).is_file() and \
                        name.split("/")[0] not in (folder.name, "common"):
                    wrong.append(f"{file.relative_to(root)}: a plugin may not include another plugin ({name})")
    return count


def main():
    root = pathlib.Path(sys.argv[1]).resolve()
    wrong = []
    count = check_framework(root, wrong) + check_plugins(root, wrong)
    if count < 100:
        wrong.append(f"only {count} includes found in {root}: nothing was tested")
    print("\n".join(wrong) if wrong else f"{count} includes, all as the table says")
    sys.exit(1 if wrong else 0)


main()
