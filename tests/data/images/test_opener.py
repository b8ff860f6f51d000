"""Which formats are read, by content, on every path; and that no other plug-in of Pillow's is asked."""
from __future__ import annotations

import io
import sys

import numpy as np
import pytest
from PIL import Image, ImageOps

from gluon_ft.data.audit import checks
from gluon_ft.data.datasets import digits
from gluon_ft.data.images import decode, header
from gluon_ft.data.images.header import Unreadable
from gluon_ft.data.records import pack
from gluon_ft.errors import DataError

POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 100 100\n%%EndComments\nshowpage\n"
# Formats that Pillow opens by content and whose suffixes are not taken.
FOREIGN = ["EPS", "ICO", "TGA", "PCX", "SGI", "PDF", "DDS", "MSP", "XBM", "SPIDER"]


def written(kind: str) -> bytes:
    if kind == "EPS":
        return POSTSCRIPT
    out = io.BytesIO()
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    image.convert({"MSP": "1", "XBM": "1", "SPIDER": "F"}.get(kind, "RGB")).save(out, kind)
    return out.getvalue()


@pytest.mark.parametrize("kind", FOREIGN)
def test_other_formats_are_refused_whatever_they_are_called(kind, tmp_path, monkeypatch):
    Image.init()
    data = written(kind)

    def ask(*args, **options):
        raise AssertionError(f"Pillow's {kind} was asked")

    if kind in Image.OPEN:
        monkeypatch.setitem(Image.OPEN, kind, (ask, None))
    folder = tmp_path / "a"
    folder.mkdir()
    (folder / "x.jpg").write_bytes(data)
    (tmp_path / "x.lst").write_text("0\t0\ta/x.jpg\n")
    with pytest.raises(Unreadable, match=r"not an image \(begins with|damaged header"):
        header.probe(data)
    with pytest.raises(Unreadable):
        decode.decode_rgb(data)
    with pytest.raises(DataError, match="not an image"):
        digits.read_image(folder / "x.jpg")
    with pytest.raises(pack.UnreadableImages, match="not an image"):
        pack.pack(tmp_path / "x.lst", tmp_path)
    with pytest.raises(DataError, match="no image can be read"):
        checks.audit([tmp_path / "x.lst"])


def ftyp(brand: bytes) -> bytes:
    return b"\0\0\0\x18ftyp" + brand + b"\0\0\0\0" + brand + b"mif1" + bytes(200)


@pytest.mark.parametrize("brand", [b"heic", b"heix", b"mif1", b"hevc"])
def test_heic_without_pillow_heif_says_what_it_needs(brand, monkeypatch):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(Unreadable, match=r"HEIC/HEIF, which needs pillow-heif \(pip install pillow-heif\)"):
        header.probe(ftyp(brand))


def test_avif_with_an_old_pillow_says_what_it_needs(monkeypatch):
    Image.init()
    monkeypatch.delitem(Image.OPEN, "AVIF", raising=False)
    with pytest.raises(Unreadable, match=r"AVIF, which this Pillow cannot read \(pip install -U pillow\)"):
        header.probe(ftyp(b"avif"))


def test_damaged_heic_is_unreadable_where_pillow_heif_is_installed():
    pytest.importorskip("pillow_heif", reason="pillow-heif is not installed")
    with pytest.raises(Unreadable, match="damaged header"):
        header.probe(ftyp(b"heic"))


@pytest.mark.parametrize("turned", range(1, 9))
def test_heic_is_read_upright_with_pillow_heif(turned, monkeypatch):
    heif = pytest.importorskip("pillow_heif", reason="pillow-heif is not installed")
    image = Image.fromarray(np.kron(np.random.default_rng(5).integers(0, 256, (2, 3, 3)), np.ones((32, 32, 1))
                                    ).astype(np.uint8))
    for registered in ("ID", "OPEN", "SAVE", "SAVE_ALL", "EXTENSION", "MIME"):
        monkeypatch.setattr(Image, registered, getattr(Image, registered).copy())
    heif.register_heif_opener()  # to write
    exif, out = Image.Exif(), io.BytesIO()
    exif[0x0112] = turned
    image.save(out, "HEIF", quality=95, exif=exif)
    monkeypatch.undo()
    image.info["exif"] = exif.tobytes()
    wanted = ImageOps.exif_transpose(image)
    info = header.probe(out.getvalue())
    assert (info.format, info.upright) == ("HEIF", wanted.size)
    assert np.abs(decode.decode_rgb(out.getvalue()).astype(int) - np.asarray(wanted)).mean() < 2
    with pytest.raises(Unreadable, match="damaged"):
        decode.decode_rgb(out.getvalue()[:-20])
