"""How results look in a notebook: a chart where there are curves, else a table. SVG and HTML by hand, nothing is loaded."""

from __future__ import annotations

import math
from html import escape
from typing import Any, Iterable, Sequence

# Okabe and Ito's, which colour-blind readers tell apart.
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
_MIB = float(1 << 20)


class Result(dict):  # type: ignore[type-arg]
    """A plain dictionary that a notebook shows as a table or a chart."""

    def _repr_html_(self) -> str:
        if "levels" in self:
            return "".join(_level(level) for level in self["levels"])
        if "by_role" in self:
            return _plan(self)
        if "fits" in self:
            return _fits(self)
        if "ops" in self:
            return _roofline(self)
        return _table(["", ""], self.items())


def _table(heads: Iterable[Any], rows: Iterable[Iterable[Any]]) -> str:
    cells = lambda tag, row: "".join(f"<{tag}>{escape(str(cell))}</{tag}>" for cell in row)  # noqa: E731
    body = "".join(f"<tr>{cells('td', row)}</tr>" for row in rows)
    return f"<table><thead><tr>{cells('th', heads)}</tr></thead><tbody>{body}</tbody></table>"


def _mib(size: float) -> str:
    return f"{size / _MIB:,.1f}"


def _plan(plan: dict[str, Any]) -> str:
    volume = "×".join(str(side) for side in plan["volume"])
    title = f"{plan['model']}, {volume}: peak {_mib(plan['peak_bytes'])} MiB, reserved {_mib(plan['reserved_bytes'])} MiB"
    roles = [(role, _mib(size)) for role, size in plan["by_role"].items() if size > 0]
    layers = [(layer, _mib(size)) for layer, size in list(plan["by_layer"].items())[:8]]
    live = [(float(i), float(size)) for i, size in enumerate(plan.get("live_bytes", ()))]
    # As many points as a screen shows, and none of them is missed: of each group the largest.
    width = max(1, len(live) // 400)
    shown = [max(live[i : i + width], key=lambda point: point[1]) for i in range(0, len(live), width)]
    chart = _chart([("live bytes", shown)], "allocations and releases of the step", log=False) if shown else ""
    tables = _table(["at the peak", "MiB"], roles) + _table(["layer", "MiB"], layers)
    return f"<p><b>{escape(title)}</b></p>{chart}<div style='display:flex;gap:2em'>{tables}</div>"


def _level(level: dict[str, Any]) -> str:
    curves = []
    for curve in level["curves"] + level["recorded"]:
        name = curve.get("model") or f"{curve['name']} (recorded)"
        points = curve["points"]
        if points:
            sides = points["side"] if "side" in points else _sides(points["volume"])
            curves.append((name, list(zip(map(float, sides), map(float, points["peak_activation_bytes"])))))
    crossings = [
        (cross["leaner_above"], cross["other"], f"{cross['side']:.0f}³") for cross in level["crossings"]
    ]
    table = _table(["needs less", "than", "above"], crossings) if crossings else ""
    title = f"Recompute level {level['recompute']}: peak activations against the volume's side"
    return f"<p><b>{escape(title)}</b></p>{_chart(curves, 'side in voxels', log=True)}{table}"


def _sides(volumes: Any) -> list[float]:
    """The sides of the cubes that hold as many voxels as these volumes."""
    return [math.prod(map(float, volume)) ** (1 / 3) for volume in volumes]


def _fits(found: dict[str, Any]) -> str:
    best = lambda answer: "nothing fits" if answer["best"] is None else (  # noqa: E731
        f"{answer['best']['value']:,} (recompute {answer['best']['recompute']})"
    )
    rows = [[room["room"], *(best(answer) for answer in room["largest"])] for room in found["fits"]]
    quantities = [answer["quantity"] for answer in found["fits"][0]["largest"]]
    return f"<p><b>{escape(found['model'])}: the largest that fits</b></p>" + _table(["", *quantities], rows)


def _roofline(model: dict[str, Any]) -> str:
    step = model["step"]
    title = f"{model['model']} on {model['source']}: {1e3 * step['seconds']:.2f} ms at best, {step['launches']} launches"
    rows = [
        (f"{op['op']}, {op['phase']}", op["passes"], f"{op['bytes'] / 1e9:.3f}", f"{1e3 * op['seconds']:.3f}")
        for op in model["ops"][:12]
    ]
    note = "<p>A model (roofline), not a measurement.</p>"
    return f"<p><b>{escape(title)}</b></p>" + _table(["op", "passes", "GB", "ms at best"], rows) + note


def _chart(curves: Sequence[tuple[str, Sequence[tuple[float, float]]]], x_axis: str, log: bool) -> str:
    """Lines of (x, bytes), on logarithmic axes or on straight ones from 0."""
    left, top, width, height = 70, 10, 520, 240
    points = [point for _, curve in curves for point in curve]
    if not points:
        return ""
    scale = math.log2 if log else float
    xs = [scale(x) for x, _ in points]
    ys = [scale(max(y, 1.0)) for _, y in points]
    (x0, x1), (y0, y1) = (min(xs), max(xs)), (min(ys) if log else 0.0, max(ys))
    across = lambda x: left + width * (scale(x) - x0) / ((x1 - x0) or 1)  # noqa: E731
    up = lambda y: top + height - height * (scale(max(y, 1.0)) - y0) / ((y1 - y0) or 1)  # noqa: E731
    parts = [f"<rect x='{left}' y='{top}' width='{width}' height='{height}' fill='none' stroke='#888'/>"]
    for share in range(5):
        value = y0 + (y1 - y0) * share / 4
        size = 2.0**value if log else value
        y = top + height * (1 - share / 4)
        parts.append(f"<line x1='{left}' x2='{left + width}' y1='{y:.1f}' y2='{y:.1f}' stroke='#8884'/>")
        parts.append(f"<text x='{left - 6}' y='{y + 4:.1f}' text-anchor='end'>{_mib(size)}</text>")
        x = left + width * share / 4
        at = x0 + (x1 - x0) * share / 4
        parts.append(f"<text x='{x:.1f}' y='{top + height + 16}' text-anchor='middle'>{2.0**at if log else at:,.0f}</text>")
    for number, (name, curve) in enumerate(curves):
        colour = _COLOURS[number % len(_COLOURS)]
        dash = " stroke-dasharray='5 4'" if name.endswith("(recorded)") else ""
        line = " ".join(f"{across(x):.1f},{up(y):.1f}" for x, y in curve)
        parts.append(f"<polyline points='{line}' fill='none' stroke='{colour}' stroke-width='2'{dash}/>")
        parts.append(f"<text x='{left + 10}' y='{top + 18 + 16 * number}' fill='{colour}'>{escape(name)}</text>")
    parts.append(f"<text x='{left + width / 2}' y='{top + height + 34}' text-anchor='middle'>{escape(x_axis)}; y: MiB</text>")
    style = "font:12px sans-serif;fill:currentColor"
    return f"<svg width='{left + width + 20}' height='{top + height + 44}' role='img' style='{style}'>{''.join(parts)}</svg>"
