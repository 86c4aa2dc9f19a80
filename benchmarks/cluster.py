"""Images per second of the cluster example, with one worker and with two in turn.

python -m benchmarks.cluster runs/demo/artifact --rounds 5
"""

import argparse
import re
import subprocess
import sys
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

ROOT = Path(__file__).parents[1]


def images_per_second(artifact: Path, count: int, workers: int) -> float:
    """Seconds that one command takes, including the start of Ray."""
    with TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "examples.cluster.bulk", str(artifact), "--output", folder]
        command += ["--count", str(count), "--shard-size", "16384", "--workers", str(workers)]
        done = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
    found = re.search(r"([\d,]+) images/s", done.stdout)
    assert found is not None
    return float(found[1].replace(",", ""))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("artifact", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--count", type=int, default=1_000_000, help="number of images in each measurement"
    )
    options = parser.parse_args()
    artifact, count = options.artifact.resolve(), options.count
    rounds = []
    for _ in range(options.rounds):
        one, two = (images_per_second(artifact, count, workers) for workers in (1, 2))
        rounds.append((one, two))
        print(f"1 worker {one:,.0f}/s, 2 workers {two:,.0f}/s: {two / one:.2f}", flush=True)
    print(
        f"medians: {median(one for one, _ in rounds):,.0f}/s, "
        f"{median(two for _, two in rounds):,.0f}/s, "
        f"ratio {median(two / one for one, two in rounds):.2f}"
    )


if __name__ == "__main__":
    main()
