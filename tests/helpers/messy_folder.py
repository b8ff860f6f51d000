"""A folder as people have it: every format and habit of the issue tracker in one tree, with what is right about it."""
from __future__ import annotations

import io
import os
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

CLASSES = ["Zo\u00eb", "cats", "dogs"]
COLOURS = {"cats": (200, 40, 40), "dogs": (40, 200, 40), "Zo\u00eb": (40, 40, 200)}


@dataclass
class Messy:
    """The tree, and what is in it: paths below the root.

    Attributes
    ----------
    good : list of str
        Images that can be read, one entry a path.
    bad : list of str
        Files with an image's suffix that cannot be read.
    left_out : list of str
        Files that no command takes, each to be said.
    copies, two_labels : int
        Pairs of equal images, and how many of these pairs have two labels.
    unreachable : list of str
        What `break_it` added: a broken link.
    odd : list of str
        Readable images that `name_oddly` added, one of them with a line end in its name and one that is not UTF-8.
    """

    root: Path
    good: list[str] = field(default_factory=list)
    bad: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    copies: int = 0
    two_labels: int = 0
    unreachable: list[str] = field(default_factory=list)
    odd: list[str] = field(default_factory=list)

    def put(self, name: str, data: bytes, into: list[str]) -> None:
        """Writes a file below the root and notes it in one of the lists."""
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        into.append(name)

    def of_class(self, name: str) -> list[str]:
        """The good images of a class."""
        return [path for path in self.good if path.split("/")[0] == name]


class Pictures:
    """Pictures that no audit takes for each other, in any format."""

    def __init__(self, seed: int = 0):
        self.rng = np.random.RandomState(seed)

    def array(self, kind: str, size: tuple[int, int] = (48, 40)) -> np.ndarray:
        """uint8 RGB (height, width, 3)."""
        pattern = cv2.resize(self.rng.randint(0, 256, (6, 6)).astype(np.uint8), size, interpolation=cv2.INTER_CUBIC)
        return np.clip(0.5 * np.array(COLOURS[kind]) + 0.5 * pattern[..., None], 0, 255).astype(np.uint8)

    def encoded(self, kind: str, form: str = "PNG", mode: str = "RGB", **options) -> bytes:
        """A new picture as a file."""
        image = Image.fromarray(self.array(kind, options.pop("size", (48, 40))))
        out = io.BytesIO()
        (image if mode == "RGB" else image.convert(mode)).save(out, form, **options)
        return out.getvalue()


def make(root: Path, seed: int = 0) -> Messy:
    """Three classes of about ten readable images in many forms, bad files, and what lies about beside them."""
    found, pictures = Messy(Path(root)), Pictures(seed)
    exif = Image.Exif()
    exif[0x0112] = 6
    for kind in CLASSES:
        for number in range(5):
            found.put(f"{kind}/{number}.jpg", pictures.encoded(kind, "JPEG", quality=95), found.good)
        found.put(f"{kind}/six.JFIF", pictures.encoded(kind, "JPEG"), found.good)
        found.put(f"{kind}/deep/er/seven.webp", pictures.encoded(kind, "WEBP"), found.good)
        found.put(f"{kind}/eight.gif", pictures.encoded(kind, "GIF", "P"), found.good)
    found.put("cats/upright.jpg", pictures.encoded("cats", "JPEG", exif=exif), found.good)
    found.put("cats/grey.png", pictures.encoded("cats", "PNG", "L"), found.good)
    found.put("cats/inks.jpg", pictures.encoded("cats", "JPEG", "CMYK"), found.good)
    found.put("dogs/clear \U0001f436 \u202egpj.png", pictures.encoded("dogs", "PNG", "RGBA"), found.good)
    _bad_files(found, pictures)
    for name in ("notes.txt", "cats/Thumbs.db", "dogs/raw.dng", "dogs/nosuffix"):
        found.put(name, b"nothing", found.left_out)
    for name in ("cats/@eaDir/0.jpg/SYNO_S.jpg", "#recycle/old.jpg", "dogs/.thumbnails/1.png", "cats/._0.jpg",
                 "__MACOSX/cats/._1.jpg", "stray.jpg"):
        found.put(name, pictures.encoded("cats", "JPEG"), found.left_out)
    (found.root / "cats" / ".DS_Store").write_bytes(b"nothing")
    # The same file again, and the same picture in another class.
    found.put("dogs/copy of 0.jpg", (found.root / "dogs" / "0.jpg").read_bytes(), found.good)
    found.put("Zo\u00eb/a cat.jpg", (found.root / "cats" / "1.jpg").read_bytes(), found.good)
    found.copies, found.two_labels = 2, 1
    _links(found, pictures)
    return found


def _bad_files(found, pictures):
    whole = pictures.encoded("dogs", "JPEG")
    found.put("dogs/cut.jpg", whole[:len(whole) // 2], found.bad)
    found.put("dogs/empty.png", b"", found.bad)
    found.put("cats/page\x1b[31m.jpg", b"<html>not found</html>", found.bad)
    found.put("cats/drawing.png", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EOF\n", found.bad)


def _links(found, pictures):
    if not hasattr(os, "symlink"):
        return
    away = found.root.parent / f"{found.root.name}-away"
    away.mkdir()
    (away / "nine.png").write_bytes(pictures.encoded("Zo\u00eb"))
    (found.root / "Zo\u00eb" / "linked").symlink_to(away)
    (found.root / "Zo\u00eb" / "round").symlink_to(found.root)
    found.good.append("Zo\u00eb/linked/nine.png")
    found.left_out.append("Zo\u00eb/round")


def break_it(found: Messy) -> Messy:
    """Adds what training and splitting refuse, and auditing and predicting name: a broken link."""
    (found.root / "dogs" / "gone.jpg").symlink_to(found.root / "unmounted.jpg")
    found.unreachable.append("dogs/gone.jpg")
    return found


def name_oddly(found: Messy, seed: int = 7) -> Messy:
    """Adds what lists cannot hold, and auditing and predicting take: names with a line end or with bytes that are no
    UTF-8; a file that cannot be read has such a name too.
    """
    pictures, latin = Pictures(seed), os.fsdecode(b"caf\xe9")
    found.put("cats/two\nlines.png", pictures.encoded("cats"), found.odd)
    found.put(f"cats/{latin}.png", pictures.encoded("cats"), found.odd)
    found.put(f"dogs/{latin}\r\n.jpg", b"<html>", found.bad)
    found.good += found.odd
    return found
