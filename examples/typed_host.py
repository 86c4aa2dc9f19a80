"""A host program that is typed throughout: every public name of the sampler, as it is declared.

python -m examples.typed_host ARTIFACT FOLDER

`mypy --strict` and pyright's strict mode check it. Installed, the package is called ganpack.
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import assert_type

import numpy as np
from numpy.typing import NDArray

from inference import ArtifactError, Metadata, ProviderError, Sampler, save

Images = NDArray[np.uint8]


class Gallery:
    """Pages of images, one stream of them for each visitor."""

    def __init__(self, sampler: Sampler, page_size: int) -> None:
        self._sampler = sampler
        channels, height, width = sampler.metadata.image_shape
        shape = (
            (page_size, height, width) if channels == 1 else (page_size, height, width, channels)
        )
        self._page: Images = np.empty(shape, np.uint8)

    def page(self, visitor: int, number: int) -> Images:
        """A page, in memory that the next one is drawn into."""
        start = number * len(self._page)
        return self._sampler.sample(len(self._page), seed=visitor, start=start, out=self._page)

    def all(self, visitor: int, count: int) -> Iterator[Images]:
        """Many images in constant memory."""
        yield from self._sampler.stream(count, seed=visitor, batch_size=len(self._page))

    def of_class(self, label: int | str, visitor: int, count: int) -> Images:
        """Images of one class, by number or name, where the artifact has classes."""
        return assert_type(self._sampler.sample(count, seed=visitor, label=label), Images)

    def classes(self, visitor: int, count: int) -> list[str]:
        """Names of the classes of images that are drawn without a label."""
        labels = assert_type(self._sampler.labels(count, seed=visitor), NDArray[np.int64])
        return [self._sampler.metadata.classes[label] for label in labels]

    def walk(self, visitor: int, steps: int) -> Images:
        """From the first image of a visitor to the second."""
        z = assert_type(self._sampler.latents(2, seed=visitor), NDArray[np.float32])
        arc = assert_type(self._sampler.interpolate(z[0], z[1], steps), NDArray[np.float32])
        return assert_type(self._sampler.decode(arc), Images)


def main(artifact: str, folder: Path) -> int:
    """Draw some of everything; returns the exit code."""
    try:
        sampler = Sampler(artifact, provider="auto", threads=1)
    except (ArtifactError, ProviderError) as error:
        print(error, file=sys.stderr)
        return 1
    with sampler:
        assert_type(sampler.metadata, Metadata)
        assert_type(sampler.provider, str)
        assert_type(sampler.check().passed, bool)
        gallery = Gallery(sampler, page_size=16)
        save(gallery.page(visitor=3, number=2), folder / "page.png", seed=3, start=32)
        save(gallery.walk(visitor=3, steps=9), folder / "walk.gif", fps=10, scale=4)
        print(sum(len(batch) for batch in gallery.all(visitor=3, count=100)))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], Path(sys.argv[2])))
