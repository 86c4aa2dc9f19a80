"""The noise stream: published known answers, random access, bounds."""

import hashlib

import numpy as np
import pytest

from inference.noise import (
    LIMIT,
    QUANTILES_SHA256,
    labels,
    latents,
    normal_quantiles,
    philox4x32,
)

pytest.importorskip("hypothesis")

from hypothesis import given
from hypothesis import strategies as st


@pytest.mark.parametrize(
    ("bits", "words"),
    [
        (0, [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
        (0xFFFFFFFF, [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]),
    ],
)
def test_philox_gives_the_known_answers_of_its_authors(bits: int, words: list[int]) -> None:
    counter = np.full((4, 1), bits, np.uint64)
    assert philox4x32(counter, bits, bits)[:, 0].tolist() == words


def test_philox_with_the_third_known_answer_of_its_authors() -> None:
    """The digits of π as counter and key: every word differs, so no two can be mixed up."""
    counter = np.array([[0x243F6A88], [0x85A308D3], [0x13198A2E], [0x03707344]], np.uint64)
    words = philox4x32(counter, 0xA4093822, 0x299F31D0)[:, 0].tolist()
    assert words == [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1]


def test_the_table_is_the_published_one() -> None:
    table = normal_quantiles()
    assert (table == -table[::-1]).all()
    published = "1cfbba1e07e34386a57626f82aeb43e6ed54ba70a3ea6b7d964dc66a841074a8"
    assert hashlib.sha256(table.astype("<f4").tobytes()).hexdigest() == published
    assert published == QUANTILES_SHA256


@pytest.mark.parametrize(
    ("seed", "image", "bits"),
    [
        (0, 0, [0x3FAB3ABC, 0xBE82FC6F, 0x3F3E92A7, 0x3F96BAA1]),
        (2**40 + 9, 2**33 + 1, [0x3E366FC0, 0x3F6198CE, 0x4005DB0B, 0xBFCCE715]),
        (2**63 - 1, 2**63 - 2, [0xBF393A3F, 0xBE8C4152, 0xBF5736B8, 0x3F0B5AE1]),
    ],
)
def test_z_has_its_published_bits(seed: int, image: int, bits: list[int]) -> None:
    z = latents(1, 100, seed=seed, start=image)
    assert z.view(np.uint32)[0, :4].tolist() == bits


@given(
    seed=st.integers(0, LIMIT - 1),
    start=st.integers(0, LIMIT - 3000),
    count=st.integers(0, 3000),
    at=st.integers(0, 2999),
    dims=st.tuples(st.integers(1, 40), st.integers(1, 40)),
)
def test_any_image_can_be_drawn_alone(
    seed: int, start: int, count: int, at: int, dims: tuple[int, int]
) -> None:
    z = latents(count, max(dims), seed=seed, start=start)
    assert z.shape == (count, max(dims))
    if count:
        at %= count
        alone = latents(1, min(dims), seed=seed, start=start + at)
        np.testing.assert_array_equal(alone[0], z[at, : min(dims)])


@pytest.mark.parametrize("threads", [2, 3, 8])
def test_any_number_of_threads_draws_the_same(threads: int) -> None:
    for count in (1, 1024, 1025, 5000):
        z = np.full((count + 1, 21), np.nan, np.float32)
        drawn = latents(count, 21, seed=6, start=2**33, out=z[:count], threads=threads)
        np.testing.assert_array_equal(drawn, latents(count, 21, seed=6, start=2**33))
        assert np.isnan(z[count]).all()


def test_z_is_normal() -> None:
    z = latents(20_000, 10, seed=5)
    # The standard error of 200,000 values is 0.0022 for the mean and 0.0032 for the variance.
    assert abs(float(z.mean())) < 0.012
    assert abs(float(z.var()) - 1) < 0.017
    assert abs(np.corrcoef(z, rowvar=False) - np.eye(10)).max() < 0.04


@given(seed=st.integers(0, LIMIT - 1), image=st.integers(0, LIMIT - 1), classes=st.integers(1, 99))
def test_a_label_is_made_of_the_first_word_of_stream_1(seed: int, image: int, classes: int) -> None:
    counter = np.array([[0], [1], [image % 2**32], [image >> 32]], np.uint64)
    word = int(philox4x32(counter, seed % 2**32, seed >> 32)[0, 0])
    assert labels(1, classes, seed=seed, start=image).tolist() == [word * classes >> 32]


def test_labels_are_drawn_alike_and_alone() -> None:
    drawn = labels(20_000, 10, seed=5)
    assert drawn.dtype == np.int64
    # The standard error of each share is 0.0021.
    assert abs(np.bincount(drawn, minlength=10) / len(drawn) - 0.1).max() < 0.01
    np.testing.assert_array_equal(labels(3000, 10, seed=5, start=9000), drawn[9000:12_000])
    assert labels(1, 3, seed=2**63 - 1, start=2**63 - 1).shape == (1,)
    for classes in (0, 2**31):
        with pytest.raises(ValueError, match=f"classes must be in .*, got {classes}"):
            labels(1, classes)
    with pytest.raises(ValueError, match="start=-1"):
        labels(1, 10, start=-1)


@pytest.mark.parametrize(
    ("count", "seed", "start"),
    [(-1, 0, 0), (1, -1, 0), (1, LIMIT, 0), (1, 0, -1), (1, 0, LIMIT), (2, 0, LIMIT - 1)],
)
def test_what_lies_outside_the_stream_is_refused(count: int, seed: int, start: int) -> None:
    with pytest.raises(ValueError, match="got"):
        latents(count, 8, seed=seed, start=start)
