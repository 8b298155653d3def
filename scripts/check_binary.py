#!/usr/bin/env python3
"""Builds the program as it is given away, and checks that it stays small, needs the C library alone and starts at once.

    scripts/check_binary.py

Two builds: with `--no-default-features --features infer` at most 7 MB (10⁶ bytes), and with default features, which stays, at
most 12. Each may load glibc's own libraries and libgcc_s, and must print its version within 50 ms (the quickest of 20
starts, since other work may hold up any of them). Where cargo is told a target (scripts/portable.sh), nothing newer than glibc
2.28 may be asked for.
"""

import os

import pathlib
import re
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
TARGET = os.environ.get("CARGO_BUILD_TARGET", "")
PROGRAM = ROOT / "target" / TARGET / "release/ossnet"
BUILDS = [(["--no-default-features", "--features", "infer"], 7_000_000), ([], 12_000_000)]
OLDEST = (2, 28)
# glibc in its parts, the dynamic linker, what the kernel itself maps, and the unwinder.
LIBRARIES = re.compile(r"(libc|libm|libdl|libpthread|librt|libgcc_s|linux-vdso|ld-linux[-\w]*)\.so(\.\d+)?")
SLOWEST = 0.05


def libraries():
    """What the dynamic linker would load."""
    lines = subprocess.run(["ldd", PROGRAM], check=True, capture_output=True, text=True).stdout.splitlines()
    return [pathlib.PurePath(line.split()[0]).name for line in lines if line.strip()]


def glibc():
    """The newest version of glibc that a symbol is asked of."""
    table = subprocess.run(["readelf", "--version-info", PROGRAM], check=True, capture_output=True, text=True).stdout
    return max(tuple(map(int, version.split("."))) for version in re.findall(r"GLIBC_(\d+(?:\.\d+)+)", table))


def start():
    """Seconds from being called to the end of printing the version."""
    begin = time.perf_counter()
    subprocess.run([PROGRAM, "--version"], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - begin


def main():
    """Builds and checks."""
    faults = []
    for flags, most in BUILDS:
        subprocess.run(["cargo", "build", "--release", "--locked", *flags], check=True, cwd=ROOT)
        size, needed, seconds = PROGRAM.stat().st_size, libraries(), min(start() for _ in range(20))
        name = " ".join(flags) or "default features"
        version, libraries_of = glibc(), ", ".join(needed)
        print(f"{name}: {size:,} bytes of at most {most:,}; starts in {1000 * seconds:.1f} ms; glibc {version}; {libraries_of}")
        faults += [f"{name}: needs glibc {version}, newer than {OLDEST}"] if TARGET and version > OLDEST else []
        faults += [f"{name}: {size:,} bytes are too many"] if size > most else []
        faults += [f"{name}: needs {library}" for library in needed if not LIBRARIES.fullmatch(library)]
        faults += [f"{name}: takes {1000 * seconds:.1f} ms to start"] if seconds > SLOWEST else []
    return "\n".join(faults)


if __name__ == "__main__":
    sys.exit(main() or 0)
