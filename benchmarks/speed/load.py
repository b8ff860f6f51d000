"""Images/s of every loader on ../shared/data/hotdog, against Gluon's and PyTorch's, in turn in one run.

    python benchmarks/load.py                 # about three minutes on two cores
    python benchmarks/load.py --repeats 2 --no-record
    GLUON_FT_TORCH_PYTHON=/path/to/python python benchmarks/load.py      # an interpreter that has torch

Training: random part resized to 224, flip, mean and std; evaluation: shorter edge to 256, centre of 224, mean and std;
batches of 32. From the folder: ours with 0, 1 and 2 threads, and from memory; Gluon's ImageFolderDataset + DataLoader,
PyTorch's loader, each with 0 and 2 worker processes. From records packed at 256 pixels: our threads, ImageRecordIter
('native') and ImageRecordDataset. One round runs each once; nothing but loading is done. Rows are appended to
benchmarks/results/load.csv. Exit status 1 where our best folder loader is slower than Gluon's best.
"""
from __future__ import annotations

import gluon_ft  # noqa: F401  isort: skip  (prepares the import of mxnet)

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click
import mxnet as mx
import recording

from gluon_ft.cli import console
from gluon_ft.data import loader as loaders
from gluon_ft.data import split
from gluon_ft.data.images.preprocessing import Preprocessing
from gluon_ft.data.records import pack as records

HOTDOG = Path(__file__).resolve().parents[2] / "shared" / "data" / "hotdog"
BATCH = 32
PREPROCESSING = Preprocessing()


def ours(source, train, **options):
    """A pass over one of our loaders."""
    loader = loaders.open(source, preprocessing=PREPROCESSING, train=train, batch_size=BATCH,
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
    return os.environ.get("GLUON_FT_TORCH_PYTHON") or sys.executable


def torch_version(folder) -> str | None:
    """'torch 2.1, torchvision's transforms', or None with the reason printed."""
    try:
        answer = _torch(str(folder), "eval", str(BATCH), "0", "0")
        return f"torch {answer['torch']}, {answer['transforms']} transforms"
    except (OSError, subprocess.SubprocessError, ValueError, IndexError) as error:
        reason = (getattr(error, "stderr", None) or str(error)).strip().splitlines()[-1]
        print(f"skipped PyTorch's loader: {_torch_python()}: {reason}; set GLUON_FT_TORCH_PYTHON", file=sys.stderr)
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
    functions = contestants(folder, rec, train, torch)
    rates: dict[str, list[float]] = {name: [] for name in functions}
    for number in console.progress(range(repeats + 1), desc="training" if train else "evaluation", unit="round"):
        for name in list(functions)[:: 1 if number % 2 else -1]:
            rate = functions[name]()
            if number:
                rates[name].append(rate)
    return rates


def pack(folder: Path, target: Path) -> Path:
    """All images of `folder` as records with a shorter edge of 256."""
    drawn = split.split(folder, fraction=0.99, seed=0)
    paths = split.write(drawn, target / "hotdog")
    lst = next(p for p in paths if str(p).endswith("-train.lst"))
    return records.pack(lst, folder, resize=256, quality=95)[0].rec


@click.command(cls=console.Command)
@click.option("--repeats", default=5, help="Rounds that count.")
@click.option("--record/--no-record", default=True, help="Append to benchmarks/results/load.csv.")
@console.json_option
def main(repeats, record, as_json):
    """Measure the loaders."""
    if not HOTDOG.is_dir():
        raise click.ClickException("../shared/data/hotdog is not present")
    torch = torch_version(HOTDOG / "train")
    rows, slower = [], False
    with tempfile.TemporaryDirectory() as temporary:
        rec = pack(HOTDOG / "train", Path(temporary))
        for train in (True, False):
            rates = measure(HOTDOG / "train", rec, train, torch, repeats)
            part = [recording.row("load", f"{'train' if train else 'eval'}, {name}", "loading", "images/s", values)
                    for name, values in rates.items()]
            best = {who: max(float(r["median"]) for r in part if f"folder, {who}" in r["settings"]
                             and "cache" not in r["settings"]) for who in ("ours", "Gluon")}
            slower |= best["ours"] < best["Gluon"]
            rows += part
    print(recording.show(rows))
    if record:
        print(f"appended to {recording.append(rows, 'load')}")
    console.emit({"benchmark": "load", "rows": rows}, as_json)
    sys.exit(int(slower))


if __name__ == "__main__":
    main()
