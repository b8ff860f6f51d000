"""Reads a pickle without running code: Python's own unpickler with an allow-list of globals, and a budget.

With a strict `find_class` the C `pickle.Unpickler` would not run code either, but a pickle could still make it waste
memory and time: LONG_BINPUT allocates a memo of any length, nested tuples as dictionary keys hash for ever. The Python
`pickle._Unpickler` has a function for each instruction. Those that weights files need are taken from it, except those
that call, set state, hash or grow, which are written here. Each instruction is counted, each byte of payload is
charged, and a global is looked up in a table by its exact name, never imported.
"""
from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from struct import unpack
from typing import Any

from gluon_ft.errors import WeightsError, printable
from gluon_ft.weights.readers import NOT_RUN

_LONGEST_GLOBAL = 512
_PYTHON: Any = pickle._Unpickler  # pyright: ignore[reportAttributeAccessIssue]


@dataclass(frozen=True)
class Admitted:
    """What stands for an allowed global of the pickle.

    name : as in the pickle, for messages.
    build : called by REDUCE and NEWOBJ, `build(args, account) -> object`; None where the global is only a mark.
    value : the mark's meaning, for example a storage's dtype.
    """

    name: str
    build: Callable[[tuple, Account], object] | None = None
    value: object = None


class Stateful:
    """An object whose state a BUILD instruction may set. No other object's state can be set."""

    def set_state(self, state: Any, account: Account) -> None:
        raise NotImplementedError


@dataclass
class Account:
    """The budget of a pickle, and what it has spent.

    instructions : their largest number; a tensor takes about 45, half a million run in about half a second.
    payload : most bytes in strings, and in the objects that builders make.
    numeric_keys : most numbers as dictionary keys (numbers can be made to collide, strings cannot).
    """

    instructions: int = 500_000
    payload: int = 64 << 20
    numeric_keys: int = 10_000
    spent: int = field(default=0, init=False)
    numbers: int = field(default=0, init=False)

    def charge(self, size: int) -> None:
        """Adds `size` bytes of payload."""
        self.spent += size
        if self.spent > self.payload:
            raise WeightsError(f"the pickle asks for more than {self.payload >> 20} MB beside its tensors",
                               remedy=NOT_RUN)

    def check_key(self, key: Any) -> None:
        """Raises unless `key` is cheap to hash: text, bytes, a number, None."""
        if type(key) in (int, float, bool):
            self.numbers += 1
            if self.numbers > self.numeric_keys:
                raise WeightsError(f"more than {self.numeric_keys} numbers as dictionary keys", remedy=NOT_RUN)
        elif type(key) not in (str, bytes) and key is not None:
            raise WeightsError(f"a dictionary key of type {printable(type(key).__name__)}",
                               expected="a name or a number", remedy=NOT_RUN)


def unpickle(data: bytes | memoryview, admitted: Mapping[tuple[str, str], Admitted],
             persistent: Callable[[tuple, Account], object] | None, start: int = 0,
             account: Account | None = None) -> tuple[object, int]:
    """The object that the pickle at `data[start:]` describes, and the position after it.

    Parameters
    ----------
    data : bytes or memoryview
        Protocol 2 to 5, binary instructions only.
    admitted : mapping
        (module, name) -> what stands for it; any other global is refused by name.
    persistent : callable
        Makes an object from the tuple in a persistent id. None: the pickle may have no persistent ids.
    start : int
        Position of the pickle's first byte.
    account : Account, optional
        The budget.

    Raises
    ------
    WeightsError
        The pickle has globals that are not admitted or instructions that make objects by name (INST, OBJ, EXT), is cut
        off, or exceeds the budget. A damaged pickle can raise other errors, see `tensor_files.refusing`.
    """
    reader = _Unpickler(data, start, admitted, persistent, account or Account())
    return reader.load(), reader.at


class _Unpickler(_PYTHON):
    """`read`, `readline`, `find_class` and `persistent_load` are what the inherited instructions call."""

    def __init__(self, data, start, admitted, persistent, account):
        # The base's `__init__` wants a file. The first four attributes are those that its instructions use.
        self.stack, self.metastack, self.memo = [], [], {}
        self.append = self.stack.append
        self.data, self.at, self.admitted, self.persistent, self.account = data, start, admitted, persistent, account
        self.steps = 0

    def load(self):
        data, known, allowed, end = self.data, self.dispatch, self.account.instructions, len(self.data)
        while self.at < end:
            code = data[self.at]
            self.at += 1
            if code == pickle.STOP[0]:
                return self.stack.pop()
            instruction = known.get(code)
            if instruction is None:
                raise WeightsError(f"the pickle has the instruction {_name(code)}, which no tensor needs",
                                   remedy=NOT_RUN)
            self.steps += 1
            if self.steps > allowed:
                raise WeightsError(f"the pickle has more than {allowed} instructions", remedy=NOT_RUN)
            instruction(self)
        raise WeightsError("the pickle is cut off")

    def read(self, size: int) -> bytes:
        part = self.data[self.at:self.at + size]
        if len(part) != size:
            raise WeightsError("the pickle is cut off", expected=f"{size} more bytes", found=len(part))
        self.at += size
        if size > 8:
            self.account.charge(size)
        return bytes(part)

    def readline(self) -> bytes:
        """A line; only names of globals are written so."""
        part = bytes(self.data[self.at:self.at + _LONGEST_GLOBAL])
        length = part.find(b"\n") + 1
        if not length:
            raise WeightsError("the pickle has a global without an end to its name")
        self.at += length
        return part[:length]

    def find_class(self, module: str, name: str) -> Admitted:
        found = self.admitted.get((module, name))
        if found is None:
            raise WeightsError(f"refused: the pickle wants {printable(module)}.{printable(name)}", remedy=NOT_RUN)
        return found

    def persistent_load(self, pid: Any) -> object:
        if type(pid) is not tuple:
            raise WeightsError(f"a persistent id of type {type(pid).__name__}", expected="a tuple")
        if self.persistent is None:
            raise WeightsError("a storage where none can be")
        return self.persistent(pid, self.account)

    def _decode_string(self, value: bytes) -> str:
        """Decodes Python 2's `str`, as in old checkpoints' names, which is not always UTF-8."""
        self.account.charge(3 * len(value))
        try:
            return value.decode("utf-8")
        except UnicodeDecodeError:
            return value.decode("latin-1")

    def text(self, size: int) -> None:
        # A character can take four bytes of memory.
        self.account.charge(3 * size)
        self.append(str(self.read(size), "utf-8", "surrogatepass"))

    def protocol(self) -> None:
        version = self.read(1)[0]
        if not 2 <= version <= 5:
            raise WeightsError(f"the pickle has protocol {version}", expected="2 to 5")

    def frame(self) -> None:
        length, = unpack("<Q", self.read(8))
        if length > len(self.data) - self.at:
            raise WeightsError("the pickle is cut off", expected=f"a frame of {length} bytes",
                               found=len(self.data) - self.at)

    def remember(self, index: int) -> None:
        # A real pickler counts up from 0 (or 1), with at most one entry per instruction.
        if index > self.steps:
            raise WeightsError(f"the pickle has the memo index {index} after {self.steps} instructions")
        self.memo[index] = self.stack[-1]

    def set_items(self, items: list) -> None:
        target = self.stack[-1]
        if not isinstance(target, dict) or len(items) % 2:
            raise WeightsError(f"the pickle sets items of an object of type {type(target).__name__}")
        for key, value in zip(items[::2], items[1::2]):
            self.account.check_key(key)
            target[key] = value

    def set_item(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self.set_items([key, value])

    def call(self) -> None:
        args, called = self.stack.pop(), self.stack.pop()
        if not isinstance(called, Admitted) or called.build is None:
            name = called.name if isinstance(called, Admitted) else f"an object of type {type(called).__name__}"
            raise WeightsError(f"refused: the pickle wants to call {printable(name)}", remedy=NOT_RUN)
        if type(args) is not tuple:
            raise WeightsError(f"the arguments of {called.name} are no tuple")
        self.append(called.build(args, self.account))

    def set_state(self) -> None:
        state, target = self.stack.pop(), self.stack[-1]
        if not isinstance(target, Stateful):
            raise WeightsError(f"refused: the pickle sets the state of an object of type {type(target).__name__}",
                               remedy=NOT_RUN)
        target.set_state(state, self.account)

    _inherited = b"".join((
        pickle.NONE, pickle.NEWTRUE, pickle.NEWFALSE, pickle.BININT, pickle.BININT1, pickle.BININT2, pickle.LONG1,
        pickle.BINFLOAT, pickle.SHORT_BINSTRING, pickle.BINSTRING, pickle.SHORT_BINBYTES, pickle.BINBYTES,
        pickle.BINBYTES8, pickle.MARK, pickle.EMPTY_TUPLE, pickle.TUPLE1, pickle.TUPLE2, pickle.TUPLE3, pickle.TUPLE,
        pickle.EMPTY_LIST, pickle.APPEND, pickle.APPENDS, pickle.EMPTY_DICT, pickle.BINGET, pickle.LONG_BINGET,
        pickle.MEMOIZE, pickle.GLOBAL, pickle.STACK_GLOBAL, pickle.BINPERSID))
    dispatch = {code: _PYTHON.dispatch[code] for code in _inherited} | {code[0]: run for code, run in {
        pickle.PROTO: protocol,
        pickle.FRAME: frame,
        pickle.SHORT_BINUNICODE: lambda self: self.text(self.read(1)[0]),
        pickle.BINUNICODE: lambda self: self.text(unpack("<I", self.read(4))[0]),
        pickle.BINUNICODE8: lambda self: self.text(unpack("<Q", self.read(8))[0]),
        pickle.BINPUT: lambda self: self.remember(self.read(1)[0]),
        pickle.LONG_BINPUT: lambda self: self.remember(unpack("<I", self.read(4))[0]),
        pickle.SETITEM: set_item,
        pickle.SETITEMS: lambda self: self.set_items(self.pop_mark()),
        pickle.REDUCE: call,
        pickle.NEWOBJ: call,
        pickle.BUILD: set_state,
        # Sets become lists, so that their elements are never hashed.
        pickle.EMPTY_SET: _PYTHON.load_empty_list,
        pickle.ADDITEMS: _PYTHON.load_appends,
        pickle.FROZENSET: _PYTHON.load_tuple,
    }.items()}


def _name(code: int) -> str:
    import pickletools

    return next((known.name for known in pickletools.opcodes if known.code == chr(code)), f"0x{code:02x}")
