"""Markup of elements and of the marks that stand for points."""

from __future__ import annotations

from html import escape

SHAPES = ("circle", "square", "triangle", "diamond", "down", "plus", "cross", "hexagon")
"""As many as there are colours in page.css: nobody has to tell series apart by colour alone."""


def element(name: str, *children: str, **attributes: object) -> str:
    """``<name …>children</name>``; ``class_`` is class, other underscores are hyphens. Children are markup already."""
    listed = "".join(f' {_attribute(key)}="{_value(value)}"' for key, value in attributes.items() if value is not None)
    return f"<{name}{listed}>{''.join(children)}</{name}>"


def _attribute(name: str) -> str:
    return name.rstrip("_").replace("_", "-")


def _value(value: object) -> str:
    return f"{value:.1f}".removesuffix(".0") if isinstance(value, float) else escape(str(value))


def text(content: str, x: float, y: float, anchor: str = "start", class_: str | None = None) -> str:
    return element("text", escape(content), x=x, y=y, text_anchor=None if anchor == "start" else anchor, class_=class_)


def title(content: str) -> str:
    """What a mouse that rests on the element is shown, and what a screen reader says of it."""
    return element("title", escape(content))


def line(x1: float, y1: float, x2: float, y2: float, class_: str) -> str:
    return element("line", x1=x1, y1=y1, x2=x2, y2=y2, class_=class_)


def rectangle(x: float, y: float, width: float, height: float, class_: str) -> str:
    return element("rect", x=x, y=y, width=width, height=height, class_=class_)


def path(points: list[tuple[float, float]], class_: str, closed: bool = False) -> str:
    """A polyline through ``points``."""
    steps = " ".join(f"{'L' if index else 'M'}{x:.1f} {y:.1f}" for index, (x, y) in enumerate(points))
    return element("path", d=steps + ("Z" if closed else ""), class_=class_)


_CORNERS: dict[str, tuple[tuple[float, float], ...]] = {
    "square": ((-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)),
    "triangle": ((0, -1.2), (1.1, 0.9), (-1.1, 0.9)),
    "diamond": ((0, -1.3), (1.3, 0), (0, 1.3), (-1.3, 0)),
    "down": ((0, 1.2), (1.1, -0.9), (-1.1, -0.9)),
    "plus": (
        (-0.4, -1.2), (0.4, -1.2), (0.4, -0.4), (1.2, -0.4), (1.2, 0.4), (0.4, 0.4), (0.4, 1.2), (-0.4, 1.2),
        (-0.4, 0.4), (-1.2, 0.4), (-1.2, -0.4), (-0.4, -0.4),
    ),
    "cross": (
        (-1.2, -0.7), (-0.7, -1.2), (0, -0.5), (0.7, -1.2), (1.2, -0.7), (0.5, 0), (1.2, 0.7), (0.7, 1.2), (0, 0.5),
        (-0.7, 1.2), (-1.2, 0.7), (-0.5, 0),
    ),
    "hexagon": ((-1.2, 0), (-0.6, -1), (0.6, -1), (1.2, 0), (0.6, 1), (-0.6, 1)),
}  # fmt: skip


def mark(series: int, x: float, y: float, radius: float = 5, told: str = "", hollow: bool = False) -> str:
    """A point of series number ``series``, in its colour and shape; ``told`` when pointed at."""
    class_ = f"mark s{series % len(SHAPES)}" + (" hollow" if hollow else "")
    inside = [title(told)] if told else []
    shape = SHAPES[series % len(SHAPES)]
    if shape == "circle":
        return element("circle", *inside, cx=x, cy=y, r=radius, class_=class_)
    corners = " ".join(f"{x + radius * dx:.1f},{y + radius * dy:.1f}" for dx, dy in _CORNERS[shape])
    return element("polygon", *inside, points=corners, class_=class_)


def chart(width: float, height: float, body: str, told: str) -> str:
    """An image of ``width`` × ``height`` units, as wide as its place on the page; ``told`` says what it shows."""
    return element(
        "svg", body, viewBox=f"0 0 {width:g} {height:g}", role="img", aria_label=told, width=width, height=height
    )
