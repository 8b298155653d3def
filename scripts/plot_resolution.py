#!/usr/bin/env python3
"""Draws docs/resolution.svg, the README's plot of memory against resolution, from the program's own plans.

    scripts/plot_resolution.py [PROGRAM] [--check]

PROGRAM is target/release/ossnet unless it is named. `--check` draws nothing and fails if the committed plot is another one.
The picture follows the reader's light or dark mode.
"""

import json
import math
import os
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
TARGET = ROOT / "docs/resolution.svg"
# Workspaces of CPU kernels depend on threads and instruction set: with these the plan is the same on every machine.
PORTABLE = {"OSSNET_SIMD": "portable"}
SWEEP = ["memory", "--sweep", "64..512", "--models", "oss-net-c,unet3d", "--threads", "2", "--json"]
LEFT, TOP, WIDTH, HEIGHT = 76, 40, 560, 300
STYLE = """
text { font: 13px system-ui, sans-serif; fill: #24292f } .title { font-weight: 600; font-size: 15px }
.grid { stroke: #8c959f; stroke-opacity: .3 } .frame { stroke: #8c959f; fill: none } .line { fill: none; stroke-width: 2.2 }
.ours { stroke: #0072b2; fill: #0072b2 } .unet { stroke: #d55e00; fill: #d55e00 } .line.ours, .line.unet { fill: none }
text.ours, text.unet { stroke: none } .lean { stroke-dasharray: 2 4 } .recorded { stroke-dasharray: 8 5; stroke-width: 1.4 }
@media (prefers-color-scheme: dark) { text { fill: #e6edf3 } .ours { stroke: #56b4e9; fill: #56b4e9 } .unet { stroke: #f07e3c; fill: #f07e3c } .line.ours, .line.unet { fill: none } }
"""


def draw(levels):
    """The plot: both networks at the fastest level and at the leanest, and what PyTorch was recorded to take."""
    first, last = levels[0], levels[-1]
    lines = []
    for level, extra in [(first, ""), (last, " lean")]:
        for curve in level["curves"]:
            lines.append((curve["model"], "unet" if "U-Net" in curve["model"] else "ours", extra, curve["points"]))
    for curve in first["recorded"]:
        lines.append((curve["name"], "unet" if "U-Net" in curve["name"] else "ours", " recorded", curve["points"]))
    low, high = math.log2(64), math.log2(512)
    floor, ceiling = math.log2(8 << 20), math.log2(16 << 30)
    x = lambda side: LEFT + WIDTH * (math.log2(side) - low) / (high - low)  # noqa: E731
    y = lambda size: TOP + HEIGHT * (1 - (math.log2(size) - floor) / (ceiling - floor))  # noqa: E731
    parts = ["<text class='title' x='76' y='22'>Peak activations of one training step against the side of the volume</text>"]
    for power in range(24, 35, 2):
        name = f"{2 ** (power - 20)} MiB" if power < 30 else f"{2 ** (power - 30)} GiB"
        parts.append(f"<line class='grid' x1='{LEFT}' x2='{LEFT + WIDTH}' y1='{y(2**power):.1f}' y2='{y(2**power):.1f}'/>")
        parts.append(f"<text x='{LEFT - 8}' y='{y(2**power) + 4:.1f}' text-anchor='end'>{name}</text>")
    for side in [64, 96, 128, 192, 256, 384, 512]:
        parts.append(f"<line class='grid' y1='{TOP}' y2='{TOP + HEIGHT}' x1='{x(side):.1f}' x2='{x(side):.1f}'/>")
        parts.append(f"<text x='{x(side):.1f}' y='{TOP + HEIGHT + 20}' text-anchor='middle'>{side}³</text>")
    parts.append(f"<rect class='frame' x='{LEFT}' y='{TOP}' width='{WIDTH}' height='{HEIGHT}'/>")
    for _, network, extra, points in lines:
        inside = [(p["side"], p["peak_activation_bytes"]) for p in points if p["peak_activation_bytes"] < 2**ceiling]
        path = " ".join(f"{x(side):.1f},{y(size):.1f}" for side, size in inside)
        parts.append(f"<polyline class='line {network}{extra}' points='{path}'/>")
    for cross in first["crossings"]:
        if (cross["leaner_above"], cross["other"]) == ("OSS-Net C", "3D residual U-Net"):
            at, level = x(cross["side"]), y(cross["bytes"])
            parts.append(f"<circle class='ours' cx='{at:.1f}' cy='{level:.1f}' r='4'/>")
            parts.append(f"<text x='{at + 10:.1f}' y='{level + 18:.1f}'>{cross['side']:.0f}³</text>")
    legend = [
        ("ours", "", "OSS-Net C, 16,384 points"),
        ("unet", "", "3D residual U-Net"),
        ("ours", " lean", f"at recompute level {last['recompute']}"),
        ("ours", " recorded", "PyTorch, recorded"),
    ]
    for row, (network, extra, name) in enumerate(legend):
        top = TOP + 22 + 20 * row
        parts.append(f"<line class='line {network}{extra}' x1='{LEFT + 14}' x2='{LEFT + 50}' y1='{top - 4}' y2='{top - 4}'/>")
        parts.append(f"<text x='{LEFT + 58}' y='{top}'>{name}</text>")
    size = f"viewBox='0 0 {LEFT + WIDTH + 24} {TOP + HEIGHT + 34}'"
    body = "\n".join(parts)
    label = "Peak activations of a training step against the side of the volume, OSS-Net C and a 3D U-Net"
    return f"<svg xmlns='http://www.w3.org/2000/svg' {size} role='img' aria-label='{label}'>\n<style>{STYLE}</style>\n{body}\n</svg>\n"


def main():
    """Draws or checks."""
    named = [argument for argument in sys.argv[1:] if not argument.startswith("-")]
    program = pathlib.Path(named[0]) if named else ROOT / "target/release/ossnet"
    told = subprocess.run([program, *SWEEP], check=True, capture_output=True, text=True, env={**os.environ, **PORTABLE}).stdout
    plot = draw(json.loads(told)["levels"])
    if "--check" in sys.argv:
        return 0 if TARGET.read_text() == plot else "docs/resolution.svg is not what this program plans; run scripts/plot_resolution.py"
    TARGET.write_text(plot)
    return 0


if __name__ == "__main__":
    sys.exit(main())
