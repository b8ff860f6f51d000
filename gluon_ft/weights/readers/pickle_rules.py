"""What a pickle may name, and what it may cost."""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from gluon_ft.errors import WeightsError
from gluon_ft.weights.readers.refusal import NOT_RUN, printable


@dataclass(frozen=True)
class Admitted:
    """What a global of the pickle stands for.

    name : as in the pickle, for messages.
    build : what REDUCE and NEWOBJ do with it, `build(args, account) -> object`; None where it is only a mark.
    value : what the mark says, for example a storage's dtype.
    """

    name: str
    build: Callable[[tuple, Account], object] | None = None
    value: object = None


class Stateful:
    """An object that takes the state of a BUILD instruction. Nothing else does."""

    def set_state(self, state, account: Account) -> None:
        raise NotImplementedError


@dataclass
class Account:
    """What a pickle may cost, and what it has.

    instructions : at most so many; a tensor takes about 45, half a million run in under half a second.
    payload : at most so many bytes in strings, integers and the objects that builders make.
    numeric_keys : at most so many numbers as dictionary keys (numbers can be made to collide, strings cannot).
    """

    instructions: int = 500_000
    payload: int = 64 << 20
    numeric_keys: int = 10_000
    spent: int = field(default=0, init=False)
    numbers: int = field(default=0, init=False)

    def charge(self, size: int) -> None:
        self.spent += size
        if self.spent > self.payload:
            raise WeightsError(f"the pickle asks for more than {self.payload >> 20} MB beside its tensors",
                               remedy=NOT_RUN)

    def check_key(self, key) -> None:
        """Raises unless `key` is cheap to hash: text, bytes, a number, None."""
        if type(key) in (int, float, bool):
            self.numbers += 1
            if self.numbers > self.numeric_keys:
                raise WeightsError(f"more than {self.numeric_keys} numbers as dictionary keys", remedy=NOT_RUN)
        elif type(key) not in (str, bytes) and key is not None:
            raise WeightsError(f"a dictionary key of type {printable(type(key).__name__)}",
                               expected="a name or a number", remedy=NOT_RUN)
