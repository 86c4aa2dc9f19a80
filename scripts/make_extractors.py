"""Train the extractors that the project ships: `python scripts/make_extractors.py`.

Writes training/scoring/extractors/{mnist,fashion-mnist}.safetensors and prints their test accuracy.
"""

from pathlib import Path

import torch
from safetensors.torch import save

from training.config import DataConfig
from training.data.datasets import load_images
from training.scoring.extractor import extractor_for, train_classifier

FOLDER = Path(__file__).parents[1] / "training" / "scoring" / "extractors"


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    for dataset, epochs in (("mnist", 5), ("fashion-mnist", 15)):
        images = load_images(DataConfig(dataset=dataset))
        network = train_classifier(images, epochs=epochs)
        path = FOLDER / f"{dataset}.safetensors"
        path.write_bytes(save(network.state_dict()))
        test = load_images(DataConfig(dataset=dataset), train=False)
        assert test.labels is not None
        _, predicted = extractor_for(images, FOLDER, torch.device("cpu"))(test.pixels)
        accuracy = (predicted == test.labels).float().mean().item()
        print(f"{path.name}: {path.stat().st_size} bytes, test accuracy {accuracy:.2%}", flush=True)


if __name__ == "__main__":
    main()
