"""Pictures of every kind that Pillow's own test suite has, made here: name -> the bytes of a file."""
from __future__ import annotations

import io
import struct
import zlib

import cv2
import numpy as np
from PIL import Image

PATTERN = np.kron(np.random.default_rng(11).integers(0, 256, (5, 7, 4)), np.ones((8, 8, 1))).astype(np.uint8)
RGB = Image.fromarray(PATTERN[:39, :53, :3].copy())  # edges that are no multiple of a block
RGBA = Image.fromarray(PATTERN[:39, :53].copy())
SECOND = Image.fromarray(255 - PATTERN[:39, :53, :3])
DEEP = np.linspace(0, 65535, 39 * 53).reshape(39, 53).astype(np.uint16)


def saved(image: Image.Image, kind: str, **options) -> bytes:
    out = io.BytesIO()
    if "append_images" in options:
        options["append_images"] = [other.copy() for other in options["append_images"]]
    image.copy().save(out, kind, **options)  # a copy, since JPEG's writer leaves settings of its own in an image
    return out.getvalue()


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(width: int, height: int, rows: bytes, *, depth: int = 8, colour: int = 2, interlaced: int = 0,
        before: bytes = b"") -> bytes:
    """A PNG of filtered rows, which need not be as many as the header says."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlaced)
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header)
            + before + chunk(b"IDAT", zlib.compress(rows, 1)) + chunk(b"IEND", b""))


def interlaced_png() -> bytes:
    pixels = np.asarray(RGB)
    passes = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)]
    rows = b"".join(b"\0" + row.tobytes() for y, x, down, across in passes for row in pixels[y::down, x::across])
    return png(53, 39, rows, interlaced=1)


def top_down_bmp() -> bytes:
    rows = b"".join(row.tobytes().ljust(160, b"\0") for row in np.asarray(RGB)[..., ::-1])
    return b"BM" + struct.pack("<IHHIIiiHHIIiiII", 54 + len(rows), 0, 0, 54, 40, 53, -39, 1, 24, 0, len(rows), 0, 0, 0,
                               0) + rows


def plain_ppm() -> bytes:
    return b"P3\n# a comment\n53 39\n255\n" + " ".join(map(str, np.asarray(RGB).ravel())).encode()


def _png_files() -> dict[str, bytes]:
    palette, grey = RGB.quantize(16), RGB.convert("L")
    colour16 = cv2.imencode(".png", np.dstack([DEEP, DEEP[::-1], DEEP[:, ::-1]]))[1].tobytes()
    alpha16 = cv2.imencode(".png", np.dstack([DEEP, DEEP[::-1], DEEP[:, ::-1], DEEP]))[1].tobytes()
    return {
        **{f"png {mode}": saved(RGBA.convert(mode), "PNG") for mode in ("1", "L", "LA", "RGB", "RGBA")},
        **{f"png palette of {2 ** bits}": saved(RGB.quantize(2 ** bits), "PNG", bits=bits) for bits in (1, 2, 4, 8)},
        "png palette, one transparent": saved(palette, "PNG", transparency=3),
        "png palette, alpha": saved(palette, "PNG", transparency=bytes(range(0, 256, 16))),
        "png grey, one transparent": saved(grey, "PNG", transparency=int(np.asarray(grey)[0, 0])),
        "png colour, one transparent": saved(RGB, "PNG", transparency=tuple(map(int, PATTERN[0, 0, :3]))),
        "png 16 bits": saved(Image.fromarray(DEEP), "PNG"), "png colour 16": colour16, "png alpha 16": alpha16,
        "png interlaced": interlaced_png(), "png animated": saved(RGB, "PNG", save_all=True, append_images=[SECOND]),
        "png gamma": png(53, 39, b"".join(b"\0" + row.tobytes() for row in np.asarray(RGB)),
                         before=chunk(b"gAMA", struct.pack(">I", 45455)) + chunk(b"sRGB", b"\0")),
        "png 1x1": saved(RGB.resize((1, 1)), "PNG"), "png thin": saved(RGB.resize((1, 3000)), "PNG"),
    }


def _jpeg_files() -> dict[str, bytes]:
    turned = Image.Exif()
    turned[0x0112] = 6
    plain = saved(RGB, "JPEG")
    return {
        **{f"jpeg {mode}": saved(RGB.convert(mode), "JPEG") for mode in ("L", "RGB", "CMYK")},
        **{f"jpeg subsampling {number}": saved(RGB, "JPEG", subsampling=number) for number in (0, 1, 2)},
        "jpeg progressive": saved(RGB, "JPEG", progressive=True), "jpeg worst": saved(RGB, "JPEG", quality=1),
        "jpeg best": saved(RGB, "JPEG", quality=100), "jpeg restarts": saved(RGB, "JPEG", restart_marker_rows=1),
        "jpeg optimised": saved(RGB, "JPEG", optimize=True), "jpeg colours kept": saved(RGB, "JPEG", keep_rgb=True),
        "jpeg profile": saved(RGB, "JPEG", icc_profile=bytes(70_000)), "jpeg comment": saved(RGB, "JPEG", comment=b"x"),
        "jpeg turned": saved(RGB, "JPEG", exif=turned),
        "jpeg grey turned": saved(RGB.convert("L"), "JPEG", exif=turned),
        "jpeg followed by more": plain + b"more" * 100, "jpeg fill bytes": plain[:2] + b"\xff\xff\xff" + plain[2:],
        "jpeg 12 bits": plain.replace(b"\xff\xc0\x00\x11\x08", b"\xff\xc0\x00\x11\x0c"),
        "jpeg of no width": plain.replace(struct.pack(">HH", 39, 53), struct.pack(">HH", 39, 0)),
        "jpeg taller in the header": plain.replace(struct.pack(">HH", 39, 53), struct.pack(">HH", 390, 53)),
        "mpo": saved(RGB, "MPO", save_all=True, append_images=[SECOND]), "jpeg 1x1": saved(RGB.resize((1, 1)), "JPEG"),
        "jpeg thin": saved(RGB.resize((65500, 1)), "JPEG"),
    }


def _tiff_files() -> dict[str, bytes]:
    modes = ("1", "L", "P", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "LA", "F", "I")
    compressed = ("tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg")
    big_endian = Image.frombytes("I;16B", (53, 39), DEEP.astype(">u2").tobytes())
    return {
        **{f"tiff {mode}": saved(RGBA.convert("LA" if mode == "LA" else "RGB").convert(mode), "TIFF") if mode != "RGBA"
           else saved(RGBA, "TIFF") for mode in modes},
        **{f"tiff {name}": saved(RGB, "TIFF", compression=name) for name in compressed},
        "tiff fax": saved(RGB.convert("1"), "TIFF", compression="group4"),
        "tiff big": saved(RGB, "TIFF", big_tiff=True),
        "tiff 16 bits": saved(Image.fromarray(DEEP), "TIFF"), "tiff big-endian": saved(big_endian, "TIFF"),
        "tiff pages": saved(RGB, "TIFF", save_all=True, append_images=[SECOND]),
        "tiff predictor": saved(RGB, "TIFF", compression="tiff_lzw", tiffinfo={317: 2}),
        "tiff turned": saved(RGB, "TIFF", tiffinfo={274: 8}),
    }


def _other_files() -> dict[str, bytes]:
    palette = RGB.quantize(16)
    files = {
        **{f"gif {mode}": saved(RGB.convert(mode), "GIF") for mode in ("1", "L", "P")},
        "gif transparent": saved(palette, "GIF", transparency=2),
        "gif rows in order": saved(palette, "GIF", interlace=0),
        "gif animated": saved(RGB, "GIF", save_all=True, append_images=[SECOND], duration=50),
        **{f"bmp {mode}": saved(RGBA.convert(mode), "BMP") for mode in ("1", "L", "P", "RGB", "RGBA")},
        "bmp top down": top_down_bmp(), "dib": saved(RGB, "DIB"),
        **{f"ppm {mode}": saved(RGB.convert(mode), "PPM") for mode in ("1", "L", "RGB", "F")},
        "ppm plain": plain_ppm(), "pgm 16 bits": b"P5 53 39 65535\n" + DEEP.astype(">u2").tobytes(),
        "pgm of few levels": b"P5 53 39 15\n" + (np.asarray(RGB.convert("L")) // 17).tobytes(),
        "webp": saved(RGB, "WEBP"), "webp lossless": saved(RGB, "WEBP", lossless=True),
        "webp alpha": saved(RGBA, "WEBP", lossless=True),
        "webp animated": saved(RGB, "WEBP", save_all=True, append_images=[SECOND], lossless=True),
        "empty": b"", "text": b"no image at all", "nul": bytes(1000), "postscript": b"%!PS-Adobe-3.0 EPSF-3.0\n",
        "svg": b"<svg xmlns='http://www.w3.org/2000/svg'/>", "html": b"<!DOCTYPE html><html></html>",
    }
    Image.init()
    if "AVIF" in Image.SAVE:
        files.update({"avif": saved(RGB, "AVIF"), "avif alpha": saved(RGBA, "AVIF")})
    if "JPEG2000" in Image.SAVE:
        files.update({f"jp2 {mode}": saved(RGBA.convert(mode), "JPEG2000") for mode in ("L", "LA", "RGB", "RGBA")})
    return files


def _gif_frame(width, height):
    return b"GIF89a" + struct.pack("<HHBBB", width, height, 0xF0, 0, 0) + bytes(6) + b"\x2c" + struct.pack(
        "<HHHHB", 0, 0, width, height, 0) + b"\x02\x02\x44\x01\x00\x3b"


def _full_of_text(kind):
    return png(1, 1, bytes(4), before=chunk(kind, b"k\0\0" + zlib.compress(bytes(80 << 20), 1)))


# Small files that say, or hold, that they are huge: name -> what makes them.
BOMBS = {
    "png of 900 megapixels": lambda: png(30_000, 30_000, bytes(100)),
    "png of 2^62 pixels": lambda: png(1 << 31, 1 << 31, b""),
    "png longer than any": lambda: png(100_000, 1, bytes(300_001)),
    "png text of 80 MB": lambda: _full_of_text(b"zTXt"), "png profile of 80 MB": lambda: _full_of_text(b"iCCP"),
    "png with more rows": lambda: png(10, 10, bytes(60 << 20)),
    "png of 81 megapixels": lambda: saved(Image.new("RGB", (9000, 9000)), "PNG", compress_level=1),
    "webp of 81 megapixels": lambda: saved(Image.new("RGB", (9000, 9000)), "WEBP", lossless=True, method=0),
    "gif": lambda: _gif_frame(65535, 65535), "pgm": lambda: b"P5 999999 999999 255\n",
    "bmp": lambda: top_down_bmp()[:18] + struct.pack("<ii", 1 << 30, 1 << 30) + top_down_bmp()[26:],
    "tiff": lambda: saved(RGB, "TIFF").replace(struct.pack("<HHIHH", 256, 3, 1, 53, 0),
                                               struct.pack("<HHII", 256, 4, 1, 0xFFFFFF)),
    "jpeg": lambda: saved(RGB, "JPEG").replace(struct.pack(">HH", 39, 53), b"\xff\xff\xff\xff"),
}


def pictures() -> dict[str, bytes]:
    return {**_png_files(), **_jpeg_files(), **_tiff_files(), **_other_files()}
