#!/usr/bin/env python3
"""Prints a bill of materials of the program (CycloneDX 1.5, JSON): every crate that default features build into it.

    scripts/sbom.py > ossnet.cdx.json

Names, versions, licences and checksums are those of `cargo metadata` and Cargo.lock; build and test tools are left out.
"""

import json
import pathlib
import subprocess
import sys
import tomllib

ROOT = pathlib.Path(__file__).resolve().parent.parent


def built_in(metadata):
    """Packages that are reached from the program by normal dependencies alone, by id."""
    nodes = {node["id"]: node for node in metadata["resolve"]["nodes"]}
    pending, found = [metadata["resolve"]["root"]], set()
    while pending:
        package = pending.pop()
        if package in found:
            continue
        found.add(package)
        for dependency in nodes[package]["deps"]:
            if any(kind["kind"] is None for kind in dependency["dep_kinds"]):
                pending.append(dependency["pkg"])
    return found


def main():
    """Prints the bill."""
    host = subprocess.run(["rustc", "-vV"], check=True, capture_output=True, text=True).stdout
    host = next(line.split()[1] for line in host.splitlines() if line.startswith("host:"))
    command = ["cargo", "metadata", "--format-version", "1", "--locked", "--filter-platform", host]
    metadata = json.loads(subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT).stdout)
    lock = tomllib.loads((ROOT / "Cargo.lock").read_text())
    checksums = {(entry["name"], entry["version"]): entry.get("checksum") for entry in lock["package"]}
    found, components, program = built_in(metadata), [], None
    for package in sorted(metadata["packages"], key=lambda package: (package["name"], package["version"])):
        if package["id"] not in found:
            continue
        name, version = package["name"], package["version"]
        component = {
            "type": "library",
            "bom-ref": f"pkg:cargo/{name}@{version}",
            "name": name,
            "version": version,
            "purl": f"pkg:cargo/{name}@{version}",
        }
        if package["license"]:
            component["licenses"] = [{"expression": package["license"].replace("/", " OR ")}]
        if checksums.get((name, version)):
            component["hashes"] = [{"alg": "SHA-256", "content": checksums[name, version]}]
        if package["id"] == metadata["resolve"]["root"]:
            program = {**component, "type": "application"}
        else:
            components.append(component)
    unnamed = [component["name"] for component in components if "licenses" not in component]
    if unnamed:
        sys.exit(f"no licence is stated by {', '.join(unnamed)}")
    bill = {"bomFormat": "CycloneDX", "specVersion": "1.5", "version": 1}
    print(json.dumps({**bill, "metadata": {"component": program}, "components": components}, indent=1))


if __name__ == "__main__":
    main()
