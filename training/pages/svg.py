"""Plot with matplotlib, as SVG that takes its colours, light or dark, from the page around it."""

import io
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

_WIDE, _NARROW = (9.6, 3.8), (3.9, 3.5)  # inches: for a desktop or paper, and for a phone

# Placeholders, which are replaced by the variables of the page for light and dark colours.
INK, _FAINT, _GRID = "#010101", "#020202", "#030303"
HUES = {
    "generator": "#0000a1", "discriminator": "#0000a2", "real": "#0000a3",
    "fcd": "#0000a4", "g-loss": "#0000a5",
}  # fmt: skip
RUNS = [f"#0000b{i}" for i in range(6)]
_PAGE_COLOURS = (
    {INK: "var(--ink)", _FAINT: "var(--faint)", _GRID: "var(--line)"}
    | {colour: f"var(--{name})" for name, colour in HUES.items()}
    | {colour: f"var(--run-{i})" for i, colour in enumerate(RUNS)}
)
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none", "text.parse_math": False,  # names may hold a $
    "font.size": 9.5,
    "text.color": INK, "axes.labelcolor": INK, "xtick.color": INK, "ytick.color": INK,
    "axes.edgecolor": _FAINT, "grid.color": _GRID, "grid.linewidth": 0.8,
    "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True,
    "axes.axisbelow": True, "axes.xmargin": 0.015, "lines.linewidth": 1.6,
    "legend.frameon": False, "legend.handlelength": 1.8, "path.simplify_threshold": 0.4,
}  # fmt: skip
# For lines that are not in the legend. (matplotlib names lines without a label.)
UNNAMED = " "


@dataclass(frozen=True)
class Chart:
    """A chart in a wide and a narrow version."""

    title: str
    note: str
    wide: str
    """SVG for screens wider than about 600 pixels, and for paper."""
    narrow: str
    """SVG for a phone."""


def chart(title: str, note: str, plot: Callable[[Axes], None], *, thousands: bool = True) -> Chart:
    """Plot a chart in both versions.  thousands: whether the axis of x counts from 0."""
    wide, narrow = (_svg(title, plot, size, thousands) for size in (_WIDE, _NARROW))
    return Chart(title, note, wide, narrow)


def _svg(
    title: str, plot: Callable[[Axes], None], size: tuple[float, float], thousands: bool
) -> str:
    narrow = size == _NARROW
    # The salt makes the ids in a chart unique on a page.
    with mpl.rc_context({**_STYLE, "svg.hashsalt": f"{title} {size}"}):
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.add_subplot()
        plot(axes)
        if thousands:
            ticks = MaxNLocator(4 if narrow else 8, integer=True, steps=[1, 2, 2.5, 5, 10])
            axes.xaxis.set_major_locator(ticks)
            axes.set_xlim(left=0)
            axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
        handles, names = _legend(axes)
        figure.legend(handles, names, loc="outside upper left", ncols=2 if narrow else 5)
        file = io.StringIO()
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        with warnings.catch_warnings():
            # The page has another font, which may have these letters.
            warnings.filterwarnings("ignore", "Glyph .* missing from font")
            figure.savefig(
                file, format="svg", transparent=True, metadata={**nothing, "Title": title}
            )
    return _for_page(file.getvalue())


def _legend(axes: Axes) -> tuple[list[Any], list[str]]:
    """The lines and bars with a name, and the names. (matplotlib skips names like "_a".)"""
    shown: list[Any] = [*axes.lines, *axes.containers]
    named = [each for each in shown if each.get_label() != UNNAMED]
    return named, [str(each.get_label()) for each in named]


def _for_page(svg: str) -> str:
    """Adapt matplotlib's SVG to the page: its colours, font and width, without unused ids."""
    svg = svg[svg.index("<svg") :]
    used = {name for tag in _TAG.findall(svg) for name in re.findall(r"#([^\")]+)", tag)}

    def changed(found: re.Match[str]) -> str:
        tag = found[0]
        for own, pages in _PAGE_COLOURS.items():
            tag = tag.replace(own, pages)
        tag = re.sub(r"(font: [^';\"]*px) [^;\"]*", r"\1 system-ui, sans-serif", tag)
        tag = re.sub(r' id="([^"]+)"', lambda each: each[0] if each[1] in used else "", tag)
        return re.sub(r' (?:width|height)="[\d.]+pt"', "", tag)

    return _TAG.sub(changed, re.sub(r"<!--.*?-->", "", svg, flags=re.DOTALL))


_TAG = re.compile(r"<[^>]*>")
"""Tags alone: a name in the text may look like a colour."""
