#!/usr/bin/env python3
"""How long a driver compiles before a first step, told by ptxas: the kernels of kernels/first.tsv, each alone as they are loaded.

  scripts/compile_times.py [ARCHITECTURE]    seconds a step and the kernels that cost most, on one core (default: sm_90)
  scripts/compile_times.py --check           fails if a first bf16 training step takes more than 20 s, an inference more than 5 s

Seconds are of the processor, not of the clock, so that other work beside matters little. The driver's compiler is ptxas's code; where
it has several cores it uses several. ptxas comes from $PTXAS, from the PATH or from .venv (scripts/install-nvcc.sh).
"""

import os
import re
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

from kernel_resources import ROOT, find_ptxas

MOST = {"train bf16": 20.0, "infer f32": 5.0}
WORST = 8


def kernels():
    """PTX of every kernel alone, as `src/device/cuda/cut.rs` cuts it."""
    pieces = {}
    for file in sorted((ROOT / "kernels/ptx").glob("*.ptx")):
        text = file.read_text()
        starts = [found.start() for found in re.finditer(r"^\.visible \.entry ", text, re.M)]
        declarations = re.findall(r"^\.(?:shared|extern|const)[^;]*;", text, re.M)
        head = "\n".join(re.findall(r"^\.(?:version|target|address_size) .*", text, re.M))
        for start, end in zip(starts, [*starts[1:], len(text)]):
            body = text[start:text.index("\n}\n", start) + 3]
            names = [re.findall(r"[\w$]+", line.split("=")[0].split("[")[0])[-1] for line in declarations]
            needed = [line for name, line in zip(names, declarations) if re.search(rf"\b{re.escape(name)}\b", body)]
            pieces[re.match(r"\.visible \.entry (\w+)", body)[1]] = "\n".join([head, *needed, body])
    return pieces


def seconds(ptxas, architecture, ptx, folder):
    source = Path(folder) / "kernel.ptx"
    source.write_text(ptx)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([ptxas, f"-arch={architecture}", str(source), "-o", os.devnull], check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def main():
    arguments = [argument for argument in sys.argv[1:] if argument != "--check"]
    architecture, ptxas, all_kernels = (arguments or ["sm_90"])[0], find_ptxas(), kernels()
    lines = [line.split("\t") for line in (ROOT / "kernels/first.tsv").read_text().splitlines() if not line.startswith("#")]
    known, faults = {}, []
    with tempfile.TemporaryDirectory() as folder:
        for step, most in MOST.items():
            names = [name for of, name, _ in lines[1:] if of == step]
            for name in names:
                known[name] = known.get(name) or seconds(ptxas, architecture, all_kernels[name], folder)
            total = sum(known[name] for name in names)
            print(f"{step}: {total:.1f} s of one core for {len(names)} kernels, {architecture} (at most {most:.0f} s)")
            for name in sorted(names, key=known.get, reverse=True)[:WORST]:
                print(f"  {known[name]:5.2f} s  {name}")
            if not names or total > most:
                faults.append(f"{step}: {total:.1f} s for {len(names)} kernels")
    return "; ".join(faults) if "--check" in sys.argv else None


if __name__ == "__main__":
    sys.exit(main())
