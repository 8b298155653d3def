#!/usr/bin/env python3
"""Dependencies between the modules of src/ point one way; the exceptions are listed here and may only become fewer.

Reads `crate::MODULE` paths; tests are left out, for they may use what they like.
"""

import re
import sys
from pathlib import Path

# A module may use those of its own line and of the lines below.
LAYERS = [
    {"cli"},
    {"plan"},
    {"planner"},
    {"train", "infer", "evaluate", "report", "mesh"},
    {"models"},
    {"nn"},
    {"ops"},
    {"tape"},
    {"tensor"},
    {"device"},
    {"memory"},
]

# Beside the layers: what each module may use. Helpers without dependencies (text, rng, error, …) are free.
BESIDE = {
    "data": {"memory", "files"},
    "checkpoint": {"files", "models", "nn", "device", "data", "task"},
    "task": {"data", "models"},
    "files": set(),
}

# Crates that only one module names.
OWNED = {"clap": "cli", "cudarc": "device", "mpi": "device"}

# MODULE -> MODULE: why it is so today. An entry that is no longer needed is an error: take it out.
EXCEPTIONS = {
    ("device", "tensor"): "a kernel's arguments are tensors; they would have to be traits of a pointer",
    ("data", "checkpoint"): "border maps of official data are PyTorch files",
    ("data", "ops"): "borders are found by the op's CPU twin",
}

SOURCE = Path(__file__).resolve().parent.parent / "src"


def is_test(path):
    """True for files that only tests compile."""
    parts = path.relative_to(SOURCE).parts
    name = path.stem
    return any(part in ("tests", "testing") for part in parts) or name in ("tests", "testing") or name.endswith("_tests")


def used(text):
    """First segments of the crate's paths in a file, without comments and test modules."""
    text = re.split(r"\n#\[cfg\(test\)\]\nmod tests \{", text)[0]
    text = re.sub(r"//.*", "", text)
    found = set(re.findall(r"\bcrate::(\w+)", text))
    for group in re.findall(r"\bcrate::\{([^;]*)\};", text):
        while "{" in group:
            group = re.sub(r"\{[^{}]*\}", "", group)
        found |= {item.strip().split("::")[0] for item in group.split(",")}
    return found


def main():
    """Prints what points the wrong way; the exit code."""
    level = {module: i for i, layer in enumerate(LAYERS) for module in layer}
    edges = {}
    for path in sorted(SOURCE.rglob("*.rs")):
        if is_test(path):
            continue
        module = path.relative_to(SOURCE).parts[0].removesuffix(".rs")
        text = path.read_text()
        crates = {crate for crate in OWNED if re.search(rf"\b{crate}::", text)}
        for other in (used(text) | crates) - {module}:
            edges.setdefault((module, other), []).append(path.relative_to(SOURCE.parent))
    wrong = {}
    for (module, other), files in edges.items():
        if OWNED.get(other, module) != module:
            wrong[module, other] = files
    for (module, other), files in edges.items():
        upwards = module in level and other in level and level[other] < level[module]
        aside = module in BESIDE and (other in level or other in BESIDE) and other not in BESIDE[module]
        same = module in level and other in level and level[module] == level[other] and (other, module) in edges
        if upwards or aside or same:
            wrong[module, other] = files
    for (module, other), files in sorted(wrong.items()):
        if (module, other) not in EXCEPTIONS:
            print(f"{module} uses {other}: {', '.join(map(str, files))}; see LAYERS in scripts/check_layers.py")
    gone = sorted(set(EXCEPTIONS) - set(wrong))
    for module, other in gone:
        print(f"{module} no longer uses {other}: take the exception out of scripts/check_layers.py")
    if gone or set(wrong) - set(EXCEPTIONS):
        return 1
    print(f"{len(edges)} dependencies between modules; the {len(wrong)} against the direction are known")
    return 0


if __name__ == "__main__":
    sys.exit(main())
