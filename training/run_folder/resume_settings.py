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

# What the weights, the records and the place in the data are counted in.
_BOUND = {"dataset", "image_size", "channels", "batch_size"}
_BOUND |= {f.name for f in fields(NetworkConfig)}


def resumed_config(
    saved: TrainConfig, asked: TrainConfig, override: frozenset[str] = frozenset()
) -> TrainConfig:
    """The settings to go on with: the saved ones, with the length that was asked for.

    The length (epochs or iterations), the data folder, the rule of selection, the place of a folder
    of images and what is in `override` may change.

    Raises:
        ConfigError: if anything else does, naming each difference; if `override` has what is no
            setting, or what weights, records and the place in the data are counted in.
    """
    if unknown := override - flattened(saved).keys():
        raise ConfigError(f"--override: there is no setting {', '.join(sorted(unknown))}")
    if bound := override & _BOUND:
        names = ", ".join(sorted(name.replace("_", "-") for name in bound))
        raise ConfigError(f"--override {names}: no run can go on with another, start a new one")
    free = {"epochs", "iterations", "data_dir", "select"} | override
    if not {saved.data.dataset, asked.data.dataset} & set(DATASETS):
        free.add("dataset")  # a folder may have moved: that its images are the same is checked
    fixed = [name for name in differences(saved, asked) if name not in free]
    if fixed:
        before, now = flattened(saved), flattened(asked)
        changes = ", ".join(f"{option(name)} {before[name]} -> {now[name]}" for name in fixed)
        names = " ".join(name.replace("_", "-") for name in fixed)
        raise ConfigError(
            f"a resumed run keeps its settings, these differ: {changes} (--override {names} allows "
            f"it, and the run is no longer what it would have been)"
        )
    if asked.epochs != saved.epochs and asked.iterations == saved.iterations:
        return replace(asked, iterations=None)
    return asked
