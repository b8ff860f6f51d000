"""Images/s of `gluon-ft pack` against MXNet's tools/im2rec.py, in turn in one run, and the peak memory of both.

    python benchmarks/pack.py            # small and large photos, 1 and 2 workers; about 10 minutes on 2 cores
    python benchmarks/pack.py --small 500 --large 12 --repeats 2 --no-record

The photos are those of ../shared/data (caltech256, hotdog): small are all of 60 to 200 KB, repeated; large are twelve
of them upscaled to 4000 x 3000 pixels; grainy are the same with noise added, as large as a camera's files, of which
undoing the compression takes a larger part, and for which no target is set. Both tools get the same list and
`--resize 256 --quality 90`, and run as a command each. The time of packing one image (start of Python, import of MXNet)
is measured too and taken off; `ratio` is the median of the pairs' ratios, `cpu_ratio` that of the processor time used,
which depends less on what else the machine does. Targets: 1.0 times im2rec on small and 2.5 times on large photos,
under 500 MB. Rows are appended to benchmarks/results/pack.csv. Exit status 1 where a target is missed.
"""
from __future__ import annotations

import csv
import datetime
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import click
import cv2
import numpy as np

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared" / "data"
KINDS = ("small", "large", "grainy")
TARGETS = {"small": 1.0, "large": 2.5}
LIMIT_MB = 500
OPTIONS = ["--resize", "256", "--quality", "90"]
IM2REC = ("import gluon_ft, mxnet, os, runpy, sys; sys.argv[0] = os.path.join(os.path.dirname(mxnet.__file__), "
          "'tools', 'im2rec.py'); runpy.run_path(sys.argv[0], run_name='__main__')")
PACK = "from gluon_ft.cli.records import pack; pack.main()"
COLUMNS = ["date", "commit", "machine", "versions", "settings", "tool", "photos", "images", "workers", "runs",
           "median", "min", "max", "ratio", "cpu_ratio", "start_s", "peak_mb"]


def photos() -> list[Path]:
    """The real photos of 60 to 200 KB."""
    found = sorted(p for folder in ("caltech256", "hotdog") for p in (SHARED / folder).rglob("*.jpg"))
    chosen = [p for p in found if 60_000 <= p.stat().st_size <= 200_000]
    if not chosen:
        raise SystemExit(f"no photos of 60 to 200 KB in {SHARED}")
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
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, cwd=ROOT,
                               env={**os.environ, "PYTHONPATH": str(ROOT)})
    peak = [0.0]
    watcher = threading.Thread(target=_watch, args=(process, peak))
    watcher.start()
    errors = process.communicate()[1]
    seconds = time.perf_counter() - began
    watcher.join()
    if process.returncode or not prefix.with_name(f"{prefix.name}.rec").exists():
        raise SystemExit(f"{tool} failed: {errors.decode(errors='replace')[-2000:]}")
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
    """Two rows, one a tool; the runs alternate, so that a busy moment meets both."""
    one = prefix.with_name("one")
    one.with_suffix(".lst").write_text(prefix.with_suffix(".lst").read_text().splitlines()[0] + "\n")
    runs, starts = {"im2rec": [], "gluon_ft": []}, {"im2rec": [], "gluon_ft": []}
    for i in range(repeats):
        for tool in list(runs)[:: 1 if i % 2 else -1]:
            starts[tool].append(run(tool, one, workers))
            runs[tool].append(run(tool, prefix, workers))
    net = {tool: [[max(1e-3, run[k] - statistics.median(s[k] for s in starts[tool])) for run in runs[tool]]
                  for k in (0, 1)] for tool in runs}
    ratios = [statistics.median(a / b for a, b in zip(net["im2rec"][k], net["gluon_ft"][k])) for k in (0, 1)]
    rows = []
    for tool in runs:
        rates = [number / seconds for seconds in net[tool][0]]
        own = ratios if tool == "gluon_ft" else (1, 1)
        rows.append({"tool": tool, "photos": kind, "images": number, "workers": workers, "runs": repeats,
                     "median": f"{statistics.median(rates):.1f}", "min": f"{min(rates):.1f}",
                     "max": f"{max(rates):.1f}", "ratio": f"{own[0]:.2f}", "cpu_ratio": f"{own[1]:.2f}",
                     "start_s": f"{statistics.median(s[0] for s in starts[tool]):.2f}",
                     "peak_mb": f"{max(run[2] for run in runs[tool]):.0f}"})
    return rows


def about() -> dict:
    """Date, commit, machine and versions."""
    import mxnet

    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True).stdout
    model = [line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines()
             if line.startswith("model name")]
    return {"date": datetime.date.today().isoformat(), "commit": commit.strip(),
            "machine": f"{model[0] if model else platform.machine()} x {len(os.sched_getaffinity(0))}",
            "versions": f"python {platform.python_version()}; mxnet {mxnet.__version__}; opencv {cv2.__version__}",
            "settings": " ".join(OPTIONS)}


def record(rows: list[dict]) -> None:
    """Appends the rows to benchmarks/results/pack.csv."""
    path = ROOT / "benchmarks" / "results" / "pack.csv"
    path.parent.mkdir(exist_ok=True)
    new = not path.exists()
    with open(path, "a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS)
        if new:
            writer.writeheader()
        writer.writerows(rows)


@click.command()
@click.option("--small", type=click.IntRange(1), default=3000, show_default=True, help="Small images in a run.")
@click.option("--large", type=click.IntRange(1), default=120, show_default=True, help="Large images in a run.")
@click.option("--repeats", type=click.IntRange(1), default=5, show_default=True, help="Runs of each.")
@click.option("--workers", multiple=True, type=int, default=(1, 2), show_default=True)
@click.option("--kinds", multiple=True, type=click.Choice(KINDS), default=KINDS, show_default=True)
@click.option("--no-record", is_flag=True, help="Print only.")
def main(small, large, repeats, workers, kinds, no_record):
    """Compare gluon-ft pack with im2rec."""
    sys.path.insert(0, str(ROOT))
    import gluon_ft  # noqa: F401  (lets mxnet import)

    known, rows, missed = about(), [], []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sources = photos()
        for kind in kinds:
            number = small if kind == "small" else large
            (folder / kind).mkdir()
            grain = 4 if kind == "grainy" else 0
            files = sources if kind == "small" else write_large(folder / kind, sources, grain)
            size = np.mean([f.stat().st_size for f in files]) / 1e3
            print(f"{kind}: {len(files)} photos of {size:.0f} KB on average")
            write_list(folder / kind / "list.lst", files, number)
            for count in workers:
                both = compare(kind, folder / kind / "list", number, count, repeats)
                rows += [{**known, **row} for row in both]
                for row in both:
                    print(f"{row['tool']:9s} {kind} {count} workers: {row['median']} images/s "
                          f"({row['min']}..{row['max']}), ratio {row['ratio']} "
                          f"(processor time {row['cpu_ratio']}), peak {row['peak_mb']} MB", flush=True)
                if float(both[1]["ratio"]) < TARGETS.get(kind, 0) or float(both[1]["peak_mb"]) > LIMIT_MB:
                    missed.append(f"{kind} photos, {count} workers")
    if not no_record:
        record(rows)
    if missed:
        raise SystemExit(f"target missed: {'; '.join(missed)}")


if __name__ == "__main__":
    main()
