"""`gluon-ft train` on real photos by phase, the first time and again, against the limit of what it has to compute.

    python benchmarks/speed/job.py    # four minutes on two cores

The hot dog photos and the 20 Caltech classes of ../shared/data, with the weights that are installed with gluon_ft
(EfficientNet-Lite0, strategy linear), each run a new process; `first` with an empty cache folder, `again` with another
seed and what the first one kept. The limit is reading and decoding each image once, and one forward pass of it and of
its mirror image by the faster engine, both measured in the same round.

Wanted: the first time at most 1.5 times the limit, plus the import, plus 4 s; again at most the import plus 4 s. With
GLUON_FT_TORCH_PYTHON (torch, Pillow, scikit-learn) plain PyTorch is timed in turn: features and logistic regression.
Rows go to benchmarks/results/job.csv. Exit status 1 where a bound is missed.
"""
from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the project's folder

from benchmarks import runner
from gluon_ft.errors import DataError

PHOTOS = {"hot dog": ("hotdog/train", "hotdog/test"), "Caltech, 20 classes": ("caltech256",)}  # training, validation
FACTOR, FIXED = 1.5, 4.0

JOB = """
import json, sys, time
begun = time.perf_counter()
import gluon_ft, mxnet
from gluon_ft.finetune import run
imported, marks = time.perf_counter(), []
def say(line):
    marks.append((line.split(":")[0].strip(), time.perf_counter()))
runs, seed, *photos = sys.argv[1:]
run.train(**dict(zip(("train", "val"), photos)), runs=runs, say=say, seed=int(seed))
end, at = time.perf_counter(), dict(marks)
print(json.dumps({"import": imported - begun, "audit and split": at["images"] - imported,
                  "network": at["network"] - at["images"], "probe and advice": at["strategy"] - at["network"],
                  "features, classifier, report": end - at["strategy"], "all": end - begun}))
"""
LIMIT = """
import json, sys, time
import gluon_ft, mxnet as mx
import numpy as np
from gluon_ft.engine import fused
net = gluon_ft.pretrained_net("efficientnet_lite0")
loaders = [gluon_ft.loaders.make_loader(path, train=False, batch_size=32, preprocessing=net.preprocessing, root=None)
           for path in sys.argv[1:]]
begun = time.perf_counter()
count, batch = 0, None
for loader in loaders:
    for batch_found in loader:
        count += len(batch_found.label)
        batch = batch_found.data if len(batch_found.label) == 32 else batch
decoded = time.perf_counter() - begun
speeds = []
for engine in ("mxnet", "onnxruntime"):
    form = fused.forward_only(net, input_shape=batch.shape, engine=engine)
    form(batch).wait_to_read()
    for _ in range(3):
        begun = time.perf_counter()
        form(batch).wait_to_read()
        speeds.append(32 / (time.perf_counter() - begun))
print(json.dumps({"images": count, "decode": decoded, "forward": 2 * count / max(speeds)}))
"""


def answer(command: list[str], **variables: str) -> dict:
    """What a process prints last, as JSON; DataError with its last line of errors where it fails."""
    done = subprocess.run(command, check=False, text=True, capture_output=True,
                          env={**os.environ, "PYTHONPATH": str(runner.ROOT), "GLUON_FT_PROGRESS": "0", **variables})
    if done.returncode:
        raise DataError("a timed process failed", found=(done.stderr.splitlines() or ["nothing said"])[-1])
    return json.loads(done.stdout.splitlines()[-1])


def measure(name: str, repeats: int) -> tuple[list[dict], list[str]]:
    """Rows of one set of photos, and what was missed."""
    photos = [str(runner.SHARED / path) for path in PHOTOS[name]]
    python, others = sys.executable, os.environ.get(runner.TORCH_VARIABLE)
    with tempfile.TemporaryDirectory() as place:
        def job(number, seed):
            return answer([python, "-W", "ignore", "-c", JOB, f"{place}/runs", str(seed), *photos],
                          GLUON_FT_HOME=f"{place}/home{number}", GLUON_FT_WEIGHTS="")
        ways = {"first": lambda number: (job(number, 0), job(number, 1)),
                "limit": lambda number: answer([python, "-W", "ignore", "-c", LIMIT, *photos])}
        if others:
            script = str(Path(__file__).with_name("job_torch.py"))
            ways["PyTorch"] = lambda number: answer([others, "-W", "ignore", script, *photos])
        found = runner.in_turn(ways, repeats, name)
    return _rows(name, found)


def _rows(name, found) -> tuple[list[dict], list[str]]:
    settings = f"{name}, {found['limit'][0]['images']} photos, efficientnet_lite0, linear"
    rows, missed = [], []

    def add(quantity, values):
        rows.append(runner.row("job", settings, quantity, "s", values))
        return statistics.median(values)

    limit = add("limit: decode and one pass", [one["decode"] + one["forward"] for one in found["limit"]])
    imports = add("import", [one["import"] for one, _ in found["first"]])
    for turn, which in enumerate(("first", "again")):
        for phase in found["first"][0][turn]:
            if phase != "import":
                took = add(f"{which}: {phase}", [pair[turn][phase] for pair in found["first"]])
        most = imports + FIXED + (FACTOR * limit if which == "first" else 0)
        if took > most:
            missed.append(f"{settings}, {which}: {took:.1f} s, at most {most:.1f} wanted")
    if "PyTorch" in found:
        add("PyTorch, features and logistic regression", [one["import"] + one["job"] for one in found["PyTorch"]])
    return rows, missed


@runner.command(__doc__, "job", repeats=3)
def main(repeats):
    for paths in PHOTOS.values():
        for path in paths:
            runner.shared_data(path)
    found = [measure(name, repeats) for name in PHOTOS]
    return [row for rows, _ in found for row in rows], [text for _, missed in found for text in missed]


if __name__ == "__main__":
    main()
