"""The two pages for people: / says what the service is, and /docs describes its requests.

FastAPI's own pages load scripts from the network. These need nothing from elsewhere, and their
policy allows nothing else. All addresses are relative: they work below any path of a proxy.
"""

import hashlib
from base64 import b64encode
from collections.abc import Mapping
from html import escape
from typing import Any

from fastapi.responses import HTMLResponse

from inference import Metadata

_STYLE = """
:root { color-scheme: light dark; font: 1rem/1.5 system-ui, sans-serif; }
body { max-width: 50rem; margin: 2rem auto; padding: 0 1rem; }
img { width: min(100%, 24rem); image-rendering: pixelated; }
table { border-collapse: collapse; }
th, td { padding: .3rem .8rem .3rem 0; text-align: left; vertical-align: top; }
code { overflow-wrap: anywhere; }
"""
_STYLE_HASH = b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
_HEADERS = {
    "Content-Security-Policy": (
        f"default-src 'none'; img-src 'self'; style-src 'sha256-{_STYLE_HASH}'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Cache-Control": "no-cache",
    "X-Content-Type-Options": "nosniff",
}


def front_page(metadata: Metadata) -> HTMLResponse:
    """What the service is, with some of its images."""
    channels, height, width = metadata.image_shape
    facts = {
        "Data set": metadata.dataset,
        "Recipe": f"{metadata.recipe}, {metadata.step:,} steps",
        "Images": f"{width}×{height} pixels, {'grey' if channels == 1 else 'colour'}",
        "Classes": ", ".join(metadata.classes) or "none: this generator takes no label",
    }
    rows = "".join(f"<tr><th>{name}<td>{escape(fact)}" for name, fact in facts.items())
    return _page(
        "Images over HTTP",
        f"""<p>This service generates images with a small neural network.
A seed and an index name an image: the same request always gives the same images.
<p><img src="images?seed=7" alt="Images 0 to 63 of seed 7">
<table>{rows}</table>
<p><a href="docs">How to ask for images</a> · <a href="health">Health of this process</a> ·
<a href="openapi.json">OpenAPI description for programs</a>""",
    )


def docs_page(document: Mapping[str, Any]) -> HTMLResponse:
    """The requests of the service, from its OpenAPI document."""
    operations = [
        f"<h2>GET {escape(path)}</h2><p>{escape(operation.get('summary', ''))}. "
        f"{escape(operation.get('description', ''))}{_parameters(operation)}{_answers(operation)}"
        for path, item in document["paths"].items()
        for operation in (item["get"],)
    ]
    return _page(
        "How to ask for images",
        f"""<p><a href=".">What this is</a> · <a href="openapi.json">The same as OpenAPI</a>
<p><a href="images?seed=7"><code>images?seed=7</code></a> is a grid of the first images of seed 7.
<a href="images?seed=7&amp;count=1"><code>images?seed=7&amp;count=1</code></a> is the first alone.
HEAD gives the headers of each answer without its content.
{"".join(operations)}""",
    )


def _parameters(operation: Mapping[str, Any]) -> str:
    rows = [
        f"<tr><td><code>{escape(each['name'])}</code><td>{escape(_values(each['schema']))}"
        f"<td>{escape(str(each['schema'].get('default', '')))}"
        f"<td>{escape(each.get('description', ''))}"
        for each in operation.get("parameters", [])
    ]
    head = "<tr><th>parameter<th>values<th>default<th>meaning"
    return f"<table>{head}{''.join(rows)}</table>" if rows else ""


def _values(schema: Mapping[str, Any]) -> str:
    for choice in schema.get("anyOf", [schema]):
        if "enum" in choice:
            return ", ".join(map(str, choice["enum"]))
        if "minimum" in choice:
            return f"{choice['minimum']} to {choice.get('maximum', '…')}"
    return str(schema.get("type", ""))


def _answers(operation: Mapping[str, Any]) -> str:
    rows = [
        f"<tr><td>{escape(status)}<td>{escape(answer['description'])}"
        for status, answer in sorted(operation["responses"].items())
    ]
    return f"<h3>Answers</h3><table>{''.join(rows)}</table>"


def _page(title: str, body: str) -> HTMLResponse:
    return HTMLResponse(
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<link rel="icon" href="images?count=1"><style>{_STYLE}</style>'
        f"<h1>{title}</h1>{body}</html>",
        headers=_HEADERS,
    )
