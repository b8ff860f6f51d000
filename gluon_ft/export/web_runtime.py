"""ONNX Runtime Web, fetched once from npm's registry: the script and the WebAssembly that a page carries."""
from __future__ import annotations

import re
import tarfile
from dataclasses import dataclass
from pathlib import Path

from gluon_ft.errors import DownloadError
from gluon_ft.io import downloads
from gluon_ft.io.paths import cache_home

VERSION = "1.30.0"
ADDRESS = f"https://registry.npmjs.org/onnxruntime-web/-/onnxruntime-web-{VERSION}.tgz"
SHA256, BYTES = "d2228df7e4616bc3348bf504ee888f3bec43789a273f0a63f3e68d203ce3bf71", 33_106_585
LICENCE = "ONNX Runtime Web, Copyright (c) Microsoft Corporation, MIT License (https://opensource.org/license/mit)"
# The build for the processor alone, with its WebAssembly apart: the smallest that npm has of this version.
_SCRIPT, _WASM = "package/dist/ort.wasm.bundle.min.mjs", "package/dist/ort-wasm-simd-threaded.wasm"
_EXPORTS = re.compile(r"export\{([^{}]*)\};?\s*(//# sourceMappingURL=\S+\s*)?$")


@dataclass(frozen=True)
class WebRuntime:
    """script : defines `ort`, for a module that stands in a page; wasm : the WebAssembly."""

    script: str
    wasm: bytes


def get() -> WebRuntime:
    """The two parts, from the cache or npm's registry.

    Raises DownloadError where it cannot be fetched, with where to put it by hand.
    """
    archive = downloads.fetch([ADDRESS], cache_home() / "npm" / ADDRESS.rpartition("/")[2], sha256=SHA256, size=BYTES)
    return _read(archive)


def _read(archive: Path) -> WebRuntime:
    found: dict[str, bytes] = {}
    with tarfile.open(archive) as members:
        for member in members:
            file = members.extractfile(member) if member.name in (_SCRIPT, _WASM) else None
            if file is not None:
                found[member.name] = file.read()
    return WebRuntime(as_object(found[_SCRIPT].decode("utf-8"), archive), found[_WASM])


def as_object(module: str, where: Path) -> str:
    """A module's text as one that defines `ort` with what it exports: there is no importing from a page's own scripts.

    module : of one file, which imports nothing at its top; where : for the error.
    """
    exports = _EXPORTS.search(module)
    if exports is None:
        raise DownloadError("not the script that is expected", path=where, expected=f"ONNX Runtime Web {VERSION}")
    pairs = [name.split(" as ") for name in exports[1].split(",")]
    names = ", ".join(f"{pair[-1]}: {pair[0]}" for pair in pairs if pair[-1] != "default")
    # In a function, so that its short names are not the page's.
    return f"const ort = (() => {{\n{module[:exports.start()]}\nreturn {{ {names} }};\n}})();\n"
