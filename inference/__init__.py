"""Generate images with an exported generator: numpy and onnxruntime, no PyTorch.

>>> from inference import Sampler                    # installed wheel: from ganpack import Sampler
>>> images = Sampler("artifact").sample(16, seed=0)  # uint8 (16, 28, 28)
"""

from typing import TYPE_CHECKING, Any

from .artifact import ArtifactError, Metadata
from .runtime.driver import ProviderError
from .sampler import Sampler

if TYPE_CHECKING:
    from .writing.outputs import save

__version__ = "0.1.0"
__all__ = ["ArtifactError", "Metadata", "ProviderError", "Sampler", "__version__", "save"]


def __getattr__(name: str) -> Any:
    # Imported late, so that a host that writes no files starts faster.
    if name == "save":
        from .writing.outputs import save

        return save
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
