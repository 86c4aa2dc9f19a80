"""report.html: its content, and how it behaves in a browser."""

import base64
import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from html import unescape
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

import training.pages.report
from tests.support.browser import chromium, run, show
from tests.support.runs import TINY
from training.config import NetworkConfig, TrainConfig, usual_recipe
from training.pages.report import write_report
from training.pages.run_view import RunView, read_run
from training.report import main
from training.run import main as train_main

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

# The contrast of text, and of lines and bars, that WCAG 2.1 requires.
_TEXT_CONTRAST, _LINE_CONTRAST = 4.5, 3.0


@pytest.fixture(scope="module")
def report(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_report(tiny_run, tmp_path_factory.mktemp("report") / "report.html")


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> "Iterator[Chrome]":
    with chromium(tmp_path_factory.mktemp("profile")) as browser:
        yield browser


@pytest.mark.parametrize("lr_end", [None, 1e-4])
def test_settings_are_compared_with_the_defaults_of_their_network(
    lr_end: float | None, tiny_run: Path
) -> None:
    recipe = usual_recipe("r3gan", "conv")
    recipe = recipe if lr_end is None else replace(recipe, lr_end=lr_end)
    config = TrainConfig(network=NetworkConfig(network="conv"), recipe=recipe)
    settings = training.pages.report._settings(replace(read_run(tiny_run), config=config))
    others = {option for _, rows in settings for option, _, default in rows if default is not None}
    assert others == {"--network"} | ({"--lr-end"} if lr_end else set())


def text_of(page: Path) -> str:
    """The text of a page, without tags and styles, in one line."""
    html = re.sub(r"<(style|script|svg).*?</\1>", " ", page.read_text(), flags=re.DOTALL)
    return unescape(" ".join(re.sub(r"<[^>]+>", " ", html).split()))


def test_the_verdict_comes_first_and_all_else_in_order(report: Path, tiny_run: Path) -> None:
    text = text_of(report)
    best = json.loads((tiny_run / "best.json").read_text())
    final = best["final"]["fcd"]
    parts = [
        "Verdict", f"iteration {best['step']} (epoch {best['epoch']})", best["why"],
        f"On the noise that snapshots are compared on, its FCD is {best['score']:.3g};",
        "The figures below are of fresh noise",
        f"FCD {final['fcd']:.3f}", f"floor {final['floor']:.3g}", f"{final['excess']:.2%}",
        "Generated", "Real", "Losses of both networks", "Distance from real images",
        "During training", "Are all classes equally frequent?", "Memorised?",
        f"{best['nearest']['generated']:.1f} grey levels", "Settings", "--latent-dim 10 (100)",
        "Hardware processor", "Versions python", "Timing training", "iterations a second",
        "python -m export.run", "python -m inference.run",
    ]  # fmt: skip
    places = [text.find(part) for part in parts]
    assert -1 not in places, parts[places.index(-1)]
    assert places == sorted(places)


def test_charts_have_titles_axes_units_and_the_choices_of_both_rules(
    report: Path, tiny_run: Path
) -> None:
    charts = re.findall(r"<svg.*?</svg>", report.read_text(), flags=re.DOTALL)
    choices = json.loads((tiny_run / "best.json").read_text())["choices"]
    rules = [f"chosen by {rule}: {choice['step']}" for rule, choice in choices.items()]
    expected = [
        ["Losses of both networks", ">iteration<", ">loss (nats)<", *rules],
        ["Distance from real images", ">iteration<", ">FCD (squared feature distance)<", *rules],
        ["What the discriminator believes", ">iteration<", ">mean probability<"],
        ["Are all classes equally frequent?", ">share of the images (%)<", ">9<"],
    ]
    assert len(charts) == 2 * len(expected)  # for a desk, for a phone
    for i, parts in enumerate(expected):
        for chart in charts[2 * i : 2 * i + 2]:
            assert all(part in chart for part in parts), parts
            assert ">_child" not in chart  # matplotlib's names of lines without one
    names = re.findall(r' id="([^"]+)"', report.read_text())
    assert len(set(names)) == len(names) > 8  # otherwise charts would clip one another


def test_it_is_one_file_that_asks_for_nothing(report: Path) -> None:
    html = report.read_text()
    references = re.findall(r'(?:src|href|url)\s*[=(]\s*["\']?([^"\'> )]+)', html)
    assert references
    assert all(reference.startswith(("data:", "#")) for reference in references)
    assert "default-src 'none'" in html


def test_a_full_length_run_stays_small(tiny_run: Path, tmp_path: Path) -> None:
    from training.pages.charts import loss_chart

    steps = np.arange(1, 187_501)
    losses = np.random.default_rng(0).gamma(2, 1, (len(steps), 4))
    long = replace(read_run(tiny_run), steps=steps, losses=losses)
    chart = loss_chart(long)
    assert len(chart.wide) < 100_000
    assert "the median of each 781 iterations" in chart.note
    # Grids of noise, as many as in a full run. PNG cannot compress noise.
    run_dir = tmp_path / "run"
    shutil.copytree(tiny_run, run_dir)
    noise = np.random.default_rng(0).integers(0, 256, (242, 242), np.uint8)
    for step in range(1000, 101_000, 1000):
        Image.fromarray(noise).save(run_dir / "samples" / f"step-{step:07d}.png")
    page = write_report(run_dir)
    assert page.stat().st_size < 2_000_000
    shown = re.findall(r'data-name="iteration ([\d,]+)"', page.read_text())
    assert len(shown) > 10
    assert (shown[0], shown[-1]) == ("5", "100,000")


def test_bins_show_the_middle_and_the_range() -> None:
    from training.pages.charts import binned

    steps = np.arange(1, 2401)
    values = np.where(steps % 10 == 0, 100.0, np.where(steps % 10 == 1, -100.0, 1.0))
    x, low, median, high = binned(steps, values)
    assert len(x) == 240
    assert (median == 1).all()
    assert (low < -10).all()
    assert (high > 10).all()
    x, low, median, high = binned(steps[:7], values[:7])
    np.testing.assert_array_equal(x, steps[:7])
    for each in (low, median, high):
        np.testing.assert_array_equal(each, values[:7])


def test_it_can_be_made_while_the_run_goes_on(
    tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_dir = tmp_path / "run"
    shutil.copytree(tiny_run, run_dir)
    lines = (run_dir / "metrics.jsonl").read_text().splitlines(keepends=True)
    until = next(i for i, line in enumerate(lines) if '"epoch": 6,' in line)
    for name in ("nearest.png", "best.json"):
        (run_dir / name).unlink()
    (run_dir / "metrics.jsonl").write_text("".join(lines[:until]) + lines[until][:40])
    assert main([str(run_dir)]) == 0
    assert capsys.readouterr().out == f"{run_dir}/report.html\n"
    text = text_of(run_dir / "report.html")
    assert "Not finished" in text
    assert "iteration 22 (of 12 epochs, 5 done)" in text
    assert "There is no snapshot yet" in text
    best = json.loads((tiny_run / "best.json").read_text())
    del best["final"], best["nearest"]
    (run_dir / "best.json").write_text(json.dumps(best))
    write_report(run_dir)  # a chosen epoch without a record
    assert "There is no snapshot yet" in text_of(run_dir / "report.html")
    (run_dir / "metrics.jsonl").write_text("".join(lines))
    write_report(run_dir)
    assert "of the noise that snapshots are chosen by" in text_of(run_dir / "report.html")
    (run_dir / "metrics.jsonl").write_text("")
    assert main([str(run_dir)]) == 2
    assert "no iteration yet" in capsys.readouterr().err
    assert main([str(tmp_path)]) == 2
    assert "holds no run" in capsys.readouterr().err


def test_real_images_of_all_classes_are_kept_to_compare(tiny_run: Path) -> None:
    from sklearn.datasets import load_digits

    with Image.open(tiny_run / "real.png") as image:
        picture = np.asarray(image)
    assert picture.shape == (82, 82)
    known = {(digit * 255 / 16).round().astype(np.uint8).tobytes(): label
             for digit, label in zip(*load_digits(return_X_y=True), strict=True)}  # fmt: skip
    cells = [picture[2 + 10 * i : 10 + 10 * i, 2 + 10 * j : 10 + 10 * j]
             for i in range(8) for j in range(8)]  # fmt: skip
    assert len({known[cell.tobytes()] for cell in cells}) == 10


def test_the_end_of_a_run_writes_it_and_survives_its_failure(
    tiny_run: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run_dir = tmp_path / "run"
    shutil.copytree(tiny_run, run_dir)
    assert train_main(["--resume", str(run_dir)]) == 0
    assert f"report: {run_dir}/report.html" in capsys.readouterr().out
    assert (run_dir / "report.html").exists()

    def fail(run_dir: Path) -> Path:
        raise RuntimeError("no fonts\nat all")

    monkeypatch.setattr(training.pages.report, "write_report", fail)
    assert train_main(["--resume", str(run_dir)]) == 0
    warnings = [line for line in capsys.readouterr().err.splitlines() if "warning" in line]
    assert warnings == [
        f"warning: no report.html (RuntimeError: no fonts); python -m training.report {run_dir} "
        f"tries again"
    ]


def test_counts_of_classes_are_those_of_the_shares(tiny_run: Path) -> None:
    _, scores = read_run(tiny_run).scored[-1]
    generated, real = np.array(scores.class_counts), np.array(scores.real_class_counts)
    assert generated.sum() == real.sum() == scores.images == 898
    assert len(real) == 10
    assert scores.class_tv == pytest.approx(np.abs(generated - real).sum() / 2 / 898)


@pytest.mark.parametrize("width", [390, 1280])
def test_it_loads_without_errors_at_any_width(browser: "Chrome", report: Path, width: int) -> None:
    browser.get("about:blank")
    browser.get_log("performance")
    show(browser, report, width=width)
    assert browser.get_log("browser") == []
    events = [json.loads(entry["message"])["message"]
              for entry in browser.get_log("performance")]  # fmt: skip
    asked = [event["params"]["request"]["url"]
             for event in events if event["method"] == "Network.requestWillBeSent"]  # fmt: skip
    assert report.resolve().as_uri() in asked
    assert {url for url in asked if not url.startswith("data:")} == {report.resolve().as_uri()}
    assert run(browser, "return document.documentElement.scrollWidth") == width
    whole = "return [...document.images].every(i => i.complete && i.naturalWidth > 0)"
    assert run(browser, whole)
    kinds = ("wide", "narrow") if width > 600 else ("narrow", "wide")
    heights = [
        run(browser, f"return document.querySelector('.chart .{kind}').offsetHeight")
        for kind in kinds
    ]
    assert heights[0] > 200
    assert heights[1] == 0


def test_the_slider_moves_the_pictures_by_keyboard_and_by_mouse(
    browser: "Chrome", report: Path, tiny_run: Path
) -> None:
    from selenium.webdriver import Keys

    show(browser, report)
    grids = list(read_run(tiny_run).folder.grids_by_step().items())
    slider = browser.find_element("id", "stage")

    def shown() -> tuple[str, bytes]:
        (frame,) = [f for f in browser.find_elements("class name", "frame") if f.is_displayed()]
        source = frame.find_element("tag name", "img").get_attribute("src") or ""
        name = browser.find_element("id", "stage-name").text
        assert slider.get_attribute("aria-valuetext") == name
        return name, base64.b64decode(source.partition(",")[2])

    def expected(i: int) -> tuple[str, bytes]:
        step, path = grids[i]
        return f"iteration {step}", path.read_bytes()

    assert shown() == expected(-1)
    for keys, i in ((Keys.ARROW_LEFT, -2), (Keys.HOME, 0), (Keys.ARROW_RIGHT, 1), (Keys.END, -1)):
        slider.send_keys(keys)
        assert shown() == expected(i)
    slider.click()  # in the middle of the picture
    middle = int(slider.get_attribute("value") or 0)
    assert middle in {4, 5}
    assert shown() == expected(middle)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_and_charts_are_legible_in_both_schemes(
    browser: "Chrome", report: Path, scheme: str
) -> None:
    show(browser, report, prefers_color_scheme=scheme)
    paper = run(browser, "return getComputedStyle(document.body).backgroundColor")
    assert (luminance(paper) > 0.5) == (scheme == "light")
    for script, least in (
        ("[...document.querySelectorAll('p, td, th, dd, dt, small, figcaption, svg text')]"
         ".map(e => getComputedStyle(e)[e.tagName == 'text' ? 'fill' : 'color'])", _TEXT_CONTRAST),
        ("['generator', 'discriminator', 'real', 'fcd', 'g-loss'].map(name => {"
         "const e = document.querySelector(`svg [style*=\"var(--${name})\"]`);"
         "return getComputedStyle(e)[e.style.stroke.includes(name) ? 'stroke' : 'fill']})",
         _LINE_CONTRAST),
    ):  # fmt: skip
        colours = set(run(browser, f"return {script}"))
        assert colours
        for colour in colours:
            darker, lighter = sorted((luminance(colour), luminance(paper)))
            assert (lighter + 0.05) / (darker + 0.05) >= least, (colour, paper)


def test_print_shows_all_stages_and_is_light(browser: "Chrome", report: Path) -> None:
    show(browser, report, width=700, medium="print", prefers_color_scheme="dark")
    frames = browser.find_elements("class name", "frame")
    assert len(frames) == 10
    assert all(frame.is_displayed() for frame in frames)
    assert not browser.find_element("id", "stage").is_displayed()
    assert luminance(run(browser, "return getComputedStyle(document.body).backgroundColor")) == 1


def luminance(colour: str) -> float:
    """Relative luminance of rgb(…), as WCAG 2.1 defines it."""
    values = [int(value) / 255 for value in re.findall(r"\d+", colour)[:3]]
    linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in values]
    return float(np.dot([0.2126, 0.7152, 0.0722], linear))


def test_minutes_are_those_of_the_epochs(tiny_run: Path) -> None:
    view: RunView = read_run(tiny_run)
    minutes = view.minutes()
    assert len(minutes) == 12
    first = view.epochs[0]
    assert minutes[0] * 60 == pytest.approx(first.step * 512 / first.images_per_second)
    assert all(a < b for a, b in pairwise(minutes))
    assert view.minutes_at(view.epochs[4].step) == minutes[4]
    assert view.config == TINY
