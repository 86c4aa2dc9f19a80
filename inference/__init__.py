"""Generate images with an exported generator: numpy and onnxruntime, no PyTorch.

>>> from inference import Sampler                    # installed wheel: from ganpack import Sampler
>>> images = Sampler("artifact").sample(16, seed=0)  # uint8 (16, 28, 28)
"""

import sys

TYPE_CHECKING = False  # for type checkers it is true; the import of `typing` takes milliseconds
if TYPE_CHECKING:
    from .artifact import ArtifactError, Metadata
    from .runtime.driver import ProviderError
    from .sampler import Sampler
    from .writing.outputs import save

if sys.argv[:1] == ["-m"]:  # Python looks for a module of this package that it will run
    from .runtime.installation import require

    require("numpy")

__version__ = "0.1.0"
__all__ = ["ArtifactError", "Metadata", "ProviderError", "Sampler", "__version__", "save"]

_PLACES = {
    "ArtifactError": "artifact",
    "Metadata": "artifact",
    "ProviderError": "runtime.driver",
    "Sampler": "sampler",
    "save": "writing.outputs",
}


def __getattr__(name: str) -> object:
    # Imported late. A host starts faster, and Ctrl-C can end a command while it imports the rest.
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value: object = getattr(import_module(f".{_PLACES[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
