"""Settings: JSON, errors, and the command line."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.support.runs import TINY
from training.config import (
    RECIPES,
    ConfigError,
    DataConfig,
    NetworkConfig,
    RecipeConfig,
    TrainConfig,
    differences,
    usual_recipe,
)
from training.gan.losses import LOSSES
from training.run import main, parse
from training.run_folder.config_file import from_dict, read_config, read_seconds, to_dict
from training.run_folder.folder import RunFolder
from training.run_folder.resume_settings import resumed_config


def test_json_gives_back_the_same_settings() -> None:
    assert from_dict(TrainConfig, json.loads(json.dumps(to_dict(TINY)))) == TINY


def test_the_defaults_are_the_exercise() -> None:
    config = TrainConfig()
    assert config.network == NetworkConfig(100, (128, 256, 512, 1024), (512, 256))
    assert config.recipe.recipe == "bce"
    assert (config.recipe.lr, config.recipe.batch_size) == (2e-4, 64)
    assert config.epochs == 200


def test_gamma_and_the_learning_rate_fall_until_the_burn_in_ends() -> None:
    recipe = RecipeConfig(lr=0.8, lr_end=0.2, gamma=2, gamma_end=0.5, burn_in=1000, batch_size=10)
    steps = (0, 50, 100, 500)
    assert [recipe.at(n).lr for n in steps] == pytest.approx([0.8, 0.5, 0.2, 0.2])
    assert [recipe.at(n).gamma for n in steps] == [2, 1.25, 0.5, 0.5]
    assert recipe.at(10).gamma > 1.9  # slowly at first
    assert RecipeConfig(lr=0.8, burn_in=1000).at(10**7).lr == 0.8
    assert RecipeConfig(gamma=2, burn_in=0).at(10**7).gamma == 2


def test_the_average_moves_by_a_share_that_falls_to_that_of_its_half_life() -> None:
    recipe = RecipeConfig(batch_size=100, ema_half_life=1000)
    for step in (0, 1, 10, 99):  # a twentieth of the images so far, including this step's
        assert recipe.at(step).ema_share == pytest.approx(1 - 0.5 ** (20 / (step + 1)))
    late = [recipe.at(step).ema_share for step in (199, 10**6)]
    assert late == pytest.approx([1 - 0.5**0.1] * 2)  # ten steps take 1000 images
    assert RecipeConfig(ema_half_life=0).at(5).ema_share == 1


def test_the_numbers_of_a_step_have_bias_corrections_of_adam() -> None:
    recipe = RecipeConfig(lr=0.3, betas=(0.5, 0.75))
    first, third = recipe.at(0), recipe.at(2)
    assert (first.updates, third.updates) == (1, 3)
    assert (first.step_size, first.root) == (0.3 / 0.5, 0.5)
    assert third.step_size == pytest.approx(0.3 / 0.875)
    assert third.root == pytest.approx((1 - 0.75**3) ** 0.5)


def test_settings_of_another_version_are_refused() -> None:
    with pytest.raises(ConfigError, match="novelty"):
        from_dict(TrainConfig, {"novelty": 1})


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--lr", "-1"], "--lr must be positive, got -1.0"),
        (["--lr", "nan"], "--lr must be positive"),
        (["--batch-size", "0"], "--batch-size must be at least 2"),
        (["--batch-size", "1"], "BatchNorm needs two images"),
        (["--dataset", "nonsense"], "one of mnist, fashion-mnist, kmnist, digits"),
        (["--epochs", "0"], "--epochs must be at least 1"),
        (["--iterations", "0"], "--iterations must be at least 1"),
        (["--latent-dim", "0"], "--latent-dim must be at least 1"),
        (["--latent-dim", "16385"], "at most 16384, got 16385"),
        (["--image-size", "0"], "--image-size must be at least 1"),
        (["--image-size", "1025"], "at most 1024 with 1 channels, got 1025"),
        (["--image-size", "592", "--channels", "3"], "at most 591 with 3 channels, got 592"),
        (
            ["--generator-dims", *["8"] * 101],
            "--generator-dims must be positive widths, at most 1",
        ),
        (["--betas", "0.5", "1"], "--betas must lie in [0, 1)"),
        (["--generator-dims", "64", "0"], "--generator-dims"),
        (["--gamma", "-1"], "--gamma must be 0 or more"),
        (["--lr-end", "-1"], "--lr-end must be 0 or more"),
        (["--gamma-end", "nan"], "--gamma-end must be 0 or more"),
        (["--burn-in", "-1"], "--burn-in must be 0 or more"),
        (["--ema-half-life", "-1"], "--ema-half-life"),
        (["--seed", "-1"], "--seed must be in 0"),
        (["--held-out", "0.6"], "--held-out must be auto or a share of 0 … 0.5, got 0.6"),
        (["--held-out", "nan"], "--held-out must be auto or a share"),
        (["--network", "conv", "--differences"], "--differences is for --network mlp"),
        (["--grids", "0"], "--grids must be positive"),
        (["--recipe", "nonsense"], "invalid choice: 'nonsense'"),
        (["--resume", "nowhere"], "nowhere holds no run"),
    ],
)
def test_a_wrong_setting_is_one_line_and_exit_code_2(
    arguments: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit_info:
        main(arguments)
    assert exit_info.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert complaint in error


@pytest.mark.parametrize("arguments", [["--nonsense", "1"], ["--epochs", "x"], ["--channels", "2"]])
def test_what_cannot_be_parsed_exits_with_2(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit_info:
        main(arguments)
    assert exit_info.value.code == 2
    assert arguments[0] in capsys.readouterr().err


def test_every_setting_is_an_option(tmp_path: Path) -> None:
    command = parse(
        f"--dataset {tmp_path} --data-dir d --image-size 32 --channels 3 --latent-dim 5 "
        "--generator-dims 6 7 --discriminator-dims 8 --recipe hinge --batch-size 9 --lr 0.1 "
        "--lr-end 0.05 --engine plain --deterministic "
        "--betas 0.2 0.3 --gamma 0.5 --gamma-end 0.4 --burn-in 3 --ema-half-life 4 --epochs 10 "
        "--iterations 11 --seed 12 --device cpu --matmul-precision high --select g-loss "
        "--score-every 13 --grids 14 15 --run-dir r".split()
    )
    assert command.run_dir == Path("r")
    assert command.config == TrainConfig(
        data=DataConfig(str(tmp_path), Path("d"), 32, 3),
        network=NetworkConfig(5, (6, 7), (8,)),
        recipe=RecipeConfig("hinge", 9, 0.1, 0.05, (0.2, 0.3), 0.5, 0.4, 3, 4),
        epochs=10,
        iterations=11,
        seed=12,
        device="cpu",
        matmul_precision="high",
        engine="plain",
        deterministic=True,
        select="g-loss",
        score_every=13,
        grids=(14, 15),
    )


def test_a_recipe_brings_its_own_defaults() -> None:
    recipe = parse(["--recipe", "r3gan", "--lr", "0.001"]).config.recipe
    assert recipe == replace(RECIPES["r3gan"], lr=0.001)
    assert recipe.batch_size == 128


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize(
    ("typed", "discriminator"),
    [(["--differences"], "differences"), (["--network=conv"], "conv")],
)
def test_strong_discriminators_bring_their_own_schedule(
    typed: list[str], discriminator: str, name: str
) -> None:
    config = parse(["--recipe", name, *typed, "--lr", "0.001"]).config
    assert config.network.discriminator == discriminator
    usual = usual_recipe(name, discriminator)
    assert config.recipe == replace(usual, lr=0.001)
    assert usual_recipe(name) == RECIPES[name]
    for off in ("--no-differences", "--no_differences"):
        assert parse(["--recipe", name, "--differences", off]).config.recipe == RECIPES[name]
    if RECIPES[name].penalised:
        steps = 200 * 60_000 // usual.batch_size
        assert usual.at(steps).lr == pytest.approx(1.5e-5)
        assert usual.at(steps // 2).lr == pytest.approx((2e-4 + 1.5e-5) / 2)
        assert usual.at(steps).gamma == pytest.approx(0.5)
    else:
        assert usual == RECIPES[name]


def test_what_was_typed_wins_over_the_schedule_of_a_strong_discriminator() -> None:
    typed = ["--differences", "--lr-end", "0", "--gamma-end", "0.1", "--burn-in", "4e6"]
    assert parse(typed).config.recipe == RECIPES["bce"]


def test_the_textbook_is_the_exercise_without_what_was_added() -> None:
    recipe = parse(["--recipe", "textbook"]).config.recipe
    assert not recipe.penalised
    assert recipe.at(1000).ema_share == 1  # the average is the generator itself
    assert (recipe.betas, recipe.lr, recipe.batch_size) == ((0.5, 0.999), 2e-4, 64)
    assert LOSSES["textbook"] == LOSSES["bce"]


def test_differences_are_named() -> None:
    other = replace(TINY, seed=1, recipe=replace(TINY.recipe, lr=1.0))
    assert sorted(differences(TINY, other)) == ["lr", "seed"]


@pytest.mark.parametrize("change", [{"epochs": 20}, {"iterations": 99}])
def test_a_resumed_run_may_be_longer(change: dict[str, Any]) -> None:
    asked = replace(TINY, **change)
    assert resumed_config(TINY, asked) == asked


def test_epochs_asked_for_replace_iterations_saved() -> None:
    saved = replace(TINY, iterations=50)
    assert resumed_config(saved, replace(saved, epochs=20)).iterations is None


def test_a_resumed_run_keeps_everything_else(
    tiny_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert parse(["--resume", str(tiny_run)]).config == TINY
    with pytest.raises(SystemExit) as exit_info:
        parse(["--resume", str(tiny_run), "--lr", "0.1", "--seed", "4"])
    assert exit_info.value.code == 2
    error = capsys.readouterr().err
    assert "--lr 0.0002 -> 0.1" in error
    assert "--seed 0 -> 4" in error


def test_a_folder_of_images_may_have_moved() -> None:
    """The images are compared if they are there. A run can be read without them."""
    saved, moved, other = (
        TrainConfig(data=DataConfig(place)) for place in ("a/birds", "b/birds", "mnist")
    )
    assert resumed_config(saved, moved) == moved
    with pytest.raises(ConfigError, match="--dataset a/birds -> mnist"):
        resumed_config(saved, other)
    with pytest.raises(
        ConfigError, match="'a/birds' is neither a folder, nor a zip archive, nor one of mnist"
    ):
        saved.data.require_there()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, r"holds no run: config\.json: No such file"),
        ("{", r"config\.json is damaged or of another version"),
        ('{"config": {"colour": 1}}', "of another version: unknown settings .'colour'. in Train"),
        ('{"config": {"epochs": 0}}', "of another version: --epochs must be at least 1, got 0"),
    ],
)
def test_a_config_file_that_cannot_be_read_is_told(
    content: str | None, reason: str, tmp_path: Path
) -> None:
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    with pytest.raises(ConfigError, match=reason):
        read_config(tmp_path)
    assert read_seconds(RunFolder(tmp_path)) == {}
