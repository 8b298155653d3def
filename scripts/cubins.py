"""What ptxas makes of the committed PTX, for kernel_resources.py and sass.py: each file is assembled once an architecture.

Cubins and what ptxas said of them lie in target/cubins, by a hash of the PTX, the architecture and the assembler's version.
"""

import hashlib
import os
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
KEPT = ROOT / "target/cubins"


@cache
def find(tool):
    """A tool of CUDA's: $PTXAS and the like, the PATH, or .venv."""
    wheels = sorted(ROOT.glob(f".venv/lib/python3*/site-packages/nvidia/cu13/**/bin/{tool}"))
    found = os.environ.get(tool.upper()) or shutil.which(tool) or (str(wheels[0]) if wheels else None)
    return found or sys.exit(f"no {tool}; run scripts/install-nvcc.sh")


@cache
def version():
    return subprocess.run([find("ptxas"), "--version"], check=True, capture_output=True).stdout


def assemble(ptx, architecture):
    """The cubin of a PTX file and what `ptxas -v` says of its kernels."""
    key = hashlib.sha256(version() + architecture.encode() + ptx.read_bytes()).hexdigest()[:24]
    cubin, said = (KEPT / f"{ptx.stem}-{architecture}-{key}.{ending}" for ending in ("cubin", "txt"))
    if not said.exists():
        KEPT.mkdir(parents=True, exist_ok=True)
        run = subprocess.run([find("ptxas"), f"-arch={architecture}", "-v", str(ptx), "-o", str(cubin)],
                             capture_output=True, text=True)
        if run.returncode:
            sys.exit(f"{ptx.name} for {architecture}: {run.stderr.strip()}")
        # Written last, and whole: its presence says that the cubin is there.
        part = said.with_suffix(".part")
        part.write_text(run.stderr)
        part.rename(said)
    return cubin, said.read_text()
