"""Run each exported file as a function of its inputs, on each provider of this machine."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from export.generator_files import load_torchscript
from inference.model_files.artifact_files import GENERATOR_FILE, SAMPLER_FILE, TORCHSCRIPT_FILE
from inference.noise import LIMIT
from inference.onnx_format.onnx_file import read_model
from inference.runtime.driver import ProviderError
from inference.runtime.session import open_session

SEED = LIMIT - 2
"""A seed that no training, picture or trace uses."""

INPUTS = "z", "labels"
"""The inputs of a generator, in order; only conditional generators have labels."""

Output = dict[str, NDArray[Any]]
"""The outputs of a file: some of `images`, `pixels`, `z` and `labels`."""
Run = Callable[[Output], Output]
"""Run a file on z (n, latent_dim) and labels (n,), if it takes them. sampler.onnx draws its own z,
of the first n images of `SEED`."""


def runners(folder: Path) -> Iterator[tuple[str, str, Run]]:
    """Each file on each provider that works on this machine: (file, provider, run)."""
    for device in ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",):
        yield TORCHSCRIPT_FILE, f"torch {device}", _torchscript_runner(folder, device)
    model = (folder / GENERATOR_FILE).read_bytes()
    convolutions = read_model(model).has_convolutions
    for wanted in ("cpu", "cuda"):
        try:
            session, provider = open_session(model, wanted, convolutions=convolutions)
        except ProviderError:
            if wanted == "cpu":
                raise
        else:
            yield GENERATOR_FILE, f"onnxruntime {provider}", _generator_runner(session)
    # The CUDA provider has no kernels for the integers of the noise.
    session, provider = open_session((folder / SAMPLER_FILE).read_bytes(), "cpu")
    yield SAMPLER_FILE, f"onnxruntime {provider}", _sampler_runner(session)


def _torchscript_runner(folder: Path, device: str) -> Run:
    module = load_torchscript(folder / TORCHSCRIPT_FILE, device)

    def run(given: Output) -> Output:
        tensors = (torch.from_numpy(given[name]).to(device) for name in INPUTS if name in given)
        with torch.inference_mode():
            return {"images": module(*tensors).cpu().numpy()}

    return run


def _generator_runner(session: Any) -> Run:
    def run(given: Output) -> Output:
        feeds = {name: given[name] for name in INPUTS if name in given}
        images, pixels = session.run(["images", "pixels"], feeds)
        return {"images": images, "pixels": pixels}

    return run


def _sampler_runner(session: Any) -> Run:
    def run(given: Output) -> Output:
        numbers = {"seed": SEED, "start": 0, "count": len(given["z"])}
        if "labels" in given:
            numbers["label"] = -1  # a random label for each image
        feeds = {name: np.array(number, np.int64) for name, number in numbers.items()}
        outputs = ["pixels", *(name for name in INPUTS if name in given)]
        return dict(zip(outputs, session.run(outputs, feeds), strict=True))

    return run
