"""Progress bars and notices of long work, which a caller can redirect or silence.

`set_reporter` takes any object with the two methods of `Reporter`.
"""
from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from gluon_ft.errors import ConfigError, escaped

if TYPE_CHECKING:
    from tqdm import tqdm


class Reporter:
    """Shows progress and notices on standard error."""

    def progress(self, iterable: Iterable | None = None, **options: Any) -> tqdm:
        """A tqdm bar, shown only on a terminal (or with `GLUON_FT_PROGRESS=1`), and cleared when it is done.

        `options` are tqdm's.
        """
        forced = os.environ.get("GLUON_FT_PROGRESS")
        if options.get("disable") is None:
            options["disable"] = None if forced is None else forced == "0"
        options.setdefault("leave", False)
        options.setdefault("dynamic_ncols", True)
        try:
            from tqdm import tqdm  # reads its TQDM_... variables when it is imported

            return tqdm(iterable, **options)
        except ValueError as error:
            given = [name for name in os.environ if name.startswith("TQDM_")]
            if not given:
                raise
            raise ConfigError(f"the environment variable {' or '.join(given)} cannot be read", found=error,
                              remedy="change it, or unset it") from error

    def notice(self, text: str) -> None:
        """Prints one line that the user should know now; control characters in it are escaped."""
        print(escaped(text), file=sys.stderr, flush=True)


class Silent(Reporter):
    """Shows nothing."""

    def progress(self, iterable: Iterable | None = None, **options: Any) -> tqdm:
        return super().progress(iterable, **{**options, "disable": True})

    def notice(self, text: str) -> None:
        pass


_current = Reporter()


def set_reporter(reporter: Reporter) -> Reporter:
    """Makes `reporter` the current one of the whole process; returns the previous one."""
    global _current
    before, _current = _current, reporter
    return before


@contextlib.contextmanager
def silenced() -> Iterator[None]:
    """No progress bars and no notices in the block."""
    before = set_reporter(Silent())
    try:
        yield
    finally:
        set_reporter(before)


def progress(iterable: Iterable | None = None, **options: Any) -> tqdm:
    """A progress bar of the current reporter, see `Reporter.progress`."""
    return _current.progress(iterable, **options)


def notice(text: str) -> None:
    """A line to the user through the current reporter."""
    _current.notice(text)
