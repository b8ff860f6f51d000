"""Images/s of every loader on ../shared/data/hotdog, against Gluon's and PyTorch's, in turn in one run.

    python benchmarks/speed/load.py                 # about three minutes on two cores
    python benchmarks/speed/load.py --repeats 2 --no-record
    GLUON_FT_TORCH_PYTHON=/path/to/python python benchmarks/speed/load.py      # an interpreter that has torch

Training: random part resized to 224, flip, mean and std; evaluation: shorter edge to 256, centre of 224, mean and std;
batches of 32. From the folder: ours with 0, 1 and 2 threads, and from memory; Gluon's ImageFolderDataset + DataLoader,
PyTorch's loader, each with 0 and 2 worker processes. From records packed at 256 pixels: our threads, ImageRecordIter
('native') and ImageRecordDataset. One round runs each once; nothing but loading is done. Rows are appended to
benchmarks/results/load.csv. Exit status 1 where our best folder loader is slower than Gluon's best.
"""
from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the project's folder
import gluon_ft  # noqa: F401  isort: skip  (prepares the import of mxnet)

import mxnet as mx

from benchmarks import runner
from gluon_ft.data import loader as loaders
from gluon_ft.data import split
from gluon_ft.data.images.preprocessing import Preprocessing
from gluon_ft.data.records import pack as records

BATCH = 32
PREPROCESSING = Preprocessing()


def ours(source, train, **options):
    """A pass over one of our loaders."""
    loader = loaders.make_loader(source, preprocessing=PREPROCESSING, train=train, batch_size=BATCH,
                                 augment="gluon" if train else None, **options)
    if options.get("cache"):
        _images_per_second(loader)
    return lambda: _images_per_second(loader)


def gluon(folder, train, workers):
    """A pass over Gluon's own, as its documentation writes it, with the processes started anew as in ours."""
    from mxnet.gluon.data.vision import ImageFolderDataset, transforms

    steps = [transforms.RandomResizedCrop(224), transforms.RandomFlipLeftRight()] if train else \
        [transforms.Resize(256, keep_ratio=True), transforms.CenterCrop(224)]
    steps += [transforms.ToTensor(), transforms.Normalize(PREPROCESSING.mean, PREPROCESSING.std)]
    images = ImageFolderDataset(str(folder)).transform_first(transforms.Compose(steps))
    return lambda: _images_per_second(mx.gluon.data.DataLoader(images, BATCH, shuffle=train, num_workers=workers))


def _images_per_second(loader) -> float:
    begun, count = time.perf_counter(), 0
    for batch in loader:
        batch[0].wait_to_read()
        count += batch.valid if hasattr(batch, "valid") else len(batch[0])
    return count / (time.perf_counter() - begun)


def pytorch(folder, train, workers):
    """A pass over PyTorch's loader, in the interpreter that has it."""
    def run():
        answer = _torch(str(folder), "train" if train else "eval", str(BATCH), str(workers), "1")
        return answer["rates"][0]
    return run


def _torch(*arguments) -> dict:
    done = subprocess.run([_torch_python(), str(Path(__file__).with_name("load_torch.py")), *arguments],
                          capture_output=True, text=True, check=True, timeout=600)
    return json.loads(done.stdout.splitlines()[-1])


def _torch_python() -> str:
    return os.environ.get(runner.TORCH_VARIABLE) or sys.executable


def torch_version(folder) -> str | None:
    """'torch 2.1, torchvision's transforms', or None with the reason printed."""
    try:
        answer = _torch(str(folder), "eval", str(BATCH), "0", "0")
        return f"torch {answer['torch']}, {answer['transforms']} transforms"
    except (OSError, subprocess.SubprocessError, ValueError, IndexError) as error:
        reason = (getattr(error, "stderr", None) or str(error)).strip().splitlines()[-1]
        print(f"skipped PyTorch's loader: {_torch_python()}: {reason}; set {runner.TORCH_VARIABLE}", file=sys.stderr)
        return None


def contestants(folder, rec, train, torch) -> dict:
    """Setting -> function that makes one pass and returns images/s."""
    found = {}
    for workers in (0, 2):
        found[f"folder, Gluon DataLoader, {workers} processes"] = gluon(folder, train, workers)
        if torch:
            found[f"folder, PyTorch DataLoader ({torch}), {workers} processes"] = pytorch(folder, train, workers)
    for workers in (0, 1, 2):
        found[f"folder, ours, {workers} threads"] = ours(folder, train, workers=workers)
    found["folder, ours, 2 threads, cache in memory"] = ours(folder, train, workers=2, cache="memory")
    for engine in loaders.ENGINES:
        found[f"records of 256, ours, engine '{engine}', 2 threads"] = ours(rec, train, workers=2, engine=engine)
    return found


def measure(folder, rec, train, torch, repeats) -> dict[str, list[float]]:
    """Images/s of each contestant in each round; a first round warms the disk cache and does not count."""
    ways = {name: lambda _, run=function: run() for name, function in contestants(folder, rec, train, torch).items()}
    return runner.in_turn(ways, repeats, "training" if train else "evaluation", warm_up=1)


def pack(folder: Path, target: Path) -> Path:
    """All images of `folder` as records with a shorter edge of 256."""
    drawn = split.split(folder, fraction=0.99, seed=0)
    paths = split.write(drawn, target / "hotdog")
    lst = next(p for p in paths if str(p).endswith("-train.lst"))
    return records.pack(lst, folder, resize=256, quality=95)[0].rec


@runner.command(__doc__, "load", repeats=5)
def main(repeats):
    folder = runner.shared_data("hotdog") / "train"
    torch, rows, missed = torch_version(folder), [], []
    with tempfile.TemporaryDirectory() as temporary:
        rec = pack(folder, Path(temporary))
        for train in (True, False):
            what = "train" if train else "eval"
            part = [runner.row("load", f"{what}, {name}", "loading", "images/s", values)
                    for name, values in measure(folder, rec, train, torch, repeats).items()]
            best = {who: max(float(r["median"]) for r in part if f"folder, {who}" in r["settings"]
                             and "cache" not in r["settings"]) for who in ("ours", "Gluon")}
            if best["ours"] < best["Gluon"]:
                missed.append(f"{what}: ours {best['ours']:g} images/s, Gluon's {best['Gluon']:g}")
            rows += part
    return rows, missed


if __name__ == "__main__":
    main()
