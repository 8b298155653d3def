#!/usr/bin/env python3
"""Makes the README's pictures and its table from what the program prints and draws.

    scripts/readme_pictures.py [PROGRAM] [--quick] [--check]

PROGRAM is target/release/ossnet unless it is named. From `memory --sweep` comes docs/resolution.svg (where the memory of the networks
crosses); from `compare`, which takes two minutes and is left out with `--quick`, come docs/accuracy.svg (Dice by case), docs/memory.svg (bytes at the peak
by role) and the table in the README. Each picture is the page's chart with the page's colours, in a reader's light or dark mode.

`--check` writes nothing and fails if what is committed is something else; seconds are not compared. Scores and bytes of kernels are those of
2 threads with AVX-512: on other machines `--check` compares the crossover alone, says so, and exits with 77.
"""

import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
from xml.etree import ElementTree

ROOT = pathlib.Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
# Workspaces of CPU kernels depend on threads and instruction set: with these the plan is the same on every machine.
PORTABLE = {"OSSNET_SIMD": "portable"}
SWEEP = ["memory", "--sweep", "64..512", "--models", "oss-net-c,unet3d", "--threads", "2", "--json", "--html"]
COMPARE = ["compare", "--threads", "2", "--quiet", "--out"]
MACHINE = "avx512"
# File -> how the page labels the chart.
CROSSOVER = {"resolution.svg": "Memory against the side of the volume: activations, Recompute level 0"}
COMPARED = {
    "accuracy.svg": "Dice of each model and baseline on each validation case",
    "memory.svg": "Peak memory of each model by role",
}
# The printed table in the README, and the first words of what the program prints behind it.
TABLE = re.compile(r"(?<=```text\n)model .*?(?=```)", re.S)
BEHIND = "\nMean Dice"


def colours(page):
    """The page's variables and its rules for charts."""
    style = re.search(r"<style>(.*?)</style>", page, re.S)[1]
    variables = re.search(r":root \{.*?\n\}\n@media[^{]*\{.*?\n\}\n", style, re.S)[0]
    charts = re.search(r"/\* Charts \*/\n(.*?)\n\n", style, re.S)[1]
    kept = [line for line in charts.splitlines() if not line.startswith((".chart {", ".chart.", ".share"))]
    return variables + "svg { background: var(--page); font-family: system-ui, sans-serif }\n" + "\n".join(kept)


def picture(page, label):
    """The first chart of that label: the one for wide screens."""
    at = page.index(f'aria-label="{label}"')
    chart = page[page.rindex("<svg", 0, at) : page.index("</svg>", at)]
    opening, body = chart.split(">", 1)
    width, height = re.search(r'viewBox="0 0 (\S+) (\S+)"', opening).groups()
    made = (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="chart" viewBox="0 0 {width} {height}" role="img" '
        f'aria-label="{label}">\n<style>{colours(page)}</style>{body}</svg>\n'
    )
    ElementTree.fromstring(made)
    return made


def run(program, arguments, **environment):
    """What the program prints."""
    command = [program, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True, env={**os.environ, **environment}).stdout


def without_times(table):
    """The table without its last two columns, which are times."""
    head = table.splitlines()[0]
    end = head.index("MiB/scan") + len("MiB/scan")
    rows, rest = table.split("\nCosts", 1) if "\nCosts" in table else (table, "")
    return "\n".join(line[:end].rstrip() for line in rows.splitlines()) + rest


def crossover(program, place):
    """docs/resolution.svg, and whether what it shows is what the program prints."""
    told = json.loads(run(program, [*SWEEP, place / "sweep.html"], **PORTABLE))
    page = (place / "sweep.html").read_text()
    made = {name: picture(page, label) for name, label in CROSSOVER.items()}
    pair = ("OSS-Net C", "3D residual U-Net")
    sides = [cross["side"] for cross in told["levels"][0]["crossings"] if (cross["leaner_above"], cross["other"]) == pair]
    if not all(f">{side:.0f}³</text>" in made["resolution.svg"] for side in sides) or not sides:
        sys.exit(f"the picture does not show the crossing at {sides}, which the program prints")
    return made


def compared(program, place):
    """The pictures of a comparison, the table that it prints, and the machine it ran on."""
    printed = run(program, [*COMPARE, place / "run"])
    page, results = ((place / "run" / name).read_text() for name in ["report.html", "results.json"])
    made = {name: picture(page, label) for name, label in COMPARED.items()}
    return made, printed[: printed.index(BEHIND)], json.loads(results)["device"]


def main():
    """Writes or checks; what is wrong, if anything."""
    words = sys.argv[1:]
    named = [word for word in words if not word.startswith("-")]
    if len(named) > 1 or set(words) - set(named) - {"--quick", "--check"}:
        return __doc__
    program = pathlib.Path(named[0] if named else ROOT / "target/release/ossnet").resolve()
    readme, table, device = README.read_text(), None, MACHINE
    with tempfile.TemporaryDirectory() as place:
        made = crossover(program, pathlib.Path(place))
        if "--quick" not in words:
            more, table, device = compared(program, pathlib.Path(place))
    skipped = "--quick" not in words and MACHINE not in device
    if table and not skipped:
        made.update(more)
    if "--check" not in words:
        for name, text in made.items():
            (ROOT / "docs" / name).write_text(text)
        if table and not skipped:
            README.write_text(TABLE.sub(lambda _: table, README.read_text()))
        return None
    for name, text in made.items():
        if (ROOT / "docs" / name).read_text() != text:
            return f"docs/{name} is not what this program draws; run scripts/readme_pictures.py"
    if table and not skipped and without_times(TABLE.search(readme)[0]) != without_times(table):
        return "the README's table is not what this program prints; run scripts/readme_pictures.py"
    if skipped:
        print(f"readme_pictures: this machine is {device}, the figures are of {MACHINE}: the crossover alone was compared")
        return 77
    return None


if __name__ == "__main__":
    sys.exit(main())
