"""Try what the documents say."""

import ast
import hashlib
import re
import struct
from dataclasses import fields, replace
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
import pytest

from inference import Sampler
from inference.noise import labels, latents, philox4x32
from tests.support.files import ROOT
from training.config import RECIPES, RecipeConfig, usual_recipe

PAGES = ("*.md", "docs/**/*.md", "examples/*/README.md")
FORMATS = (ROOT / "docs" / "formats.md").read_text("utf-8")


@pytest.fixture(scope="module")
def reader() -> dict[str, Any]:
    """Run the code of docs/formats.md, which reads files as another language would."""
    names: dict[str, Any] = {}
    blocks = re.findall(r"```python\n(.*?)```", FORMATS, flags=re.DOTALL)
    assert len(blocks) == 4
    for block in blocks:
        exec(block, names)
    return names


def bits(values: Any) -> list[str]:
    return [struct.pack(">f", value).hex() for value in values]


def test_the_reader_of_the_document_reads_a_real_artifact(
    reader: dict[str, Any], tiny_artifact: Path
) -> None:
    for name in ("generator.onnx", "sampler.onnx"):
        file = (tiny_artifact / name).read_bytes()
        assert reader["is_whole"](file)
        assert not reader["is_whole"](file[:-1] + bytes([file[-1] ^ 1]))
        assert not reader["is_whole"](file[:-100])
        contract = reader["contract"](file)
        assert contract["role"] == name.partition(".")[0]
        assert f"`{contract['noise']}`" in FORMATS
        # Each key is explained.
        rows = "".join(line for line in FORMATS.splitlines() if line.startswith("| `"))
        assert {key for key in contract if f"`{key}`" not in rows} == set()
    sampler = Sampler(tiny_artifact, provider="cpu")
    dim = contract["latent_dim"]
    z = [reader["latent"](golden["seed"], golden["image"], dim) for golden in contract["golden"]]
    for row, golden in zip(z, contract["golden"], strict=True):
        assert hashlib.sha256(struct.pack(f"<{dim}f", *row)).hexdigest() == golden["z_sha256"]
        expected = sampler.sample(1, seed=golden["seed"], start=golden["image"])
        np.testing.assert_array_equal(sampler.decode(np.array([row])), expected)


def test_its_noise_is_that_of_the_sampler(reader: dict[str, Any]) -> None:
    for seed, image, dim in ((0, 0, 100), (3, 2**32, 1), (2**63 - 1, 2**63 - 2, 17)):
        row = reader["latent"](seed, image, dim)
        assert bits(row) == bits(latents(1, dim, seed=seed, start=image)[0])
        assert reader["label"](seed, image, 10) == labels(1, 10, seed=seed, start=image)[0]


def test_its_known_answers_are_those_of_both(reader: dict[str, Any]) -> None:
    table = re.findall(r"^\| (.+?) \| ([0-9a-f ]{8,}) \|$", FORMATS, flags=re.MULTILINE)
    assert len(table) == 6
    for what, value in table:
        if what.startswith("Philox"):
            word = int(what.rpartition(" ")[2], 16)
            ours = philox4x32(np.full((4, 1), word, np.uint64), word, word)[:, 0].tolist()
            for words in (reader["philox"]([word] * 4, [word] * 2), ours):
                assert " ".join(f"{each:08x}" for each in words) == value
        elif what.startswith("z["):
            seed, image = map(int, re.findall(r"(?:seed|image) (\d+)", what))
            for z in (reader["latent"](seed, image, 4), latents(1, 4, seed=seed, start=image)[0]):
                assert " ".join(bits(z)) == value
        else:
            assert hashlib.sha256(reader["TABLE"]).hexdigest() == value


def test_its_worked_example_works_out() -> None:
    example = FORMATS[FORMATS.index("### Worked example") :].replace("−", "-")
    (word,) = re.findall(r"random word is ([0-9a-f]{8})", example)
    steps = re.findall(
        r"(low|high) half is (\w+) = (\d+), so\s+z\[\d\] = Φ⁻¹\((\S+) / 65536\) = (\S+), "
        r"bits (\w{8})", example,
    )  # fmt: skip
    assert [half for half, *_ in steps] == ["low", "high"]
    for (half, hexadecimal, decimal, middle, value, in_bits), z in zip(
        steps, latents(1, 2)[0], strict=True
    ):
        k = int(word[4:] if half == "low" else word[:4], 16)
        assert int(hexadecimal, 16) == int(decimal) == float(middle) - 0.5 == k
        assert f"{NormalDist().inv_cdf((k + 0.5) / 65536):.6f}" == value
        assert bits([z]) == [in_bits]


def test_recipes_are_documented_as_they_are() -> None:
    text = (ROOT / "docs" / "recipes.md").read_text("utf-8")
    rows = re.findall(r"^\| `--([a-z-]+)`[^|]* \| (.*) \|$", text, flags=re.MULTILINE)
    documented = {name.replace("-", "_"): cells.split(" | ") for name, cells in rows}
    assert documented.keys() == {f.name for f in fields(RecipeConfig)} - {"recipe"}
    for name, cells in documented.items():
        for cell, recipe in zip(cells, RECIPES.values(), strict=True):
            value = getattr(recipe, name)
            words = [{"no": "0", "yes": "1"}.get(word, word) for word in cell.split()]
            numbers = tuple(float(word.replace(",", "")) for word in words)
            assert numbers == (value if isinstance(value, tuple) else (value,)), (name, cell)
    (other,) = re.findall(
        r"^With `--differences` or `--network conv`, .* other defaults: (.*)\.$", text, re.M
    )
    found = {
        name.replace("-", "_"): float(value.replace(",", ""))
        for name, value in re.findall(r"`--([a-z-]+)` ([0-9.e,-]*[0-9])", other)
    }
    assert replace(RECIPES["bce"], **found) == usual_recipe("bce", "differences")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "document",
    sorted(path for pattern in PAGES for path in ROOT.glob(pattern)),
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_links_within_the_documents_lead_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", document.read_text("utf-8")):
        if "://" in target:
            continue
        file, _, heading = target.partition("#")
        path = document.parent / file if file else document
        assert path.exists(), target
        if heading:
            titles = re.findall(r"^#+ (.+)$", path.read_text("utf-8"), flags=re.MULTILINE)
            slugs = {re.sub(r"[^\w -]", "", t.lower()).replace(" ", "-") for t in titles}
            assert heading in slugs, target


def test_files_and_modules_named_in_documents_exist() -> None:
    for document in (*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")):
        text = document.read_text("utf-8")
        for path in re.findall(
            r"`((?:training|export|inference|tests|scripts)/[\w./]+\.\w+)`", text
        ):
            assert (ROOT / path).exists(), (document.name, path)
        for module in re.findall(
            r"python -m ((?:training|export|inference|benchmarks)\.\w+)", text
        ):
            assert (ROOT / f"{module.replace('.', '/')}.py").exists(), (document.name, module)


def test_messages_quoted_in_troubleshooting_are_printed_by_the_programs() -> None:
    """In a quoted message, "…" stands for a value."""
    texts = {
        text
        for package in ("training", "export", "inference", "tests/support")
        for path in (ROOT / package).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
        for text in re.split(r"%[a-z]", node.value)
    }
    page = (ROOT / "docs" / "troubleshooting.md").read_text("utf-8")
    before = r"^(?:\||\| in the log:|\| tests skipped:|\*\*Training:|\*\*Data\.\*\*)"
    quoted = re.findall(rf"{before} `(.+?)`", page, flags=re.MULTILINE)
    ours = [message for message in quoted if not message.startswith("No registered plugin EP")]
    assert len(ours) >= 15
    for message in ours:
        for part in filter(None, message.split("…")):
            assert any(part in text or (len(text) > 14 and text in part) for text in texts), message


def test_the_vietnamese_quick_start_has_commands_that_parse() -> None:
    """Each command exists, and so does each of its options."""
    text = (ROOT / "README.vi.md").read_text("utf-8")
    commands = re.findall(r"^python -m (training|export|inference)\.(\w+)(.*)$", text, re.MULTILINE)
    assert len(commands) >= 8
    for package, module, rest in commands:
        source = {"training.run": "training.config", "inference.run": "inference.command.options"}
        options = re.findall(r"--([a-z-]+)", rest.partition("#")[0])
        name = f"{package}.{module}"
        known = (ROOT / f"{name.replace('.', '/')}.py").read_text()
        known += (ROOT / f"{source.get(name, name).replace('.', '/')}.py").read_text()
        for option in options:
            assert f"--{option}" in known or f"{option.replace('-', '_')}:" in known, (name, option)
