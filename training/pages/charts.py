"""Charts as SVG that takes its colours, light or dark, from the page around it."""

import io
import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter
from numpy.typing import NDArray

from training.pages.run_view import RunView
from training.records.metrics_file import COLUMNS

_BINS = 240
_WIDE, _NARROW = (9.6, 3.8), (3.9, 3.5)  # inches: for a desktop or paper, and for a phone

# Placeholders, which are replaced by the variables of the page for light and dark colours.
_INK, _FAINT, _GRID = "#010101", "#020202", "#030303"
_HUES = {
    "generator": "#0000a1", "discriminator": "#0000a2", "real": "#0000a3",
    "fcd": "#0000a4", "g-loss": "#0000a5",
}  # fmt: skip
_RUNS = [f"#0000b{i}" for i in range(6)]
_PAGE_COLOURS = (
    {_INK: "var(--ink)", _FAINT: "var(--faint)", _GRID: "var(--line)"}
    | {colour: f"var(--{name})" for name, colour in _HUES.items()}
    | {colour: f"var(--run-{i})" for i, colour in enumerate(_RUNS)}
)
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none", "text.parse_math": False,  # names may hold a $
    "font.size": 9.5,
    "text.color": _INK, "axes.labelcolor": _INK, "xtick.color": _INK, "ytick.color": _INK,
    "axes.edgecolor": _FAINT, "grid.color": _GRID, "grid.linewidth": 0.8,
    "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True,
    "axes.axisbelow": True, "axes.xmargin": 0.015, "lines.linewidth": 1.6,
    "legend.frameon": False, "legend.handlelength": 1.8, "path.simplify_threshold": 0.4,
}  # fmt: skip
_UNNAMED = (
    " "  # for lines that are not in the legend; matplotlib itself names lines without a label
)
# Lines may coincide, so their dashes alternate.
_DASHES = {"fcd": (0, (3, 3)), "g-loss": (3, (3, 3))}


@dataclass(frozen=True)
class Chart:
    """A chart in a wide and a narrow version."""

    title: str
    note: str
    wide: str
    """SVG for screens wider than about 600 pixels, and for paper."""
    narrow: str
    """SVG for a phone."""


def loss_chart(run: RunView) -> Chart:
    """The losses of both networks."""
    unit = "loss" if run.config.recipe.recipe == "hinge" else "loss (nats)"

    def plot(axes: Axes) -> None:
        columns = [("generator", "loss_g"), ("discriminator", "loss_d")]
        top = _bands(axes, run, [(label, label, name) for label, name in columns])
        _mark_choices(axes, run)
        axes.set_ylim(min(0.0, axes.get_ylim()[0]), top)
        axes.set_ylabel(unit)

    return _chart("Losses of both networks", _band_note(run), plot)


def probability_chart(run: RunView) -> Chart:
    """The discriminator's mean probability for real and for generated images."""

    def plot(axes: Axes) -> None:
        columns = [("real", "D(real)", "d_real"), ("generator", "D(fake)", "d_fake")]
        _bands(axes, run, columns)
        axes.axhline(0.5, color=_INK, lw=0.8, ls=":", label=_UNNAMED)
        axes.set_ylim(0, 1)
        axes.set_ylabel("mean probability")

    note = (
        f"{_band_note(run)} D(real) is the probability that the discriminator gives real images, "
        f"D(fake) the probability that it gives generated images."
    )
    if run.config.recipe.recipe == "r3gan":
        note += (
            " With r3gan only the difference of the two matters, because the loss compares them."
        )
    return _chart("What the discriminator believes", note, plot)


def fcd_chart(run: RunView) -> Chart:
    """The FCD of the scored snapshots, and the choice of each rule."""
    values = {step: scores.fcd for step, scores in run.scored}
    _, first = run.scored[0]
    floor = first.floor

    def plot(axes: Axes) -> None:
        axes.plot(
            list(values), list(values.values()), "o-", color=_HUES["generator"], ms=3, label="FCD"
        )
        axes.axhline(floor, color=_HUES["real"], lw=1.2, label=f"floor {floor:.3g}")
        _mark_choices(axes, run, values)
        if 0 < 20 * floor < max(values.values()):
            _log_axis(axes)
        else:
            axes.set_ylim(0, None)
        axes.set_xlabel("iteration")
        axes.set_ylabel("FCD (squared feature distance)")

    return _chart(
        "Distance from real images",
        f"FCD of every scored snapshot, {first.images:,} images of one noise; lower is better. "
        f"The floor is the FCD of other real images. Dashed: what each rule chose.",
        plot,
    )


def by_heart_chart(run: RunView) -> Chart | None:
    """How far the discriminator has learned its images by heart; None if nothing was held out."""
    known = [(step, scores) for step, scores in run.scored if not np.isnan(scores.by_heart)]
    if not known:
        return None

    def draw(axes: Axes) -> None:
        steps, shares = zip(*((step, 100 * scores.by_heart) for step, scores in known), strict=True)
        axes.plot(steps, shares, "o-", color=_HUES["discriminator"], ms=3, label="held-out images")
        axes.axhline(0, color=_HUES["real"], lw=1.2, label="training images")
        axes.axhline(100, color=_HUES["generator"], lw=1.2, label="generated images")
        axes.set_ylim(min(-10, *shares), max(110, *shares))
        axes.set_xlabel("iteration")
        axes.set_ylabel("mean logit (%)")

    count = known[-1][1].held_out
    return _chart(
        "Does the discriminator learn by heart?",
        f"Where the mean logit of {count:,} held-out real images lies: 0 % is that of training "
        f"images, 100 % that of generated ones. Where the curve rises, the images are too few.",
        draw,
    )


def class_chart(
    names: Sequence[str], generated: Sequence[int], real: Sequence[int], of: str
) -> Chart:
    """Shares of the classes among generated and real images."""

    def plot(axes: Axes) -> None:
        places = np.arange(len(names))
        shares = [("generated", "generator", generated), ("real", "real", real)]
        for i, (label, hue, counts) in enumerate(shares):
            heights = 100 * np.array(counts) / sum(counts)
            axes.bar(places + 0.4 * i - 0.2, heights, 0.36, color=_HUES[hue], label=label)
        long = max(map(len, names)) > 3
        axes.set_xticks(places, names, rotation=40 if long else 0, ha="right" if long else "center")
        axes.grid(visible=False, axis="x")
        axes.set_xlabel("class, as the classifier of the scores sees it")
        axes.set_ylabel("share of the images (%)")

    note = f"{sum(generated):,} generated images {of} beside as many real ones."
    return _chart("Are all classes equally frequent?", note, plot, thousands=False)


def comparison_chart(runs: Sequence[RunView], names: Sequence[str]) -> Chart:
    """Excess FCD of several runs over training time."""

    def plot(axes: Axes) -> None:
        for i, (run, name) in enumerate(zip(runs, names, strict=True)):
            minutes = dict(zip([r.step for r in run.epochs], run.minutes(), strict=True))
            axes.plot(
                [minutes[step] for step, _ in run.scored],
                [100 * scores.excess for _, scores in run.scored],
                marker="o", ms=3, color=_RUNS[i % len(_RUNS)], label=name,
                ls="-" if i < len(_RUNS) else "--",
            )  # fmt: skip
        if all(scores.excess > 0 for run in runs for _, scores in run.scored):
            _log_axis(axes)
        axes.set_xlabel("training (minutes)")
        axes.set_ylabel("excess FCD (%)")

    note = "Real images have 0 %. Minutes are those of the training steps alone."
    return _chart("Quality over time", note, plot, thousands=False)


def _chart(title: str, note: str, plot: Callable[[Axes], None], *, thousands: bool = True) -> Chart:
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
    named = [each for each in shown if each.get_label() != _UNNAMED]
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


def _bands(axes: Axes, run: RunView, columns: list[tuple[str, str, str]]) -> float:
    """Plot median and 5 to 95 % of some columns; return an upper limit of the axis.

    columns: (hue, label, column of the losses).
    """
    tops = []
    for hue, label, name in columns:
        values = run.losses[:, COLUMNS.index(name)]
        x, low, median, high = binned(run.steps, values)
        axes.fill_between(x, low, high, color=_HUES[hue], alpha=0.22, lw=0)
        axes.plot(x, median, color=_HUES[hue], label=label)
        tops.append(max(median.max(), np.quantile(high, 0.98)))
    axes.set_xlabel("iteration")
    return 1.08 * float(max(tops))


def binned(
    steps: NDArray[np.int64], values: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Mean step, and 5 %, median and 95 % of the values, in at most 240 bins of equal length."""
    count = min(_BINS, len(steps))
    parts = zip(np.array_split(steps, count), np.array_split(values, count), strict=True)
    rows = [(part.mean(), *np.quantile(own, (0.05, 0.5, 0.95))) for part, own in parts]
    x, low, median, high = np.array(rows).T
    return x, low, median, high


def _band_note(run: RunView) -> str:
    if len(run.steps) <= _BINS:
        return "Every iteration."
    each = len(run.steps) / _BINS
    return f"Line: the median of each {each:,.0f} iterations; band: 5 to 95 % of them."


def _mark_choices(axes: Axes, run: RunView, curve: dict[int, float] | None = None) -> None:
    """Plot vertical lines where the rules chose, with points on the curve if it is given."""
    for rule, choice in run.choices.items():
        step, hue = choice.step, _HUES.get(rule, _INK)
        label = f"chosen by {rule}: {step:,}"
        axes.axvline(step, color=hue, lw=1.3, ls=_DASHES.get(rule), label=label)
        if curve and step in curve:
            axes.plot(step, curve[step], "o", color=hue, ms=7, mfc="none", mew=1.6, label=_UNNAMED)


def _log_axis(axes: Axes) -> None:
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
