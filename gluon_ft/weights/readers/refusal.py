"""How the readers of weights files refuse: one WeightsError with the path, also for what they did not foresee."""
from __future__ import annotations

import contextlib
import struct

from gluon_ft.errors import WeightsError

DAMAGED = "fetch the file again and compare its SHA-256 with the published one"
NOT_RUN = ("nothing in the file was run; ask its author for a safetensors file or a plain state dict: "
           "torch.save(net.state_dict(), path)")


@contextlib.contextmanager
def refusing(path):
    """For the block, every error that a damaged or hostile file can provoke leaves as a WeightsError with `path`.

    The readers check what they use; this is for the rest: a byte string that is no UTF-8, a tuple where a number
    should be, a stack that runs empty.
    """
    try:
        yield
    except WeightsError as error:
        if error.path is not None:
            raise
        raise WeightsError(error.message, path=path, expected=error.expected, found=error.found,
                           remedy=error.remedy or DAMAGED) from error.__cause__
    except MemoryError as error:
        raise WeightsError("there is not enough memory to read it", path=path,
                           remedy="close other programs, or read it on a larger machine") from error
    except (LookupError, TypeError, ValueError, ArithmeticError, AttributeError, struct.error, RecursionError,
            EOFError) as error:
        raise WeightsError(f"the file is damaged ({type(error).__name__}: {printable(str(error))})", path=path,
                           remedy=DAMAGED) from error


def printable(value, most: int = 80) -> str:
    """Text from a file, safe to print: ASCII, no control characters, at most `most` characters."""
    text = value if isinstance(value, str) else str(type(value).__name__)
    shown = text[:most + 1].encode("unicode_escape").decode("ascii")
    return shown if len(shown) <= most else shown[:most - 3] + "..."
