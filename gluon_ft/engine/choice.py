"""Which engine runs a network forward: what was asked for, or the faster one, measured once on this machine."""
from __future__ import annotations

import contextlib
import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import mxnet as mx

from gluon_ft.engine import onnx_runtime
from gluon_ft.errors import ConfigError, near
from gluon_ft.io import atomic, documents, locks, paths
from gluon_ft.models.graph import Graph
from gluon_ft.runtime import hardware

AUTO, MXNET, ONNX_RUNTIME = ENGINES = ("auto", "mxnet", "onnxruntime")
FILE = "engines.json"  # in the cache folder
_MOST = 1000  # choices that are remembered; the oldest are forgotten
_REPEATS, _SECONDS = 5, 2.0  # batches that each engine is timed on, in turn; fewer, but two, if that takes too long
_CLEAR = 1.2
_asked: ContextVar[str] = ContextVar("engine", default=AUTO)


@contextlib.contextmanager
def using(engine: str) -> Iterator[None]:
    """Inside of it networks that only run forward do so in this engine, where it can run them; a context manager.

    Parameters
    ----------
    engine : {'auto', 'mxnet', 'onnxruntime'}
        'auto': the faster one for many images, see `fused.forward_only`; MXNet for few.

    Raises
    ------
    ConfigError
        There is no such engine, or it is not installed.
    """
    token = _asked.set(check(engine))
    try:
        yield
    finally:
        _asked.reset(token)


def check(engine: str) -> str:
    """The name itself; ConfigError where there is no such engine, or it is not installed."""
    if engine not in ENGINES:
        raise ConfigError(f"unknown engine '{engine}'", expected=", ".join(ENGINES), remedy=near(engine, ENGINES))
    lacking = onnx_runtime.missing() if engine == ONNX_RUNTIME else None
    if lacking:
        raise ConfigError(f"engine {ONNX_RUNTIME} needs the package {lacking}", found="it is not installed",
                          remedy="pip install onnx onnxruntime, or take engine mxnet")
    return engine


def asked() -> str:
    """What `using` says, with 'mxnet' for 'auto' where ONNX Runtime is not installed."""
    engine = _asked.get()
    return MXNET if engine == AUTO and onnx_runtime.missing() else engine


def fastest(runs: Mapping[str, Callable[[mx.nd.NDArray], Any]], data: mx.nd.NDArray, key: str) -> str:
    """Name of what runs a batch in the least time; remembered under `key`.

    The least of several times counts, which other work on the machine disturbs less than it does their median.

    Parameters
    ----------
    runs : mapping of str to callable(NDArray)
        Each has run once before, so that nothing of its making is counted.
    data : NDArray
        The batch.
    key : str
        Of `key_of`.
    """
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    start = time.perf_counter()
    for repeat in range(_REPEATS):
        if repeat > 1 and (time.perf_counter() - start > _SECONDS or _is_clear(seconds)):
            break
        for name, run in runs.items():
            begun = time.perf_counter()
            run(data).wait_to_read()
            seconds[name].append(time.perf_counter() - begun)
    speeds = {name: round(len(data) / min(times), 1) for name, times in seconds.items()}
    best = max(speeds, key=lambda name: speeds[name])
    _remember(key, {"engine": best, "images_per_second": speeds, "input": list(data.shape[1:]),
                    "processor": hardware.processor_name(), "measured": time.strftime("%Y-%m-%d")})
    return best


def _is_clear(seconds: Mapping[str, list[float]]) -> bool:
    """Whether the slowest run of one is faster than the fastest of the others by more than noise makes of it."""
    first, *others = sorted(seconds.values(), key=max)
    return all(_CLEAR * max(first) < min(times) for times in others)


def key_of(symbol: mx.sym.Symbol, shapes: Mapping[str, tuple[int, ...]], input_shape: tuple[int, ...]) -> str:
    """What a measured choice depends on: processor, threads, network, size and versions; a hash.

    Parameters
    ----------
    symbol : mx.sym.Symbol
        Names don't count, since Gluon numbers networks as they are built.
    shapes : mapping of str to tuple
        Of the parameters.
    input_shape : tuple of int
        Of a batch, whose number of images does not count.
    """
    nodes = [(node.op, node.entries, shapes.get(node.name) if node.op == "null" else
              sorted((k, v) for k, v in node.attrs.items() if not k.startswith("__"))) for node in Graph(symbol).nodes]
    about = (hardware.processor_name(), onnx_runtime.thread_count(), nodes, input_shape[1:], mx.__version__,
             sorted(onnx_runtime.versions().items()))
    return hashlib.sha256(repr(about).encode()).hexdigest()[:40]


def remembered(key: str) -> str | None:
    """The engine that was measured to be the faster one; None where that is not known."""
    found = _read(_file()).get(key)
    engine = found.get("engine") if isinstance(found, dict) else None
    return engine if engine in (MXNET, ONNX_RUNTIME) else None


def _remember(key: str, choice: dict[str, Any]) -> None:
    # A cache that cannot be written to costs a measurement each time, no more.
    with contextlib.suppress(OSError, ConfigError):
        file = _file()
        file.parent.mkdir(parents=True, exist_ok=True)
        with locks.acquire(locks.beside(file)):
            known = {**_read(file), key: choice}
            atomic.write(file, json.dumps(dict(list(known.items())[-_MOST:]), indent=1).encode())


def _file() -> Path:
    return paths.home_folder() / FILE


def _read(file: Path) -> dict[str, Any]:
    try:
        known = documents.read_json(file)
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}
