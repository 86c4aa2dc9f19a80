"""`python -m inference.run`."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from inference import Sampler, __version__
from inference.pictures import grid
from inference.run import main


def test_it_draws_the_images_of_the_sampler(
    tiny_artifact: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "samples.png"
    options = ["-n", "7", "--seed", "5", "--start", "3", "--output", str(output)]
    assert main([str(tiny_artifact), *options]) == 0
    assert capsys.readouterr().out == f"{output}: images 3 to 9 of seed 5\n"
    with Image.open(output) as image:
        expected = grid(Sampler(tiny_artifact).sample(7, seed=5, start=3))
        np.testing.assert_array_equal(np.asarray(image), expected)


def test_the_newest_artifact_is_the_default(
    tiny_artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "a").mkdir(parents=True)
    (tmp_path / "runs" / "a" / "artifact").symlink_to(tiny_artifact)
    assert main([]) == 0
    assert (tmp_path / "samples.png").exists()


@pytest.mark.parametrize(
    "arguments",
    [["-n", "0"], ["--seed", "-1"], ["--start", "-1"], ["--output", "a.jpg"], ["--provider", "x"],
     ["--threads", "-1"], ["--nonsense"], ["-n", "x"]],
)  # fmt: skip
def test_bad_usage_exits_with_2(
    tiny_artifact: Path, arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit_info:
        main([str(tiny_artifact), *arguments])
    assert exit_info.value.code == 2
    assert "error: " in capsys.readouterr().err


def test_failures_exit_with_1(
    tiny_artifact: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([]) == 1
    assert "python -m export.run" in capsys.readouterr().err
    assert main(["nowhere"]) == 1
    assert main([str(tiny_artifact), "--output", "nowhere/samples.png"]) == 1
    assert "nowhere" in capsys.readouterr().err


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_info:
        main(["--version"])
    assert exit_info.value.code == 0
    assert capsys.readouterr().out == f"{__version__}\n"
