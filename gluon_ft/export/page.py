"""`export_page`: one HTML file that classifies pictures in the browser, the network and ONNX Runtime Web inside."""
from __future__ import annotations

import base64
import gzip
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from mxnet.gluon import HybridBlock

from gluon_ft.engine import choice, onnx_runtime
from gluon_ft.errors import ConfigError, DataError, NetworkError
from gluon_ft.evaluation import unknowns
from gluon_ft.evaluation.model import load_model
from gluon_ft.evaluation.predict import class_names_of, predict
from gluon_ft.export import model_card, onnx_files, page_model, web_runtime
from gluon_ft.export.folder import export_model
from gluon_ft.io import atomic, documents
from gluon_ft.io.paths import AnyPath
from gluon_ft.serving.page import page
from gluon_ft.weights import model_folder

TOLERANCE = 1e-3  # of a distance, whose features are float16
_TOP = 5
_TIMED = 5
_CHECKED = 4  # random images on which the distance is compared
_BEGINNING = 4096


@dataclass(frozen=True)
class Page:
    """What `export_page` wrote.

    Attributes
    ----------
    path : Path
    bytes, model_bytes, runtime_bytes : int
        Of the page, and of the model and ONNX Runtime Web in it, packed.
    milliseconds : float
        That the network takes for an image in ONNX Runtime, one thread, on this machine: the page says what it takes in
        the browser.
    unknowns : str or None
        Why the page does not tell unknown images; None where it does.
    certificate : dict or None
        The contents of the certificate of the model's ONNX form; None without a check.
    """

    path: Path
    bytes: int
    model_bytes: int
    runtime_bytes: int
    milliseconds: float
    unknowns: str | None
    certificate: dict[str, Any] | None


def export_page(model: AnyPath, path: AnyPath, *, check: Any = None, no_check: bool = False,
                force: bool = False) -> Page:
    """Writes one HTML file that classifies pictures in the browser; nothing leaves the machine that it is opened on.

    Parameters
    ----------
    model : path-like
        The folder of a run, a .params file with its card, or an export. The ONNX model of an export that has a
        certificate is taken as it is.
    path : path-like
        Ends in .html; an earlier page there is replaced.
    check : path-like, list of them, or ImageSource, optional
        The images that MXNet and ONNX Runtime are compared on, as of `export_model`.
    no_check : bool, default False
        Leave that out.
    force : bool, default False
        Replace another file.

    Raises
    ------
    WeightsError, NetworkError, DataError, DependencyError
        As `export_model` does; nothing is written then.
    ConfigError
        The name does not end in .html.
    DownloadError
        ONNX Runtime Web cannot be fetched.
    """
    path = Path(path)
    _check_place(path, force)
    onnx_files.check_packages()
    net, pixels, proof = _proved(model, check, no_check)
    runtime = web_runtime.get()
    names, known, reason = class_names_of(net), unknowns.of(net), None
    if known is None:
        reason = "the model keeps nothing of its training images"
    else:
        pixels = page_model.with_distance(pixels, net, known)
        _check_distance(net, pixels.SerializeToString())
    data = pixels.SerializeToString()
    packed = {"model": _packed(data), "runtime": _packed(runtime.wasm)}
    milliseconds = _milliseconds(data, net)
    limit = None if known is None else known.limit()
    about = {"preprocessing": net.preprocessing.to_dict(), "names": names, "top": _TOP, "input": onnx_files.INPUT,
             "output": onnx_files.PROBABILITIES, "distance": page_model.DISTANCE,
             "limit": limit if limit is not None and np.isfinite(limit) else None}
    sizes = {name: len(text) for name, text in packed.items()}
    text = page.render(
        Path(model).resolve().name, names, page.OFFLINE, promise="nothing leaves this machine", state="Loading ...",
        connect="'none'", scripts=" 'wasm-unsafe-eval'", about=about, payloads=list(packed.items()),
        before=runtime.script, details=[("About", _about(net, sizes, proof, reason))])
    _write(path, text)
    return Page(path, path.stat().st_size, sizes["model"], sizes["runtime"], milliseconds, reason, proof)


def _check_place(path: Path, force: bool) -> None:
    if path.suffix.lower() not in (".html", ".htm"):
        raise ConfigError("a page is one file", expected="a name that ends in .html", found=path.name)
    if path.is_dir():
        raise DataError("a folder, not a file", path=path, remedy="choose another name")
    if path.exists() and not force:
        with open(path, "rb") as file:
            if page.MARK.encode() not in file.read(_BEGINNING):
                raise DataError("not a page of gluon_ft", path=path, remedy="choose another name, or have it replaced "
                                                                            "with --force")


def _proved(model: AnyPath, check: Any, no_check: bool) -> tuple[HybridBlock, Any, dict[str, Any] | None]:
    """The network, its ONNX model from pixels, and the proof that they agree."""
    import onnx

    folder = model_folder.holding(model)
    ready = (folder is not None and check is None
             and {model_folder.ONNX, model_folder.CERTIFICATE} <= set(model_folder.read_manifest(folder)["files"]))
    with tempfile.TemporaryDirectory() as temporary:
        if not ready or folder is None:
            folder = export_model(model, Path(temporary, "model"), onnx=True, check=check, no_check=no_check).folder
        # Which compares every file with its hash.
        net = load_model(folder)
        unknowns.of(net)
        proof = folder / model_folder.CERTIFICATE
        return net, onnx.load(str(folder / model_folder.ONNX)), (
            documents.read_json(proof) if proof.is_file() else None)


def _check_distance(net: HybridBlock, model: bytes) -> None:
    """NetworkError unless the page's model gives the distances of `predict`."""
    wanted = net.preprocessing
    shape = (wanted.size, wanted.size, *([3] if wanted.channels == 3 else []))
    images = [np.random.RandomState(i).randint(0, 256, shape).astype(np.uint8) for i in range(_CHECKED)]
    session = onnx_runtime.open_session(model)
    data = np.stack(images).reshape(_CHECKED, wanted.size, wanted.size, wanted.channels)
    found = session.run([page_model.DISTANCE], {onnx_files.INPUT: data})[0]
    # Without the resize, which these have behind them.
    with choice.using(choice.MXNET):
        expected = np.array([one.distance for one in predict(net, images, preprocessing=replace(wanted, resize=None))])
    apart = np.abs(found - expected).max()
    if not apart <= TOLERANCE:
        raise NetworkError("the page's model tells unknown images differently", found=f"{apart:.2g}",
                           expected=f"distances within {TOLERANCE:g}")


def _packed(data: bytes) -> str:
    return base64.b64encode(gzip.compress(data, 9, mtime=0)).decode("ascii")


def _milliseconds(model: bytes, net: HybridBlock) -> float:
    """The least of several times."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    wanted = net.preprocessing
    image = np.zeros((1, wanted.size, wanted.size, wanted.channels), np.uint8)
    times = []
    for _ in range(_TIMED):
        begun = time.perf_counter()
        session.run(None, {onnx_files.INPUT: image})
        times.append(time.perf_counter() - begun)
    return round(1000 * min(times), 1)


def _about(net: HybridBlock, sizes: dict[str, int], proof: dict[str, Any] | None, reason: str | None) -> list[str]:
    lines = [f"{net.weights.backbone}; the model takes {sizes['model'] / 1e6:.1f} MB of this file, ONNX Runtime Web "
             f"{sizes['runtime'] / 1e6:.1f} MB.",
             "An image: " + "; ".join(model_card.steps(net.preprocessing)) + ".",
             f"Unknown images are not told: {reason}." if reason else
             "An image is called unknown where it is farther from the training images than 95 % of such images are."]
    if proof is not None:
        lines.append(f"Compared with the network on {proof['images']} images ({proof['source']}): no decision changed, "
                     f"probabilities within {proof['largest_difference']:.1e}. The browser decodes JPEG in its own "
                     "way, which can change them by more.")
    return [*lines, f"Inside: {web_runtime.LICENCE}, version {web_runtime.VERSION}."]


def _write(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic.write(path, text.encode("utf-8", "backslashreplace"))
    except OSError as error:
        raise DataError("the page cannot be written", path=path, found=error.strerror or error,
                        remedy="choose another place") from error
