"""The orientation of an image by every way to say it, in every format: what Pillow's exif_transpose makes of it."""
from __future__ import annotations

import io
import struct
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image, ImageOps

from gluon_ft.data.images import decode, header

PIXELS = np.kron(np.random.default_rng(5).integers(0, 256, (2, 3, 3)), np.ones((8, 8, 1))).astype(np.uint8)  # 24 x 16
TYPES = {"BYTE": (1, "B"), "ASCII": (2, "B"), "SHORT": (3, "H"), "LONG": (4, "I"), "SIGNED": (8, "h"),
         "FLOAT": (11, "f")}


def tiff(order: str, entries: list[tuple[int, int, int, bytes]]) -> bytes:
    """EXIF data without its leading 'Exif': a TIFF header and one directory."""
    rows = b"".join(struct.pack(f"{order}HHI", *entry[:3]) + entry[3].ljust(4, b"\0") for entry in entries)
    return ((b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", 8)
            + struct.pack(f"{order}H", len(entries)) + rows + bytes(4))


def tag(value: int = 6, kind: str = "SHORT", order: str = "<", count: int = 1, before: tuple = ()) -> bytes:
    number, code = TYPES[kind]
    return tiff(order, [*before, (0x0112, number, count, struct.pack(f"{order}{code}", value) * count)])


def segment(kind: int, body: bytes) -> bytes:
    return bytes((0xFF, kind)) + struct.pack(">H", len(body) + 2) + body


def xmp(value: int, form: str = 'tiff:Orientation="{}"') -> bytes:
    return f"<x:xmpmeta><rdf:Description {form.format(value)}/></x:xmpmeta>".encode()


def jpeg(*segments: bytes, before_scan: bytes = b"", mode: str = "RGB") -> bytes:
    out = io.BytesIO()
    Image.fromarray(PIXELS).convert(mode).save(out, "JPEG", quality=95)
    data = out.getvalue()
    scan = data.index(b"\xff\xda")
    return data[:2] + b"".join(segments) + data[2:scan] + before_scan + data[scan:]


def exif_segment(data: bytes) -> bytes:
    return segment(0xE1, b"Exif\0\0" + data)


def xmp_segment(data: bytes) -> bytes:
    return segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + data)


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(*before: bytes, behind: tuple = ()) -> bytes:
    rows = b"".join(b"\0" + row.tobytes() for row in PIXELS)
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 24, 16, 8, 2, 0, 0, 0)) + b"".join(before)
            + chunk(b"IDAT", zlib.compress(rows)) + b"".join(behind) + chunk(b"IEND", b""))


def raw_profile(data: bytes, kind: bytes = b"zTXt") -> bytes:
    """As ImageMagick writes EXIF into a PNG."""
    data = b"Exif\0\0" + data
    text = f"\nexif\n{len(data):8}\n{data.hex()}\n".encode()
    return chunk(kind, b"Raw profile type exif\0" + (b"\0" + zlib.compress(text) if kind == b"zTXt" else text))


def itxt(data: bytes) -> bytes:
    return chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + data)


def saved(kind: str, **options) -> bytes:
    out = io.BytesIO()
    Image.fromarray(PIXELS).save(out, kind, **options)
    return out.getvalue()


def tiff_file(**tags) -> bytes:
    return saved("TIFF", tiffinfo={int(name[1:]): value for name, value in tags.items()})


CASES = {
    **{f"JPEG {kind} {order}": jpeg(exif_segment(tag(6, kind, order))) for kind in TYPES for order in "<>"},
    **{f"JPEG SHORT {value}": jpeg(exif_segment(tag(value))) for value in (0, 1, 2, 3, 4, 5, 7, 8, 9, 300)},
    **{f"JPEG LONG {value}": jpeg(exif_segment(tag(value, "LONG", ">"))) for value in (0, 2, 3, 8, 9, 1 << 16)},
    "JPEG two values": jpeg(exif_segment(tag(6, count=2))),
    "JPEG tag twice": jpeg(exif_segment(tag(8, before=((0x0112, 3, 1, b"\3\0"),)))),
    "JPEG behind lost data": jpeg(exif_segment(tag(before=((0x010F, 2, 90, struct.pack("<I", 9000)),)))),
    "JPEG before lost data": jpeg(exif_segment(tiff("<", [(0x0112, 3, 1, b"\6\0"), (0x8298, 2, 90, b"\0\1\0\0")]))),
    "JPEG unknown type before": jpeg(exif_segment(tag(before=((0x010F, 99, 90, struct.pack("<I", 9000)),)))),
    "JPEG two segments": jpeg(exif_segment(tag(6)), exif_segment(tag(3))),
    "JPEG two segments, first upright": jpeg(exif_segment(tag(1)), exif_segment(tag(3))),
    "JPEG two segments, first without": jpeg(exif_segment(tiff("<", [(0x010F, 2, 2, b"a\0")])), exif_segment(tag(3))),
    "JPEG Exif twice": jpeg(segment(0xE1, b"Exif\0\0Exif\0\0" + tag(6))),
    "JPEG between frame and scan": jpeg(before_scan=exif_segment(tag(6))),
    "JPEG empty Exif": jpeg(exif_segment(b"")),
    "JPEG no entries": jpeg(exif_segment(tiff("<", []))),
    "JPEG XMP": jpeg(xmp_segment(xmp(8))),
    "JPEG XMP element": jpeg(xmp_segment(xmp(5, "<tiff:Orientation>{}</tiff:Orientation>"))),
    "JPEG XMP twice": jpeg(xmp_segment(xmp(8)), xmp_segment(xmp(3))),
    "JPEG XMP beside Exif": jpeg(exif_segment(tag(6)), xmp_segment(xmp(3))),
    "JPEG XMP beside Exif 0": jpeg(exif_segment(tag(0)), xmp_segment(xmp(3))),
    "JPEG XMP beside Exif without": jpeg(exif_segment(tiff(">", [(0x010F, 2, 2, b"a\0")])), xmp_segment(xmp(3))),
    "JPEG XMP 9": jpeg(xmp_segment(xmp(9))),
    "JPEG grey": jpeg(exif_segment(tag(5)), mode="L"),
    "JPEG CMYK": jpeg(exif_segment(tag(7)), mode="CMYK"),
    "PNG eXIf": png(chunk(b"eXIf", tag(6))),
    "PNG eXIf LONG": png(chunk(b"eXIf", tag(6, "LONG"))),
    "PNG eXIf behind": png(behind=(chunk(b"eXIf", tag(8)),)),
    "PNG eXIf twice": png(chunk(b"eXIf", tag(6)), behind=(chunk(b"eXIf", tag(3)),)),
    "PNG raw profile": png(raw_profile(tag(6))),
    "PNG raw profile tEXt behind": png(behind=(raw_profile(tag(7), b"tEXt"),)),
    "PNG raw profile beside eXIf": png(raw_profile(tag(7)), behind=(chunk(b"eXIf", tag(2)),)),
    "PNG XMP": png(itxt(xmp(6))),
    "PNG XMP behind": png(behind=(itxt(xmp(5)),)),
    "PNG XMP beside eXIf": png(itxt(xmp(6)), behind=(chunk(b"eXIf", tag(4)),)),
    "WEBP": saved("WEBP", lossless=True, exif=b"Exif\0\0" + tag(6)),
    "WEBP LONG": saved("WEBP", lossless=True, exif=b"Exif\0\0" + tag(8, "LONG")),
    "WEBP XMP": saved("WEBP", lossless=True, xmp=xmp(5)),
    **{f"TIFF {value}": tiff_file(_274=value) for value in (0, 1, 2, 5, 6, 9)},
    "TIFF XMP": tiff_file(_700=xmp(6)),
    "TIFF XMP beside tag": tiff_file(_274=8, _700=xmp(6)),
    "TIFF compressed": saved("TIFF", compression="tiff_lzw", tiffinfo={274: 6}),
    "GIF": saved("GIF"), "BMP": saved("BMP"), "PPM": saved("PPM"),
}


@pytest.mark.parametrize("case", CASES)
def test_as_pillows_exif_transpose(case):
    data = CASES[case]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with Image.open(io.BytesIO(data)) as image:
            try:
                wanted = ImageOps.exif_transpose(image).convert("RGB")
            except SyntaxError:  # EXIF that is no TIFF: the picture is taken as it lies
                wanted = image.convert("RGB")
    info = header.probe(data)
    got = decode.decode_rgb(data)
    assert info.upright == wanted.size == got.shape[1::-1]
    assert np.abs(got.astype(int) - np.asarray(wanted)).max() <= 2  # OpenCV's and Pillow's libjpeg round differently
    assert decode.convert(data, decode.ImageOptions()).source_size == wanted.size


def test_large_pictures_are_turned_in_bands(monkeypatch):
    monkeypatch.setattr(decode, "_BAND_PIXELS", 60)
    for turned in range(1, 9):
        for color, mode in ((1, "RGB"), (0, "L"), (-1, "RGBA")):
            out = io.BytesIO()
            Image.fromarray(PIXELS).convert(mode).save(out, "PNG", exif=b"Exif\0\0" + tag(turned))
            with Image.open(io.BytesIO(out.getvalue())) as image:
                wanted = np.asarray(ImageOps.exif_transpose(image))
            got = decode.decode(out.getvalue(), header.probe(out.getvalue()), color)
            order = [2, 1, 0, 3][:got.shape[-1]] if got.ndim == 3 else Ellipsis
            np.testing.assert_array_equal(got[..., order] if got.ndim == 3 else got, wanted)
