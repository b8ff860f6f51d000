"""The proof that an exported model answers as the network does: the same images through both, from files to classes."""
from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import mxnet as mx
import numpy as np
from mxnet.gluon import HybridBlock

from gluon_ft.data import workers
from gluon_ft.data.images.header import Unreadable
from gluon_ft.data.images.transforms import Transform
from gluon_ft.data.sources.base import ImageSource
from gluon_ft.engine import choice, onnx_runtime
from gluon_ft.errors import DataError, NetworkError
from gluon_ft.evaluation.calibration import tempered
from gluon_ft.evaluation.predict import AHEAD, probabilities
from gluon_ft.export.onnx_files import INPUT, LOGITS
from gluon_ft.io.checksums import sha256_of
from gluon_ft.models.graph import DATA
from gluon_ft.runtime import hardware
from gluon_ft.runtime.processors import threads
from gluon_ft.weights import model_folder

TOLERANCE = 1e-4  # of a probability
BATCH = 32
_NAMED = 10  # images in an error
_LOGITS_CHECKED = 32  # images that the variant without pre- and postprocessing is run on


@dataclass(frozen=True)
class Certificate:
    """How far the ONNX model agrees with the network.

    Attributes
    ----------
    images : int
        Compared; those that cannot be read are not.
    source : str
        Where they are from, in words.
    largest_difference, logits_difference : float
        Of a probability from MXNet's: of `model.onnx`, and of `model-logits.onnx` (on the first images).
    changed : list of dict
        {image, mxnet, onnx} of each whose most probable class is another.
    apart : list of dict
        {image, difference} of each with a probability that differs by more than `TOLERANCE`, the most first.
    images_per_second : dict of str to float
        'mxnet' and 'onnxruntime', from files on disk to probabilities, the preparation of the engine included.
    unreadable : dict of str to str
        Image -> why it could not be read.
    about : dict
        The machine, the versions, and the SHA-256 of the compared files.
    int8 : dict or None
        What was measured of the INT8 model, see `int8.judgement.Judgement`.
    """

    images: int
    source: str
    largest_difference: float
    logits_difference: float
    changed: list[dict[str, Any]]
    apart: list[dict[str, Any]]
    images_per_second: dict[str, float]
    unreadable: dict[str, str]
    about: dict[str, Any] = field(default_factory=dict)
    int8: dict[str, Any] | None = None

    @property
    def holds(self) -> bool:
        """Whether no decision changed and no probability differs by more than the tolerance."""
        return not self.changed and not self.apart and self.logits_difference <= TOLERANCE

    def to_dict(self) -> dict[str, Any]:
        """As plain values, for certificate.json."""
        return {"images": self.images, "source": self.source, "largest_difference": self.largest_difference,
                "logits_difference": self.logits_difference, "tolerance": TOLERANCE,
                "decisions_changed": self.changed, "images_per_second": self.images_per_second,
                "unreadable": self.unreadable, **self.about,
                **({} if self.int8 is None else {"int8": self.int8})}

    def check(self, path: Path) -> None:
        """Raises NetworkError, which names the images, unless it holds."""
        if self.holds:
            return
        if self.changed:
            what = f"{len(self.changed)} of {self.images} images get another class"
            rows = [f"{row['image']}: {row['onnx']} in place of {row['mxnet']}" for row in self.changed]
        else:
            what = f"probabilities differ on {len(self.apart)} of {self.images} images"
            rows = [f"{row['image']}: {row['difference']:.2g}" for row in self.apart] or [
                f"{model_folder.ONNX_LOGITS}: {self.logits_difference:.2g}"]
        more = f", and {len(rows) - _NAMED} more" if len(rows) > _NAMED else ""
        raise NetworkError(f"not exported: the ONNX model answers differently, {what}", path=path,
                           expected=f"every decision the same, every probability to {TOLERANCE:g}",
                           found=", ".join(rows[:_NAMED]) + more,
                           remedy="export without --onnx, and report it with the network's name")


@dataclass(frozen=True)
class Answers:
    """What MXNet and the ONNX models of a folder say about the same images.

    Attributes
    ----------
    mxnet : float array (n, classes)
        Probabilities; the rows of unreadable images mean nothing, also in the others.
    onnx : dict of str to array
        File name -> its probabilities.
    good : list of int
        Positions of the images that can be read.
    unreadable : dict of int to str
        Position -> why.
    seconds : dict of str to float
        'mxnet' and 'onnxruntime': from files on disk to probabilities.
    network_seconds : dict of str to float
        File name -> the time that its network alone took.
    pixels : list of bytes
        `fingerprint` of each image as the models take it.
    """

    mxnet: np.ndarray
    onnx: dict[str, np.ndarray]
    good: list[int]
    unreadable: dict[int, str]
    seconds: dict[str, float]
    network_seconds: dict[str, float]
    pixels: list[bytes]


def answers(net: HybridBlock, folder: Path, images: ImageSource, source: str) -> Answers:
    """Runs images through MXNet and through the ONNX models from pixels of a folder.

    Parameters
    ----------
    net : HybridBlock
        The network that was exported.
    folder : Path
        With `model.onnx`, and `model-int8.onnx` where there is one.
    images : ImageSource
    source : str
        Where they are from, in words.

    Raises
    ------
    DataError
        None of the images can be read.
    """
    begun = time.perf_counter()
    with choice.using(choice.MXNET):
        expected, errors = probabilities(net, images, batch_size=BATCH)
    seconds = {"mxnet": time.perf_counter() - begun}
    good = [position for position in range(len(images)) if position not in errors]
    if not good:
        raise DataError("none of the images to check the export on can be read", path=source,
                        found=next(iter(errors.values())), remedy="give others with --check")
    begun = time.perf_counter()
    names = [name for name in (model_folder.ONNX, model_folder.ONNX_INT8) if (folder / name).is_file()]
    found, alone, pixels = _by_onnx([folder / name for name in names], net, images)
    # What was done for the other models does not count.
    seconds["onnxruntime"] = time.perf_counter() - begun - sum(alone[1:])
    return Answers(expected, dict(zip(names, found)), good, errors, seconds, dict(zip(names, alone)), pixels)


def compare(net: HybridBlock, folder: Path, images: ImageSource, source: str, names: list[str],
            said: Answers) -> Certificate:
    """How far the float32 models of a folder agree with MXNet.

    Parameters
    ----------
    net, folder, images, source
        As of `answers`; the folder also has `model-logits.onnx`.
    names : list of str
        What each image is called in the result.
    said : Answers
        On these images.
    """
    expected, found, good = said.mxnet, said.onnx[model_folder.ONNX], said.good
    differences = np.abs(expected - found).max(axis=1)
    first, second = expected.argmax(axis=1), found.argmax(axis=1)
    changed = [{"image": names[i], "mxnet": net.classes[first[i]], "onnx": net.classes[second[i]]}
               for i in good if first[i] != second[i]]
    # Written so that a difference that is not a number counts as one.
    apart = sorted(({"image": names[i], "difference": float(differences[i])} for i in good
                    if not differences[i] <= TOLERANCE), key=lambda row: -row["difference"])
    return Certificate(
        len(good), source, float(differences[good].max()), _of_logits(folder, net, images, good, expected), changed,
        apart, {engine: round(len(good) / taken, 1) for engine, taken in said.seconds.items()},
        {names[i]: why for i, why in said.unreadable.items()},
        {"processor": hardware.processor_name(), "threads": onnx_runtime.thread_count(),
         "versions": {"mxnet": mx.__version__, **onnx_runtime.versions()},
         "sha256": {name: sha256_of(folder / name) for name in (*said.onnx, model_folder.ONNX_LOGITS)}})


def fingerprint(image: np.ndarray) -> bytes:
    """The same for images with the same pixels."""
    return hashlib.blake2b(image.astype(np.uint8).tobytes(), digest_size=16).digest()


def _by_onnx(paths: list[Path], net: HybridBlock,
             images: ImageSource) -> tuple[list[np.ndarray], list[float], list[bytes]]:
    """The probabilities by each model from pixels, the seconds that each took, and the images' fingerprints."""
    sessions = [onnx_runtime.open_session(str(path)) for path in paths]
    found: list[list[np.ndarray]] = [[] for _ in paths]
    seconds, pixels = [0.0] * len(paths), []
    for batch in _pixels(net, images, np.arange(len(images))):
        pixels += map(fingerprint, batch)
        for number, session in enumerate(sessions):
            begun = time.perf_counter()
            found[number].append(session.run(None, {INPUT: batch})[0])
            seconds[number] += time.perf_counter() - begun
    return [np.concatenate(rows) for rows in found], seconds, pixels


def prepared(net: HybridBlock, images: ImageSource, positions: np.ndarray) -> np.ndarray:
    """Images as `model.onnx` takes them, uint8; 0 for those that cannot be read.

    Parameters
    ----------
    net : HybridBlock
        With `preprocessing`.
    images : ImageSource
    positions : int array
    """
    return np.concatenate(list(_pixels(net, images, positions)))


def _pixels(net: HybridBlock, images: ImageSource, positions: np.ndarray) -> Iterator[np.ndarray]:
    wanted = net.preprocessing
    transform = Transform(wanted)

    def fill(position: int, out: np.ndarray) -> None:
        try:
            image = transform.prepare(images.image(position, wanted.channels, transform.decode_resize()))
            out[:] = image.reshape(out.shape)
        except Unreadable:
            out[:] = 0

    batches = [positions[i:i + BATCH] for i in range(0, len(positions), BATCH)]
    filled = workers.filled(batches, (wanted.size, wanted.size, wanted.channels), fill, threads(), AHEAD)
    return (data.astype(np.uint8) for _, data in filled)


def _of_logits(folder: Path, net: HybridBlock, images: ImageSource, good: list[int], expected: np.ndarray) -> float:
    """Largest difference of a probability by the model that takes the prepared input."""
    wanted, session = net.preprocessing, onnx_runtime.open_session(str(folder / model_folder.ONNX_LOGITS))
    transform, worst = Transform(wanted), 0.0
    for position in good[:_LOGITS_CHECKED]:
        image = transform(images.image(position, wanted.channels, transform.decode_resize()))[None]
        views = [image, image[..., ::-1].copy()] if wanted.mirror else [image]
        found = np.mean([session.run(None, {DATA: view})[0] for view in views], axis=0)
        if session.get_outputs()[0].name == LOGITS:
            found = mx.nd.softmax(mx.nd.array(found)).asnumpy()
        worst = max(worst, float(np.abs(tempered(found, net.temperature) - expected[position]).max()))
    return worst
