"""What all parts of tests/test_pinned.py share: places, the command line, and figures and hashes of arrays."""
from __future__ import annotations

import hashlib
import json
import tarfile
from pathlib import Path

import cv2
import imagehash
import mxnet as mx
import numpy as np
import PIL
from conftest import cli_runner

from gluon_ft.cli.main import main

HERE = Path(__file__).resolve().parent
PHOTOS, IMAGES, RECORDS = HERE / "photos", HERE / "images", HERE / "records"
PLACE = "@PLACE@"  # stands in fixtures and values for the folder that photos, models and runs are in
VERSIONS = {"opencv": cv2.__version__, "pillow": PIL.__version__, "numpy": np.__version__,
            "imagehash": imagehash.__version__}
CLASSES = ["ant", "bee", "cat"]
# Settings, fields and files that are new since the values were made; what there was before stays as it was.
ADDED = ("mirror", "labels_from", "classes_are_folders", "exclude_files", "predictions.csv",
         "measures", "calibration", "temperature", "engine", "cross_validate", "best.params.features", "known",
         "sync_batchnorm")


def sha256(data: bytes) -> str:
    """In hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def plain(value):
    """As JSON gives it back: tuples are lists."""
    return json.loads(json.dumps(value))


def ordered(mapping: dict) -> list:
    """A mapping as pairs, so that the order counts."""
    return plain([[key, value] for key, value in mapping.items()])


def cli(*arguments) -> str:
    """What `gluon-ft` printed to standard output."""
    result = cli_runner().invoke(main, [str(a) for a in arguments], prog_name="gluon-ft")
    assert result.exit_code == 0, (result.output, result.exception)
    return result.stdout


def as_before(value):
    """Plain values without what is named in `ADDED`: keys, names, and pairs of a name and something."""
    if isinstance(value, dict):
        return {key: as_before(item) for key, item in value.items() if key not in ADDED}
    if isinstance(value, list):
        return [as_before(item) for item in value
                if not (isinstance(item[0] if isinstance(item, list) and item else item, str)
                        and (item[0] if isinstance(item, list) else item) in ADDED)]
    return value


def figures(arrays: dict) -> dict:
    """A few figures of each array: enough to notice a change, and comparable with a tolerance."""
    def of(array):
        flat = np.asarray(array, np.float64).ravel()
        wave = float(flat @ np.cos(np.arange(len(flat))))
        return [float(f"{x:.9g}") for x in (np.abs(flat).sum(), flat.sum(), wave, *flat[:3])]

    return {name: [list(array.shape), of(array)] for name, array in arrays.items()}


def digest(arrays: dict) -> str:
    """One hash of names, types, shapes and values, in order."""
    total = hashlib.sha256()
    for name, array in arrays.items():
        total.update(repr((name, array.dtype.str, array.shape)).encode())
        total.update(np.ascontiguousarray(array).tobytes())
    return total.hexdigest()


def numpy_of(arrays: dict) -> dict:
    """MXNet's arrays as NumPy's."""
    return {name: array.asnumpy() for name, array in arrays.items()}


def parameters(net) -> dict:
    """The arrays of a network by their paths."""
    return {path: p.data().asnumpy() for path, p in net._collect_params_with_prefix().items()}


def saved(path) -> dict:
    """The arrays in a .params file."""
    return numpy_of(mx.nd.load(str(path)))


def masked(text: str, folder: Path) -> str:
    """A text, or JSON, with `PLACE` for the folder's name."""
    return text.replace(json.dumps(str(folder))[1:-1], PLACE)


def untimed(record: dict) -> list:
    """An epoch's record, without its values that depend on the clock; as pairs, so that the order counts."""
    return [[key, None if key in ("time", "seconds") else value] for key, value in record.items()]


def unpacked(name: str, folder: Path) -> Path:
    """The folder with the contents of `<name>.tar.xz`."""
    with tarfile.open(HERE / f"{name}.tar.xz") as archive:
        # Python 3.12 warns where none is chosen; the first releases of 3.9 have none.
        archive.extraction_filter = getattr(tarfile, "data_filter", lambda member, _: member)
        archive.extractall(folder / name)
    return folder / name
