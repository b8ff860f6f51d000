"""Keeps the compiled code of MXNet's operators between processes, as Python keeps that of modules.

At each import MXNet writes a Python function as text for every operator, some 2,700 of them, and compiles it: half of
what is left of its import once `deferred` has taken its share.

The code is kept in the user's cache folder, by a hash of the text that it was compiled from, and is read only where the
file and its folder belong to this user and nobody else may write to them. As with modules, nothing is written under
PYTHONDONTWRITEBYTECODE, and a file that cannot be read or written is done without.
"""
from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import marshal
import os
import sys
import types
from importlib.machinery import SourceFileLoader
from pathlib import Path
from typing import Any

from gluon_ft.errors import UserError
from gluon_ft.io import atomic, paths

# The two modules that all of MXNet's operators go through.
MODULES = ("mxnet.ndarray.register", "mxnet.symbol.register")
# Stands for the operator's address in the code that is kept; larger than the address of any program's memory.
_ADDRESS = 0x7fff_dead_c0de_f00d
_SIZE = hashlib.sha256().digest_size


class Codes:
    """Compiled code by the hash of its text.

    Parameters
    ----------
    kept : dict
        What earlier processes have compiled.
    """

    def __init__(self, kept: dict[bytes, types.CodeType] | None = None) -> None:
        self._kept, self.used, self.is_new = kept or {}, {}, False

    def of(self, text: str, address: int) -> types.CodeType:
        """The compiled text of an operator at an address."""
        text = text.replace(str(address), str(_ADDRESS))
        key = hashlib.sha256(text.encode()).digest()
        if key not in self.used:
            self.is_new = self.is_new or key not in self._kept
            self.used[key] = self._kept.get(key) or compile(text, "<string>", "exec", dont_inherit=True)
        return _at(self.used[key], address)


def _at(part: Any, address: int) -> Any:
    """Code in which the number `_ADDRESS` is another one; other constants as they are."""
    if isinstance(part, types.CodeType):
        return part.replace(co_consts=tuple(_at(inner, address) for inner in part.co_consts))
    return address if part == _ADDRESS and type(part) is int else part


def file() -> Path | None:
    """Where this Python keeps the code; None where there is no place for it."""
    tag = sys.implementation.cache_tag
    if tag is None or not hasattr(os, "geteuid"):
        return None
    with contextlib.suppress(UserError, OSError):
        return paths.cache_home() / "bytecode" / f"mxnet.{tag}.opt-{sys.flags.optimize}"
    return None


def read(path: Path) -> dict[bytes, types.CodeType]:
    """The code in a file; empty where there is none, where others may write to it, or where it is damaged."""
    with contextlib.suppress(OSError, ValueError, EOFError, TypeError), open(path, "rb") as source:
        if all(_is_ours(about) for about in (os.fstat(source.fileno()), os.stat(path.parent))):
            data = source.read()
            head, body = data[:_SIZE], data[_SIZE:]
            if head == _digest(body):
                return marshal.loads(body)
    return {}


def write(path: Path, codes: dict[bytes, types.CodeType]) -> None:
    """Writes a file that `read` takes, for this user only; nothing where it cannot be written."""
    body = marshal.dumps(codes)
    with contextlib.suppress(OSError):
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if _is_ours(os.stat(path.parent)):
            with atomic.replacing(path) as temporary:
                temporary.touch(mode=0o600)
                temporary.write_bytes(_digest(body) + body)


def _is_ours(about: os.stat_result) -> bool:
    return about.st_uid == os.geteuid() and not about.st_mode & 0o022


def _digest(body: bytes) -> bytes:
    # The magic number changes with the form of bytecode.
    return hashlib.sha256(importlib.util.MAGIC_NUMBER + body).digest()


_codes: Codes | None = None


class Loader(SourceFileLoader):
    """Runs one of `MODULES` with an `exec` that takes compiled code from the file."""

    def exec_module(self, module: types.ModuleType) -> None:
        global _codes
        if _codes is None:
            path = file()
            _codes = Codes(None if path is None else read(path))
        names = vars(module)

        def execute(text: str, _globals: None, local: dict[str, Any]) -> None:
            # The operator's address, which differs from process to process, stands in the text.
            address = sys._getframe(1).f_locals["handle"].value
            code = text if _codes is None else _codes.of(text, address)
            exec(code, names, local)  # noqa: S102 MXNet's own text, as MXNet does

        names["exec"] = execute
        super().exec_module(module)


def finish() -> None:
    """Keeps what was compiled, once MXNet is imported; operators that are loaded later are compiled as always."""
    global _codes
    codes, _codes = _codes, None
    if codes is not None and codes.is_new and not sys.dont_write_bytecode:
        path = file()
        if path is not None:
            write(path, codes.used)
