"""Lists, records, loaders, hashes and settings: each function returns plain values of what the code does now."""
from __future__ import annotations

import dataclasses
import functools
import json
import shutil
import struct
from pathlib import Path

import cv2
import numpy as np
from pinned.common import CLASSES, IMAGES, PHOTOS, PLACE, RECORDS, as_before, cli, digest, figures, ordered, sha256

import gluon_ft
from gluon_ft import symbolic
from gluon_ft.cli.main import main
from gluon_ft.data import lists, sampler
from gluon_ft.data.images import near_duplicates
from gluon_ft.finetune import JobSettings
from gluon_ft.finetune import settings as of_jobs
from gluon_ft.training.feature_cache.features import Images

# Split lists: files of these names, whose contents do not count.
NAMES = {"10.cat": [f"{i}.jpg" for i in range(9)], "2.ant": [f"{i:03}.png" for i in range(8)],
         "bee hive": ["a.jpg", "B.JPG", "b/1.jpeg", "b/2.jpeg", "c d.png", "e.bmp", "readme.txt"],
         "\u00e9t\u00e9": [f"x{i}.webp" for i in range(12)]}
SPLITS = {
    "fraction": ["--fraction", "0.75"], "another seed": ["--fraction", "0.75", "--seed", "9"],
    "test part": ["--fraction", "0.6", "--test", "1", "--exclude", "2.ant", "--seed", "4"],
    "per class": ["--per-class", "3", "--cap", "6", "--test", "0.2", "--seed", "-7"],
    "folds": ["--folds", "3", "--test", "0.2", "--seed", "1"],
    "short": ["--per-class", "8", "--allow-short", "--seed", "12345678901"],
}


def split_lists(folder: Path, name: str) -> dict:
    """The text of every file that `gluon-ft split` writes, and its JSON line without the paths."""
    for group, files in NAMES.items():
        for file in files:
            path = folder / "photos" / group / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    out = cli("split", folder / "photos", folder / "lists.v1", *SPLITS[name], "--json")
    result = json.loads(out.splitlines()[-1])
    files = {part: {**about, "path": Path(about["path"]).name} for part, about in result["files"].items()}
    return {"result": [[k, v] for k, v in {**result, "files": files}.items() if k not in ("folder", "prefix")],
            "files": {p.name: p.read_text("utf-8") for p in sorted(folder.glob("lists.v1*"))}}


PACKS = {"pass-through": ["--pass-through"], "shards": ["--pass-through", "--shards", "2"],
         "resized": ["--resize", "24", "--quality", "90"], "as they are": ["--encoding", ".png", "--color", "-1"],
         "grey squares": ["--resize", "20", "--center-crop", "--color", "0", "--quality", "80"]}
UNCHANGED = ("pass-through", "shards")  # the files' own bytes: nothing depends on OpenCV's and Pillow's versions


def records(folder: Path, name: str) -> dict:
    """Hashes of the .rec and .idx files that `gluon-ft pack` writes; manifests without versions and what hangs on them.
    """
    shutil.copytree(IMAGES, folder / "images")
    for file in ("set-train.lst", "set.classes.txt"):
        shutil.move(folder / "images" / file, folder / file)
    cli("pack", folder / "set", folder / "images", *PACKS[name])
    found = {}
    for path in sorted(folder.glob("set*")):
        if path.suffix in (".rec", ".idx"):
            found[path.name] = [path.stat().st_size, sha256(path.read_bytes())]
        elif path.suffix == ".json":
            found[path.name] = _manifest(path)
    return found


def _manifest(path):
    content = json.loads(path.read_text("utf-8"))
    assert path.read_text("utf-8") == json.dumps(content, indent=1, ensure_ascii=False) + "\n"
    own = json.dumps({k: v for k, v in content.items() if k != "sha256"}, sort_keys=True)
    assert content["sha256"] == sha256(own.encode())
    versions, whole = content.pop("versions"), content.pop("sha256")
    return {"keys": [*content, *versions], "without versions": ordered(content), "length": len(whole)}


COLOUR = gluon_ft.Preprocessing(size=24, resize=28)
GREY = gluon_ft.Preprocessing(mean=(0.0,), std=(1.0,), channel_order="gray", size=28, resize=None)
STRONG = {"crop": "random", "rotation": 10.0, "translation": 0.1, "randaugment": 2, "magnitude": 7, "hue": 0.1,
          "brightness": 0.3, "erasing": 0.5}


def pixels(count=13, size=20, channels=3, seed=0):
    """(uint8 images, labels) of three classes."""
    rng, labels = np.random.RandomState(seed), np.arange(count) % 3
    shape = (count, size, size) if channels == 1 else (count, size, size, channels)
    return (rng.randint(0, 100, shape) + 70 * labels.reshape(-1, *[1] * (len(shape) - 1))).astype(np.uint8), labels


def open_loaders(folder: Path) -> dict:
    """A loader of every kind of source, and some of their options."""
    entries = [lists.Entry(i, (label,), f"{name}/{number:02}.png") for i, (label, name, number) in enumerate(
        (label, name, number) for number in (0, 3, 5) for label, name in enumerate(CLASSES))]
    lists.write(folder / "some.lst", entries)
    (folder / "some.classes.txt").write_bytes(lists.classes_to_bytes(CLASSES))
    images, labels = pixels(channels=1, size=28)
    (folder / "images.idx").write_bytes(struct.pack(">4B3I", 0, 0, 8, 3, *images.shape) + images.tobytes())
    (folder / "labels.idx").write_bytes(struct.pack(">4BI", 0, 0, 8, 1, len(labels))
                                        + labels.astype(np.uint8).tobytes())
    opened = functools.partial(gluon_ft.loaders.open, preprocessing=COLOUR, batch_size=5, workers=0)
    some = {
        "folder": opened(PHOTOS, train=True), "folder, evaluated": opened(PHOTOS, train=False),
        "folder, strong": opened(PHOTOS, train=True, seed=7, augment=STRONG),
        "folder, im2rec, exact": opened(PHOTOS, train=True, augment="im2rec", exact_decoding=True),
        "folder, views": opened(PHOTOS, train=True, seed=3), "list": opened(folder / "some.lst", root=PHOTOS,
                                                                            train=True, augment="none"),
        "records": opened(RECORDS / "set-train.rec", train=False),
        "dataset": opened(RECORDS / "set-train.rec", train=True, engine="dataset"),
        "arrays": opened(pixels(), train=True, classes=CLASSES),
        "grey arrays": opened(pixels(channels=1), train=False),
        "idx": opened((folder / "images.idx", folder / "labels.idx"), train=True, preprocessing=GREY),
        "ready": gluon_ft.ArrayLoader(pixels()[0] / 255, pixels()[1], 4, shuffle=True, seed=5),
    }
    some["folder, views"].views, some["folder, views"].balanced = 2, True
    return some


def identities(folder: Path) -> dict:
    """What loaders say of what they read, as resuming compares it."""
    return {name: ordered(loader.identity()) for name, loader in open_loaders(folder).items()}


def images_of_features(folder: Path) -> dict:
    """What kept features say of the images that they were made of, by loader and views."""
    return {f"{name}, {views}": ordered(Images(loader, views).identity)
            for name, loader in open_loaders(folder).items() for views in (0, 3)
            if not (views and getattr(loader, "views", 0))}


def batches(folder: Path) -> dict:
    """Labels, shape, a few figures and the hash of the batches of two epochs."""
    found = {}
    for name, loader in open_loaders(folder).items():
        data, labels = [], []
        for _ in range(2):
            for batch in loader:
                data.append(batch.trimmed().data.asnumpy())
                labels += batch.trimmed().label.asnumpy().tolist()
        arrays = {"data": np.concatenate(data)}
        found[name] = {"labels": labels, "figures": figures(arrays), "sha256": digest(arrays)}
    return found


def orders() -> dict:
    """The orders in which images are visited."""
    labels = np.array([0] * 7 + [1] * 3 + [2] * 2)
    return {f"seed {seed}, epoch {epoch}, {kind}": sampler.epoch_order(labels, seed, epoch, *how).tolist()
            for seed in (0, 5) for epoch in (0, 3)
            for kind, how in {"shuffled": (True,), "balanced": (True, True), "plain": (False,)}.items()}


def perceptual() -> dict:
    """The hashes of the eight orientations of some photos, and of one that has hardly any texture."""
    grey = {path.relative_to(PHOTOS).as_posix(): cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
            for path in sorted(PHOTOS.glob("*/0[0-2].png"))}
    grey["ramp"] = np.add.outer(np.arange(50), np.arange(70)).astype(np.uint8)
    return {name: near_duplicates.hash_turns(near_duplicates.thumbnail(image)).tobytes().hex()
            for name, image in grey.items()}


def audited() -> dict:
    """What `gluon-ft audit --json` says of the photos."""
    out = cli("audit", PHOTOS, "--json").replace(json.dumps(str(PHOTOS))[1:-1], PLACE)
    return json.loads(out.splitlines()[-1])


def settings() -> dict:
    """Every setting with its default, in order, but for those that are new."""
    fields = dataclasses.fields(JobSettings)
    return as_before({"training": ordered(gluon_ft.TrainConfig().to_dict()), "published": ordered(
                symbolic.AS_PUBLISHED.to_dict()),
            "job": ordered(JobSettings(data="photos").to_dict()), "names": list(of_jobs.described()),
            "kinds": ordered({field.name: field.type for field in fields}),
            "defaults": ordered({field.name: field.default for field in fields}),
            "preprocessing": ordered(gluon_ft.Preprocessing().to_dict()),
            "augmentation": ordered(gluon_ft.Augmentation().to_dict()),
            "options": [option.name for option in main.get_command(None, "train").params]})
