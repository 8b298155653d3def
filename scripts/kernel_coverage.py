#!/usr/bin/env python3
"""Proves that the tests executed every kernel, and that the emulator's own tests know every instruction of the kernels.

  CUEMU_COVERAGE=$PWD/target/coverage cargo test --workspace --features exhaustive
  scripts/kernel_coverage.py target/coverage

Fails if a kernel of kernels/ptx was never executed to its end in the run, or one of its opcodes is in no test of
emulator/tests/conformance.
"""
import re
import sys
from pathlib import Path

PTX = Path(__file__).resolve().parent.parent / "kernels" / "ptx"
ENTRY = re.compile(r"^\.visible \.entry (\w+)\(", re.M)
# An instruction: perhaps a guard, an opcode, operands, a semicolon. Directives begin with a dot, labels end with a colon.
INSTRUCTION = re.compile(r"^\s*(?:@!?%p\d+\s+)?([a-z][\w.:]*)(?:\s[^;]*)?;", re.M)


def noted(folder, programs, what):
    lines = (line.split(" ", 1) for file in Path(folder).glob(programs) for line in file.read_text().splitlines())
    return {name for kind, name in lines if kind == what}


def main(folder):
    kernels, opcodes = set(), set()
    for file in sorted(PTX.glob("*.ptx")):
        text = re.sub(r"//.*", "", file.read_text())
        kernels.update(ENTRY.findall(text))
        opcodes.update(INSTRUCTION.findall(text))
    idle = sorted(kernels - noted(folder, "*", "kernel"))
    untested = sorted(opcodes - noted(folder, "conformance-*", "opcode"))
    for name in idle:
        print(f"no test executed the kernel {name}")
    for name in untested:
        print(f"no conformance test has the instruction {name}")
    if idle or untested:
        return 1
    print(f"all {len(kernels)} kernels were executed, all {len(opcodes)} opcodes of theirs are tested for conformance")
    return 0


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    sys.exit(main(*sys.argv[1:]))
