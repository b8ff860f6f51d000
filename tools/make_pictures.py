"""Makes the pictures of docs/images/ again: the layers, and a report and doubtful labels of a run on drawn things.

    make pictures        # two minutes; needs Chromium on PATH, from apt-get install chromium

The photos are drawings (gluon_ft.data.datasets.drawings), a few of them under a wrong label, so that the pictures can
be shown to anybody.
"""
from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the project's folder
import click
import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from PIL import Image

from gluon_ft.cli import console
from gluon_ft.data.datasets import drawings
from gluon_ft.errors import UserError

ROOT = Path(__file__).resolve().parents[1]
THINGS, EACH, EDGE = ("banana", "burger", "donut", "egg", "pizza"), 40, 160
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")


@click.command(cls=console.Command)
@click.option("-o", "--out", default=ROOT / "docs" / "images", type=click.Path(path_type=Path), help="Folder for them.")
def main(out):
    """Make the pictures of the documentation again."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        raise UserError("no browser to take pictures of pages with", expected=f"one of {', '.join(BROWSERS)} on PATH",
                        remedy="apt-get install chromium")
    out.mkdir(parents=True, exist_ok=True)
    draw_layers(out / "layers.png")
    with tempfile.TemporaryDirectory() as folder:
        photos, run, page = Path(folder, "photos"), Path(folder, "food"), Path(folder, "suspects.html")
        draw_photos(photos)
        command("train", photos, "--strategy", "linear", "--run", run)
        command("audit", photos, "--labels", "--review", page)
        photograph(browser, run / "report.html", out / "report.png", 1000, 1150)
        photograph(browser, page, out / "suspects.png", 1000, 490)


def draw_photos(folder: Path) -> None:
    """A subfolder a thing; the first drawing of each thing lies in the next one's folder."""
    for number, thing in enumerate(THINGS):
        for position, pixels in enumerate(drawings.draw([thing] * EACH, seed=number, size=EDGE)):
            place = folder / (thing if position else THINGS[number - 1])
            place.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(place / f"{number}{position:02d}.png")


def command(*arguments) -> None:
    """Runs `gluon-ft` in a process of its own, as a user would."""
    # Status 1 of an audit says that something was found.
    done = subprocess.run([sys.executable, "-m", "gluon_ft.cli.main", *map(str, arguments)], cwd=ROOT, check=False)
    if done.returncode not in (0, 1):
        raise UserError(f"gluon-ft {arguments[0]} failed", found=f"status {done.returncode}")


def photograph(browser: str, page: Path, path: Path, width: int, height: int) -> None:
    """The upper part of a page as a PNG of at most 256 colours, which is a third of the size."""
    with tempfile.TemporaryDirectory() as folder:
        shot = Path(folder, "shot.png")
        subprocess.run([browser, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
                        f"--user-data-dir={folder}/profile", f"--window-size={width},{height + 300}",
                        "--virtual-time-budget=4000", f"--screenshot={shot}", page.resolve().as_uri()],
                       check=True, capture_output=True, timeout=120)
        # A new headless Chromium leaves the last lines of its window empty.
        Image.open(shot).convert("RGB").crop((0, 0, width, height)).quantize(256).save(path, optimize=True)


def draw_layers(path: Path) -> None:
    """The layers as pyproject.toml lists them, the upper ones on top."""
    names = layers((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    figure, axes = plt.subplots(figsize=(7.2, 0.42 * len(names) + 0.3), dpi=120)
    for position, name in enumerate(reversed(names)):
        axes.barh(position, 0.98, left=0.01, height=0.8, color="#dfe8f3", edgecolor="#4a6d97")
        axes.text(0.03, position, name.replace(" | ", ", "), va="center", weight="bold", family="monospace", fontsize=9)
        axes.text(0.30, position, SUBJECTS.get(name, ""), va="center", fontsize=9)
    axes.set(xlim=(0, 1), ylim=(-0.6, len(names) - 0.4))
    axes.set_axis_off()
    figure.savefig(path, bbox_inches="tight")
    plt.close(figure)


def layers(text: str) -> list[str]:
    """The names in the list `layers = [...]`, the uppermost first."""
    found = text[text.index("layers = [") + len("layers = ["):]
    return [name.strip().strip('"') for name in found[:found.index("]")].split(",") if name.strip()]


SUBJECTS = {
    "cli": "a module a command: parse, call one function, print",
    "serving": "a model behind HTTP",
    "finetune": "the whole job, from audit to report",
    "export": "MXNet's files, ONNX, the proof, the model card",
    "reporting": "the run folder, plots, the report",
    "evaluation": "trained networks: measures, doubts, explanations",
    "symbolic": "the same through symbols and Module",
    "training": "the loop, checkpoints, kept features",
    "engine": "what runs a graph, and which is faster",
    "models": "networks, outputs, freezing",
    "weights": "files of weights: catalog, readers, names",
    "data": "images and labels, lists and records",
    "runtime": "what lets MXNet run here, on GPUs and in several processes",
    "io": "files that appear whole, settings, progress",
    "errors": "what a user can put right",
}

if __name__ == "__main__":
    main()
