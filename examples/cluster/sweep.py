"""Train a grid of settings, or several seeds, with Ray Tune, and compare what comes of them.

python -m examples.cluster.sweep --output runs/sweep --grid seed=0,1,2 lr=1e-4,2e-4 \\
    --dataset digits --recipe r3gan --iterations 3000

Every option but those below is training.run's. Repeated, it goes on: with what had not ended, from
its last save.
"""

import argparse
import json
import math
import re
import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

from examples.cluster.connection import add_connection_options, connect
from inference.errors import GanpackError, presentable
from inference.writing.files import atomic_write
from inference.writing.plain_file import read_plain
from training.config import TrainConfig
from training.pages.comparison import compare, table, write_comparison
from training.pages.run_view import RunView, read_run
from training.run import parse
from training.run_folder.config_file import read_config, to_dict
from training.run_folder.folder import RunFolder

_RETRIES = 3
"""Times that a training goes on whose worker or machine was lost."""


_LARGEST_CLAIM = 2**26
"""Bytes of sweep.json. A run takes about 2,000."""


class SweepError(GanpackError):
    """A sweep cannot start or go on; the message says why."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    parser = _parser()
    options, training = parser.parse_known_args(arguments)
    folder = options.output.resolve()
    try:
        grid = _grid(options.grid)
        configs = _configs(grid, training, options)
        _claim(folder, configs)
        connect(options)
        problems = _train(folder, grid, configs, options)
    except ValueError as error:
        parser.error(str(error))
    except (SweepError, ImportError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    ended = _conclude(folder, configs)
    for name, problem in problems.items():
        print(f"error: {name}: {problem}", file=sys.stderr)
    if ended < len(configs):
        print(f"{ended} of {len(configs)} runs ended: the same command goes on", file=sys.stderr)
    return int(ended < len(configs))


def run_name(settings: dict[str, str]) -> str:
    """The folder of the run with these settings of the grid."""
    return re.sub(r"[^\w.,=+-]+", "_", ",".join(f"{key}={settings[key]}" for key in settings))


def train_one(settings: dict[str, str], folder: Path, configs: dict[str, TrainConfig]) -> None:
    """In a worker: begin a run, or go on with it; report its excess FCD."""
    from ray import tune

    from training.pages.report import write_report
    from training.train import train

    name = run_name(settings)
    run_dir, config = folder / name, configs[name]
    begun = RunFolder(run_dir).config.exists()
    # A run keeps its engine, which `auto` may choose otherwise on another machine.
    train(read_config(run_dir) if begun else config, run_dir, resume=begun)
    write_report(run_dir)
    tune.report({"excess": _excess(read_run(run_dir))})


def _train(
    folder: Path,
    grid: dict[str, list[str]],
    configs: dict[str, TrainConfig],
    options: argparse.Namespace,
) -> dict[str, str]:
    """All of the grid; the problems of those that did not come to their end."""
    from ray import tune

    one = partial(train_one, folder=folder, configs=configs)
    trainable = tune.with_resources(one, {"cpu": options.cpus, "gpu": options.gpus})
    state = folder / "tune"
    if tune.Tuner.can_restore(state):
        tuner = tune.Tuner.restore(str(state), trainable, resume_errored=True)
    else:
        tuner = tune.Tuner(
            trainable,
            param_space={key: tune.grid_search(values) for key, values in grid.items()},
            tune_config=tune.TuneConfig(metric="excess", mode="min"),
            run_config=tune.RunConfig(
                name=state.name,
                storage_path=str(folder),
                failure_config=tune.FailureConfig(max_failures=_RETRIES),
                callbacks=[_progress(len(configs))],
                verbose=0,
            ),
        )
    results = tuner.fit()
    return {
        run_name(result.config): str(result.error).strip().splitlines()[-1]
        for result in results
        if result.error
    }


def _progress(runs: int) -> Any:
    """What says a line when a run begins, and when it ends."""
    from ray import tune

    class Progress(tune.Callback):  # type: ignore[misc]
        def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
            print(f"{run_name(trial.config)}: begins or goes on", file=sys.stderr)

        def on_trial_complete(
            self, iteration: int, trials: list[Any], trial: Any, **_: Any
        ) -> None:
            done = sum(each.status == "TERMINATED" for each in trials)
            print(
                f"{run_name(trial.config)}: excess FCD {trial.last_result['excess']:.2%}; "
                f"{done} of {runs} runs ended", file=sys.stderr,
            )  # fmt: skip

    return Progress()


def _conclude(folder: Path, configs: dict[str, TrainConfig]) -> int:
    """Print and write the table of the runs that ended, and the best; returns their number."""
    runs = [
        run
        for name in configs
        if RunFolder(folder / name).best.exists()
        if (run := read_run(folder / name)).finished
    ]
    if not runs:
        return 0
    groups = compare(runs)
    print(table(runs, groups))
    page = folder / "compare.html"
    write_comparison(runs, groups, page)
    best = min(runs, key=_excess)
    print(
        f"\nbest: {best.folder.path} (excess FCD {_excess(best):.2%}); "
        f"python -m export.run {best.folder.quoted}\nwith a chart and images: {page}"
    )
    return len(runs)


def _excess(run: RunView) -> float:
    return scores.excess if (scores := run.best_scores()) else math.inf


def _grid(texts: Sequence[str]) -> dict[str, list[str]]:
    """["lr=1e-4,2e-4"] as {"lr": ["1e-4", "2e-4"]}."""
    grid = {}
    for text in texts:
        key, _, values = text.partition("=")
        grid[key] = values.split(",")
        if not key or not all(grid[key]) or len(set(grid[key])) < len(grid[key]):
            raise ValueError(f"--grid takes NAME=VALUE,VALUE,… of different values, got {text!r}")
    return grid


def _configs(
    grid: dict[str, list[str]], training: Sequence[str], options: argparse.Namespace
) -> dict[str, TrainConfig]:
    """The settings of every run, by its name; exits with 2 where training.run would."""
    configs = {}
    for values in product(*grid.values()):
        settings = dict(zip(grid, values, strict=True))
        typed = [word for key, value in settings.items() for word in (f"--{key}", *value.split())]
        command = parse([*training, *typed])
        if command.resume or command.run_dir:
            raise ValueError("--output names the folder of the runs, no --run-dir or --resume")
        config = command.config
        if config.device == "auto":  # what a worker sees of GPUs it has not asked for is Ray's
            config = replace(config, device="cuda" if options.gpus else "cpu")
        # A worker has another current folder.
        dataset, data_dir = config.data.dataset, config.data.data_dir.resolve()
        if Path(dataset).is_dir():
            dataset = str(Path(dataset).resolve())
        data = replace(config.data, dataset=dataset, data_dir=data_dir)
        configs[run_name(settings)] = replace(config, data=data)
    return configs


def _claim(folder: Path, configs: dict[str, TrainConfig]) -> None:
    """Make the folder that of this sweep, or raise SweepError if it is another's."""
    path = folder / "sweep.json"
    content: dict[str, Any] = {name: to_dict(config) for name, config in configs.items()}
    if path.exists():
        if _read_claim(path) != content:
            raise SweepError(
                f"{folder} holds a sweep of other settings, see {path.name}: repeat the command "
                f"that it was begun with, or name another --output"
            )
        return
    folder.mkdir(parents=True, exist_ok=True)
    if any(path.suffix != ".tmp" for path in folder.iterdir()):
        raise SweepError(f"{folder} is not empty, and holds no sweep: name another --output")
    with atomic_write(path) as file:
        file.write((json.dumps(content, indent=1, allow_nan=False) + "\n").encode())


def _read_claim(path: Path) -> object:
    try:
        return json.loads(read_plain(path, _LARGEST_CLAIM))
    except OSError as error:
        raise SweepError(f"{path}: {error.strerror}: move it away") from None
    except (ValueError, RecursionError) as error:
        raise SweepError(f"{path} is damaged ({presentable(str(error))}): move it away") from None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m examples.cluster.sweep",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--output", type=Path, required=True, metavar="DIR", help="a folder that all machines see")
    add(
        "--grid",
        nargs="+",
        required=True,
        metavar="NAME=VALUE,VALUE",
        help="settings of training.run; each of one with each of the others is a run",
    )
    add("--cpus", type=float, default=1, metavar="N", help="cores of a run (1)")
    add("--gpus", type=float, default=0, metavar="N", help="GPUs of a run (0); 0.5: two share one")
    add_connection_options(parser)
    return parser


if __name__ == "__main__":
    sys.exit(main())
