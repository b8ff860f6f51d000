"""Serves a model over HTTP until it is told to stop; what was asked before is still answered."""
# The extra 'serve' may be missing where types are checked.
# pyright: reportMissingImports=false
from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import ipaddress
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gluon_ft.data.images.header import MAX_MEGAPIXELS
from gluon_ft.errors import ConfigError, DependencyError, UserError
from gluon_ft.evaluation.unknowns import RATE
from gluon_ft.io.paths import AnyPath

_PACKAGES = {"starlette": "starlette", "uvicorn": "uvicorn", "python_multipart": "python-multipart",
             "prometheus_client": "prometheus-client"}
_BACKLOG = 1024
_GRACE = 60  # seconds in which what was asked before the end is answered


@dataclass(frozen=True)
class Options:
    """How a model is served.

    Attributes
    ----------
    host : str
        Address to listen on; others than this machine reach it only if it is not 127.0.0.1.
    port : int
        0: one that is free.
    top : int
        Classes to name of each image.
    batch_size : int
        Images computed together, at most.
    false_alarms : float or None
        As of `predict`.
    max_mb, max_images : float, int
        Most megabytes of a request, and images in it.
    max_megapixels : float
        Larger images are refused before they are decoded.
    queue : int
        Images that may wait; a request beyond them is answered with 503.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    top: int = 5
    batch_size: int = 32
    false_alarms: float | None = RATE
    max_mb: float = 50
    max_images: int = 32
    max_megapixels: float = 50
    queue: int = 256

    def __post_init__(self) -> None:
        if not 0 < self.max_megapixels <= MAX_MEGAPIXELS:
            raise ConfigError("--max-megapixels out of range", expected=f"up to {MAX_MEGAPIXELS}",
                              found=f"{self.max_megapixels:g}")
        if not 0 < self.max_mb <= 10_000:
            raise ConfigError("--max-mb out of range", expected="up to 10000", found=f"{self.max_mb:g}")
        if not 1 <= self.max_images <= self.queue:
            raise ConfigError("more images in a request than may wait", expected=f"at most {self.queue} (--queue)",
                              found=self.max_images, remedy="give a larger --queue or a smaller --max-images")


@dataclass(frozen=True)
class Serving:
    """A running server: its address, what it counts, and what it serves."""

    url: str
    totals: Callable[[], dict[str, int]]
    classes: int
    tells_unknowns: bool


def check_packages() -> None:
    """DependencyError where a package is missing."""
    missing = [name for module, name in _PACKAGES.items() if importlib.util.find_spec(module) is None]
    if missing:
        raise DependencyError(f"serving needs the package{'s' if len(missing) > 1 else ''} {', '.join(missing)}",
                              remedy="pip install " + " ".join(missing))


@contextlib.contextmanager
def serving(model: AnyPath, options: Options | None = None, ctx: Any = None) -> Iterator[Serving]:
    """Serves a model inside the block; at its end what was asked is answered, and the server stops.

    Parameters
    ----------
    model : path-like
        As of `load_model`.
    options : Options, optional
    ctx : Context or list of Context, optional
        Default mx.cpu().

    Yields
    ------
    Serving

    Raises
    ------
    DependencyError
        A package is missing.
    ConfigError
        The port is in use or not allowed, or the address is not this machine's.
    WeightsError
        As of `load_model`.
    """
    check_packages()
    from gluon_ft.evaluation.model import load_model
    from gluon_ft.runtime.processors import threads
    from gluon_ft.serving.app import App, Limits, watch
    from gluon_ft.serving.batching import Batcher
    from gluon_ft.serving.counters import Counters
    from gluon_ft.serving.predictor import Predictor

    options, counters = options or Options(), Counters()
    # Before the model is loaded, which takes seconds.
    with contextlib.ExitStack() as open_, _listening(options.host, options.port) as listener:
        net = load_model(model, ctx)
        changed = watch(Path(net.params_path))
        predictor = open_.enter_context(Predictor(
            net, top=options.top, batch_size=options.batch_size, false_alarms=options.false_alarms,
            max_megapixels=options.max_megapixels))
        batcher = Batcher(predictor, options.queue, threads(), seen=counters.batch)
        open_.callback(batcher.close)
        limits = Limits(int(options.max_mb * 1e6), options.max_images)
        app = App(batcher, counters, limits, changed, Path(model).resolve().name, local=_is_loopback(options.host))
        with _running(app.asgi, listener):
            yield Serving(_url(listener), counters.totals, len(predictor.names), predictor.known is not None)


@contextlib.contextmanager
def _running(app: Any, listener: socket.socket) -> Iterator[None]:
    """Runs uvicorn in a thread of its own, where it leaves signals to the main thread."""
    import uvicorn

    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", access_log=False, lifespan="off", ws="none",
                                           server_header=False, timeout_graceful_shutdown=_GRACE))
    failure: list[BaseException] = []

    def run() -> None:
        try:
            asyncio.run(server.serve(sockets=[listener]))
        except BaseException as error:
            failure.append(error)

    thread = threading.Thread(target=run, name="gluon_ft-http", daemon=True)
    thread.start()
    try:
        while not server.started and thread.is_alive():
            thread.join(0.01)
        if not server.started:
            raise UserError("the server did not start", found=failure[0] if failure else None)
        yield
    finally:
        server.should_exit = True
        thread.join()


@contextlib.contextmanager
def _listening(host: str, port: int) -> Iterator[socket.socket]:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except (OSError, OverflowError, UnicodeError) as error:
        raise ConfigError("not an address to listen on", found=f"{host} ({error})",
                          remedy="give --host 127.0.0.1, or 0.0.0.0 for every network") from error
    with socket.socket(family, kind, protocol) as listener:
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen(_BACKLOG)
        except OSError as error:
            raise ConfigError(f"cannot listen on {host}, port {port}", found=(error.strerror or str(error)).lower(),
                              remedy="give another --port (0: one that is free) or --host") from error
        listener.setblocking(False)
        yield listener


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _url(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"
