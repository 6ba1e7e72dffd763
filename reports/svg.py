"""A very small SVG writer: elements as strings, a time axis, the order and colours of nodes.

Colours are classes (``k0`` …) which the page's style sheet defines for light and dark.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from html import escape

COLORS = 10
_USUAL_COLORS = {
    "sk0": 0,
    "sk1": 1,
    "sk2": 2,
    "ps0": 3,
    "ps1": 4,
    "s3": 7,
    "broker": 8,
    "etcd": 8,
    "harness": 9,
}
_FIRST_COLOR_OF_COMPUTES = 5


def element(tag: str, body: str = "", /, **attributes: object) -> str:
    """One element; ``_`` in attribute names becomes ``-``, a trailing one is dropped."""
    named = {name.rstrip("_").replace("_", "-"): value for name, value in attributes.items()}
    text = " ".join(f'{name}="{escape(number(value))}"' for name, value in named.items())
    return f"<{tag} {text}>{body}</{tag}>" if body else f"<{tag} {text}/>"


def number(value: object) -> str:
    """A coordinate with two decimals at most; anything else as it is."""
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)


def title(content: str) -> str:
    """What a browser shows when the element is pointed at."""
    return f"<title>{escape(content)}</title>"


def text(x: float, y: float, content: str, /, hover: str = "", **attributes: object) -> str:
    """A line of text."""
    body = (title(hover) if hover else "") + escape(content)
    return element("text", body, x=x, y=y, **attributes)


def round_step(span: float, most: int) -> float:
    """A step of 1, 2 or 5 × 10ⁿ that divides ``span`` into at most ``most`` parts."""
    if span <= 0:
        return 1.0
    raw = span / most
    power = 10.0 ** math.floor(math.log10(raw))
    return next(step * power for step in (1, 2, 5, 10) if step * power >= raw)


class TimeAxis:
    """Maps seconds to x coordinates of a strip."""

    def __init__(self, start_s: float, end_s: float, *, left: float, width: float) -> None:
        self.start_s = start_s
        self.end_s = max(end_s, start_s + 1e-6)
        self.left = left
        self.width = width

    def at(self, at_s: float) -> float:
        """The x coordinate of a time, outside of the strip for times outside of it."""
        return self.left + self.width * (at_s - self.start_s) / (self.end_s - self.start_s)

    def x(self, at_s: float) -> float:
        """The x coordinate of a time, clamped to the strip."""
        return min(max(self.at(at_s), self.left), self.left + self.width)

    def shows(self, at_s: float) -> bool:
        """Whether a time is in the strip."""
        return self.start_s <= at_s <= self.end_s

    def ticks(self, top: float, bottom: float) -> list[str]:
        """Grid lines, one for each 130 pixels or fewer, and their labels below ``bottom``."""
        span_s = self.end_s - self.start_s
        step = round_step(span_s, max(2, int(self.width / 130)))
        digits = max(0, -math.floor(math.log10(step)))
        first, last = math.ceil(self.start_s / step), math.floor(self.end_s / step)
        parts = []
        for index in range(first, last + 1):
            at_s = index * step
            x = self.at(at_s)
            parts.append(element("line", x1=x, y1=top, x2=x, y2=bottom, class_="grid"))
            label = f"{at_s:.{digits}f} s"
            parts.append(text(x, bottom + 14, label, class_="tick", text_anchor="middle"))
        return parts


class Cast:
    """The nodes of a run, in the order of their lanes, each with its colour."""

    def __init__(self, names: Iterable[str]) -> None:
        self.names = tuple(sorted(set(names), key=lambda name: (_rank(name), name)))
        usual = {name: _USUAL_COLORS[name] for name in self.names if name in _USUAL_COLORS}
        others = [name for name in self.names if name not in usual]
        taken = set(usual.values())
        order = [(_FIRST_COLOR_OF_COMPUTES + step) % COLORS for step in range(COLORS)]
        free = [color for color in order if color not in taken] or order
        unusual = {name: free[index % len(free)] for index, name in enumerate(others)}
        self._colors = usual | unusual

    def color(self, name: str) -> str:
        """The class that gives a node its colour."""
        return f"k{self._colors[name]}"


def _rank(name: str) -> int:
    """The harness first, then computes, safekeepers, pageservers and shared services."""
    if name == "harness":
        return 0
    if name[:2] in ("sk", "ps") and name[2:].isdigit():
        return 2 if name[:2] == "sk" else 3
    return 4 if name in ("s3", "broker", "etcd") else 1
