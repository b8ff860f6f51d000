"""Reads a pickle without running anything: an interpreter for the instructions that weights files consist of.

`pickle.Unpickler` with a strict `find_class` would not run code either, but it still obeys the pickle's wishes about
memory and time: LONG_BINPUT allocates a memo as long as its index says, nested tuples as dictionary keys hash for
ever, a 100-digit integer is cheap and a 100-million-digit one is not. Here every instruction is counted, every
byte of payload is charged, and a global is an entry of a table: looked up by its exact name, never imported.
"""
from __future__ import annotations

import pickle
import struct
from collections.abc import Callable, Mapping

from gluon_ft.errors import WeightsError
from gluon_ft.weights.readers.pickle_rules import Account, Admitted, Stateful
from gluon_ft.weights.readers.refusal import NOT_RUN, printable

_LONGEST_TEXT = 1 << 20
_LONGEST_INTEGER_BYTES = 16
_LONGEST_GLOBAL = 512


def unpickle(data, admitted: Mapping[tuple[str, str], Admitted], persistent: Callable[[tuple, Account], object],
             start: int = 0, account: Account | None = None) -> tuple[object, int]:
    """The object that the pickle at `data[start:]` describes, and the position after it.

    Parameters
    ----------
    data : bytes or memoryview
        Protocol 2 to 5, binary instructions only.
    admitted : mapping
        (module, name) to what stands for it; any other global is refused by name.
    persistent : callable
        Makes an object of the tuple in a persistent id.

    Raises WeightsError (or an error that `refusing` turns into one) for anything else: globals that are not
    admitted, instructions that make objects by name (INST, OBJ, EXT), truncation, and more than `account` allows.
    """
    machine = _Machine(data, start, admitted, persistent, account or Account())
    return machine.run(), machine.at


class _Machine:
    def __init__(self, data, start, admitted, persistent, account):
        self.data, self.at, self.admitted, self.persistent, self.account = data, start, admitted, persistent, account
        self.stack, self.below, self.memo, self.steps = [], [], {}, 0

    def run(self):
        data, known, allowed, end = self.data, _INSTRUCTIONS, self.account.instructions, len(self.data)
        while self.at < end:
            code = data[self.at]
            self.at += 1
            if code == pickle.STOP[0]:
                return self.stack.pop()
            instruction = known.get(code)
            if instruction is None:
                raise WeightsError(f"the pickle has the instruction {_instruction_name(code)}, which no tensor needs",
                                   remedy=NOT_RUN)
            self.steps += 1
            if self.steps > allowed:
                raise WeightsError(f"the pickle has more than {allowed} instructions", remedy=NOT_RUN)
            instruction(self)
        raise WeightsError("the pickle is cut off")

    def take(self, count: int):
        part = self.data[self.at:self.at + count]
        if len(part) != count:
            raise WeightsError("the pickle is cut off", expected=f"{count} more bytes", found=len(part))
        self.at += count
        return part

    def number(self, form: struct.Struct) -> int:
        return form.unpack(self.take(form.size))[0]

    def line(self) -> str:
        part = bytes(self.data[self.at:self.at + _LONGEST_GLOBAL])
        length = part.find(b"\n")
        if length < 0:
            raise WeightsError("the pickle has a global without an end to its name")
        self.at += length + 1
        return part[:length].decode("utf-8")

    def text(self, size: int, encoding: str = "utf-8", errors: str = "surrogatepass") -> str:
        if size > _LONGEST_TEXT:
            raise WeightsError(f"the pickle has a text of {size} bytes", expected=f"at most {_LONGEST_TEXT}")
        part = self.take(size)
        self.account.charge(4 * size)
        return str(part, encoding, errors)

    def marked(self) -> list:
        """The objects above the last mark, which they leave."""
        items, self.stack = self.stack, self.below.pop()
        return items

    def find(self, module, name) -> Admitted:
        found = self.admitted.get((module, name)) if type(module) is str and type(name) is str else None
        if found is None:
            raise WeightsError(f"refused: the pickle wants {printable(module)}.{printable(name)}", remedy=NOT_RUN)
        return found

    def build(self, called, args):
        if not isinstance(called, Admitted) or called.build is None:
            name = called.name if isinstance(called, Admitted) else f"an object of type {type(called).__name__}"
            raise WeightsError(f"refused: the pickle wants to call {printable(name)}", remedy=NOT_RUN)
        if type(args) is not tuple:
            raise WeightsError(f"the arguments of {called.name} are no tuple")
        return called.build(args, self.account)

    def remember(self, index: int) -> None:
        # A real pickler counts up from 0 (or 1), one entry at most for each instruction.
        if index > self.steps:
            raise WeightsError(f"the pickle has the memo index {index} after {self.steps} instructions")
        self.memo[index] = self.stack[-1]


def _instruction_name(code: int) -> str:
    import pickletools

    known = pickletools.code2op.get(chr(code))
    return known.name if known else f"0x{code:02x}"


_U1, _U2, _U4, _U8 = (struct.Struct("<" + c) for c in "BHIQ")
_I4, _F8 = struct.Struct("<i"), struct.Struct(">d")


def _protocol(m):
    version = m.number(_U1)
    if not 2 <= version <= 5:
        raise WeightsError(f"the pickle has protocol {version}", expected="2 to 5")


def _frame(m):
    length = m.number(_U8)
    if length > len(m.data) - m.at:
        raise WeightsError("the pickle is cut off", expected=f"a frame of {length} bytes", found=len(m.data) - m.at)


def _mark(m):
    m.below.append(m.stack)
    m.stack = []


def _integer(m, size):
    if size > _LONGEST_INTEGER_BYTES:
        raise WeightsError(f"the pickle has an integer of {size} bytes", expected=f"at most {_LONGEST_INTEGER_BYTES}")
    m.stack.append(int.from_bytes(m.take(size), "little", signed=True))


def _bytes(m, size):
    part = m.take(size)
    m.account.charge(size)
    m.stack.append(bytes(part))


def _python2_string(m, size):
    """Python 2's `str`: names in old checkpoints. Not always UTF-8."""
    at = m.at
    try:
        m.stack.append(m.text(size, errors="strict"))
    except UnicodeDecodeError:
        m.at = at
        m.stack.append(m.text(size, "latin-1"))


def _last_to_tuple(m, count):
    items = tuple(m.stack[-count:])
    if len(items) != count:
        raise WeightsError("the pickle's stack runs empty")
    m.stack[-count:] = [items]


def _append(m, items):
    target = m.stack[-1]
    if not isinstance(target, list):
        raise WeightsError(f"the pickle appends to an object of type {type(target).__name__}")
    target.extend(items)


def _set_items(m, items):
    target = m.stack[-1]
    if not isinstance(target, dict) or len(items) % 2:
        raise WeightsError(f"the pickle sets items of an object of type {type(target).__name__}")
    for key, value in zip(items[::2], items[1::2]):
        m.account.check_key(key)
        target[key] = value


def _set_item(m):
    value, key = m.stack.pop(), m.stack.pop()
    _set_items(m, [key, value])


def _global(m):
    module = m.line()
    m.stack.append(m.find(module, m.line()))


def _stack_global(m):
    name, module = m.stack.pop(), m.stack.pop()
    m.stack.append(m.find(module, name))


def _call(m):
    args, called = m.stack.pop(), m.stack.pop()
    m.stack.append(m.build(called, args))


def _set_state(m):
    state, target = m.stack.pop(), m.stack[-1]
    if not isinstance(target, Stateful):
        raise WeightsError(f"refused: the pickle sets the state of an object of type {type(target).__name__}",
                           remedy=NOT_RUN)
    target.set_state(state, m.account)


def _persistent(m):
    name = m.stack.pop()
    if type(name) is not tuple:
        raise WeightsError(f"a persistent id of type {type(name).__name__}", expected="a tuple")
    m.stack.append(m.persistent(name, m.account))


_INSTRUCTIONS = {code[0]: run for code, run in {
    pickle.PROTO: _protocol,
    pickle.FRAME: _frame,
    pickle.MARK: _mark,
    pickle.NONE: lambda m: m.stack.append(None),
    pickle.NEWTRUE: lambda m: m.stack.append(True),
    pickle.NEWFALSE: lambda m: m.stack.append(False),
    pickle.BININT: lambda m: m.stack.append(m.number(_I4)),
    pickle.BININT1: lambda m: m.stack.append(m.number(_U1)),
    pickle.BININT2: lambda m: m.stack.append(m.number(_U2)),
    pickle.LONG1: lambda m: _integer(m, m.number(_U1)),
    pickle.LONG4: lambda m: _integer(m, m.number(_U4)),
    pickle.BINFLOAT: lambda m: m.stack.append(m.number(_F8)),
    pickle.SHORT_BINUNICODE: lambda m: m.stack.append(m.text(m.number(_U1))),
    pickle.BINUNICODE: lambda m: m.stack.append(m.text(m.number(_U4))),
    pickle.BINUNICODE8: lambda m: m.stack.append(m.text(m.number(_U8))),
    pickle.SHORT_BINSTRING: lambda m: _python2_string(m, m.number(_U1)),
    pickle.BINSTRING: lambda m: _python2_string(m, m.number(_U4)),
    pickle.SHORT_BINBYTES: lambda m: _bytes(m, m.number(_U1)),
    pickle.BINBYTES: lambda m: _bytes(m, m.number(_U4)),
    pickle.BINBYTES8: lambda m: _bytes(m, m.number(_U8)),
    pickle.EMPTY_TUPLE: lambda m: m.stack.append(()),
    pickle.TUPLE1: lambda m: _last_to_tuple(m, 1),
    pickle.TUPLE2: lambda m: _last_to_tuple(m, 2),
    pickle.TUPLE3: lambda m: _last_to_tuple(m, 3),
    pickle.TUPLE: lambda m: _push_after(m, tuple),
    pickle.FROZENSET: lambda m: _push_after(m, tuple),
    pickle.EMPTY_LIST: lambda m: m.stack.append([]),
    # Sets come out as lists: their elements need no hash, and nothing here asks whether one is in them.
    pickle.EMPTY_SET: lambda m: m.stack.append([]),
    pickle.EMPTY_DICT: lambda m: m.stack.append({}),
    pickle.APPEND: lambda m: _append(m, [m.stack.pop()]),
    pickle.APPENDS: lambda m: _append(m, m.marked()),
    pickle.ADDITEMS: lambda m: _append(m, m.marked()),
    pickle.SETITEM: _set_item,
    pickle.SETITEMS: lambda m: _set_items(m, m.marked()),
    pickle.BINPUT: lambda m: m.remember(m.number(_U1)),
    pickle.LONG_BINPUT: lambda m: m.remember(m.number(_U4)),
    pickle.MEMOIZE: lambda m: m.remember(len(m.memo)),
    pickle.BINGET: lambda m: m.stack.append(m.memo[m.number(_U1)]),
    pickle.LONG_BINGET: lambda m: m.stack.append(m.memo[m.number(_U4)]),
    pickle.GLOBAL: _global,
    pickle.STACK_GLOBAL: _stack_global,
    pickle.REDUCE: _call,
    pickle.NEWOBJ: _call,
    pickle.BUILD: _set_state,
    pickle.BINPERSID: _persistent,
}.items()}


def _push_after(m, make):
    items = make(m.marked())
    m.stack.append(items)
