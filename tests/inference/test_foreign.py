"""Generators of other programs: `Sampler(path, allow_foreign=True)`."""

import math
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from inference import ArtifactError, Sampler
from inference.artifact import SEAL_MARKER
from training.gan.networks import to_pixels


@pytest.fixture(scope="module")
def dcgan() -> nn.Module:
    """Transposed convolutions, as in DCGAN, from z (n, 12, 1, 1) to images (n, 3, 8, 8)."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(
            nn.ConvTranspose2d(12, 16, 4), nn.BatchNorm2d(16), nn.ReLU(),
            nn.ConvTranspose2d(16, 3, 4, stride=2, padding=1), nn.Tanh(),
        ).eval()  # fmt: skip


@pytest.mark.parametrize("dynamo", [True, False])
def test_what_pytorch_exports_by_default(dcgan: nn.Module, tmp_path: Path, dynamo: bool) -> None:
    """A file of PyTorch's exporter: weights in a second file, a fixed batch size, its own names."""
    path = tmp_path / "dcgan.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(dcgan, (torch.randn(2, 12, 1, 1),), path, dynamo=dynamo)
    assert (tmp_path / "dcgan.onnx.data").exists() == dynamo
    sampler = Sampler(path, allow_foreign=True, provider="cpu")
    assert (sampler.metadata.latent_dim, sampler.metadata.image_shape) == (12, (3, 8, 8))
    images = sampler.sample(5, seed=3)
    z = torch.from_numpy(sampler.latents(5, seed=3))[..., None, None]
    with torch.inference_mode():
        expected = to_pixels(dcgan(z)).numpy()
    assert images.shape == (5, 8, 8, 3)
    assert np.abs(images.astype(int) - expected).max() <= 1
    assert len(np.unique(images)) > 50
    with pytest.raises(ArtifactError, match=r"another program's.*allow_foreign=True"):
        Sampler(path)


def model(
    *nodes: tuple[str, dict[str, Any]],
    z: tuple[str | int, ...] = ("n", 6),
    out: int = 12,
    out_type: int = TensorProto.FLOAT,
) -> onnx.ModelProto:
    """z times weights (6, out), then some operations."""
    weights = np.random.default_rng(0).normal(size=(6, out)).astype(np.float32)
    made = [helper.make_node("MatMul", ["z", "w"], ["0"])]
    for i, (kind, attributes) in enumerate(nodes):
        extra = [attributes.pop("with")] if "with" in attributes else []
        made.append(helper.make_node(kind, [str(i), *extra], [str(i + 1)], **attributes))
    graph = helper.make_graph(
        made, "", [helper.make_tensor_value_info("z", TensorProto.FLOAT, z)],
        [helper.make_tensor_value_info(str(len(nodes)), out_type, None)],
        [numpy_helper.from_array(weights, "w"),
         numpy_helper.from_array(np.array([-1, 2, 2, 3]), "nhwc"),
         numpy_helper.from_array(np.array([-1, 3, 2, 2]), "nchw")],
    )  # fmt: skip
    return helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])


def drawn(graph: onnx.ModelProto, **options: Any) -> Any:
    return Sampler(graph.SerializeToString(), allow_foreign=True, provider="cpu", **options)


def linear(sampler: Sampler) -> Any:
    weights = np.random.default_rng(0).normal(size=(6, 12)).astype(np.float32)
    return sampler.latents(70) @ weights  # more images than a tile


def levels(images: Any, low: float, high: float) -> Any:
    return ((images - low) / (high - low) * 255).round().clip(0, 255)


@pytest.mark.parametrize("layout", ["nhwc", "nchw"])
@pytest.mark.parametrize("function", ["Sigmoid", "Tanh"])
def test_layout_and_range_come_from_the_graph(layout: str, function: str) -> None:
    sampler = drawn(model((function, {}), ("Reshape", {"with": layout})))
    assert sampler.metadata.image_shape == (3, 2, 2)
    x = linear(sampler)
    expected = (
        levels(np.tanh(x), -1, 1) if function == "Tanh" else levels(1 / (1 + np.exp(-x)), 0, 1)
    )
    expected = expected.reshape((70, 2, 2, 3) if layout == "nhwc" else (70, 3, 2, 2))
    expected = expected if layout == "nhwc" else expected.transpose(0, 2, 3, 1)
    assert np.abs(sampler.sample(70).astype(int) - expected).max() <= 1


def test_what_the_graph_leaves_open_is_asked_for() -> None:
    bare = model()
    with pytest.raises(ArtifactError, match=r"\(12,\): pass image_shape"):
        drawn(bare)
    with pytest.raises(ArtifactError, match="which is not"):
        drawn(bare, image_shape=(1, 5, 5), value_range=(0, 1))
    with pytest.raises(ArtifactError, match="pass value_range"):
        drawn(bare, image_shape=(1, 3, 4))
    with pytest.raises(ValueError, match="value_range must be"):
        drawn(bare, image_shape=(1, 3, 4), value_range=(1, 0))
    with pytest.raises(ArtifactError, match="pass latent_dim"):
        drawn(model(z=("n", "d")), image_shape=(1, 3, 4), value_range=(-3, 3))
    with pytest.raises(ArtifactError, match="6 values, not 7"):
        drawn(bare, latent_dim=7, image_shape=(1, 3, 4), value_range=(-3, 3))
    sampler = drawn(model(z=("n", "d")), latent_dim=6, image_shape=(1, 3, 4), value_range=(-3, 3))
    expected = levels(linear(sampler), -3, 3).reshape(70, 3, 4)
    assert np.abs(sampler.sample(70).astype(int) - expected).max() <= 1


def test_uint8_is_taken_as_it_is() -> None:
    cast = ("Cast", {"to": TensorProto.UINT8})
    sampler = drawn(
        model(("Relu", {}), cast, ("Reshape", {"with": "nchw"}), out_type=TensorProto.UINT8)
    )
    expected = linear(sampler).clip(0).astype(np.uint8).reshape(70, 3, 2, 2)
    difference = sampler.sample(70).astype(int) - expected.transpose(0, 2, 3, 1)
    assert np.abs(difference).max() <= 1


def test_what_is_no_generator_is_refused() -> None:
    two = model(("Tanh", {}))
    two.graph.input.add().CopyFrom(helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 2]))
    with pytest.raises(ArtifactError, match="one float32 input"):
        drawn(two)
    with pytest.raises(ArtifactError, match=r"z must be \(n, latent_dim\)"):
        drawn(model(("Tanh", {}), z=(3, 4, 6)))
    with pytest.raises(ArtifactError, match="onnxruntime"):
        drawn(model(("Nonsense", {})))
    with pytest.raises(ArtifactError, match="HTML"):
        Sampler(b"<html>", allow_foreign=True)


@pytest.mark.parametrize(
    ("location", "complaint"),
    [
        ("../weights.data", "outside its folder"),
        ("/etc/passwd", "outside its folder"),
        ("..", "outside its folder"),
        ("", "outside its folder"),
        ("link.data", "outside its folder"),
        ("none.data", "missing"),
    ],
)
def test_weights_out_of_the_folder_are_not_read(
    tmp_path: Path, location: str, complaint: str
) -> None:
    graph = model(("Tanh", {}))
    tensor = graph.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    (tmp_path / "weights.data").write_bytes(b"\0" * 288)
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "link.data").symlink_to(tmp_path / "weights.data")
    (folder / "model.onnx").write_bytes(graph.SerializeToString())
    with pytest.raises(ArtifactError, match=complaint):
        Sampler(folder / "model.onnx", allow_foreign=True, image_shape=(1, 3, 4))
    with pytest.raises(ArtifactError, match="pass a path"):
        drawn(graph)


def in_a_function(tensor: onnx.TensorProto) -> onnx.ModelProto:
    """A generator whose weights are a constant of a function."""
    nodes = [
        helper.make_node("Constant", [], ["w"], value=tensor),
        helper.make_node("MatMul", ["x", "w"], ["m"]),
        helper.make_node("Tanh", ["m"], ["y"]),
    ]
    made = model(("Tanh", {}))
    made.graph.node[0].CopyFrom(helper.make_node("F", ["z"], ["0"], domain="own"))
    opset = [helper.make_opsetid("", 17)]
    made.functions.append(helper.make_function("own", "F", ["x"], ["y"], nodes, opset))
    made.opset_import.append(helper.make_opsetid("own", 1))
    return made


def in_a_node(tensor: onnx.TensorProto) -> onnx.ModelProto:
    made = model(("Tanh", {}))
    made.graph.node.insert(0, helper.make_node("Constant", [], ["v"], value=tensor))
    made.graph.node[1].input[1] = "v"
    return made


@pytest.mark.parametrize("make", [in_a_function, in_a_node])
def test_weights_of_functions_and_nodes_are_not_read_from_the_working_directory(
    make: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tensor = TensorProto(name="hidden", data_type=TensorProto.FLOAT, dims=[6, 12])
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="weights.data")
    (tmp_path / "weights.data").write_bytes(b"\0" * 288)
    (tmp_path / "model.onnx").write_bytes(make(tensor).SerializeToString())
    monkeypatch.chdir(tmp_path)
    for source in ("model.onnx", (tmp_path / "model.onnx").read_bytes()):
        with pytest.raises(ArtifactError, match=r"'hidden' is a constant of a node or function"):
            Sampler(source, allow_foreign=True, image_shape=(1, 3, 4))


def without_numbers(kind: str) -> onnx.ModelProto:
    """A graph whose output is no tensor of numbers."""
    made = model(("Tanh", {}))
    node, output = made.graph.node[1], made.graph.output[0]
    tensor = helper.make_tensor_type_proto(TensorProto.FLOAT, None)
    if kind == "sequence":
        node.op_type = "SequenceConstruct"
        output.type.CopyFrom(helper.make_sequence_type_proto(tensor))
    elif kind == "optional":
        node.op_type = "Optional"
        output.type.CopyFrom(helper.make_optional_type_proto(tensor))
    else:
        node.op_type = "Cast"
        node.attribute.append(helper.make_attribute("to", TensorProto.STRING))
        output.type.tensor_type.elem_type = TensorProto.STRING
    return made


@pytest.mark.parametrize("kind", ["sequence", "optional", "string"])
def test_an_output_that_is_no_tensor_of_numbers_is_refused(kind: str) -> None:
    with pytest.raises(ArtifactError, match=f"one output of numbers, this has .*{kind[:3]}"):
        drawn(without_numbers(kind), image_shape=(1, 3, 4), value_range=(0, 1))


@pytest.mark.parametrize(
    ("z", "options", "complaint"),
    [
        ((10**10, 6), {}, "its batches have 10,000,000,000 images"),
        ((0, 6), {}, "its batches have 0 images"),
        (("n", "k"), {"latent_dim": 10**9}, "its z has 1,000,000,000 values"),
        (("n", 6, *[1] * 9), {}, "onnxruntime|z must be"),
    ],
)
def test_absurd_sizes_are_refused(
    z: tuple[str | int, ...], options: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(ArtifactError, match=complaint):
        drawn(model(("Tanh", {}), z=z), image_shape=(1, 3, 4), **options)


@pytest.mark.parametrize(
    "facts",
    [
        {"latent_dim": 0}, {"image_shape": (3, 4)}, {"image_shape": (-1, -3, 4)},
        {"value_range": (0.0, math.inf)}, {"value_range": (math.nan, 1.0)},
    ],
)  # fmt: skip
def test_facts_that_are_true_of_no_generator_are_refused(facts: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(facts))} must be"):
        drawn(model(("Tanh", {})), **facts)


@pytest.mark.parametrize("location", ["n" * 300, "n" * 4096, "\x1b[31m"])
def test_a_location_is_shown_within_limits(location: str, tmp_path: Path) -> None:
    graph = model(("Tanh", {}))
    tensor = graph.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    (tmp_path / "model.onnx").write_bytes(graph.SerializeToString())
    with pytest.raises(ArtifactError, match="its weights are") as raised:
        Sampler(tmp_path / "model.onnx", allow_foreign=True)
    assert str(raised.value).isprintable()
    assert len(str(raised.value)) <= 1000


def test_our_own_files_stay_our_own(tiny_artifact: Path) -> None:
    sampler = Sampler(tiny_artifact, allow_foreign=True)
    assert sampler.metadata.dataset == "digits"
    assert sampler.check().passed
    with pytest.raises(ValueError, match="need allow_foreign"):
        Sampler(tiny_artifact, latent_dim=10)


def test_there_is_nothing_to_check_in_them() -> None:
    sampler = drawn(model(("Tanh", {}), ("Reshape", {"with": "nchw"})))
    with pytest.raises(ArtifactError, match="no golden images"):
        sampler.check()


def with_a_key(model: onnx.ModelProto) -> None:
    model.metadata_props.add(key="author", value="me")


def with_rounded_weights(model: onnx.ModelProto) -> None:
    for tensor in model.graph.initializer:
        if len(tensor.dims) == 2:
            values = numpy_helper.to_array(tensor).round(2)
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))


def without_seal(model: onnx.ModelProto) -> None:
    kept = [prop for prop in model.metadata_props if prop.key != "ganpack.sha256"]
    del model.metadata_props[:]
    model.metadata_props.extend(kept)


def without_metadata(model: onnx.ModelProto) -> None:
    del model.metadata_props[:]


def of_another_opset(model: onnx.ModelProto) -> None:
    from onnx import version_converter

    model.CopyFrom(version_converter.convert_version(model, 20))


@pytest.mark.parametrize(
    ("change", "message", "levels"),
    [
        (with_a_key, "damaged, or changed since it was sealed.*allow_foreign=True", 0),
        (with_rounded_weights, "damaged, or changed since it was sealed.*allow_foreign=True", 20),
        (of_another_opset, "allow_foreign=True", 0),
        (without_seal, "changed since it was exported.*allow_foreign=True", 0),
        (without_metadata, "another program's ONNX model.*allow_foreign=True", 0),
    ],
)
def test_an_artifact_that_was_changed_on_purpose_is_drawn_from_if_it_is_trusted(
    change: Any, message: str, levels: int, tiny_artifact: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    caplog.set_level("INFO", "inference")
    model = onnx.load(tiny_artifact / "generator.onnx")
    change(model)
    changed = model.SerializeToString()
    with pytest.raises(ArtifactError, match=message):
        Sampler(changed, provider="cpu")
    expected = Sampler(tiny_artifact, provider="cpu").sample(40, seed=3)
    images = Sampler(changed, provider="cpu", allow_foreign=True).sample(40, seed=3)
    assert ("changed since ganpack sealed it" in caplog.text) == (SEAL_MARKER in changed)
    assert images.shape == expected.shape
    assert np.abs(images.astype(int) - expected).max() <= levels


def test_labels_of_an_artifact_that_was_changed_are_kept(conditional_artifact: Path) -> None:
    model = onnx.load(conditional_artifact / "generator.onnx")
    with_a_key(model)
    ours = Sampler(conditional_artifact, provider="cpu")
    changed = Sampler(model.SerializeToString(), provider="cpu", allow_foreign=True)
    assert changed.metadata.classes == ours.metadata.classes
    for label in (None, 3):
        np.testing.assert_array_equal(
            changed.sample(70, seed=3, label=label), ours.sample(70, seed=3, label=label)
        )
    without_metadata(model)
    with pytest.raises(ArtifactError, match="takes labels, and it has no contract that names the"):
        Sampler(model.SerializeToString(), provider="cpu", allow_foreign=True)


def test_images_that_depend_on_their_neighbours_or_on_chance_are_refused() -> None:
    def batch_norm(training: int) -> onnx.ModelProto:
        made = model(("Tanh", {}), ("Reshape", {"with": "nchw"}))
        made.graph.initializer.extend(
            numpy_helper.from_array(values, name)
            for name, values in (
                ("scale", np.ones(12, np.float32)), ("bias", np.zeros(12, np.float32)),
                ("mean", np.zeros(12, np.float32)), ("var", np.ones(12, np.float32)),
            )
        )  # fmt: skip
        outputs = ["normal", "m", "v"] if training else ["normal"]
        inputs = ["0", "scale", "bias", "mean", "var"]
        node = helper.make_node("BatchNormalization", inputs, outputs, training_mode=training)
        made.graph.node.insert(1, node)
        made.graph.node[2].input[0] = "normal"
        return made

    def random() -> onnx.ModelProto:
        made = model(("RandomNormalLike", {}), ("Tanh", {}), ("Reshape", {"with": "nchw"}))
        assert made.graph.node[1].op_type == "RandomNormalLike"
        return made

    assert drawn(batch_norm(0)).sample(3).shape == (3, 2, 2, 3)
    for graph in (batch_norm(1), random()):
        with pytest.raises(ArtifactError, match="depend on the other images of a call, or on ch"):
            drawn(graph)


def test_the_command_line_takes_what_the_graph_leaves_open(tmp_path: Path) -> None:
    from inference.run import main

    (tmp_path / "a.onnx").write_bytes(model(z=("n", "k")).SerializeToString())
    output = tmp_path / "a.npy"
    facts = ["--latent-dim", "6", "--image-shape", "3", "2", "2", "--value-range", "-3", "3"]
    arguments = [str(tmp_path / "a.onnx"), "--provider", "cpu", "-n", "4", "--output", str(output)]
    assert main([*arguments, "--allow-foreign", *facts]) == 0
    assert np.load(output).shape == (4, 2, 2, 3)
    assert main(arguments) == 1
