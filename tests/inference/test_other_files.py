"""Other files of ganpack, and folders of runs, in the place of an artifact."""

import re
from pathlib import Path

import pytest

from inference import ArtifactError, Sampler


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("artifact/parity.json", "this is ganpack's parity.json: give the folder, or generator.on"),
        ("artifact/README.md", "this is ganpack's README.md: give the folder, or generator.onnx"),
        ("artifact/generator.ts", "this is ganpack's generator.ts: give the folder, or generator"),
        ("artifact/sampler.onnx", "this is its sampler file"),
        ("last.pt", "this is ganpack's checkpoint: give the artifact folder of the run"),
        ("best.json", "this is ganpack's best.json: give the artifact folder of the run"),
        ("config.json", "this is ganpack's config.json: give the artifact folder of the run"),
        ("metrics.jsonl", "this is ganpack's metrics.jsonl: give the artifact folder of the run"),
    ],
)
def test_our_own_other_files_get_their_names(
    name: str, message: str, tiny_run: Path, tiny_artifact: Path
) -> None:
    folder, _, file = name.rpartition("/")
    path = (tiny_artifact if folder else tiny_run) / file
    for given in (path, path.read_bytes()):
        with pytest.raises(ArtifactError, match=re.escape(message)):
            Sampler(given)


def test_a_report_is_told_from_other_pages() -> None:
    with pytest.raises(ArtifactError, match=r"this is ganpack's report\.html"):
        Sampler(b"<!doctype html>\n<title>demo: report</title>")
    with pytest.raises(ArtifactError, match="it looks like an HTML page"):
        Sampler(b"<!doctype html>\n<title>Not found</title>")


def test_the_folder_of_a_run_is_told(tiny_artifact: Path, tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(ArtifactError, match="the folder of a run without an artifact: `python -m"):
        Sampler(tmp_path)
    (tmp_path / "artifact").symlink_to(tiny_artifact)
    with pytest.raises(ArtifactError, match=r"this is the folder of a run: give .*/artifact"):
        Sampler(tmp_path)
