"""Charts without scripts: bars in HTML, so that they fit a telephone, the rest in SVG. Colours come from the page."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from autoglm_edge_converter.original import ONNX, TFLITE
from autoglm_edge_converter.report.document import DROPPED, REFERENCE, SHIPPED, Entry, Histogram

FORMAT_NAMES = {ONNX: "ONNX", TFLITE: "TFLite"}
WIDTH, HEIGHT = 640, 360
LEFT, RIGHT, TOP, BOTTOM = 70, 24, 18, 46
LEAST_RADIUS, MOST_RADIUS = 5.0, 20.0
FAR_BELOW = 5.0
"""Entries that lose more than so many budgets are drawn at the lower edge, so that the others can be told apart."""


@dataclass(frozen=True)
class Bar:
    """One row: `value` sets the length, `text` is what is written beside it, `style` a class of the style sheet."""

    label: str
    value: float
    text: str
    style: str = ""


def bars(rows: Sequence[Bar], limit: float | None = None) -> str:
    """Return a chart of horizontal bars; `limit` draws a line at that value."""
    largest = max([row.value for row in rows] + [limit or 0.0, 1e-12])
    line = f'<s style="left:{limit / largest:.2%}"></s>' if limit is not None else ""
    return f'<div class="bars">{"".join(_row(row, largest, line) for row in rows)}</div>'


def _row(row: Bar, largest: float, line: str) -> str:
    width = max(0.0, min(1.0, row.value / largest))
    return (
        f'<div class="bar {row.style}"><span title="{escape(row.label)}">{escape(row.label)}</span>'
        f'<i><b style="width:{width:.2%}"></b>{line}</i><em>{escape(row.text)}</em></div>'
    )


@dataclass(frozen=True)
class _Scale:
    """From a value to a coordinate."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low) if self.high > self.low else 0.5
        return self.start + min(1.0, max(0.0, share)) * (self.end - self.start)


def pareto(entries: Sequence[Entry], max_drop: float) -> str:
    """Return quality against processor time: the bubble's area is the size, the line is the front."""
    points = [entry for entry in entries if entry.plotted]
    if not points:
        return ""
    x, y = _scales(points, max_drop)
    largest = max(entry.size_bytes or 0 for entry in points) or 1
    parts = [f'<svg class="pareto" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="quality and processor time">']
    parts += [_axes(x, y, points[0].metric or "quality"), _budget(points, max_drop, y), _front(points, x, y)]
    order = {DROPPED: 0, REFERENCE: 1, SHIPPED: 2}
    ranked = sorted(points, key=lambda entry: (order.get(entry.state, 0), -(entry.size_bytes or 0)))
    parts += [_bubble(entry, x, y, largest) for entry in ranked]
    parts += _names([entry for entry in ranked if entry.state != DROPPED], x, y, largest)
    return "".join([*parts, "</svg>"])


def _scales(points: Sequence[Entry], max_drop: float) -> tuple[_Scale, _Scale]:
    best = max(entry.value or 0.0 for entry in points)
    worst = min(entry.value or 0.0 for entry in points)
    floor = best - FAR_BELOW * max(max_drop, 0.002) * max(abs(best), 1e-9)
    low = max(worst, floor)
    room = max(best - low, max_drop * 1.3 * abs(best), 1e-4) * 0.12
    y = _Scale(min(low, best - max_drop * 1.3 * abs(best)) - room, best + room, HEIGHT - BOTTOM, TOP)
    slowest = max(entry.cpu_us or 0.0 for entry in points)
    return _Scale(0.0, slowest * 1.12 or 1.0, LEFT, WIDTH - RIGHT), y


def _axes(x: _Scale, y: _Scale, metric: str) -> str:
    parts = []
    for value in ticks(x.low, x.high / 1000 if x.high else 1.0, 6):
        at = x(value * 1000)
        parts.append(f'<line class="grid" x1="{at:.1f}" y1="{TOP}" x2="{at:.1f}" y2="{HEIGHT - BOTTOM}"/>')
        parts.append(f'<text class="tick" x="{at:.1f}" y="{HEIGHT - BOTTOM + 16}">{value:g}</text>')
    for value in ticks(y.low, y.high, 5):
        if value > 1.0 + 1e-9:
            continue
        at = y(value)
        parts.append(f'<line class="grid" x1="{LEFT}" y1="{at:.1f}" x2="{WIDTH - RIGHT}" y2="{at:.1f}"/>')
        parts.append(
            f'<text class="tick left" x="{LEFT - 8}" y="{at + 4:.1f}">{_percent(value, y.high - y.low)}</text>'
        )
    parts.append(f'<text class="axis" x="{WIDTH - RIGHT}" y="{HEIGHT - 8}">processor time of one run, ms</text>')
    parts.append(f'<text class="axis start" x="4" y="{TOP - 5}">{escape(metric)}</text>')
    return "".join(parts)


def _percent(value: float, span: float) -> str:
    digits = max(0, math.ceil(-math.log10(max(span, 1e-9)) - 1.3))
    return f"{value:.{digits}%}"


def ticks(low: float, high: float, count: int) -> list[float]:
    """Return about `count` round numbers between two."""
    if not high > low:
        return [low]
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [round(number * step, 12) for number in range(first, math.floor(high / step + 1e-9) + 1)]


def _budget(points: Sequence[Entry], max_drop: float, y: _Scale) -> str:
    reference = next((entry for entry in points if entry.state == REFERENCE), points[0])
    value = (reference.value or 0.0) * (1 - max_drop)
    if not y.low <= value <= y.high:
        return ""
    at = y(value)
    return (
        f'<line class="limit" x1="{LEFT}" y1="{at:.1f}" x2="{WIDTH - RIGHT}" y2="{at:.1f}"/>'
        f'<text class="limit-text" x="{LEFT + 6}" y="{at + 14:.1f}">budget {max_drop:.2%}</text>'
    )


def _front(points: Sequence[Entry], x: _Scale, y: _Scale) -> str:
    """Join the forms of the front that are better than every faster one; the others are on it for their size."""
    front: list[Entry] = []
    for entry in sorted((entry for entry in points if entry.front), key=lambda entry: entry.cpu_us or 0.0):
        if not front or (entry.value or 0.0) > (front[-1].value or 0.0):
            front.append(entry)
    path = " ".join(f"{x(entry.cpu_us or 0.0):.1f},{y(entry.value or 0.0):.1f}" for entry in front)
    return f'<polyline class="front" points="{path}"/>' if len(front) > 1 else ""


def _radius(entry: Entry, largest: int) -> float:
    return max(LEAST_RADIUS, MOST_RADIUS * math.sqrt((entry.size_bytes or 0) / largest))


def _bubble(entry: Entry, x: _Scale, y: _Scale, largest: int) -> str:
    """Draw a circle for ONNX, a square of the same area for TFLite."""
    below = " below" if (entry.value or 0.0) < y.low else ""
    title = f"{entry.label}: {entry.value or 0.0:.2%}, {(entry.cpu_us or 0.0) / 1000:.3f} ms, {entry.state}"
    style = f"dot of-{entry.format} {entry.state}{' on-front' if entry.front else ''}{below}"
    at, line, radius = x(entry.cpu_us or 0.0), y(entry.value or 0.0), _radius(entry, largest)
    if entry.format == TFLITE:
        side = radius * math.sqrt(math.pi)
        place = f'x="{at - side / 2:.1f}" y="{line - side / 2:.1f}" width="{side:.1f}" height="{side:.1f}"'
        return f'<rect class="{style}" {place}><title>{escape(title)}</title></rect>'
    place = f'cx="{at:.1f}" cy="{line:.1f}" r="{radius:.1f}"'
    return f'<circle class="{style}" {place}><title>{escape(title)}</title></circle>'


def _names(entries: Sequence[Entry], x: _Scale, y: _Scale, largest: int) -> list[str]:
    """Write names below the bubbles, one line lower for each that would cover another."""
    placed: list[tuple[float, float]] = []
    parts = []
    for entry in entries:
        at = x(entry.cpu_us or 0.0)
        line = y(entry.value or 0.0) + _radius(entry, largest) + 14
        while any(abs(at - other) < 56 and abs(line - height) < 13 for other, height in placed):
            line += 13
        placed.append((at, line))
        text = escape(entry.id[:24])
        parts.append(f'<text class="name {entry.state}" x="{at:.1f}" y="{line:.1f}">{text}</text>')
    return parts


def histogram(data: Histogram) -> str:
    """Return before (filled) and after (line) over each other; heights are square roots, so that rare values show."""
    width, height, bottom = 320.0, 130.0, 112.0
    highest = math.sqrt(max((*data.before, *data.after, 1e-12)))
    step = width / len(data.before)

    def tops(shares: Sequence[float]) -> list[float]:
        return [bottom - (bottom - 6) * math.sqrt(share) / highest for share in shares]

    filled = "".join(
        f'<rect x="{number * step:.1f}" y="{top:.1f}" width="{step:.2f}" height="{bottom - top:.1f}"/>'
        for number, top in enumerate(tops(data.before))
    )
    line = " ".join(f"{(number + 0.5) * step:.1f},{top:.1f}" for number, top in enumerate(tops(data.after)))
    return (
        f'<svg class="histogram" viewBox="0 0 {width:.0f} {height:.0f}" role="img" aria-label="{escape(data.title)}">'
        f'<g class="before">{filled}</g><polyline class="after" points="{line}"/>'
        f'<text class="tick start" x="0" y="{height - 4:.0f}">{data.low:.3g}</text>'
        f'<text class="tick end" x="{width:.0f}" y="{height - 4:.0f}">{data.high:.3g}</text></svg>'
    )
