"""The picture of scripts/table1.py: accuracy against memory, a mark for each network and level of recomputation."""

import html
import math
import pathlib
import re

WIDTH, HEIGHT = 760, 420
LEFT, RIGHT, TOP, BOTTOM = 64, 150, 40, 56
# The colours of the program's own pages (src/report/palette.rs): a network has one everywhere.
NUMBERS = {"oss-net-c": 0, "unet3d": 1, "o-net": 2, "unet2d": 3, "oss-net-d": 4, "oss-net-a": 5, "oss-net-b": 6}
STYLE = (pathlib.Path(__file__).resolve().parent.parent / "src/report/style.css").read_text()
COLOURS = {row: re.search(rf"--m{number}: (#\w+);", STYLE)[1] for row, number in NUMBERS.items()}


def bytes_name(count):
    return f"{count / 2**30:g} GiB" if count >= 2**30 else f"{count / 2**20:g} MiB"


def text(x, y, words, anchor="middle", extra=""):
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" {extra}>{html.escape(words)}</text>'


def picture(rows):
    """Dice over all voxels with its interval, against the most bytes that the engine holds in training: a filled mark for the level that
    the network was trained at, hollow ones for the bytes that the plan of the same run has at other levels. None without a scored row."""
    rows = [row for row in rows if row["dice"]["mean"] is not None and row["device_peak_bytes"]]
    if not rows:
        return None
    every = [count for row in rows for count in [row["device_peak_bytes"], *row["level_bytes"].values()]]
    low, high = 2 ** math.floor(math.log2(min(every))), 2 ** math.ceil(math.log2(max(every) + 1))
    ends = [row["dice"][end] if row["dice"][end] is not None else row["dice"]["mean"] for row in rows for end in ("low", "high")]
    floor, top = math.floor(10 * min(ends)) / 10, min(1.0, math.ceil(10 * max(ends)) / 10)
    floor = min(floor, top - 0.1)
    x = lambda count: LEFT + (WIDTH - LEFT - RIGHT) * math.log2(count / low) / math.log2(high / low)
    y = lambda dice: HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (dice - floor) / (top - floor)
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" '
        'font-family="system-ui, sans-serif" font-size="12" fill="#333">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        text(LEFT, 22, "Dice over all voxels against the bytes that training holds at its peak", "start", 'font-size="14" font-weight="600"'),
        text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 14, "device bytes at the peak of training"),
    ]
    for step in range(round(10 * floor), round(10 * top) + 1):
        out.append(f'<path d="M{LEFT} {y(step / 10):.1f}H{WIDTH - RIGHT}" stroke="#e4e4e4"/>' + text(LEFT - 8, y(step / 10) + 4, f"{step / 10:.1f}", "end"))
    for power in range(round(math.log2(low)), round(math.log2(high)) + 1):
        out.append(f'<path d="M{x(2**power):.1f} {TOP}V{HEIGHT - BOTTOM}" stroke="#e4e4e4"/>' + text(x(2**power), HEIGHT - BOTTOM + 18, bytes_name(2**power)))
    for number, row in enumerate(rows):
        colour, dice, trained = COLOURS[row["row"]], row["dice"], row["device_peak_bytes"]
        levels = [trained, *row["level_bytes"].values()]
        out.append(f'<path d="M{x(min(levels)):.1f} {y(dice["mean"]):.1f}H{x(max(levels)):.1f}" stroke="{colour}" stroke-dasharray="2 3"/>')
        if dice["low"] is not None:
            out.append(f'<path d="M{x(trained):.1f} {y(dice["low"]):.1f}V{y(dice["high"]):.1f}" stroke="{colour}" stroke-width="1.5"/>')
        for level, count in row["level_bytes"].items():
            told = f"<title>{html.escape(row['network'])}, recompute level {level}: {count / 2**20:.0f} MiB planned</title>"
            out.append(f'<circle cx="{x(count):.1f}" cy="{y(dice["mean"]):.1f}" r="4" fill="white" stroke="{colour}">{told}</circle>')
        told = f"<title>{html.escape(row['network'])}: Dice {dice['mean']:.4f}, {trained / 2**20:.0f} MiB</title>"
        out.append(f'<circle cx="{x(trained):.1f}" cy="{y(dice["mean"]):.1f}" r="5.5" fill="{colour}">{told}</circle>')
        at = TOP + 14 + 20 * number
        out.append(f'<circle cx="{WIDTH - RIGHT + 16}" cy="{at - 4}" r="5.5" fill="{colour}"/>' + text(WIDTH - RIGHT + 28, at, row["network"], "start"))
    at = TOP + 24 + 20 * len(rows)
    out.append(f'<circle cx="{WIDTH - RIGHT + 16}" cy="{at - 4}" r="4" fill="white" stroke="#555"/>' + text(WIDTH - RIGHT + 28, at, "recompute levels", "start"))
    return "\n".join(out) + "\n</svg>\n"
