"""Which settings a resumed run may change."""

from dataclasses import fields, replace

from training.config import (
    DATASETS,
    ConfigError,
    NetworkConfig,
    TrainConfig,
    differences,
    flattened,
    option,
)

# Settings that a resumed run can never change: weights, records and the position in the data depend
# on them.
_BOUND = {"dataset", "image_size", "channels", "held_out", "batch_size"}
_BOUND |= {f.name for f in fields(NetworkConfig)}


def resumed_config(
    saved: TrainConfig, asked: TrainConfig, override: frozenset[str] = frozenset()
) -> TrainConfig:
    """The settings of a resumed run: the saved ones, with the changes that are allowed.

    A resume may change the length (epochs or iterations), the data folder, the rule of selection,
    the iterations with a grid, the path of a folder of images, and the settings in `override`.

    Raises:
        ConfigError: if another setting changes; or if `override` names no setting, or one that can
            never change.
    """
    if unknown := override - flattened(saved).keys():
        raise ConfigError(f"--override: there is no setting {', '.join(sorted(unknown))}")
    if bound := override & _BOUND:
        names = ", ".join(sorted(name.replace("_", "-") for name in bound))
        raise ConfigError(f"--override {names}: a resumed run cannot change it, start a new run")
    free = {"epochs", "iterations", "data_dir", "select", "grids"} | override
    if not {saved.data.dataset, asked.data.dataset} & set(DATASETS):
        free.add(
            "dataset"
        )  # The folder may have moved; that its images are the same is checked later.
    fixed = [name for name in differences(saved, asked) if name not in free]
    if fixed:
        before, now = flattened(saved), flattened(asked)
        changes = ", ".join(f"{option(name)} {before[name]} -> {now[name]}" for name in fixed)
        names = " ".join(name.replace("_", "-") for name in fixed)
        advice = (
            "this can never change: give it the value before, or start a new run"
            if _BOUND.intersection(fixed)
            else f"--override {names} allows it; the result is then not that of an uninterrupted "
            f"run"
        )
        raise ConfigError(
            f"a resumed run keeps its settings, but these differ: {changes} ({advice})"
        )
    if asked.epochs != saved.epochs and asked.iterations == saved.iterations:
        return replace(asked, iterations=None)
    return asked
