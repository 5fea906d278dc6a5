"""Line and bar charts as SVG text, large enough in type to be read at half size. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, floor, isfinite, log10
from xml.sax.saxutils import escape, quoteattr

WIDTH, HEIGHT = 1000, 600
_LEFT, _RIGHT, _TOP, _BOTTOM = 110, 970, 150, 510
_INK, _GRID = "#222222", "#dddddd"
_TEXT = 22


@dataclass(frozen=True, slots=True)
class Axis:
    """`ticks` are values with their labels; `log` axes hold positive values alone."""

    title: str
    low: float
    high: float
    ticks: tuple[tuple[float, str], ...]
    log: bool = False

    def share(self, value: float) -> float:
        """Where `value` lies, 0 at the low end and 1 at the high end; values outside lie at the ends."""
        value = min(max(value, self.low), self.high)
        if self.log:
            return log10(value / self.low) / log10(self.high / self.low)
        return (value - self.low) / (self.high - self.low)


@dataclass(frozen=True, slots=True)
class Series:
    """One system's figures; points of a line are (x, y), a bar's y belongs to its category's number."""

    name: str
    color: str
    points: tuple[tuple[float, float], ...]
    dash: str = ""


def number(value: float) -> str:
    """As short as it can be read: 25k, 1.5, 0.05."""
    return f"{value / 1000:g}k" if value >= 10_000 else f"{value:g}"


def linear_axis(title: str, high: float, *, low: float = 0.0, unit: str = "") -> Axis:
    span = (high - low) or 1.0
    rough = span / 5
    power = 10.0 ** floor(log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough)
    count = ceil(span / step - 1e-9)
    ticks = tuple((low + n * step, number(round(low + n * step, 6)) + unit) for n in range(count + 1))
    return Axis(title, low, low + count * step, ticks)


def log_axis(title: str, low: float, high: float) -> Axis:
    """Ticks at 1, 2 and 5 of every decade, at 1 alone where there are many decades."""
    first, last = floor(log10(low)), ceil(log10(high))
    factors = (1, 2, 5) if last - first <= 3 else (1,)
    # One decade more on either side, since a logarithm may round to the wrong side of a power of ten.
    every = sorted({factor * 10.0**power for power in range(first - 1, last + 2) for factor in factors})
    bottom = max(tick for tick in every if tick <= low)
    top = min(tick for tick in every if tick >= high and tick > bottom)
    inside = tuple((tick, number(round(tick, 6))) for tick in every if bottom <= tick <= top)
    return Axis(title, bottom, top, inside, log=True)


def line_chart(title: str, subtitle: str, x: Axis, y: Axis, series: Sequence[Series]) -> str:
    parts = [*_frame(title, subtitle, y), *_x_ticks(x), *_legend(series)]
    for line in series:
        points = [point for point in line.points if isfinite(point[0]) and isfinite(point[1])]
        if not points:
            continue
        path = " ".join(f"{_x(x.share(at)):.1f},{_y(y.share(value)):.1f}" for at, value in points)
        dash = f' stroke-dasharray="{line.dash}"' if line.dash else ""
        parts.append(f'<polyline points="{path}" fill="none" stroke="{line.color}" stroke-width="4"{dash}/>')
        if len(points) <= 20:
            parts.extend(
                f'<circle cx="{_x(x.share(at)):.1f}" cy="{_y(y.share(value)):.1f}" r="6" '
                f'fill="{line.color}"/>'
                for at, value in points
            )
    return _document(title, parts)


def bar_chart(title: str, subtitle: str, y: Axis, categories: Sequence[str], series: Sequence[Series]) -> str:
    """Bars side by side in each category, each with its value above it."""
    parts = [*_frame(title, subtitle, y), *_legend(series)]
    slot = (_RIGHT - _LEFT) / max(len(categories), 1)
    width = slot * 0.8 / max(len(series), 1)
    for number_of, name in enumerate(categories):
        middle = _LEFT + (number_of + 0.5) * slot
        parts.append(_text(middle, _BOTTOM + 34, name, anchor="middle"))
        for place, bars in enumerate(series):
            left = middle - slot * 0.4 + place * width
            for _, value in (point for point in bars.points if point[0] == number_of):
                top = _y(y.share(value))
                parts.append(
                    f'<rect x="{left + 2:.1f}" y="{top:.1f}" width="{width - 4:.1f}" '
                    f'height="{_BOTTOM - top:.1f}" fill="{bars.color}"/>'
                )
                parts.append(_text(left + width / 2, top - 8, f"{value:.3g}", anchor="middle", size=20))
    return _document(title, parts)


def _frame(title: str, subtitle: str, y: Axis) -> list[str]:
    parts = [
        _text(_LEFT - 80, 44, title, size=28, weight="bold"),
        _text(_LEFT - 80, 76, subtitle, size=20),
        f'<text transform="translate(34,{(_TOP + _BOTTOM) / 2:.0f}) rotate(-90)" text-anchor="middle" '
        f'font-size="{_TEXT}" fill="{_INK}">{escape(y.title)}</text>',
    ]
    for value, label in y.ticks:
        at = _y(y.share(value))
        parts.append(f'<line x1="{_LEFT}" x2="{_RIGHT}" y1="{at:.1f}" y2="{at:.1f}" stroke="{_GRID}"/>')
        parts.append(_text(_LEFT - 10, at + 7, label, anchor="end"))
    parts.append(
        f'<line x1="{_LEFT}" x2="{_RIGHT}" y1="{_BOTTOM}" y2="{_BOTTOM}" stroke="{_INK}" stroke-width="2"/>'
    )
    return parts


def _x_ticks(x: Axis) -> list[str]:
    parts = [_text((_LEFT + _RIGHT) / 2, _BOTTOM + 72, x.title, anchor="middle")]
    for value, label in x.ticks:
        at = _x(x.share(value))
        parts.append(f'<line x1="{at:.1f}" x2="{at:.1f}" y1="{_TOP}" y2="{_BOTTOM}" stroke="{_GRID}"/>')
        # The last label would leave the canvas if it stood in the middle of its tick.
        last = at > _RIGHT - 20
        parts.append(_text(at + 15 if last else at, _BOTTOM + 34, label, anchor="end" if last else "middle"))
    return parts


def _legend(series: Sequence[Series]) -> list[str]:
    parts, at = [], float(_LEFT - 80)
    for each in series:
        dash = f' stroke-dasharray="{each.dash}"' if each.dash else ""
        parts.append(
            f'<line x1="{at:.0f}" x2="{at + 36:.0f}" y1="112" y2="112" stroke="{each.color}" '
            f'stroke-width="6"{dash}/>'
        )
        parts.append(_text(at + 44, 119, each.name))
        at += 44 + 12 * len(each.name) + 24
    return parts


def _text(
    x: float, y: float, text: str, *, size: int = _TEXT, anchor: str = "start", weight: str = "normal"
) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}" font-weight="{weight}" '
        f'fill="{_INK}">{escape(text)}</text>'
    )


def _document(title: str, parts: Sequence[str]) -> str:
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" '
            f'height="{HEIGHT}" font-family="Helvetica, Arial, sans-serif" role="img" '
            f"aria-label={quoteattr(title)}>",
            f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>',
            *parts,
            "</svg>",
            "",
        ]
    )


def _x(share: float) -> float:
    return _LEFT + share * (_RIGHT - _LEFT)


def _y(share: float) -> float:
    return _BOTTOM - share * (_BOTTOM - _TOP)
