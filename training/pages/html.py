"""Self-contained HTML pages: templates, with pictures inside the file."""

import io
import logging
from base64 import b64encode
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from inference.writing.files import atomic_write
from inference.writing.plain_file import read_plain

_PNG_START, _PNG_END = b"\x89PNG\r\n\x1a\n", b"IEND\xaeB`\x82"
_MOST_BYTES = 2**27  # of a picture: 64 colour images of 800×800 pixels
_log = logging.getLogger(__name__)
_TEMPLATES = Path(__file__).with_name("templates")


def write_page(path: Path, template: str, **values: Any) -> None:
    """Render a template of training/pages/templates into a file, atomically."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["svg"] = Markup
    environment.filters["thousands"] = lambda value: f"{value:,}"
    page = environment.get_template(template).render(**values)
    with atomic_write(path) as file:
        file.write(page.encode())


def embedded(picture: Path | NDArray[np.uint8]) -> str | None:
    """A data URL with a PNG file, or with an image uint8 (H, W[, 3]).

    None if there is no such file, or, with a warning, if it is no PNG file.
    """
    if isinstance(picture, Path):
        try:
            content = read_plain(picture, _MOST_BYTES)
        except FileNotFoundError:
            return None
        except OSError as error:
            _log.warning("%s is left out: %s", picture, error.strerror)
            return None
        if not (content.startswith(_PNG_START) and content.endswith(_PNG_END)):
            _log.warning("%s is left out: it is damaged, or no PNG file", picture)
            return None
    else:
        from PIL import Image

        file = io.BytesIO()
        Image.fromarray(picture).save(file, format="PNG", optimize=True)
        content = file.getvalue()
    return f"data:image/png;base64,{b64encode(content).decode()}"


def evenly(items: Sequence[Any], count: int) -> list[Any]:
    """At most `count` evenly spaced items, the first and the last among them."""
    if len(items) <= count:
        return list(items)
    return [items[round(i)] for i in np.linspace(0, len(items) - 1, count)]


def minutes(value: float) -> str:
    """A duration in minutes, as text."""
    if value < 1:
        return f"{60 * value:.0f} s"
    return f"{value:.1f} min" if value < 90 else f"{value / 60:.1f} h"
