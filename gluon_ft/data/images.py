"""One image: file bytes in, checked, decoded, oriented, cropped, resized and encoded bytes out.

Knows nothing of records and never touches MXNet, so that it can run in forked worker processes.
"""
from __future__ import annotations

import io
import os
import stat
import struct
import warnings
from dataclasses import dataclass

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError

MAX_MEGAPIXELS = 100  # 10^6 pixels; decoded as colour they take 300 MB
MAX_FILE_BYTES = 256 << 20

# libjpeg leaves out the finer part of each 8x8 block's cosine transform, which is a better low-pass filter than
# decoding everything and throwing pixels away, and much quicker. See `reduction` for when it may.
_REDUCED = {(1, 2): cv2.IMREAD_REDUCED_COLOR_2, (1, 4): cv2.IMREAD_REDUCED_COLOR_4, (1, 8): cv2.IMREAD_REDUCED_COLOR_8,
            (0, 2): cv2.IMREAD_REDUCED_GRAYSCALE_2, (0, 4): cv2.IMREAD_REDUCED_GRAYSCALE_4,
            (0, 8): cv2.IMREAD_REDUCED_GRAYSCALE_8, (1, 1): cv2.IMREAD_COLOR, (0, 1): cv2.IMREAD_GRAYSCALE}
_JPEG = ("JPEG", "MPO")
_ORIENTATION = 0x0112  # EXIF tag


class Unreadable(ValueError):
    """An image that cannot be used; the text is the reason, without the path."""


@dataclass(frozen=True)
class ImageOptions:
    """How an image is stored. Values are checked by `records.pack`.

    resize : shorter edge in pixels, 0 keeps the size; center_crop : cut the longer edge to a square first;
    quality : JPEG 1..100, PNG compression 0..9; color : 1 RGB, 0 grey, -1 as it is (grey stays grey, alpha stays in
    PNG); encoding : '.jpg' or '.png'; pass_through : keep the file's bytes; max_megapixels : refused above.
    """

    resize: int = 0
    center_crop: bool = False
    quality: int = 95
    color: int = 1
    encoding: str = ".jpg"
    pass_through: bool = False
    max_megapixels: float = MAX_MEGAPIXELS


@dataclass(frozen=True)
class Probe:
    """What an image's header says: `format` and `mode` in Pillow's words, size as stored, EXIF orientation 1..8."""

    format: str
    mode: str
    width: int
    height: int
    orientation: int
    transparent: bool


@dataclass(frozen=True)
class Converted:
    """Bytes to be stored, (width, height) of the image as seen (oriented) before and after, and its orientation."""

    data: bytes
    source_size: tuple[int, int]
    size: tuple[int, int]
    orientation: int = 1


def read_file(path) -> bytes:
    """The bytes of an image file; Unreadable where it is missing, empty, no regular file or over 256 MB."""
    try:
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode):
            raise Unreadable("a folder" if stat.S_ISDIR(status.st_mode) else "not a file")
        if status.st_size > MAX_FILE_BYTES:
            raise Unreadable(f"file of {status.st_size} bytes, at most {MAX_FILE_BYTES} are read")
        with open(path, "rb") as file:
            data = file.read(status.st_size)
    except (OSError, ValueError) as error:
        if isinstance(error, Unreadable):
            raise
        raise Unreadable("no such file" if isinstance(error, FileNotFoundError)
                         else getattr(error, "strerror", None) or str(error)) from None
    if not data:
        raise Unreadable("empty file (0 bytes)")
    return data


def probe(data: bytes, max_megapixels: float = MAX_MEGAPIXELS) -> Probe:
    """Reads the header only; Unreadable where it is no image or has more pixels than allowed."""
    with _opened(data) as image:
        width, height = image.size
        if width * height > max_megapixels * 1e6:
            raise Unreadable(f"{width} x {height} pixels are {width * height / 1e6:.0f} megapixels, at most "
                             f"{max_megapixels:g} are decoded (--max-megapixels)")
        return Probe(image.format or "", image.mode, width, height, _orientation(image),
                     "transparency" in image.info or image.mode in ("RGBA", "LA", "PA", "La", "RGBa"))


class _opened:
    """Pillow's image of some bytes, with its own size limit (a warning) out of the way: `probe` has one."""

    def __init__(self, data):
        self.data = data

    def __enter__(self):
        self.limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                self.image = Image.open(io.BytesIO(self.data))
            return self.image
        except UnidentifiedImageError:
            raise Unreadable(f"not an image (begins with {self.data[:12]!r})") from None
        except Exception as error:  # whatever a decoder plug-in raises on damaged bytes
            raise Unreadable(f"damaged header: {_text(error)}") from None
        finally:
            Image.MAX_IMAGE_PIXELS = self.limit

    def __exit__(self, *_):
        self.image.close()


def _orientation(image) -> int:
    # Pillow's `getexif` would decode a whole PNG to look for EXIF data behind its pixels, and takes as long for a
    # JPEG's as a twentieth of all the work on it.
    # Pillow turns a TIFF itself.
    value = 1 if image.format == "TIFF" else exif_orientation(image.info.get("exif", b""))
    return value if value in range(1, 9) else 1


def exif_orientation(exif: bytes) -> int:
    """The orientation tag of EXIF data, with or without its leading 'Exif'; 1 where it is missing or damaged.

    EXIF is a TIFF header and a directory of 12-byte entries: tag, type, count, value (Exif 2.3, 4.6.2).
    """
    exif = exif[6:] if exif.startswith(b"Exif\0\0") else exif
    order = {b"II": "<", b"MM": ">"}.get(exif[:2])
    try:
        if order is None:
            return 1
        directory = struct.unpack_from(f"{order}I", exif, 4)[0]
        count = struct.unpack_from(f"{order}H", exif, directory)[0]
        for entry in range(directory + 2, directory + 2 + 12 * count, 12):
            tag, kind, _, value = struct.unpack_from(f"{order}HHIH", exif, entry)
            if tag == _ORIENTATION and kind == 3:  # a 16-bit number
                return value
    except struct.error:  # a damaged directory is no reason to refuse the picture
        pass
    return 1


def _text(error) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def reduction(width: int, height: int, resize: int) -> int:
    """1, 2, 4 or 8: how far a JPEG is reduced while decoding.

    What is left is at least twice the size wanted, or is that size. On the photos of `tests/test_images.py` the result
    stays closer to a full decode with area averaging than im2rec's bilinear resize does (PSNR, checked there).
    """
    short, factor = min(width, height), 1
    while resize and factor < 8 and (short >= 4 * factor * resize or short == 2 * factor * resize):
        factor *= 2
    return factor


def decode(data: bytes, info: Probe, color: int = 1, resize: int = 0) -> np.ndarray:
    """Pixels, upright, uint8: (height, width, 3) in BGR, (height, width) grey, or with alpha (height, width, 4).

    `resize` allows a reduced JPEG. Transparent parts become white unless `color` is -1, 16 bits become 8, an
    animation is its first frame. Raises Unreadable where the data is truncated or damaged.
    """
    array = None
    if info.format in _JPEG and info.mode in ("L", "RGB"):
        grey = color == 0 or (color == -1 and info.mode == "L")
        flag = _REDUCED[(0 if grey else 1, reduction(info.width, info.height, resize))]
        array = cv2.imdecode(np.frombuffer(data, dtype=np.uint8), flag | cv2.IMREAD_IGNORE_ORIENTATION)
    if array is None:  # another format, or Pillow is to say what is wrong with this JPEG
        array = _decode_pillow(data, color)
    return np.ascontiguousarray(_upright(array, info.orientation))


def _decode_pillow(data, color):
    with _opened(data) as image:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                image.load()
                return _pixels(image, color)
        except Unreadable:
            raise
        except Exception as error:  # decoders raise OSError, SyntaxError, struct.error, ... on damaged bytes
            raise Unreadable(f"damaged or truncated: {_text(error)}") from None


def _pixels(image, color):
    if image.mode.startswith("I") or image.mode == "F":
        image = _eight_bits(image)
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        if color == -1:
            return cv2.cvtColor(np.asarray(image), cv2.COLOR_RGBA2BGRA)
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    if color == 0 or (color == -1 and image.mode in ("L", "1")):
        return np.asarray(image.convert("L"))
    return cv2.cvtColor(np.asarray(image.convert("RGB")), cv2.COLOR_RGB2BGR)


def _eight_bits(image):
    values = np.asarray(image)
    if image.mode == "F" or values.min() < 0 or values.max() > 65535:
        raise Unreadable(f"pixels of mode {image.mode} beyond 16 bits; store it with 8 or 16 bits a channel")
    return Image.fromarray(((values.astype(np.uint32) + 128) // 257).astype(np.uint8))


_TURNS = {3: cv2.ROTATE_180, 6: cv2.ROTATE_90_CLOCKWISE, 8: cv2.ROTATE_90_COUNTERCLOCKWISE}


def _upright(array, orientation):
    if orientation in (5, 7):
        array = cv2.transpose(array)
        return cv2.rotate(array, cv2.ROTATE_180) if orientation == 7 else array
    if orientation in (2, 4):
        return cv2.flip(array, 1 if orientation == 2 else 0)
    return array if orientation == 1 else cv2.rotate(array, _TURNS[orientation])


def shrink(array: np.ndarray, width: int, height: int) -> np.ndarray:
    """`array` resized to width x height without visible aliasing, in about the time of a bilinear resize.

    Up to 1.75 times smaller: bilinear, which uses every pixel then, and gives what im2rec stores. Up to 4 times:
    bilinear to twice the size wanted, then 2x2 averages, close to area averaging in a third of its time. Beyond: area
    averaging. (im2rec is bilinear throughout, and drops pixels.)
    """
    ratio = min(array.shape[1] / width, array.shape[0] / height)
    if ratio <= 1.75:
        return cv2.resize(array, (width, height), interpolation=cv2.INTER_LINEAR)
    if ratio <= 4:
        array = cv2.resize(array, (2 * width, 2 * height), interpolation=cv2.INTER_LINEAR)
    return cv2.resize(array, (width, height), interpolation=cv2.INTER_AREA)


def convert(data: bytes, options: ImageOptions) -> Converted:
    """Image file bytes -> the bytes to be stored, by `options`; sizes as im2rec computes them.

    Raises Unreadable with the reason.
    """
    info = probe(data, options.max_megapixels)
    upright = (info.width, info.height) if info.orientation < 5 else (info.height, info.width)
    if options.pass_through:
        _check_pass_through(data, info)
        return Converted(data, upright, upright, info.orientation)
    target = target_size(*upright, options)
    if target[0] * target[1] > options.max_megapixels * 1e6:
        raise Unreadable(f"{upright[0]} x {upright[1]} pixels would become {target[0]} x {target[1]}, more than "
                         f"{options.max_megapixels:g} megapixels (--max-megapixels)")
    # A JPEG cannot hold alpha.
    color = 1 if options.color == -1 and info.transparent and options.encoding == ".jpg" else options.color
    array = decode(data, info, color, options.resize)
    if options.center_crop:
        array = _square(array)
    if min(array.shape[:2]) == min(target):
        array = array[:target[1], :target[0]]  # a reduced JPEG keeps a last column that is not whole
    if array.shape[1::-1] != target:
        array = shrink(array, *target)
    return Converted(_encode(array, options), upright, target, info.orientation)


def target_size(width: int, height: int, options: ImageOptions) -> tuple[int, int]:
    """(width, height) stored for an image of this size: centre crop, then the shorter edge to `resize`."""
    if options.center_crop:
        width = height = min(width, height)
    if not options.resize:
        return width, height
    if height > width:
        return options.resize, height * options.resize // width
    return width * options.resize // height, options.resize


def _square(array):
    height, width = array.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return array[top:top + side, left:left + side]


def _encode(array, options):
    kind = cv2.IMWRITE_JPEG_QUALITY if options.encoding == ".jpg" else cv2.IMWRITE_PNG_COMPRESSION
    try:
        done, data = cv2.imencode(options.encoding, array, [kind, options.quality])
    except cv2.error as error:
        raise Unreadable(f"cannot be encoded as {options.encoding}: {_text(error)}") from None
    if not done:
        raise Unreadable(f"cannot be encoded as {options.encoding} ({array.shape[1]} x {array.shape[0]} pixels)")
    return data.tobytes()


def _check_pass_through(data, info):
    if info.format not in (*_JPEG, "PNG") or (info.format in _JPEG and info.mode not in ("L", "RGB")):
        raise Unreadable(f"{info.format} ({info.mode}) cannot be passed through; MXNet's decoder takes JPEG (grey or "
                         "colour) and PNG")
    # Decoded all the same, as small as it goes: the stored bytes must be known to be whole.
    decode(data, info, resize=1)
