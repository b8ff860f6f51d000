"""Remembers the options of MXNet's C++ iterators (`ImageRecordIter`, `CSVIter`, ...), to make the same iterator again.

Their `reset` does not return to the beginning. With `round_batch` the second pass leaves out the images that filled up
the last batch of the first pass, and `pad` is not always set; without it the last batch of `ImageRecordIter` ends in
rows of earlier batches. Only the first pass of a new iterator has every image exactly once, and an iterator does not
know its own options.
"""
from __future__ import annotations

import functools
import inspect
from typing import Any

_MADE = "_gluon_ft_made_by"


def remember(mxnet: Any) -> None:
    """Makes MXNet's iterators, from now on, keep their creator and options. `mxnet` is the module."""
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
    """The options that an iterator was made with; None where they are not known."""
    return getattr(iterator, _MADE)[1] if hasattr(iterator, _MADE) else None


def made_anew(iterator: Any) -> Any:
    """A new iterator with the same options."""
    creator, options = getattr(iterator, _MADE)
    return creator(**options)
