#!/usr/bin/env python3
"""Checks what scripts/release.sh made: that nothing is missing, that the archive lies as `cargo binstall` is told, and that the
program in it runs.

    scripts/check_release.py target/release-VERSION
"""

import json
import pathlib
import subprocess
import sys
import tarfile
import tempfile
import tomllib

ROOT = pathlib.Path(__file__).resolve().parent.parent
SHELLS = ["bash", "zsh", "fish", "powershell", "elvish"]


def filled(pattern, **values):
    """A pattern of cargo-binstall with its names replaced."""
    for name, value in values.items():
        pattern = pattern.replace("{ " + name + " }", value)
    assert "{" not in pattern, pattern
    return pattern


def default_crates(manifest):
    """The names of the crates that a build with the default features takes; the emulator is for tests."""
    features, taken, todo = manifest["features"], set(), ["default"]
    while todo:
        entries = features.get(todo.pop(), [])
        todo += [entry for entry in entries if entry in features]
        taken |= {entry.removeprefix("dep:") for entry in entries}
    crates = manifest["dependencies"].items()
    optional = {name for name, crate in crates if isinstance(crate, dict) and crate.get("optional")}
    return {name for name, _ in crates} - (optional - taken) - {"cuemu"}


def main():
    """Checks; an assertion names what is wrong."""
    folder = pathlib.Path(sys.argv[1])
    manifest = tomllib.loads((ROOT / "Cargo.toml").read_text())
    package = manifest["package"]
    version, told = package["version"], package["metadata"]["binstall"]
    host = subprocess.run(["rustc", "-vV"], check=True, capture_output=True, text=True).stdout
    target = next(line.split()[1] for line in host.splitlines() if line.startswith("host:"))
    names = {"version": version, "target": target, "bin": "ossnet", "binary-ext": "", "archive-suffix": ".tar.gz", "repo": "R"}
    assert told["pkg-fmt"] == "tgz", told
    archive = folder / filled(told["pkg-url"], **names).rsplit("/", 1)[1]
    inside = filled(told["bin-dir"], **names)
    with tempfile.TemporaryDirectory() as place:
        with tarfile.open(archive) as files:
            found = {pathlib.PurePath(name) for name in files.getnames()}
            files.extractall(place, filter="data")
        program = pathlib.Path(place) / inside
        said = subprocess.run([program, "--version"], check=True, capture_output=True, text=True).stdout
        assert said.startswith(f"ossnet {version}\ncommit: "), said
        text = subprocess.run([program, "--help"], check=True, capture_output=True, text=True).stdout
    commands = [line.split()[0] for line in text.split("Commands:\n")[1].split("\n\n")[0].splitlines()]
    home = pathlib.PurePath(inside).parent
    wanted = [home / "README.md", home / "CITATION.cff", home / "LICENSE-MIT", home / "LICENSE-APACHE", home / "man/ossnet.1"]
    wanted += [home / f"man/ossnet-{name}.1" for name in commands if name != "help"]
    wanted += [home / f"completions/ossnet.{shell}" for shell in SHELLS]
    assert len(commands) > 10 and found.issuperset(wanted), sorted(map(str, set(wanted) - found))
    bill = json.loads((folder / f"ossnet-{version}.cdx.json").read_text())
    crates = {component["name"] for component in bill["components"]}
    direct = default_crates(manifest)
    assert crates >= direct and bill["metadata"]["component"]["version"] == version, sorted(direct - crates)
    sums = {line.split()[1] for line in (folder / "SHA256SUMS").read_text().splitlines()}
    assert sums == {file.name for file in folder.iterdir()} - {"SHA256SUMS"}, sums
    print(f"{folder}: {', '.join(sorted(sums))} are whole")


if __name__ == "__main__":
    main()
