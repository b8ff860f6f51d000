"""Wrote the fixtures and values of tests/test_pinned.py.

    OMP_NUM_THREADS=1 python tests/pinned/make.py --on-purpose
    OMP_NUM_THREADS=2 python tests/pinned/make.py --on-purpose bits

It was run on commit ebec404, before the project was rearranged, with the versions in values.json, and is not to be run
again, or the tests would compare the code with itself; only where a behaviour is meant to change is its part written
anew: name it (values.json's keys, or photos, images, records, models, fit, symbolic, runs) after the option. `bits`
adds hashes of trained parameters as they come out on another kind of processor or with another number of threads.

What is in this folder: `photos`, a folder of classes to train on; `images`, files of several kinds to pack;
`records`, these packed; `models.tar.xz`, two saved models; `fit` and `symbolic`, trainings that were interrupted;
`runs.tar.xz`, run folders that were interrupted; `values.json`, what the modules here returned.
"""
from __future__ import annotations

import contextlib
import json
import os
import platform
import shutil
import signal
import sys
import tarfile
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
# This checkout's code, wherever the script is run from.
sys.path[:0] = [str(HERE.parents[1]), str(HERE.parent)]

import gluon_ft  # noqa: E402, I001  (before MXNet)
import mxnet as mx  # noqa: E402
import numpy as np  # noqa: E402
from PIL import Image  # noqa: E402
from pinned import common, data, runs, trainings  # noqa: E402

from gluon_ft import finetune  # noqa: E402
from gluon_ft.data import lists  # noqa: E402
from gluon_ft.errors import Interrupted  # noqa: E402

COLOURS = ((220, 60, 60), (60, 220, 60), (60, 60, 220))


def picture(label, number, size=(44, 40)):
    """A class's colour with a pattern of its own in few levels, so that the file is small."""
    grid = np.random.RandomState((label, number)).randint(0, 8, (5, 6)) * 32
    grey = np.asarray(Image.fromarray(grid.astype(np.uint8)).resize(size, Image.Resampling.BICUBIC)) // 16 * 16
    return Image.fromarray((0.5 * np.array(COLOURS[label]) + 0.5 * grey[..., None]).astype(np.uint8))


def make_photos():
    """Eight photos of each class; two are copies of others, one of them mirrored, and one file is no image."""
    folder = emptied(common.PHOTOS)
    for label, name in enumerate(common.CLASSES):
        (folder / name).mkdir()
        for number in range(8):
            picture(label, number).save(folder / name / f"{number:02}.png", optimize=True)
    (folder / "notes.txt").write_text("Not an image.\n")
    shutil.copy(folder / "ant" / "02.png", folder / "ant" / "06.png")
    picture(1, 4).transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(folder / "bee" / "07.png", optimize=True)


def make_images():
    """PNG and JPEG, colour, grey, 16 bits, transparent, turned by EXIF; their list and class names."""
    folder = emptied(common.IMAGES)
    turned = Image.Exif()
    turned[0x0112] = 6
    picture(0, 10, (48, 36)).save(folder / "colour.png", optimize=True)
    picture(1, 11, (50, 40)).convert("L").save(folder / "grey.png", optimize=True)
    transparent = picture(2, 12, (36, 36)).convert("RGBA")
    transparent.putalpha(picture(2, 13, (36, 36)).convert("L"))
    transparent.save(folder / "transparent.png", optimize=True)
    deep = np.asarray(picture(0, 14, (40, 32)).convert("L")).astype(np.uint16) * 200 + 77
    Image.fromarray(deep).save(folder / "sixteen bits.png", optimize=True)
    picture(0, 15, (52, 38)).save(folder / "turned.jpg", quality=80, exif=turned)
    picture(1, 16, (120, 100)).save(folder / "large.jpg", quality=60)
    picture(2, 17, (44, 44)).convert("L").save(folder / "grey.jpg", quality=85)
    entries = [lists.Entry(7 * i + 3, (float(i % 3),), path.name) for i, path in enumerate(sorted(folder.iterdir()))]
    lists.write(folder / "set-train.lst", entries)
    (folder / "set.classes.txt").write_bytes(lists.classes_to_bytes(common.CLASSES))


def make_records():
    """The images packed as they are."""
    folder = emptied(common.RECORDS)
    with tempfile.TemporaryDirectory() as place:
        data.records(Path(place), "pass-through")
        for path in Path(place).glob("set-train.*"):
            if path.suffix != ".lst":
                shutil.copy(path, folder)


def sparse(net, share, seed):
    """A network with weights of a few values, most of them 0, so that the packed file is small."""
    rng = np.random.RandomState(seed)
    for path, parameter in net._collect_params_with_prefix().items():
        kind, shape = path.rsplit(".", 1)[-1], parameter.shape
        if kind == "weight":
            kept = rng.rand(*shape) < (1 if path.startswith("output") or np.prod(shape) < 1000 else share)
            scale = np.sqrt(2 / max(1.0, kept.mean() * np.prod(shape[1:])))
            parameter.set_data(mx.nd.array(np.where(kept, np.sign(rng.randn(*shape)) * scale, 0)))
        elif kind != "kernel":  # of a shortcut, which is as it has to be
            middle = 1 if kind in ("gamma", "running_var") else 0
            parameter.set_data(mx.nd.array(middle + rng.randint(-12, 13, shape) / 64))
    return net


def make_models():
    """LeNet (grey), saved with more in its card than it needs; and the ResNet of 20 layers with another output."""
    with tempfile.TemporaryDirectory() as place:
        place = Path(place)
        net = gluon_ft.backbones.build("lenet")
        net.initialize()
        net(mx.nd.zeros((1, 1, 28, 28)))
        how = gluon_ft.Preprocessing(mean=(0.1,), std=(0.5,), channel_order="gray", size=28, resize=32)
        gluon_ft.save_model(sparse(net, 0.006, 1), place / "lenet.params", classes=[f"digit {i}" for i in range(10)],
                            preprocessing=how, notes=("made for tests",), made={"of": "nothing", "numbers": [1, 2.5]})
        net = gluon_ft.fine_tune_net("cifar_resnet20_relu", 3)
        net(mx.nd.zeros((1, 3, 32, 32)))
        how = gluon_ft.Preprocessing(size=32, resize=36, interpolation="area")
        gluon_ft.save_model(sparse(net, 0.04, 2), place / "cifar.params", classes=common.CLASSES, preprocessing=how)
        packed(place, "models")


def make_fit():
    """Trainings by `gluon_ft.fit`, interrupted in the middle of the second epoch by a signal."""
    folder = emptied(HERE / "fit")
    for name in trainings.CUT:
        try:
            trainings.fitted(name, at=trainings.AT, save_to=folder / name)
        except Interrupted as stop:
            print(stop)
        without_locks(folder / name)


def make_symbolic():
    """Trainings by `symbolic.fit` that ended after the first epoch."""
    folder = emptied(HERE / "symbolic")
    for name in trainings.SYMBOLIC_CUT:
        with contextlib.suppress(trainings.Crash):
            trainings.symbolic_fit(name, save_to=folder / name, on_epoch=trainings.crash_after(1))


def make_runs():
    """Runs of `gluon-ft train`, interrupted after the second epoch by a signal; the folder's name masked in them."""
    with tempfile.TemporaryDirectory() as place:
        place = runs.placed(Path(place))
        for name in runs.CUT_RUNS:
            def say(line):
                print(line)
                if line.startswith("epoch 2/"):
                    os.kill(os.getpid(), signal.SIGINT)
            options = iter(runs.run_options(place, name))
            given = {option[2:].replace("-", "_"): value for option, value in zip(options, options)}
            try:
                finetune.train(place / "photos", run=place / "runs" / name, say=say, **given)
            except Interrupted as stop:
                print(stop)
            without_locks(place / "runs" / name)
            for path in (place / "runs" / name).rglob("*"):
                if path.suffix in (".json", ".jsonl", ".lst", ".txt"):
                    path.write_text(common.masked(path.read_text("utf-8"), place), "utf-8")
                assert not path.is_file() or str(place).encode() not in path.read_bytes(), path
        packed(place / "runs", "runs")


def emptied(folder):
    """The folder, made anew."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def without_locks(folder):
    """Removes the files that kept other processes out."""
    for path in [*folder.rglob("lock"), *folder.rglob(".lock")]:
        path.unlink()


def packed(folder, name):
    """`<name>.tar.xz` with what is in a folder, the same bytes whenever it is made."""
    def nameless(entry):
        entry.mtime, entry.uid, entry.gid, entry.uname, entry.gname = 0, 0, 0, "", ""
        return entry

    with tarfile.open(HERE / f"{name}.tar.xz", "w:xz", preset=9) as archive:
        for path in sorted(folder.iterdir()):
            archive.add(path, path.name, filter=nameless)


def in_folder(function, *arguments):
    """What a function returns that is given an empty folder first."""
    with tempfile.TemporaryDirectory() as place:
        return function(Path(place), *arguments)


FIXTURES = {name[5:]: function for name, function in list(globals().items()) if name.startswith("make_")}
VALUES = {
    "versions": lambda: {**common.VERSIONS, "mxnet": mx.__version__, "python": platform.python_version()},
    "splits": lambda: {name: in_folder(data.split_lists, name) for name in data.SPLITS},
    "packed": lambda: {name: in_folder(data.records, name) for name in data.PACKS},
    "identities": lambda: in_folder(data.identities),
    "images of features": lambda: in_folder(data.images_of_features),
    "kept features": lambda: in_folder(trainings.kept_features),
    "batches": lambda: in_folder(data.batches),
    "orders": data.orders,
    "perceptual": data.perceptual,
    "audited": data.audited,
    "settings": data.settings,
    "arithmetic": trainings.arithmetic,
    "fits": lambda: {name: trainings.fit_values(*trainings.fitted(name)) for name in trainings.FITS},
    "symbolic fits": lambda: {name: trainings.symbolic_values(trainings.symbolic_fit(name))
                              for name in trainings.SYMBOLIC},
    "models": lambda: {name: in_folder(lambda place, name=name: runs.model_values(
        common.unpacked("models", place) / f"{name}.params")) for name in runs.MODELS},
    "run values": lambda: {name: in_folder(lambda place, name=name: runs.run(runs.placed(place), name))
                           for name in runs.RUNS},
}
COMPUTED = ("fits", "symbolic fits", "run values")  # what has hashes of trained parameters in it


def main(arguments):
    if arguments[:1] != ["--on-purpose"]:
        raise SystemExit(__doc__)
    wanted = arguments[1:] or [*FIXTURES, *VALUES]
    path, here = HERE / "values.json", trainings.arithmetic()
    values = json.loads(path.read_text("utf-8")) if path.exists() else {}
    with tempfile.TemporaryDirectory() as home:
        os.environ["GLUON_FT_HOME"] = home
        for name in wanted:
            if name in FIXTURES:
                FIXTURES[name]()
        for name in VALUES if wanted != ["bits"] else COMPUTED:
            if name in wanted or wanted == ["bits"]:
                found = by_arithmetic(VALUES[name](), here)
                values[name] = with_bits(values[name], found) if wanted == ["bits"] else found
    path.write_text(laid_out({name: values[name] for name in VALUES}), "utf-8")


def by_arithmetic(value, here):
    """Hashes of trained parameters with the arithmetic that they came out with."""
    if isinstance(value, dict):
        return {key: {here: item} if key == "bits" else by_arithmetic(item, here) for key, item in value.items()}
    return value


def with_bits(values, found):
    """`values` with the hashes of `found` added."""
    if not isinstance(values, dict):
        return values
    return {key: {**item, **found[key]} if key == "bits" else with_bits(item, found[key])
            for key, item in values.items()}


def laid_out(values):
    """JSON with one line for what has no name below it."""
    def text(value, indent):
        if not isinstance(value, dict) or not value:
            return json.dumps(value, ensure_ascii=False)
        rows = [f"{indent} {json.dumps(key, ensure_ascii=False)}: {text(item, indent + ' ')}"
                for key, item in value.items()]
        return "{\n" + ",\n".join(rows) + f"\n{indent}}}"
    return text(values, "") + "\n"


if __name__ == "__main__":
    main(sys.argv[1:])
