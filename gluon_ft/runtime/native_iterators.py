"""MXNet's C++ iterators (`ImageRecordIter`, `CSVIter`, ...): how each was made, so that it can be made anew.

Their `reset` does not begin at the beginning: with `round_batch` a second pass leaves out what filled up the last batch
of the first, and `pad` is not always set; without it the last batch of `ImageRecordIter` ends in rows of earlier ones.
Only the first pass of a new iterator has every image once, and the iterator does not say what it was made of.
"""
from __future__ import annotations

import functools
import inspect
from typing import Any

_MADE = "_gluon_ft_made_by"


def remember(mxnet: Any) -> None:
    """Lets MXNet's iterators keep what they were made by and of; those that were made before do not. `mxnet` is the
    module."""
    for module in (mxnet.io, mxnet.io.io):
        for name, creator in list(vars(module).items()):
            if inspect.isfunction(creator) and "Iter" in name and not name.startswith("_") \
                    and not hasattr(creator, "__wrapped__"):
                setattr(module, name, _remembering(creator))


def _remembering(creator):
    @functools.wraps(creator)
    def create(*args, **options):
        made = creator(*args, **options)
        setattr(made, _MADE, (create, options))
        return made
    return create


def made_of(iterator: Any) -> dict | None:
    """The options that an iterator was made with, None where they are not known."""
    return getattr(iterator, _MADE)[1] if hasattr(iterator, _MADE) else None


def made_anew(iterator: Any) -> Any:
    """Another iterator of the same options, at its beginning."""
    creator, options = getattr(iterator, _MADE)
    return creator(**options)
