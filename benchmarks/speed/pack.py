"""Images/s of `gluon-ft pack` against MXNet's tools/im2rec.py, in turn in one run, and the peak memory of both.

    python benchmarks/speed/pack.py            # small and large photos, 1 and 2 workers; about 10 minutes on 2 cores
    python benchmarks/speed/pack.py --small 500 --large 12 --repeats 2 --no-record

The photos are those of ../shared/data (caltech256, hotdog): small are all of 60 to 200 KB, repeated; large are twelve
of them upscaled to 4000 x 3000 pixels; grainy are the same with noise added, as large as a camera's files, of which
undoing the compression takes a larger part, and for which no target is set. Both tools get the same list and
`--resize 256 --quality 90`, and run as a command each. The time of packing one image (start of Python, import of MXNet)
is measured too and taken off; `ratio` is the median of the pairs' ratios, `cpu_ratio` that of the processor time used,
which depends less on what else the machine does. Targets: 1.0 times im2rec on small and 2.5 times on large photos,
under 500 MB. Rows are appended to benchmarks/results/pack.csv. Exit status 1 where a target is missed.
"""
from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the project's folder

import click
import cv2
import numpy as np

from benchmarks import runner
from gluon_ft.cli import console
from gluon_ft.errors import DataError, UserError

KINDS = ("small", "large", "grainy")
TARGETS = {"small": 1.0, "large": 2.5}
LIMIT_MB = 500
OPTIONS = ["--resize", "256", "--quality", "90"]
IM2REC = ("import gluon_ft, mxnet, os, runpy, sys; sys.argv[0] = os.path.join(os.path.dirname(mxnet.__file__), "
          "'tools', 'im2rec.py'); runpy.run_path(sys.argv[0], run_name='__main__')")
PACK = "from gluon_ft.cli.records import pack; pack.main()"
COLUMNS = [*runner.COMMON, "settings", "tool", "photos", "images", "workers", "runs", "median", "min", "max", "ratio",
           "cpu_ratio", "start_s", "peak_mb"]
SHOWN = ["photos", "workers", "tool", "runs", "median", "min", "max", "ratio", "cpu_ratio", "peak_mb"]


def photos() -> list[Path]:
    """The real photos of 60 to 200 KB."""
    found = sorted(p for folder in ("caltech256", "hotdog") for p in (runner.SHARED / folder).rglob("*.jpg"))
    chosen = [p for p in found if 60_000 <= p.stat().st_size <= 200_000]
    if not chosen:
        raise DataError("no photos of 60 to 200 KB", path=runner.SHARED)
    return chosen


def write_large(folder: Path, sources: list[Path], grain: float) -> list[Path]:
    """Twelve photos upscaled to 4000 x 3000, with grain of this standard deviation, as JPEG of quality 90."""
    written = []
    for i, source in enumerate(sources[:: max(1, len(sources) // 12)][:12]):
        image = cv2.resize(cv2.imread(str(source)), (4000, 3000), interpolation=cv2.INTER_CUBIC)
        noise = np.random.default_rng(i).normal(0, grain, image.shape[:2])[..., None]
        image = np.clip(image + noise, 0, 255).astype(np.uint8)
        written.append(folder / f"{i}.jpg")
        cv2.imwrite(str(written[-1]), image, [cv2.IMWRITE_JPEG_QUALITY, 90])
    return written


def write_list(path: Path, files: list[Path], number: int) -> None:
    """A list of `number` lines over `files`, repeated."""
    path.write_text("".join(f"{i}\t{i % 5}\t{files[i % len(files)]}\n" for i in range(number)), encoding="utf-8")


def run(tool: str, prefix: Path, workers: int) -> tuple[float, float, float]:
    """Seconds, processor seconds and peak memory (MB, proportional set size, children included) of one run."""
    for old in prefix.parent.glob(f"{prefix.name}.*"):
        if old.suffix != ".lst":
            old.unlink()
    code, flag = (PACK, "--workers") if tool == "gluon_ft" else (IM2REC, "--num-thread")
    command = [sys.executable, "-c", code, str(prefix), "/", *OPTIONS, flag, str(workers)]
    began, used = time.perf_counter(), _children_cpu()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, cwd=runner.ROOT,
                               env={**os.environ, "PYTHONPATH": str(runner.ROOT)})
    peak = [0.0]
    watcher = threading.Thread(target=_watch, args=(process, peak))
    watcher.start()
    errors = process.communicate()[1]
    seconds = time.perf_counter() - began
    watcher.join()
    if process.returncode or not prefix.with_name(f"{prefix.name}.rec").exists():
        raise UserError(f"{tool} failed", found=errors.decode(errors="replace")[-2000:])
    return seconds, _children_cpu() - used, peak[0]


def _children_cpu():
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _watch(process, peak):
    while process.poll() is None:
        peak[0] = max(peak[0], sum(_pss_mb(pid) for pid in _family(process.pid)))
        time.sleep(0.2)


def _family(pid):
    family = [pid]
    try:
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                family += _family(int(child))
    except OSError:
        pass
    return family


def _pss_mb(pid):
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) / 1024
    except OSError:
        pass
    return 0.0


def compare(kind: str, prefix: Path, number: int, workers: int, repeats: int) -> list[dict]:
    """Two rows, one a tool. Every turn also packs one image, for the time that starting takes."""
    one = prefix.with_name("one")
    one.with_suffix(".lst").write_text(prefix.with_suffix(".lst").read_text().splitlines()[0] + "\n")
    runs = runner.in_turn({tool: lambda _, tool=tool: (run(tool, one, workers), run(tool, prefix, workers))
                           for tool in ("im2rec", "gluon_ft")}, repeats, f"{kind}, {workers} workers")
    net = {tool: [[max(1e-3, whole[k] - statistics.median(start[k] for start, _ in turns)) for _, whole in turns]
                  for k in (0, 1)] for tool, turns in runs.items()}
    ratios = [statistics.median(runner.ratios(net["im2rec"][k], net["gluon_ft"][k])) for k in (0, 1)]
    rows = []
    for tool, turns in runs.items():
        rates = [number / seconds for seconds in net[tool][0]]
        own = ratios if tool == "gluon_ft" else (1, 1)
        rows.append({"settings": " ".join(OPTIONS), "tool": tool, "photos": kind, "images": number, "workers": workers,
                     "runs": repeats, "median": f"{statistics.median(rates):.1f}", "min": f"{min(rates):.1f}",
                     "max": f"{max(rates):.1f}", "ratio": f"{own[0]:.2f}", "cpu_ratio": f"{own[1]:.2f}",
                     "start_s": f"{statistics.median(start[0] for start, _ in turns):.2f}",
                     "peak_mb": f"{max(whole[2] for _, whole in turns):.0f}"})
    return rows


@console.command(text=__doc__)
@click.option("--small", type=click.IntRange(1), default=3000, help="Small images in a run.")
@click.option("--large", type=click.IntRange(1), default=120, help="Large images in a run.")
@click.option("--repeats", type=click.IntRange(1), default=5, help="Runs of each.")
@click.option("--workers", multiple=True, type=int, default=(1, 2), help="May be given several times.")
@click.option("--kinds", multiple=True, type=click.Choice(KINDS), default=KINDS, help="May be given several times.")
@runner.record_option("pack")
def main(small, large, repeats, workers, kinds, record, as_json):
    rows, missed = [], []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sources = photos()
        for kind in kinds:
            number = small if kind == "small" else large
            (folder / kind).mkdir()
            files = sources if kind == "small" else write_large(folder / kind, sources, 4 if kind == "grainy" else 0)
            size = np.mean([f.stat().st_size for f in files]) / 1e3
            print(f"{kind}: {len(files)} photos of {size:.0f} KB on average", flush=True)
            write_list(folder / kind / "list.lst", files, number)
            for count in workers:
                both = compare(kind, folder / kind / "list", number, count, repeats)
                rows += both
                if float(both[1]["ratio"]) < TARGETS.get(kind, 0) or float(both[1]["peak_mb"]) > LIMIT_MB:
                    missed.append(f"{kind} photos, {count} workers")
    print(console.table(rows, SHOWN))
    if record:
        print(f"appended to {runner.append(rows, 'pack', COLUMNS)}")
    for sentence in missed:
        print(f"missed: {sentence}")
    console.emit({"benchmark": "pack", "rows": rows, "missed": missed}, as_json)
    return console.EXIT_FAILURE if missed else 0


if __name__ == "__main__":
    main()
