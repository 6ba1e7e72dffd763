"""A very small SVG writer: elements as strings, a time axis, a palette."""

from __future__ import annotations

import math
from collections.abc import Iterable
from html import escape

PALETTE = (
    "#2f6fde",
    "#d9480f",
    "#2b8a3e",
    "#9c36b5",
    "#c2255c",
    "#0b7285",
    "#8d6b00",
    "#5f3dc4",
    "#495057",
    "#e8590c",
)


def element(tag: str, body: str = "", /, **attributes: object) -> str:
    """One element; ``_`` in attribute names becomes ``-``, a trailing one is dropped."""
    named = {name.rstrip("_").replace("_", "-"): value for name, value in attributes.items()}
    text = " ".join(f'{name}="{escape(_number(value))}"' for name, value in named.items())
    return f"<{tag} {text}>{body}</{tag}>" if body else f"<{tag} {text}/>"


def _number(value: object) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)


def text(x: float, y: float, content: str, **attributes: object) -> str:
    """A line of text."""
    return element("text", escape(content), x=x, y=y, **attributes)


def document(width: int, height: int, parts: Iterable[str], label: str) -> str:
    """The whole picture, scaled to its container, with a title for screen readers."""
    body = f"<title>{escape(label)}</title>" + "".join(parts)
    return element("svg", body, viewBox=f"0 0 {width} {height}", role="img", class_="picture")


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

    def x(self, at_s: float) -> float:
        """The x coordinate of a time, clamped to the strip."""
        share = (at_s - self.start_s) / (self.end_s - self.start_s)
        return self.left + self.width * min(max(share, 0.0), 1.0)

    def ticks(self, top: float, bottom: float) -> list[str]:
        """Grid lines and their labels below ``bottom``."""
        step = round_step(self.end_s - self.start_s, 8)
        digits = max(0, -math.floor(math.log10(step)))
        parts = []
        for index in range(math.ceil(self.start_s / step), math.floor(self.end_s / step) + 1):
            at_s = index * step
            x = self.x(at_s)
            parts.append(element("line", x1=x, y1=top, x2=x, y2=bottom, class_="grid"))
            label = f"{at_s:.{digits}f} s"
            parts.append(text(x, bottom + 14, label, class_="tick", text_anchor="middle"))
        return parts
