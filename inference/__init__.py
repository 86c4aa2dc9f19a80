"""Draw images from an exported generator: numpy and onnxruntime, no PyTorch.

>>> from inference import Sampler                    # installed wheel: from ganpack import Sampler
>>> images = Sampler("artifact").sample(16, seed=0)  # uint8 (16, 28, 28)
"""

from .artifact import ArtifactError, Metadata
from .cuda import ProviderError
from .outputs import save
from .sampler import Sampler

__version__ = "0.1.0"
__all__ = ["ArtifactError", "Metadata", "ProviderError", "Sampler", "__version__", "save"]
