"""A contact sheet: thumbnails with captions on one picture."""
from __future__ import annotations

import os
from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

from gluon_ft.errors import DataError, escaped
from gluon_ft.io import atomic
from gluon_ft.io.paths import AnyPath

_MARGIN, _CAPTION = 6, 16  # pixels


def contact_sheet(pictures: Sequence[tuple[Image.Image, str]], *, columns: int = 8, thumb: int = 128,
                  title: str = "") -> Image.Image:
    """Draws thumbnails in rows, each with its caption below, cut to the thumbnail's width.

    Parameters
    ----------
    pictures : sequence of (PIL.Image, str)
        Images of any size and mode, with their captions, in order.
    columns : int, default 8
        Thumbnails in a row.
    thumb : int, default 128
        Edge of the square that a thumbnail is fitted into, pixels.
    title : str, optional
        A line above the thumbnails.

    Returns
    -------
    PIL.Image
        RGB.
    """
    columns = max(1, min(columns, len(pictures)))
    rows = -(-len(pictures) // columns)
    top = _MARGIN + (_CAPTION + _MARGIN if title else 0)
    step_x, step_y = thumb + _MARGIN, thumb + _CAPTION + _MARGIN
    sheet = Image.new("RGB", (_MARGIN + columns * step_x, top + rows * step_y), "white")
    draw, font = ImageDraw.Draw(sheet), _font()
    if title:
        draw.text((_MARGIN, _MARGIN), _cut(draw, title, font, sheet.width - 2 * _MARGIN), fill="black", font=font)
    for i, (picture, caption) in enumerate(pictures):
        x, y = _MARGIN + i % columns * step_x, top + i // columns * step_y
        small = _thumbnail(picture, thumb)
        draw.rectangle((x, y, x + thumb - 1, y + thumb - 1), fill="#eeeeee")
        sheet.paste(small, (x + (thumb - small.width) // 2, y + (thumb - small.height) // 2))
        draw.text((x, y + thumb + 1), _cut(draw, caption, font, thumb), fill="black", font=font)
    return sheet


def save(picture: Image.Image, out: AnyPath) -> None:
    """Writes a sheet as PNG, whole or not at all. Raises DataError where it cannot be written."""
    try:
        with atomic.replacing(out) as temporary:
            picture.save(temporary, format="PNG")
    except OSError as error:
        raise DataError("contact sheet cannot be written", path=out, found=error.strerror or error) from error


def _thumbnail(picture, edge):
    small = picture.convert("RGBA") if picture.mode in ("P", "PA", "LA") else picture.copy()
    small.thumbnail((edge, edge), Image.Resampling.LANCZOS)
    if small.mode == "RGBA":
        small = Image.alpha_composite(Image.new("RGBA", small.size, "white"), small)
    return small.convert("RGB")


def _font():
    import matplotlib

    # Comes with matplotlib and has Latin, Greek, Cyrillic and Arabic letters; Pillow's own has Latin only.
    return ImageFont.truetype(os.path.join(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf"), 10)


def _cut(draw, text, font, width):
    text = escaped(" ".join(text.split()))
    if draw.textlength(text, font=font) <= width:
        return text
    while text and draw.textlength(f"{text}…", font=font) > width:
        text = text[:-1]
    return f"{text}…"
