"""Small pieces of HTML for notebooks: tables and line charts, which take the colour of the text around them."""

import html
import itertools
import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from bptt.display.text import printable

COLOURS = ("#3b8fd9", "#d9622b", "#1f9e77", "#c9871f")  # with contrast to white and to black
WIDTH, HEIGHT, LEFT, BOTTOM, TOP = 560, 220, 56, 34, 10  # of a chart and its margins
POINTS = 600  # of a line that are drawn at most, as a pixel has room for one
GRID = 'stroke="currentColor" stroke-opacity="0.2"'


class Line(NamedTuple):
    """A line of a chart; points that are not finite are left out."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    marked: bool = False  # whether each point is a dot


def escape(text: Any, allowed: str = "") -> str:
    """A text as HTML, without control characters except for the allowed ones."""
    return html.escape(printable(str(text), allowed))


def preformatted(text: str) -> str:
    """Lines of text as they are; empty for an empty text."""
    style = "margin:4px 0;background:none;color:inherit;white-space:pre-wrap;font-size:12px"
    return f'<pre style="{style}">{escape(text, chr(10))}</pre>' if text else ""


def card(title: str, facts: Iterable[tuple[str, Any]], *parts: str) -> str:
    """A title, a table of facts, and other pieces of HTML below."""
    rows = "".join(
        f'<tr><th scope="row" style="text-align:left;font-weight:normal;opacity:.7;padding:1px 12px 1px 0">{escape(name)}</th>'
        f'<td style="text-align:left;padding:1px 0">{escape(value)}</td></tr>'
        for name, value in facts
    )
    table = f'<table style="border-collapse:collapse;color:inherit;background:none;margin:0">{rows}</table>' if rows else ""
    heading = f"<strong>{escape(title)}</strong>" if title else ""
    return f'<div style="max-width:{WIDTH}px">{heading}{table}{"".join(parts)}</div>'


def line_chart(lines: Sequence[Line], x_name: str, y_name: str, *, logarithmic: bool = False) -> str:
    """An SVG of lines, with the range of both axes and the names of the lines; empty if there is nothing to draw."""
    drawn = [(line, points) for line in lines if (points := _points(line, logarithmic))]
    if not drawn:
        return ""
    x_low, x_high = _bounds([x for _, points in drawn for x, _ in points])
    y_low, y_high = _bounds([y for _, points in drawn for _, y in points])

    def place(x: float, y: float) -> tuple[float, float]:
        across, up = (x - x_low) / (x_high - x_low), (y - y_low) / (y_high - y_low)
        return round(LEFT + across * (WIDTH - LEFT - 10), 1), round(HEIGHT - BOTTOM - up * (HEIGHT - BOTTOM - TOP), 1)

    parts = []
    for share in (0.0, 0.5, 1.0):
        y = y_low + share * (y_high - y_low)
        _, down = place(x_low, y)
        number = f"{10**y if logarithmic else y:.3g}"
        parts.append(f'<line x1="{LEFT}" x2="{WIDTH - 10}" y1="{down}" y2="{down}" {GRID}/>')
        parts.append(f'<text x="{LEFT - 6}" y="{down + 4}" text-anchor="end">{number}</text>')
    below = HEIGHT - BOTTOM + 14
    parts.append(f'<text x="{LEFT}" y="{below}">{x_low:,.10g}</text>')
    parts.append(f'<text x="{WIDTH - 10}" y="{below}" text-anchor="end">{x_high:,.10g}</text>')
    parts.append(f'<text x="{(LEFT + WIDTH) // 2}" y="{below}" text-anchor="middle">{escape(x_name)}</text>')
    names = [f'<tspan opacity=".7">{escape(y_name)}</tspan>']
    for (line, points), colour in zip(drawn, itertools.cycle(COLOURS)):
        places = [place(x, y) for x, y in points]
        path = " ".join(f"{x},{y}" for x, y in places)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.5"/>')
        if line.marked or len(places) == 1:
            parts += [f'<circle cx="{x}" cy="{y}" r="2.5" fill="{colour}"/>' for x, y in places]
        names.append(f'<tspan fill="{colour}" dx="12">{escape(line.name)}</tspan>')
    parts.append(f'<text x="{LEFT}" y="{HEIGHT - 4}">{"".join(names)}</text>')
    style = "width:100%;height:auto;font:11px sans-serif;color:inherit"
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" style="{style}"'
    return f'{head} fill="currentColor" aria-label="{escape(y_name)}">{"".join(parts)}</svg>'


def loss_chart(rows: Sequence[dict[str, Any]]) -> str:
    """The training loss and the validation loss of the rows of a history."""
    measured = [row for row in rows if row.get("held_out") is not None]
    training = Line("training", [row["step"] for row in rows], [row["loss"] for row in rows])
    validation = Line("validation", [row["step"] for row in measured], [row["held_out"] for row in measured], marked=True)
    return line_chart([training, validation], "step", "nats per character")


def _points(line: Line, logarithmic: bool) -> list[tuple[float, float]]:
    """The points of a line that can be drawn, thinned out; on a logarithmic axis the exponents of the positive ones."""
    points = [
        (float(x), math.log10(y) if logarithmic else float(y))
        for x, y in zip(line.x, line.y)
        if math.isfinite(x) and math.isfinite(y) and (y > 0 or not logarithmic)
    ]
    every = -(-len(points) // POINTS)
    return [*points[:-1:every], points[-1]] if points else []


def _bounds(values: list[float]) -> tuple[float, float]:
    """The least and the largest value, apart from each other."""
    low, high = min(values), max(values)
    return (low, high) if low < high else (low - 0.5, high + 0.5)
