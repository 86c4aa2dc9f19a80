"""`benchmarks.sampling` measures what it says, here with a tiny network."""

import json
import sys
from pathlib import Path

import pytest

from benchmarks import sampling
from benchmarks.footprint import stream
from benchmarks.sampling import SamplingConfig, measure, table

SMALL = SamplingConfig(
    device="cpu", rounds=2, seconds=0.01, batches=(1, 40), latent_dim=10, dims=(16, 32),
    image_size=8, compile=False, starts=1, stream=0,
)  # fmt: skip


@pytest.mark.slow
def test_the_sampler_is_measured_beside_the_others_and_the_limits() -> None:
    figures = measure(SMALL)
    products = ["products alone, PyTorch", "products alone, onnxruntime"]
    names = ["onnxruntime", "sampler", *products, "torch eager", "TorchScript"]
    assert [(f["batch"], f["name"]) for f in figures["rates"]] == [
        (batch, name) for batch in (1, 40) for name in names
    ]
    for figure in figures["rates"]:
        assert 0 < figure["lowest"] <= figure["images_per_second"] <= figure["highest"]
        assert 0 < figure["p50_ms"] <= figure["p99_ms"]
        assert figure["cpu_us_per_image"] > 0
    assert figures["rates"][0]["times_onnxruntime"] == 1
    assert {f["times_largest_batch"] for f in figures["rates"][6:]} == {1}
    limits = [f["times_limit"] for f in figures["rates"] if f["name"] in products]
    assert 0 < min(limits) <= max(limits) <= 1
    # These processes generate one image. This process has PyTorch and is several times as large.
    assert all(20 < start["megabytes"] < 100 for start in figures["first_image"].values())
    assert figures["machine"]["onnxruntime"]
    assert "products alone, onnxruntime" in table(figures)
    json.dumps(figures, allow_nan=False)


def test_its_figures_go_where_they_are_asked_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    figure = {
        "batch": 8, "name": "sampler", "images_per_second": 500.0, "lowest": 400.0,
        "highest": 600.0, "times_onnxruntime": 0.9,
        "times_torch_eager": 1.4, "times_limit": 0.7, "times_largest_batch": 1.1,
        "p50_ms": 1.0, "p99_ms": 2.0, "cpu_us_per_image": 3.0,
    }  # fmt: skip
    figures = {
        "rates": [figure], "limits": {"copies": 1000.0}, "machine": {"cores": "2"},
        "stream": {"images": 10_000, "images_per_second": 99.0, "megabytes": [70.0, 71.0]},
        "wheel_bytes": 161_000,
    }  # fmt: skip
    monkeypatch.setattr(sampling, "measure", lambda config: figures)
    monkeypatch.setattr(sys, "argv", ["x", "--json", str(tmp_path / "a" / "figures.json")])
    sampling.main()
    assert json.loads((tmp_path / "a" / "figures.json").read_text()) == figures
    text = capsys.readouterr().out
    assert "the sampler's best round reaches 60%" in text
    assert (
        "10,000 images streamed, 99/s: 70.0 MB up to a tenth of them, 71.0 up to the last" in text
    )
    assert "wheel: 161 kB" in text


def test_a_stream_is_watched(tiny_artifact: Path) -> None:
    figures = stream(tiny_artifact, 50_000)
    assert len(figures["megabytes"]) == 10
    assert figures["images_per_second"] > 0
