"""What a file costs and holds is bounded, whatever its seal says."""

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from inference import ArtifactError, Sampler
from tests.support.families import NAMES, forged
from tests.support.forging import Change, contract_with, resealed


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("family", NAMES)
def test_a_file_that_is_meant_to_harm_is_refused_or_drawn_in_little_time(
    family: str, seed: int, tiny_artifact: Path, conv_artifact: Path
) -> None:
    artifact = (tiny_artifact, conv_artifact)[seed % 2]
    file = forged(family, seed, artifact / "generator.onnx")
    message, began = "", time.process_time()
    try:
        sampler = Sampler(file, provider="cpu")
        sampler.metadata.to_json()
        assert len(sampler.sample(1)) == 1
        if sampler.metadata.golden:
            sampler.check()
    except ArtifactError as error:
        message = str(error)
    assert message.isprintable()
    assert len(message) <= 1000
    assert time.process_time() - began < 1


def attribute(op_type: str, name: str, value: object) -> Change:
    """The first node of a kind with another value of an attribute."""

    def change(model: onnx.ModelProto) -> None:
        node = next(node for node in model.graph.node if node.op_type == op_type)
        kept = [each for each in node.attribute if each.name != name]
        del node.attribute[:]
        node.attribute.extend(kept)
        if value is not None:
            node.attribute.append(helper.make_attribute(name, value))

    return change


@pytest.mark.parametrize(
    ("op_type", "name", "value"),
    [
        ("DepthToSpace", "blocksize", 2**63 - 1),
        ("DepthToSpace", "blocksize", 0),
        ("DepthToSpace", "blocksize", 4),
        ("DepthToSpace", "blocksize", None),
        ("DepthToSpace", "mode", "DCR"),
        ("DepthToSpace", "mode", None),
        ("Conv", "group", 2),
        ("Conv", "group", 1.0),
        ("Conv", "pads", [1, 1, 1]),
        ("Conv", "pads", [2**62] * 4),
        ("Conv", "pads", None),
        ("Conv", "strides", [0, 0]),
        ("Conv", "dilations", [2, 2]),
        ("Conv", "kernel_shape", [3, 3, 3]),
        ("Conv", "auto_pad", "SAME_UPPER"),
        ("Conv", "novelty", 1),
        ("Gemm", "alpha", 0.5),
        ("Gemm", "alpha", 1),
        ("Gemm", "beta", float("nan")),
        ("Gemm", "transA", 1),
        ("Gemm", "transB", 0),
        ("LeakyRelu", "alpha", float("inf")),
        ("LeakyRelu", "alpha", -1.0),
        ("LeakyRelu", "alpha", None),
        ("Cast", "to", onnx.TensorProto.STRING),
        ("Cast", "to", onnx.TensorProto.FLOAT),
        ("Transpose", "perm", [0, 2, 3, 2**40]),
        ("Transpose", "perm", None),
        ("Reshape", "allowzero", 7),
        ("Concat", "axis", -1),
        ("Gather", "axis", 1),
        ("Tanh", "alpha", 1.0),
    ],
)
def test_an_attribute_has_the_value_that_exports_write(
    op_type: str, name: str, value: object, conv_artifact: Path
) -> None:
    with pytest.raises(ArtifactError, match=f"ganpack writes no '{op_type}' like the one in it"):
        Sampler(resealed(conv_artifact, attribute(op_type, name, value)), provider="cpu")


def test_an_attribute_that_is_missing_has_its_default(conv_artifact: Path) -> None:
    """As earlier versions of the exporter may leave it out."""
    expected = Sampler(conv_artifact, provider="cpu").sample(3)
    for op_type, name in (("Conv", "group"), ("Gemm", "alpha"), ("Reshape", "allowzero")):
        file = resealed(conv_artifact, attribute(op_type, name, None))
        np.testing.assert_array_equal(Sampler(file, provider="cpu").sample(3), expected)


def rows_in_a_row(kind: str, count: int) -> Change:
    def change(model: onnx.ModelProto) -> None:
        first, last = model.graph.node[0], "z"
        for number in range(count):
            node = helper.make_node(kind, [last], [last := f"row{number}"])
            if kind == "LeakyRelu":
                node.attribute.append(helper.make_attribute("alpha", 0.5))
            model.graph.node.insert(number, node)
        first.input[0] = last

    return change


def wide_layers(model: onnx.ModelProto) -> None:
    """A convolution whose weights are few and whose images are large."""
    kernels = numpy_helper.from_array(np.zeros((400, 8, 3, 3), np.float32), "kernels")
    bias = numpy_helper.from_array(np.zeros(400, np.float32), "bias")
    model.graph.initializer.extend([kernels, bias])
    node = next(node for node in model.graph.node if node.op_type == "Conv")
    place = [*model.graph.node].index(node)
    for number in range(300):
        model.graph.node.insert(
            place, helper.make_node("Conv", [node.input[0], "kernels", "bias"], [f"w{number}"],
                                    pads=[1, 1, 1, 1])
        )  # fmt: skip


def more_rank(model: onnx.ModelProto) -> None:
    model.graph.initializer[0].dims.extend([1] * 200_000)


def more_entries(model: onnx.ModelProto) -> None:
    for number in range(100):
        model.metadata_props.add(key=str(number), value="")


def named(name: str) -> Change:
    def change(model: onnx.ModelProto) -> None:
        model.graph.input[0].name = name

    return change


def another_opset(model: onnx.ModelProto) -> None:
    model.opset_import[0].version = 13


def two_opsets(model: onnx.ModelProto) -> None:
    model.opset_import.add(domain="com.microsoft", version=1)


def documented(model: onnx.ModelProto) -> None:
    model.graph.node[0].doc_string = "d"


def sparse(model: onnx.ModelProto) -> None:
    model.graph.sparse_initializer.add().values.name = "s"


def nested(depth: int) -> Change:
    value: object = 1
    for _ in range(depth):
        value = [value]
    return contract_with(scores={"fcd": value})


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (rows_in_a_row("LeakyRelu", 600), "nodes are absurd: a generator has at most 512"),
        (rows_in_a_row("LeakyRelu", 9000), "more than 65,536 parts, which is absurd"),
        (rows_in_a_row("Identity", 1), "no 'Identity' like"),
        (wide_layers, "its network is absurd: it needs .* bytes of weights for one image"),
        (more_rank, "absurd: a tensor of more than 32 dimensions"),
        (more_entries, "entries of metadata are absurd"),
        (named("x" * 5000), "one of its names has 5,000 bytes"),
        (another_opset, "ganpack writes IR 8 and opset 18, this is IR 8 and .*13"),
        (two_opsets, "ganpack writes IR 8 and opset 18"),
        (documented, "parts that ganpack never writes, in its node"),
        (sparse, "parts that ganpack never writes, in its graph"),
        (contract_with(golden=[{}] * 9), "0 classes and 9 golden images are absurd"),
        (contract_with(golden=[{}] * 200_000), "more than 65,536 values"),
        (contract_with(classes=["c"] * 9000), "9,000 classes"),
        (contract_with(dataset="d" * 5000), "dataset is absurd: it has 5,000 characters"),
        (contract_with(step=10**30), "a whole number of 31 digits is absurd"),
        (contract_with(dataset="\ud800"), "not strict JSON: .*surrogates not allowed"),
        (contract_with(image_shape=[1, 2048, 2048]), "at most 1048576 and 16384"),
        (nested(40), "absurdly deep"),
        (nested(500), "absurdly deep"),
    ],
)
def test_every_number_of_parts_is_bounded(
    change: Change, complaint: str, tiny_artifact: Path, conv_artifact: Path
) -> None:
    artifact = conv_artifact if change is wide_layers else tiny_artifact
    with pytest.raises(ArtifactError, match=complaint):
        Sampler(resealed(artifact, change), provider="cpu")


@pytest.mark.parametrize("number", ["1e400", "-1e999", "NaN", "Infinity", "9" * 5000])
def test_a_contract_has_numbers_that_can_be_shown(number: str, tiny_artifact: Path) -> None:
    def change(model: onnx.ModelProto) -> None:
        entry = next(each for each in model.metadata_props if each.key == "ganpack")
        entry.value = entry.value.replace('"scores": {', f'"scores": {{"new": {number}, ')

    with pytest.raises(ArtifactError, match="not strict JSON: "):
        Sampler(resealed(tiny_artifact, change), provider="cpu")


def test_a_name_that_is_not_utf8_is_an_artifact_error(tiny_artifact: Path) -> None:
    def rename(replacement: str) -> Callable[[onnx.ModelProto], None]:
        def change(model: onnx.ModelProto) -> None:
            model.graph.input[0].type.tensor_type.shape.dim[0].dim_param = replacement

        return change

    from inference.artifact import UNSEALED, seal, verify_seal

    good = resealed(tiny_artifact, rename("batch"))
    verify_seal(good)
    digits = good[good.index(b"ganpack.sha256\x12\x40") + 16 :][:64]
    bad = seal(good.replace(digits, UNSEALED.encode()).replace(b"\x05batch", b"\x05bat\xff\xfe"))
    with pytest.raises(ArtifactError, match="names that are not UTF-8"):
        Sampler(bad, provider="cpu")
    with pytest.raises(ArtifactError, match="names that are not UTF-8"):
        Sampler(bad[:-9] + b"\0" * 9, provider="cpu", allow_foreign=True)
