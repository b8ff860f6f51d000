"""Letters that Matplotlib's own font lacks (Chinese, ...): drawn in an installed font, or written as an escape."""
from __future__ import annotations

import functools
import re
from collections.abc import Iterable

from matplotlib import font_manager
from matplotlib.figure import Figure
from matplotlib.text import Text

from gluon_ft.errors import escaped

OWN = "DejaVu Sans"  # comes with Matplotlib
# Boxes in place of letters, bitmaps in colour, which Matplotlib cannot draw, and symbols in the places of letters.
_USELESS = re.compile(r"Last Resort|Color|STIX(NonUnicode|Size)|cm[a-z]+10$")


def drawable(text: str) -> str:
    """`text` with what no font here has as `\\u732b`, and with what does not stay in a line escaped."""
    return "".join(c if font_of(c) else c.encode("unicode_escape").decode("ascii") for c in escaped(text))


def choose_fonts(figure: Figure) -> list[str]:
    """Gives every text of a figure the fonts that its letters need; returns their names, Matplotlib's own first."""
    texts = [text for text in figure.findobj(Text) if isinstance(text, Text)]
    families = _families("".join(text.get_text() for text in texts))
    if len(families) > 1:
        for text in texts:
            text.set_fontfamily(families)
    return families


def _families(letters: Iterable[str]) -> list[str]:
    return list(dict.fromkeys([OWN, *filter(None, map(font_of, sorted(set(letters))))]))


@functools.lru_cache(maxsize=100_000)
def font_of(letter: str) -> str | None:
    """The font that has a letter: Matplotlib's own, or the first one installed; None where there is none."""
    own = _letters(font_manager.findfont(OWN))
    if ord(letter) in own or letter.isspace():
        return OWN
    return next((name for name, path in _others() if ord(letter) in _letters(path)), None)


@functools.cache
def _others() -> list[tuple[str, str]]:
    """(name, file) of the other fonts, those that say they are for many scripts first."""
    fonts = {entry.name: entry.fname for entry in reversed(font_manager.fontManager.ttflist)
             if entry.style == "normal" and not _USELESS.search(entry.name)}
    return sorted(((name, path) for name, path in fonts.items() if name != OWN),
                  key=lambda font: (not any(word in font[0] for word in ("CJK", "Sans", "Gothic", "Hei")), font[0]))


@functools.cache
def _letters(path: str) -> frozenset[int]:
    try:
        return frozenset(font_manager.get_font(path).get_charmap())
    except (RuntimeError, OSError):  # a file that FreeType cannot read
        return frozenset()
