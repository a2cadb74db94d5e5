"""usage: exports.py FOLDER... : every plugin library there exports egw_plugin_entry_v1 and nothing else."""
import pathlib
import subprocess
import sys

WANTED = {"egw_plugin_entry_v1"}


def exported(library):
    out = subprocess.run(["nm", "-D", "--defined-only", "--format=posix", library],
                         check=True, capture_output=True, text=True).stdout
    return {line.split()[0].split("@")[0] for line in out.splitlines()}


def main():
    libraries = [f for folder in sys.argv[1:] for f in sorted(pathlib.Path(folder).glob("egw-*.so"))]
    if len(libraries) < 2:
        sys.exit(f"found {len(libraries)} plugin libraries in {sys.argv[1:]}: nothing was tested")
    wrong = 0
    for library in libraries:
        symbols = exported(library)
        if symbols != WANTED:
            wrong += 1
            print(f"{library.name} exports {sorted(symbols - WANTED)[:10]}, "
                  f"lacks {sorted(WANTED - symbols)}")
    print(f"{len(libraries)} plugins, {wrong} wrong")
    sys.exit(1 if wrong else 0)


main()
