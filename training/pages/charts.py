"""The charts of both pages."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
from numpy.typing import NDArray

from training.pages.run_view import RunView
from training.pages.svg import HUES, INK, RUNS, UNNAMED, Chart, chart
from training.records.metrics_file import COLUMNS

_BINS = 240
# Lines may coincide, so their dashes alternate.
_DASHES = {"fcd": (0, (3, 3)), "g-loss": (3, (3, 3))}


def loss_chart(run: RunView) -> Chart:
    """The losses of both networks."""
    unit = "loss" if run.config.recipe.recipe == "hinge" else "loss (nats)"

    def plot(axes: Axes) -> None:
        columns = [("generator", "loss_g"), ("discriminator", "loss_d")]
        top = _bands(axes, run, [(label, label, name) for label, name in columns])
        _mark_choices(axes, run)
        axes.set_ylim(min(0.0, axes.get_ylim()[0]), top)
        axes.set_ylabel(unit)

    return chart("Losses of both networks", _band_note(run), plot)


def probability_chart(run: RunView) -> Chart:
    """The discriminator's mean probability for real and for generated images."""

    def plot(axes: Axes) -> None:
        columns = [("real", "D(real)", "d_real"), ("generator", "D(fake)", "d_fake")]
        _bands(axes, run, columns)
        axes.axhline(0.5, color=INK, lw=0.8, ls=":", label=UNNAMED)
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
    return chart("What the discriminator believes", note, plot)


def fcd_chart(run: RunView) -> Chart:
    """The FCD of the scored snapshots, and the choice of each rule."""
    values = {step: scores.fcd for step, scores in run.scored}
    _, first = run.scored[0]
    floor = first.floor

    def plot(axes: Axes) -> None:
        axes.plot(
            list(values), list(values.values()), "o-", color=HUES["generator"], ms=3, label="FCD"
        )
        axes.axhline(floor, color=HUES["real"], lw=1.2, label=f"floor {floor:.3g}")
        _mark_choices(axes, run, values)
        if 0 < 20 * floor < max(values.values()):
            _log_axis(axes)
        else:
            axes.set_ylim(0, None)
        axes.set_xlabel("iteration")
        axes.set_ylabel("FCD (squared feature distance)")

    return chart(
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

    def plot(axes: Axes) -> None:
        steps, shares = zip(*((step, 100 * scores.by_heart) for step, scores in known), strict=True)
        axes.plot(steps, shares, "o-", color=HUES["discriminator"], ms=3, label="held-out images")
        axes.axhline(0, color=HUES["real"], lw=1.2, label="training images")
        axes.axhline(100, color=HUES["generator"], lw=1.2, label="generated images")
        axes.set_ylim(min(-10, *shares), max(110, *shares))
        axes.set_xlabel("iteration")
        axes.set_ylabel("mean logit (%)")

    count = known[-1][1].held_out
    return chart(
        "Does the discriminator learn by heart?",
        f"Where the mean logit of {count:,} held-out real images lies: 0 % is that of training "
        f"images, 100 % that of generated ones. Where the curve rises, the images are too few.",
        plot,
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
            axes.bar(places + 0.4 * i - 0.2, heights, 0.36, color=HUES[hue], label=label)
        long = max(map(len, names)) > 3
        axes.set_xticks(places, names, rotation=40 if long else 0, ha="right" if long else "center")
        axes.grid(visible=False, axis="x")
        axes.set_xlabel("class, as the classifier of the scores sees it")
        axes.set_ylabel("share of the images (%)")

    note = f"{sum(generated):,} generated images {of} beside as many real ones."
    return chart("Are all classes equally frequent?", note, plot, thousands=False)


def comparison_chart(runs: Sequence[RunView], names: Sequence[str]) -> Chart:
    """Excess FCD of several runs over training time."""

    def plot(axes: Axes) -> None:
        for i, (run, name) in enumerate(zip(runs, names, strict=True)):
            minutes = dict(zip([r.step for r in run.epochs], run.minutes(), strict=True))
            axes.plot(
                [minutes[step] for step, _ in run.scored],
                [100 * scores.excess for _, scores in run.scored],
                marker="o", ms=3, color=RUNS[i % len(RUNS)], label=name,
                ls="-" if i < len(RUNS) else "--",
            )  # fmt: skip
        if all(scores.excess > 0 for run in runs for _, scores in run.scored):
            _log_axis(axes)
        axes.set_xlabel("training (minutes)")
        axes.set_ylabel("excess FCD (%)")

    note = "Real images have 0 %. Minutes are those of the training steps alone."
    return chart("Quality over time", note, plot, thousands=False)


def _bands(axes: Axes, run: RunView, columns: list[tuple[str, str, str]]) -> float:
    """Plot median and 5 to 95 % of some columns; return an upper limit of the axis.

    columns: (hue, label, column of the losses).
    """
    tops = []
    for hue, label, name in columns:
        values = run.losses[:, COLUMNS.index(name)]
        x, low, median, high = binned(run.steps, values)
        axes.fill_between(x, low, high, color=HUES[hue], alpha=0.22, lw=0)
        axes.plot(x, median, color=HUES[hue], label=label)
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
        step, hue = choice.step, HUES.get(rule, INK)
        label = f"chosen by {rule}: {step:,}"
        axes.axvline(step, color=hue, lw=1.3, ls=_DASHES.get(rule), label=label)
        if curve and step in curve:
            axes.plot(step, curve[step], "o", color=hue, ms=7, mfc="none", mew=1.6, label=UNNAMED)


def _log_axis(axes: Axes) -> None:
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
