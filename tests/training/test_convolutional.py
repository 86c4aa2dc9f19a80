"""`--network conv`, from training to the sampler."""

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import helper
from torch import Tensor, nn
from torch.nn import functional as F

from export.artifact_folder import best_checkpoint, export
from export.generator_files import export_graph, onnx_file
from export.parity import check_files
from inference import ArtifactError, Sampler
from inference.artifact import Metadata
from inference.model_files import own
from inference.noise import LIMIT, NOISE
from inference.runtime.session import SessionSettings
from tests.support.forging import Change, add_weights, resealed
from tests.support.runs import CONV, TINY
from training.config import ConfigError, DataConfig, NetworkConfig, TrainConfig
from training.gan.average import averaged
from training.gan.layers import HalvingFunction
from training.gan.networks import Discriminator, Generator
from training.gan.state import TrainState
from training.run_folder.checkpoint import load_generator
from training.run_folder.config_file import from_dict, to_dict
from training.run_folder.sealed_file import load

CPU = torch.device("cpu")
USUAL = NetworkConfig(network="conv")
SHAPES = [(1, 28, 28), (3, 32, 32), (1, 8, 8), (3, 9, 9), (1, 31, 31), (1, 10, 13)]


def networks(
    shape: tuple[int, int, int], classes: tuple[str, ...] = (), network: NetworkConfig = USUAL
) -> tuple[Generator, Discriminator]:
    of_g, of_d = network.dims
    return (
        Generator(network.latent_dim, of_g, shape, classes, "conv"),
        Discriminator(of_d, shape, len(classes), "conv"),
    )


def as_trained(shape: tuple[int, int, int], classes: tuple[str, ...] = ()) -> Generator:
    """A full-size generator in eval mode. BatchNorm's numbers differ from their initial values."""
    torch.manual_seed(0)
    generator, _ = networks(shape, classes)
    for module in generator.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            nn.init.normal_(module.weight, 1, 0.5)
            nn.init.normal_(module.bias, 0, 0.3)
            module.momentum = 1.0
    with torch.no_grad():
        generator.train()(*generator.inputs(500))
    return generator.eval()


def file_of(generator: Generator) -> bytes:
    metadata = Metadata(
        role="generator", image_shape=generator.image_shape, latent_dim=generator.latent_dim,
        noise=NOISE, dataset="-", recipe="-", step=0, weights_sha256="-",
        classes=generator.classes,
    )  # fmt: skip
    return onnx_file(export_graph(generator), metadata)


def parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize("classes", [(), ("a", "b", "c")])
@pytest.mark.parametrize("shape", SHAPES)
def test_any_size_from_8_up_and_colour(
    shape: tuple[int, int, int], classes: tuple[str, ...]
) -> None:
    generator, discriminator = networks(shape, classes)
    labels = torch.tensor([0, 2, 1, 2]) if classes else None
    images = generator.eval()(torch.randn(4, 100), labels)
    assert images.shape == (4, *shape)
    assert images.abs().max() <= 1
    assert discriminator(images, labels).shape == (4,)
    assert discriminator.layers(images).shape == (4, max(1, len(classes)))


def test_it_is_small() -> None:
    generator, discriminator = networks((1, 28, 28))
    assert parameters(generator) == 406_505
    assert parameters(discriminator) == 165_729
    assert parameters(networks((3, 64, 64))[0]) < 3_000_000


def test_a_logit_is_its_own_images() -> None:
    """The engine uses one pass of the discriminator for both updates."""
    _, discriminator = networks((1, 28, 28))
    images = torch.rand(6, 1, 28, 28)
    alone = torch.cat([discriminator(image.unsqueeze(0)) for image in images])
    torch.testing.assert_close(discriminator(images), alone)


def test_smaller_images_are_refused() -> None:
    with pytest.raises(ConfigError, match="--network conv needs an --image-size of at least 8"):
        TrainConfig(data=DataConfig(image_size=7), network=USUAL)
    TrainConfig(data=DataConfig(image_size=7))
    with pytest.raises(ConfigError, match="--conv-width must be at least 1, got 0"):
        NetworkConfig(conv_width=0)


def test_fully_connected_networks_are_what_they_were() -> None:
    assert TrainConfig().network.network == "mlp"
    old = to_dict(TINY)
    del old["network"]["network"], old["network"]["conv_width"]
    assert from_dict(TrainConfig, old) == TINY
    state = TrainState.create(TINY.network, TINY.recipe, (1, 8, 8), CPU, 0)
    torch.manual_seed(0)
    layers = (nn.Linear(a, b) for a, b in pairwise((10, 16, 32, 64)))
    first = [layer.weight for layer in layers][-1]
    last = state.generator.layers[-1]
    assert isinstance(last, nn.Linear)
    assert torch.equal(last.weight, first)


def test_the_average_has_the_statistics_of_its_own_activations() -> None:
    state = TrainState.create(CONV.network, CONV.recipe, (1, 8, 8), CPU, 0, ("a", "b"))
    with torch.no_grad():
        for parameter in state.ema.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
    generator = averaged(state.ema)
    norms = [layer for layer in generator.layers if isinstance(layer, nn.BatchNorm2d)]
    assert len(norms) == 2
    seen: list[Tensor] = []
    for norm in norms:
        norm.register_forward_hook(lambda module, inputs, output: seen.append(output))
    with torch.no_grad():
        generator(*generator.inputs(5000))
    for norm, output in zip(norms, seen, strict=True):
        scale, shift = norm.weight.view(-1, 1, 1), norm.bias.view(-1, 1, 1)
        normalised = ((output - shift) / scale).transpose(0, 1).flatten(1)
        assert normalised.mean(1).abs().max() < 0.1
        assert (normalised.std(1) - 1).abs().max() < 0.1


@pytest.mark.parametrize(
    ("network", "at_once"), [(CONV.network, 1), (CONV.network, 100), (TINY.network, 1000)]
)
def test_statistics_in_parts_are_those_of_all_images(
    network: NetworkConfig, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Generator, "images_at_once", lambda self: at_once)
    generator = Generator(network.latent_dim, network.dims[0], (1, 8, 8), (), network.network)
    found = averaged(generator, roughly=True).state_dict()
    for layer in generator.layers:
        if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):
            layer.momentum = 1.0
    generator.train()(
        *generator.inputs(256, seed=LIMIT - 1)
    )  # BatchNorm's statistics, of all images at once
    for name, expected in generator.state_dict().items():
        torch.testing.assert_close(found[name], expected, rtol=1e-4, atol=1e-6)


def test_a_checkpoint_says_what_it_is(conv_run: Path) -> None:
    content = load(best_checkpoint(conv_run))
    assert content["network"]["network"] == "conv"
    generator = load_generator(content)
    assert generator.network == "conv"
    assert isinstance(generator.layers[4], nn.Conv2d)


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 30, 30)])
def test_image_i_has_the_same_bits_whatever_is_drawn_with_it(
    shape: tuple[int, int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = file_of(as_trained(shape))
    whole = Sampler(file, provider="cpu").sample(600, seed=9)
    assert len(np.unique(whole, axis=0)) == 600
    for threads, tile in ((1, 512), (2, 512), (1, 37), (2, 1)):
        monkeypatch.setitem(own.TILES, "cpu", tile)
        sampler, first = Sampler(file, provider="cpu", threads=threads), 0
        for count in (1, 2, 3, 7, 8, 9, 17, 64, 65, 255):
            images = sampler.sample(count, seed=9, start=first)
            np.testing.assert_array_equal(images, whole[first : first + count])
            first += count
        np.testing.assert_array_equal(sampler.decode(sampler.latents(3, seed=9)), whole[:3])


def test_files_agree_with_pytorch(conv_artifact: Path, conv_run: Path) -> None:
    generator = load_generator(load(best_checkpoint(conv_run)))
    checks = check_files(generator, conv_artifact)
    assert all(check.passed for check in checks)
    assert all(check.batch_independent for check in checks if check.file != "generator.ts")
    sampler = Sampler(conv_artifact, provider="cpu")
    assert sampler.check().passed
    operations = [node.op_type for node in onnx.load(conv_artifact / "generator.onnx").graph.node]
    assert operations.count("Conv") == 3
    assert "BatchNormalization" not in operations
    assert {image.shape for image in sampler.sample(3, label="7")} == {(8, 8)}


def test_float16_weights(conv_run: Path, tmp_path: Path) -> None:
    export(best_checkpoint(conv_run), tmp_path / "half", "fp16", data_dir=CONV.data.data_dir)
    sampler = Sampler(tmp_path / "half", provider="cpu")
    assert sampler.check().passed
    assert sampler.metadata.precision == "fp16"


def a_convolution(channels: tuple[int, ...], pads: int) -> Change:
    """Insert another node before all others."""

    def change(model: onnx.ModelProto) -> None:
        add_weights(model, "kernels", *channels)
        first = next(node for node in model.graph.node if node.op_type == "Conv")
        node = helper.make_node("Conv", [first.input[0], "kernels"], ["grown"], pads=[pads] * 4)
        at = list(model.graph.node).index(first)
        model.graph.node.insert(at, node)
        first.input[0] = "grown"

    return change


def said(name: str, *numbers: int) -> Change:
    """Change an attribute of the first convolution."""

    def change(model: onnx.ModelProto) -> None:
        first = next(node for node in model.graph.node if node.op_type == "Conv")
        kept = [attribute for attribute in first.attribute if attribute.name != name]
        value = numbers[0] if name == "group" else numbers
        del first.attribute[:]
        first.attribute.extend([*kept, helper.make_attribute(name, value)])

    return change


def said_twice(model: onnx.ModelProto) -> None:
    first = next(node for node in model.graph.node if node.op_type == "Conv")
    first.attribute.append(helper.make_attribute("pads", [1000] * 4))


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (said("pads", 1000, 1000, 1000, 1000), "no 'Conv' like"),
        (said("strides", 1, 2), "no 'Conv' like"),
        (said("dilations", 2, 2), "no 'Conv' like"),
        (said("group", 2), "no 'Conv' like"),
        (said_twice, "two attributes named 'pads'"),
        (a_convolution((8, 5, 3, 3), 1), "no 'Conv' like"),  # 5 channels do not fit
        (a_convolution((8, 8, 9, 9), 4), "no 'Conv' like"),
    ],
)
def test_a_good_seal_makes_no_good_convolution(
    conv_artifact: Path, change: Change, complaint: str
) -> None:
    with pytest.raises(ArtifactError, match=complaint):
        Sampler(resealed(conv_artifact, change), provider="cpu")


def test_the_widest_step_counts(conv_artifact: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """8 x 8 pixels of 4 x 1 channels: more than the 2 x 2 x 8 values of the first layer."""
    monkeypatch.setitem(own.MOST_VALUES_IN_A_TILE, "cpu", 100 * 64)
    generator = own.OwnGenerator(
        (conv_artifact / "generator.onnx").read_bytes(), SessionSettings("cpu")
    )
    assert generator.tile == 100


@pytest.mark.parametrize("size", [7, 14])
def test_the_gradients_of_halving_convolutions_are_those_of_pytorch(size: int) -> None:
    """Remove the last nodes, as for CUDA, once and twice."""
    torch.manual_seed(0)
    images = torch.randn(3, 2, size, size, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(5, 2, 4, 4, dtype=torch.float64, requires_grad=True)

    def gradients(function: Callable[..., Tensor]) -> list[Tensor]:
        output = function(images, weight)
        assert output.shape == (3, 5, size // 2, size // 2)
        slopes, of_weight = torch.autograd.grad(
            output.square().sum(), (images, weight), create_graph=True
        )
        (twice,) = torch.autograd.grad(slopes.square().sum(), weight)
        return [output, slopes, of_weight, twice]

    expected = gradients(lambda x, w: F.conv2d(x, w, None, 2, 1))
    torch.testing.assert_close(gradients(HalvingFunction.apply), expected)
