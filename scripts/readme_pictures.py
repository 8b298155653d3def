#!/usr/bin/env python3
"""Takes the README's pictures out of the report that `cargo run --release` writes.

    scripts/readme_pictures.py runs/001-compare/report.html [--check]

Writes docs/accuracy.svg (Dice by case) and docs/memory.svg (bytes at the peak by role), each with its legend and the page's colours, in
a reader's light or dark mode. Neither holds a time, so that the same version gives the same pictures; `--check` writes nothing and
fails if the committed ones are others.
"""

import pathlib
import re
import sys
from xml.etree import ElementTree

DOCS = pathlib.Path(__file__).resolve().parent.parent / "docs"
# File -> how the page labels the chart.
PICTURES = {
    "accuracy.svg": "Dice of each model and baseline on each validation case",
    "memory.svg": "Peak memory of each model by role",
}
# Of the legend: height of a row, and widths of a swatch and of a letter at most.
ROW, SWATCH, LETTER = 24, 32, 7.5


def colours(page):
    """The page's variables and its rules for charts."""
    style = re.search(r"<style>(.*?)</style>", page, re.S)[1]
    variables = re.search(r":root \{.*?\n\}\n@media[^{]*\{.*?\n\}\n", style, re.S)[0]
    charts = re.search(r"/\* Charts \*/\n(.*?)\n\n", style, re.S)[1]
    kept = [line for line in charts.splitlines() if not line.startswith((".chart {", ".share", "td."))]
    return variables + "svg { background: var(--page); font-family: system-ui, sans-serif }\n" + "\n".join(kept)


def picture(page, label):
    """The chart of that label, its legend above it."""
    at = page.index(f'aria-label="{label}"')
    chart = page[page.rindex("<svg", 0, at) : page.index("</svg>", at)]
    opening, body = chart.split(">", 1)
    width, height = map(int, re.search(r'viewBox="0 0 (\d+) (\d+)"', opening).groups())
    legend = page[page.rindex('<ul class="legend">', 0, at) : at]
    rows, x, y = [], 0, 0
    for mark, name in re.findall(r'<li><svg class="swatch"[^>]*>(.*?)</svg>(.*?)</li>', legend):
        length = SWATCH + LETTER * len(name)
        if x and x + length > width - 16:
            x, y = 0, y + ROW
        rows.append(f'<g transform="translate({8 + x:.0f} {y + 6})">{mark}<text x="{SWATCH}" y="11">{name}</text></g>')
        x += length + 12
    above = y + ROW + 8
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="chart" viewBox="0 0 {width} {height + above}" role="img" '
        f'aria-label="{label}">\n<style>{colours(page)}</style>\n' + "\n".join(rows) + f'\n<g transform="translate(0 {above})">{body}</g>\n</svg>\n'
    )


def main():
    """Writes or checks the pictures; what is wrong, if anything."""
    given = [word for word in sys.argv[1:] if word != "--check"]
    if len(given) != 1:
        return __doc__
    page = pathlib.Path(given[0]).read_text()
    for name, label in PICTURES.items():
        made = picture(page, label)
        ElementTree.fromstring(made)
        if "--check" not in sys.argv:
            (DOCS / name).write_text(made)
        elif (DOCS / name).read_text() != made:
            return f"docs/{name} is not what {given[0]} shows; run scripts/readme_pictures.py {given[0]}"
    return None


if __name__ == "__main__":
    sys.exit(main())
