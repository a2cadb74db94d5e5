"""The checked-in CRDs are what config/crds/generate writes, the chart's copies what charts/generate writes, and every
field that a codec of the model reads is in one of them. tests/unit/app/crd_test.cpp looks the other way.

usage: crds.py ROOT
"""

import pathlib
import re
import subprocess
import sys

import yaml

# Read by the codecs from metadata or from the core kinds, which have no CRD of ours.
NOT_OURS = {"codec_core.cpp", "codec_fields.cpp", "codec_support.cpp"}


def property_names(schema, out):
    if isinstance(schema, dict):
        for key, value in schema.items():
            if key == "properties":
                out.update(value)
            property_names(value, out)
    elif isinstance(schema, list):
        for value in schema:
            property_names(value, out)
    return out


def main():
    root, bad = pathlib.Path(sys.argv[1]), 0
    for generate in ("config/crds/generate", "charts/generate"):
        bad += subprocess.run([sys.executable, root / generate, "--check"], check=False).returncode
    known = set()
    for file in sorted((root / "config/crds").glob("*.yaml")):
        property_names(yaml.safe_load(file.read_text(encoding="utf-8")), known)
    read = 0
    for file in sorted((root / "framework/model").glob("codec_*.cpp")):
        if file.name in NOT_OURS:
            continue
        for key in re.findall(r'\["(\w+)"\]', file.read_text(encoding="utf-8")):
            read += 1
            if key not in known:
                print(f"{file.name} reads {key}, which no CRD has: add it to config/crds/generate")
                bad += 1
    if read < 50:
        print(f"only {read} fields found in the codecs: nothing was tested")
        bad += 1
    sys.exit(1 if bad else 0)


main()
