"""UserError and its kinds: what was given, what was expected, what was found, what to do next."""
from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterable


class UserError(ValueError):
    """Something that the user can put right; shown as one line, without a traceback, with exit status 2.

    Parameters
    ----------
    message : str
        What is wrong, as a phrase without a final stop.
    path : path-like, optional
        The file or folder concerned; stands first in the line.
    expected, found : object, optional
        What should have been there, and what was.
    remedy : str, optional
        What to do next, as an imperative.
    """

    def __init__(self, message: str, *, path: str | os.PathLike | None = None, expected: object = None,
                 found: object = None, remedy: str | None = None):
        self.message, self.path, self.expected, self.found, self.remedy = message, path, expected, found, remedy
        super().__init__(self._line())

    def at(self, path: str | os.PathLike | None, remedy: str | None = None) -> UserError:
        """The same error about a file or folder; `remedy` counts where it has none of its own."""
        return type(self)(self.message, path=path, expected=self.expected, found=self.found,
                          remedy=self.remedy or remedy)

    def _line(self) -> str:
        parts = [self.message if self.path is None else f"{escaped(self.path)}: {self.message}"]
        if self.expected is not None:
            parts.append(f"expected {self.expected}")
        if self.found is not None:
            parts.append(f"found {self.found}")
        if self.remedy is not None:
            parts.append(self.remedy)
        # Only line breaks are taken out: a path may well hold two spaces in a row.
        return escaped(re.sub(r"\s*[\r\n]+\s*", " ", "; ".join(parts).strip()))


class ConfigError(UserError):
    """An option or a setting that does not exist, or whose value is out of its range."""


class DataError(UserError):
    """Images, labels, records or lists that cannot be used as they are."""


class NetworkError(UserError):
    """A network that cannot be built, or whose output, layers or parameters are not as needed."""


class WeightsError(UserError):
    """A weights file that is damaged, refused, or belongs to another network."""


class DownloadError(UserError):
    """Something that could not be fetched, with the addresses tried and where to put it by hand."""


class TrainingError(UserError):
    """Training that cannot go on: loss not finite, labels outside the head, nothing to train on."""


class Interrupted(KeyboardInterrupt):
    """SIGINT or SIGTERM came, and what was done is saved; `status` is the exit status that shells expect of it."""

    def __init__(self, message: str, status: int):
        super().__init__(message)
        self.status = status


class CheckpointError(UserError):
    """A saved state that is damaged, or belongs to another network or configuration."""


class DependencyError(UserError, ImportError):
    """A package or a system library that is missing or does not fit, with what to install."""


def near(name: str, known: Iterable[str], most: int = 3) -> str:
    """A remedy that names what may have been meant: 'did you mean a or b?', or else what is known.

    Parameters
    ----------
    name : str
        As it was given. The dashes of options make no name nearer.
    known : iterable of str
        Where none is near, all of up to 24 are named, or the first eight.
    most : int, default 3
        At most so many near names.
    """
    known = sorted(set(map(str, known)))
    if not known:
        return "there are none"
    wanted, bare = str(name).lstrip("-"), {k.lstrip("-"): k for k in known}
    close = [bare[k] for k in difflib.get_close_matches(wanted, list(bare), n=most, cutoff=0.6)]
    if not close:
        lower = {k.lower(): full for k, full in bare.items()}
        close = [lower[k] for k in difflib.get_close_matches(wanted.lower(), list(lower), n=most, cutoff=0.6)]
    if close:
        return f"did you mean {' or '.join(close)}?"
    if len(known) <= 24:
        return f"known: {', '.join(known)}"
    return f"known: {', '.join(known[:8])}, ..."


# Control characters, what changes the direction of writing or cannot be seen (but for the joiners of emoji and of Indic
# and Persian letters), line and paragraph separators, and halves of characters, which no terminal can be sent.
_UNSEEN = re.compile("[\x00-\x1f\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff"
                     "\ufff9-\ufffb\U000e0000-\U000e007f\ud800-\udfff]")


def escaped(text: object) -> str:
    """Text as one line to print, whatever name stands in it: what a terminal would act on is shown as `\\x1b`, `\\n`.

    A byte of a file name that is not UTF-8 is shown as `\\xff`. All other text stays, in any script.
    """
    return _UNSEEN.sub(_escape, str(text))


def _escape(match: re.Match[str]) -> str:
    code = ord(match[0])
    if 0xdc80 <= code <= 0xdcff:
        return f"\\x{code - 0xdc00:02x}"
    return match[0].encode("unicode_escape", "surrogatepass").decode("ascii")


def printable(value: object, most: int = 80) -> str:
    """Text from a file, safe to print: ASCII, no control characters, at most `most` characters.

    Of anything but text, the name of its type.
    """
    text = value if isinstance(value, str) else type(value).__name__
    shown = text[:most + 1].encode("unicode_escape").decode("ascii")
    return shown if len(shown) <= most else shown[:most - 3] + "..."


def last_line(error: BaseException) -> str:
    """The telling line of MXNet's errors, which begin with a stack trace."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
