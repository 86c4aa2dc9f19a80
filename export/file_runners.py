"""Every exported file as a function of z, on all that this machine has."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from export.generator_files import GENERATOR_FILE, TORCHSCRIPT_FILE, load_torchscript
from export.sampler_file import SAMPLER_FILE
from inference.cuda import ProviderError
from inference.noise import LIMIT
from inference.session import open_session

SEED = LIMIT - 2
"""Noise that no training, picture or trace has used."""

Output = dict[str, NDArray[Any]]
"""`images`, `pixels` and `z`, as far as a file gives them."""
Run = Callable[[NDArray[np.float32]], Output]
"""What a file gives for z (n, latent_dim); sampler.onnx draws the first n of `SEED` itself."""


def runners(folder: Path) -> Iterator[tuple[str, str, Run]]:
    """Each file on each provider that this machine really has: (file, provider, run)."""
    for device in ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",):
        yield TORCHSCRIPT_FILE, f"torch {device}", _torchscript_runner(folder, device)
    model = (folder / GENERATOR_FILE).read_bytes()
    for wanted in ("cpu", "cuda"):
        try:
            session, provider = open_session(model, wanted)
        except ProviderError:
            if wanted == "cpu":
                raise
        else:
            yield GENERATOR_FILE, f"onnxruntime {provider}", _generator_runner(session)
    # The CUDA provider has no kernels for the noise.
    session, provider = open_session((folder / SAMPLER_FILE).read_bytes(), "cpu")
    yield SAMPLER_FILE, f"onnxruntime {provider}", _sampler_runner(session)


def _torchscript_runner(folder: Path, device: str) -> Run:
    module = load_torchscript(folder / TORCHSCRIPT_FILE, device)

    def run(z: NDArray[np.float32]) -> Output:
        with torch.inference_mode():
            return {"images": module(torch.from_numpy(z).to(device)).cpu().numpy()}

    return run


def _generator_runner(session: Any) -> Run:
    def run(z: NDArray[np.float32]) -> Output:
        images, pixels = session.run(["images", "pixels"], {"z": z})
        return {"images": images, "pixels": pixels}

    return run


def _sampler_runner(session: Any) -> Run:
    def run(z: NDArray[np.float32]) -> Output:
        numbers = {"seed": SEED, "start": 0, "count": len(z)}
        feeds = {name: np.array(number, np.int64) for name, number in numbers.items()}
        pixels, drawn = session.run(["pixels", "z"], feeds)
        return {"pixels": pixels, "z": drawn}

    return run
