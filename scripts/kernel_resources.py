#!/usr/bin/env python3
"""What ptxas makes of the committed PTX: registers, shared memory, spills and theoretical occupancy of every kernel.

  scripts/kernel_resources.py [FILE ...]   writes kernels/resources.tsv; with names of kernel files only their lines anew
  scripts/kernel_resources.py --check      fails if it would change, or if any kernel spills

ptxas comes from $PTXAS, from the PATH or from .venv (scripts/install-nvcc.sh). Occupancy is for the block size of the
kernel's __launch_bounds__ (256 threads where there is none) and its static shared memory; launches with dynamic shared
memory have less.
"""

import os
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TABLE = ROOT / "kernels/resources.tsv"
# Architecture: warps, blocks and KiB of shared memory of a multiprocessor (CUDA C Programming Guide, compute capabilities).
ARCHITECTURES = {
    "sm_80": (64, 32, 164), "sm_86": (48, 16, 100), "sm_89": (48, 24, 100),
    "sm_90": (64, 32, 228), "sm_100": (64, 32, 228), "sm_120": (48, 24, 100),
}
REGISTERS = 65536  # of a multiprocessor, everywhere
RESERVED = 1024    # bytes of shared memory that the system keeps of every block


def find_ptxas():
    wheels = sorted(ROOT.glob(".venv/lib/python3*/site-packages/nvidia/cu13/bin/ptxas"))
    found = os.environ.get("PTXAS") or shutil.which("ptxas") or (str(wheels[0]) if wheels else None)
    return found or sys.exit("no ptxas; run scripts/install-nvcc.sh")


def occupancy(architecture, threads, registers, shared):
    warps_most, blocks_most, kib = ARCHITECTURES[architecture]
    warps = -(-threads // 32)
    # Registers are given out to warps in units of 256, to blocks in pairs of warps on every architecture here.
    a_warp = -(-registers * 32 // 256) * 256
    by_registers = REGISTERS // (a_warp * (warps + warps % 2)) if registers else blocks_most
    by_shared = kib * 1024 // (shared + RESERVED)
    blocks = min(blocks_most, warps_most // warps, by_registers, by_shared)
    return round(100 * blocks * warps / warps_most)


def block_sizes(ptx):
    sizes, kernel = {}, None
    for line in ptx.read_text().splitlines():
        if found := re.match(r"\.visible \.entry (\w+)\(", line):
            kernel = found[1]
            sizes[kernel] = 256
        elif found := re.match(r"\.(?:maxntid|reqntid) ([\d, ]+)", line):
            size = 1
            for side in found[1].split(","):
                size *= int(side)
            sizes[kernel] = size
    return sizes


def assemble(ptxas, ptx, architecture):
    run = subprocess.run([ptxas, f"-arch={architecture}", "-v", str(ptx), "-o", os.devnull],
                         capture_output=True, text=True)
    if run.returncode:
        sys.exit(f"{ptx.name} for {architecture}: {run.stderr.strip()}")
    facts, kernel = {}, None
    for line in run.stderr.splitlines():
        if found := re.search(r"Compiling entry function '(\w+)'", line):
            kernel = facts.setdefault(found[1], {"shared": 0, "spills": 0, "stack": 0})
        if kernel is None:
            continue
        if found := re.search(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", line):
            kernel["stack"] = int(found[1])
            kernel["spills"] = int(found[2]) + int(found[3])
        if found := re.search(r"Used (\d+) registers", line):
            kernel["registers"] = int(found[1])
            if found := re.search(r"(\d+) bytes smem", line):
                kernel["shared"] = int(found[1])
    return facts


def table(names=()):
    """The table, and what spills; lines of files that are not among `names`, where there are any, are the committed ones."""
    ptxas, files = find_ptxas(), sorted((ROOT / "kernels/ptx").glob("*.ptx"))
    known = [line.split("\t") for line in TABLE.read_text().splitlines()[1:]] if names else []
    files = [ptx for ptx in files if not names or ptx.stem in names]
    jobs = [(ptx, architecture) for ptx in files for architecture in ARCHITECTURES]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        results = dict(zip(jobs, pool.map(lambda job: assemble(ptxas, *job), jobs)))
    rows, spilling = [], []
    for ptx in files:
        for kernel, threads in sorted(block_sizes(ptx).items()):
            facts = [results[ptx, architecture][kernel] for architecture in ARCHITECTURES]
            rows.append([ptx.stem, kernel, str(threads), str(facts[0]["shared"])]
                        + [str(fact["registers"]) for fact in facts]
                        + [str(occupancy(architecture, threads, fact["registers"], fact["shared"]))
                           for architecture, fact in zip(ARCHITECTURES, facts)])
            spilling += [f"{kernel} spills {fact['spills']} bytes on {architecture}"
                         for architecture, fact in zip(ARCHITECTURES, facts) if fact["spills"]]
    rows = sorted(rows + [row for row in known if row[0] not in names], key=lambda row: row[:2])
    head = ["file", "kernel", "threads", "shared"]
    head += [f"registers {a}" for a in ARCHITECTURES] + [f"occupancy % {a}" for a in ARCHITECTURES]
    return "\n".join("\t".join(row) for row in [head, *rows]) + "\n", spilling


def main():
    text, spilling = table([name for name in sys.argv[1:] if not name.startswith("--")])
    if "--check" in sys.argv[1:]:
        if spilling:
            sys.exit("\n".join(spilling))
        if not TABLE.exists() or TABLE.read_text() != text:
            sys.exit("kernels/resources.tsv is out of date; run scripts/kernel_resources.py and look at the difference")
        print(f"{text.count(chr(10)) - 1} kernels for {', '.join(ARCHITECTURES)}: no spills, resources as committed")
    else:
        TABLE.write_text(text)
        print("\n".join(spilling) or "no spills")


if __name__ == "__main__":
    main()
