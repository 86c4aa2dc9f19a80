"""The contract and the seal."""

import json
from typing import Any

import pytest

from inference.artifact import (
    FORMAT_VERSION,
    SEAL_KEY,
    UNSEALED,
    ArtifactError,
    Metadata,
    seal,
    verify_seal,
)

pytest.importorskip("hypothesis")

from hypothesis import given
from hypothesis import strategies as st

METADATA = Metadata(
    role="generator",
    image_shape=(1, 28, 28),
    latent_dim=100,
    noise="some/1",
    dataset="mnist",
    recipe="bce",
    step=7,
    weights_sha256="0" * 64,
    scores={"loss_g": 0.5},
)
SEALED = seal(b"head \x0a\x0e" + SEAL_KEY.encode() + b"\x12\x40" + UNSEALED.encode() + b" tail")


def test_json_gives_back_the_same_metadata() -> None:
    assert Metadata.from_json(METADATA.to_json()) == METADATA


def edited(**values: Any) -> str:
    return json.dumps({**json.loads(METADATA.to_json()), **values})


def test_unknown_keys_are_ignored() -> None:
    assert Metadata.from_json(edited(novelty=[1, {}])) == METADATA


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "not strict JSON"),
        ("[" * 100_000, "not strict JSON"),
        ("[]", "not a JSON object"),
        ("{}", "format_version"),
        (edited(scores={"fcd": float("nan")}), "NaN is not JSON"),
        (edited(format_version=FORMAT_VERSION + 1), f"artifact format {FORMAT_VERSION + 1}"),
        (edited(format_version=True), "format_version"),
        (edited(latent_dim="100"), "latent_dim"),
        (edited(latent_dim=0), "positive"),
        (edited(latent_dim=True), "latent_dim"),
        (edited(image_shape=[28, 28]), "image_shape"),
        (edited(image_shape=[2, 28, 28]), "image_shape"),
        (edited(image_shape=[1, 28.0, 28]), "image_shape"),
        (edited(image_shape=[1, -28, 28]), "positive"),
        (edited(classes=[0, 1]), "classes"),
        (edited(noise=None), "noise"),
    ],
)
def test_anything_else_is_refused_by_name(text: str, complaint: str) -> None:
    with pytest.raises(ArtifactError, match=complaint):
        Metadata.from_json(text)


def test_a_sealed_file_verifies() -> None:
    verify_seal(SEALED)


@given(at=st.integers(0, len(SEALED) - 1), bit=st.integers(0, 7))
def test_any_flipped_bit_breaks_the_seal(at: int, bit: int) -> None:
    broken = bytearray(SEALED)
    broken[at] ^= 1 << bit
    with pytest.raises(ArtifactError):
        verify_seal(bytes(broken))


@pytest.mark.parametrize("file", [b"", SEALED[:-1], SEALED[:30], SEALED + b"x", SEALED * 2])
def test_cut_or_longer_files_break_the_seal(file: bytes) -> None:
    with pytest.raises(ArtifactError):
        verify_seal(file)
