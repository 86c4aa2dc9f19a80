"""The model card of an artifact: README.md, with a picture of its images.

It begins with YAML, as model hubs read it. Names in the contract are anybody's text, so they stand
in code spans, where Markdown and HTML mean nothing.
"""

import json
import math
import re
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError
from importlib.metadata import metadata as package_metadata
from pathlib import Path

from inference import Sampler, __version__
from inference.artifact import Metadata
from inference.errors import presentable
from inference.model_files.artifact_files import (
    CARD_FILE,
    GENERATOR_FILE,
    PICTURE_FILE,
    SAMPLER_FILE,
    TORCHSCRIPT_FILE,
)
from inference.runtime.installation import from_wheel
from inference.writing.pictures import grid, save_png

_LICENCES = {
    "mnist": ("cc-by-sa-3.0", "CC BY-SA 3.0 (Yann LeCun, Corinna Cortes)"),
    "fashion-mnist": ("mit", "MIT (Zalando SE)"),
    "kmnist": ("cc-by-sa-4.0", "CC BY-SA 4.0 (CODH, ROIS-DS)"),
    "digits": (
        "cc-by-4.0",
        "CC BY 4.0 (UCI Machine Learning Repository, by way of scikit-learn)",
    ),
}
"""Licences of the data: the names that model hubs use, and texts for readers."""
_UNKNOWN_LICENCE = "unknown", "not known to this program"

_TASK = "unconditional-image-generation"

_CARD = """\
{front_matter}
# {dataset}, {height}×{width}{colour}: a generator of images

![Images 0 to 63 of seed 0]({picture})

A GAN that was trained on {dataset} with the recipe {recipe}, step {step}.
Licence of the data: {licence}.

| file | bytes | |
|---|---|---|
{files}

The ONNX files run on onnxruntime 1.16 and later; their weights are {precision}. Each contains this
contract: `ganpack info generator.onnx`. `parity.json` has every figure of the
comparison with PyTorch, and the sha256 of each file.

## Use

```python
from ganpack import Sampler  # {install}

images = Sampler(".").sample(64, seed=0)  # uint8 {shape}
```
{of_classes}
Or in any language with an onnxruntime: `sampler.onnx` takes `seed`, `start` and `count` (int64
scalars, none below 0; start + count is at most 2^63) and gives `pixels`, uint8
(count, {height}, {width}, {channels}), and the `z` they were made of. Image i of a seed is the same
image everywhere, within one grey level.

`ganpack check .` generates four golden images again, and compares them with PyTorch's.

## In other runtimes

`sampler.onnx` is for onnxruntime alone. OpenVINO 2026.4.1 gives wrong images with it, without an
error; so does OpenCV 5.0.0, if the seed or an index is 2^32 or more. MNN 3.6.1 and tract 0.23.9
cannot run it.

`generator.onnx` was right in all of these (in OpenVINO with `INFERENCE_PRECISION_HINT` `f32`). In
another runtime, first compare the four images under `golden` in the contract: generate each from
its `z` (base64 of float32). A pixel of `pixels` (base64 of uint8) may differ by one level.

## Measured

Against PyTorch in float64, {inputs} inputs: values in [-1, 1] at most {max_difference:.2g} apart
({tolerance:.2g} allowed), pixels at most {max_pixel_difference} grey level (1 allowed).

| score | |
|---|---|
{scores}

Made with {versions}.{address}
sha256 of the snapshot's weights: `{weights_sha256}`.

## Limits

It imitates its training data, including errors and gaps. The seal in the ONNX files detects
damage, not malice: it is no signature.
"""

_FILES = {
    GENERATOR_FILE: "`z` float32 (n, {latent_dim}){labels} → `images` in [-1, 1], `pixels` uint8",
    SAMPLER_FILE: "`seed`, `start`, `count`{label} → `pixels` uint8, `z`",
    TORCHSCRIPT_FILE: "TorchScript, `z`{labels} → `images`",
}

_CLASSES = """
It takes labels, which are indices of these classes: {names}.
`sample(64, label=3)` generates one class (its name works, too). Without a label, and with a `label`
of -1 in `sampler.onnx`, a random class is drawn for each image.
"""


def write_model_card(folder: Path, metadata: Metadata) -> None:
    """Write README.md and samples.png beside the files of an artifact."""
    save_png(grid(Sampler(folder, provider="cpu").sample(64)), folder / PICTURE_FILE)
    channels, height, width = metadata.image_shape
    names = ", ".join(code(name) for name in metadata.classes)
    inputs = {
        "latent_dim": metadata.latent_dim,
        "labels": ", `labels` int64 (n)" if names else "",
        "label": ", `label`" if names else "",
    }
    files = [
        f"| `{name}` | {(folder / name).stat().st_size:,} | {purpose.format_map(inputs)} |"
        for name, purpose in _FILES.items()
    ]
    card = _CARD.format_map(
        {
            **vars(metadata),
            **metadata.parity,
            "front_matter": front_matter(metadata),
            "dataset": code(metadata.dataset),
            "recipe": code(metadata.recipe),
            "height": height,
            "width": width,
            "channels": channels,
            "colour": "" if channels == 1 else " in colour",
            "install": from_wheel("cpu", __version__),
            "shape": (64, height, width) if channels == 1 else (64, height, width, channels),
            "picture": PICTURE_FILE,
            "of_classes": _CLASSES.format(names=names) if names else "",
            "files": "\n".join(files),
            "scores": _scores(metadata),
            "licence": _LICENCES.get(metadata.dataset, _UNKNOWN_LICENCE)[1],
            "versions": ", ".join(_cell(" ".join(each)) for each in metadata.versions.items()),
            "address": _address(),
        }
    )
    (folder / CARD_FILE).write_text(card, "utf-8")


def _scores(metadata: Metadata) -> str:
    """The rows of the table of scores."""
    return "\n".join(
        f"| {_cell(name)} | {_cell(_number(value))} |"
        for name, value in metadata.scores.items()
        if not isinstance(value, list)  # counts of classes
    )


def _number(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def code(text: str) -> str:
    """Any text as a code span of Markdown."""
    line = presentable(text).strip() or "(no name)"
    ticks = "`" * (1 + max(map(len, re.findall("`+", line)), default=0))
    space = " " if "`" in line else ""
    return f"{ticks}{space}{line}{space}{ticks}"


def _cell(text: str) -> str:
    """A text in a cell of a table: as code, if Markdown would change it."""
    if re.fullmatch(r"[A-Za-z0-9.+-]+([_ ][A-Za-z0-9.+-]+)*", text):
        return text
    return code(text).replace("|", "\\|")


def front_matter(metadata: Metadata) -> str:
    """Licence, library, tags and scores as YAML, between lines of dashes.

    Texts are quoted as in JSON, which YAML reads too.
    """
    scores = {
        name: value
        for name, value in metadata.scores.items()
        if isinstance(value, float) and math.isfinite(value) and re.fullmatch(r"\w+", name)
    }
    dataset = json.dumps(presentable(metadata.dataset), ensure_ascii=False)
    licence, _ = _LICENCES.get(metadata.dataset, _UNKNOWN_LICENCE)
    lines = [
        "---",
        f"license: {licence} # of the data",
        "library_name: ganpack",
        f"pipeline_tag: {_TASK}",
        "tags: [gan, onnx, image-generation]",
        *_results(scores, dataset),
        "---",
    ]
    return "\n".join(lines)


def _results(scores: Mapping[str, float], dataset: str) -> list[str]:
    if not scores:
        return []
    return [
        "metrics:",
        *(f"- {name}" for name in scores),
        "model-index:",
        f"- name: {dataset}",
        "  results:",
        f"  - task: {{type: {_TASK}}}",
        f"    dataset: {{name: {dataset}, type: {dataset}}}",
        "    metrics:",
        *(f"    - {{type: {name}, value: {value:.8f}}}" for name, value in scores.items()),
    ]


def _address() -> str:
    """Where the project is, if pyproject.toml names an address."""
    try:
        urls = package_metadata("ganpack").get_all("Project-URL") or []
    except PackageNotFoundError:  # a checkout that is not installed
        return ""
    return "".join(
        f" {label}: <{url}>." for label, url in (each.split(", ", 1) for each in urls[:1])
    )
