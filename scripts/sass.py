#!/usr/bin/env python3
"""What ptxas makes of the hot kernels: load widths, matrix instructions, local memory, as nvdisasm shows them.

  scripts/sass.py                     the hot kernels for sm_80 and sm_90
  scripts/sass.py NAME ... [--all]    kernels whose names begin with these; --all: every kernel
  scripts/sass.py --markdown          the same as the table of docs/kernels.md
  scripts/sass.py --check             fails if a hot kernel touches local memory

ptxas and nvdisasm come from the PATH or from .venv (scripts/install-nvcc.sh). The counts are of instructions in the code, not
of executions.
"""

import re
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cubins

ROOT = Path(__file__).resolve().parent.parent
ARCHITECTURES = ("sm_80", "sm_90")
# Where a training step or an inference spends its time; prefixes of names.
HOT = ("linear_", "norm_act_linear", "conv3d_correlate", "conv3d_pooled", "conv3d_weight_gradient", "patch_conv_forward", "patch_conv_weight_sums", "norm_act_pade54", "norm_act_pool",
       "norm_act_first_pade54", "norm_act_second", "moments", "patch_sample_4", "occupancy", "optimizer_step")
HEADS = ("kernel", "sm", "instructions", "loads 128/64/32", "stores 128/64/32", "shared 128/64/32", "copies", "FFMA", "mma", "ldmatrix",
         "local")


def disassemble(ptx, architecture):
    cubin = cubins.assemble(ptx, architecture)[0]
    text = subprocess.run([cubins.find("nvdisasm"), "-c", str(cubin)], check=True, capture_output=True, text=True).stdout
    kernels, own = {}, None
    for line in text.splitlines():
        if found := re.match(r"\.text\.(\w+):", line.strip()):
            own = kernels.setdefault(found[1], [])
        elif own is not None and (found := re.match(r"\s+/\*[0-9a-f]+\*/\s+(?:@!?U?P\w+\s+)?([A-Z][\w.]*)", line)):
            own.append(found[1])
    return kernels


def width(opcode):
    return 128 if ".128" in opcode else 64 if ".64" in opcode else 32


def facts(opcodes):
    counts = Counter()
    for opcode in opcodes:
        base = opcode.split(".")[0]
        if base in ("LDG", "LD"):
            counts["load", width(opcode)] += 1
        elif base in ("STG", "ST"):
            counts["store", width(opcode)] += 1
        elif base in ("LDS", "STS"):
            counts["shared", width(opcode)] += 1
        elif base in ("LDL", "STL"):
            counts["local"] += 1
        elif base == "LDGSTS":
            counts["copy"] += 1
        elif base == "FFMA":
            counts["ffma"] += 1
        elif base == "HMMA":
            counts["mma"] += 1
        elif base == "LDSM":
            counts["ldmatrix"] += 1
    return counts


def row(kernel, architecture, opcodes):
    counts = facts(opcodes)
    by_width = ["/".join(str(counts[kind, bits]) for bits in (128, 64, 32)) for kind in ("load", "store", "shared")]
    rest = [str(counts[kind]) for kind in ("copy", "ffma", "mma", "ldmatrix", "local")]
    return [kernel, architecture[3:], str(len(opcodes)), *by_width, *rest]


def main():
    wanted = tuple(name for name in sys.argv[1:] if not name.startswith("--")) or HOT
    jobs = []
    for ptx in sorted((ROOT / "kernels/ptx").glob("*.ptx")):
        names = re.findall(r"\.visible \.entry (\w+)\(", ptx.read_text())
        if "--all" in sys.argv or any(name.startswith(wanted) for name in names):
            jobs += [(ptx, architecture) for architecture in ARCHITECTURES]
    with ThreadPoolExecutor(2) as pool:
        results = list(pool.map(lambda job: disassemble(*job), jobs))
    rows = [row(kernel, architecture, opcodes)
            for (_, architecture), kernels in zip(jobs, results) for kernel, opcodes in kernels.items()
            if "--all" in sys.argv or kernel.startswith(wanted)]
    rows.sort()
    if "--check" in sys.argv:
        local = [f"{cells[0]} touches local memory on sm_{cells[1]}" for cells in rows if cells[-1] != "0"]
        sys.exit("\n".join(local)) if local else print(f"{len(rows)} disassemblies: no local memory")
    elif "--markdown" in sys.argv:
        print("\n".join("| " + " | ".join(cells) + " |" for cells in [HEADS, ["---"] * len(HEADS), *rows]))
    else:
        widths = [max(len(cells[i]) for cells in [HEADS, *rows]) for i in range(len(HEADS))]
        print("\n".join("  ".join(cell.ljust(w) for cell, w in zip(cells, widths)).rstrip() for cells in [HEADS, *rows]))


main()
