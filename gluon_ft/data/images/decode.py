"""One image: file bytes in, checked, decoded, oriented, cropped, resized and encoded bytes out.

Knows nothing of records and never touches MXNet. Safe in threads.
"""
from __future__ import annotations

import contextlib
from dataclasses import dataclass

import cv2
import numpy as np
from PIL import Image

from gluon_ft.data.images import opener, orientation
from gluon_ft.data.images.header import MAX_MEGAPIXELS, Probe, Unreadable, decoding, opened, probe, text_of

# libjpeg leaves out the finer part of each 8x8 block's cosine transform, which is a better low-pass filter than
# decoding everything and throwing pixels away, and much quicker. See `reduction` for when it may.
_REDUCED = {(1, 2): cv2.IMREAD_REDUCED_COLOR_2, (1, 4): cv2.IMREAD_REDUCED_COLOR_4, (1, 8): cv2.IMREAD_REDUCED_COLOR_8,
            (0, 2): cv2.IMREAD_REDUCED_GRAYSCALE_2, (0, 4): cv2.IMREAD_REDUCED_GRAYSCALE_4,
            (0, 8): cv2.IMREAD_REDUCED_GRAYSCALE_8, (1, 1): cv2.IMREAD_COLOR, (0, 1): cv2.IMREAD_GRAYSCALE}
_JPEG = ("JPEG", "MPO")
_BAND_PIXELS = 1 << 20


@dataclass(frozen=True)
class ImageOptions:
    """How an image is stored. Values are checked by `records.pack`.

    Attributes
    ----------
    resize : int
        Shorter edge in pixels; 0 keeps the size.
    center_crop : bool
        First cut the longer edge, so that the image is square.
    quality : int
        JPEG 1..100, PNG compression 0..9.
    color : {1, 0, -1}
        1: RGB; 0: grey; -1: as in the file (grey stays grey; alpha stays in PNG).
    encoding : {'.jpg', '.png'}
    pass_through : bool
        Keep the file's own bytes.
    max_megapixels : float
        A larger image is refused.
    """

    resize: int = 0
    center_crop: bool = False
    quality: int = 95
    color: int = 1
    encoding: str = ".jpg"
    pass_through: bool = False
    max_megapixels: float = MAX_MEGAPIXELS


@dataclass(frozen=True)
class Converted:
    """An image as it is stored.

    Attributes
    ----------
    data : bytes
        The encoded file.
    source_size, size : (width, height)
        Before and after, both as the image is seen (upright); pixels.
    orientation : int
        EXIF orientation of the source, 1..8.
    """

    data: bytes
    source_size: tuple[int, int]
    size: tuple[int, int]
    orientation: int = 1


def reduction(width: int, height: int, resize: int) -> int:
    """By how much a JPEG is reduced while it is decoded: 1, 2, 4 or 8 times.

    What is left is at least twice the size wanted, or is that size. On the photos of `tests/test_images.py` the result
    stays closer to a full decode with area averaging than im2rec's bilinear resize does (PSNR, checked there).

    Parameters
    ----------
    width, height : int
        Of the image in the file, pixels.
    resize : int
        Shorter edge that is wanted, pixels; 0: no reduction.
    """
    short, factor = min(width, height), 1
    while resize and factor < 8 and (short >= 4 * factor * resize or short == 2 * factor * resize):
        factor *= 2
    return factor


def decode(data: bytes, info: Probe, color: int = 1, resize: int = 0) -> np.ndarray:
    """Decodes an image file to 8 bits a channel, upright.

    16 bits become 8, and an animation is its first frame.

    Parameters
    ----------
    data : bytes
        The whole file.
    info : Probe
        What `header.probe` says of `data`.
    color : {1, 0, -1}
        1 (default): colour; 0: grey; -1: as in the file, grey or colour, with alpha where it has that. With 1 and 0
        transparent parts become white.
    resize : int, default 0
        Shorter edge that is wanted, pixels: a JPEG may be decoded at reduced scale, see `reduction`. 0: in full.

    Returns
    -------
    ndarray
        uint8: (height, width, 3) in BGR, (height, width) grey, or (height, width, 4) in BGRA.

    Raises
    ------
    Unreadable
        The data is truncated or damaged, or its pixels cannot be brought to 8 bits.
    """
    with decoding():
        array = _decode_jpeg(data, info, color, resize) if info.format in _JPEG and info.mode in ("L", "RGB") else None
        if array is None:  # another format, or Pillow is to say what is wrong with this JPEG
            array = _decode_pillow(data, color)
            if array.shape[1::-1] != info.upright:
                raise Unreadable("damaged: {} x {} pixels, and the header says {} x {}".format(*array.shape[1::-1],
                                                                                               *info.upright))
        return np.ascontiguousarray(array)


def _decode_jpeg(data, info, color, resize):
    """As `decode`; None where OpenCV cannot, or finds another size than the header's."""
    grey = color == 0 or (color == -1 and info.mode == "L")
    factor = reduction(info.width, info.height, resize)
    flag = _REDUCED[(0 if grey else 1, factor)] | cv2.IMREAD_IGNORE_ORIENTATION
    try:
        array = cv2.imdecode(np.frombuffer(data, dtype=np.uint8), flag)
    except cv2.error:
        return None
    if array is None or array.shape[:2] != (-(-info.height // factor), -(-info.width // factor)):
        return None
    return orientation.upright(array, info.orientation)


def decode_rgb(data: bytes, channels: int = 3, resize: int = 0) -> np.ndarray:
    """An image file's pixels as networks and pictures take them.

    Parameters
    ----------
    data : bytes
    channels : {3, 1}
    resize : int, default 0
        See `decode`.

    Returns
    -------
    ndarray
        uint8, upright: (height, width, 3) in RGB, or (height, width) for one channel.

    Raises Unreadable with the reason.
    """
    image = decode(data, probe(data), int(channels == 3), resize)
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB) if channels == 3 else image


def _decode_pillow(data, color):
    with opened(data) as image:
        # Only a TIFF's metadata are read, and warned of, with its pixels.
        with opener.quiet() if image.format == "TIFF" else contextlib.nullcontext():
            image.load()
        return _pixels(image, orientation.of_image(image), color)


def _pixels(image, turned, color):
    """The upright pixels, made from bands of the image: whole, each step of it would take another 4 bytes a pixel."""
    rows = max(1, _BAND_PIXELS // image.width)
    if image.height <= rows:
        return orientation.upright(_band(image, color), turned)
    channels = _band(image.crop((0, 0, image.width, 1)), color).shape[2:]
    size = (image.height, image.width) if turned < 5 else (image.width, image.height)
    out = np.empty((*size, *channels), np.uint8)
    stored = orientation.as_stored(out, turned)
    for top in range(0, image.height, rows):
        stored[top:top + rows] = _band(image.crop((0, top, image.width, min(top + rows, image.height))), color)
    return out


def _band(image, color):
    if image.mode.startswith("I") or image.mode == "F":
        image = _eight_bits(image)
    if image.mode == "LAB":
        image = image.convert("RGB")  # Pillow has no way from it to grey
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        if color == -1:
            return cv2.cvtColor(np.asarray(image), cv2.COLOR_RGBA2BGRA)
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    if color == 0 or (color == -1 and image.mode in ("L", "1")):
        return np.asarray(image if image.mode == "L" else image.convert("L"))
    return cv2.cvtColor(np.asarray(image if image.mode == "RGB" else image.convert("RGB")), cv2.COLOR_RGB2BGR)


def _eight_bits(image):
    values = np.asarray(image)
    if image.mode == "F" or values.min() < 0 or values.max() > 65535:
        raise Unreadable(f"pixels of mode {image.mode} beyond 16 bits; store it with 8 or 16 bits a channel")
    return Image.fromarray(((values.astype(np.uint32) + 128) // 257).astype(np.uint8))


def shrink(array: np.ndarray, width: int, height: int) -> np.ndarray:
    """Resizes an image without visible aliasing, in about the time of a bilinear resize.

    Up to 2 times smaller: bilinear, which uses every pixel then, and gives what im2rec stores. Up to 4 times:
    bilinear to twice the size wanted, then 2x2 averages, close to area averaging in a third of its time. Beyond: area
    averaging. (im2rec is bilinear throughout, and drops pixels.)

    Parameters
    ----------
    array : ndarray
        uint8 (height, width) or (height, width, channels).
    width, height : int
        Of the result, pixels; larger than the image's is allowed (bilinear).

    Returns
    -------
    ndarray
        uint8 (height, width[, channels]).
    """
    ratio = min(array.shape[1] / width, array.shape[0] / height)
    if ratio <= 2:
        return cv2.resize(array, (width, height), interpolation=cv2.INTER_LINEAR)
    if ratio <= 4:
        array = cv2.resize(array, (2 * width, 2 * height), interpolation=cv2.INTER_LINEAR)
    return cv2.resize(array, (width, height), interpolation=cv2.INTER_AREA)


def convert(data: bytes, options: ImageOptions) -> Converted:
    """Image file bytes -> the bytes to be stored, by `options`; sizes as im2rec computes them.

    Raises Unreadable with the reason.
    """
    info = probe(data, options.max_megapixels)
    if options.pass_through:
        _check_pass_through(data, info)
        return Converted(data, info.upright, info.upright, info.orientation)
    target = target_size(*info.upright, options)
    if target[0] * target[1] > options.max_megapixels * 1e6:
        raise Unreadable(f"{info.upright[0]} x {info.upright[1]} pixels would become {target[0]} x {target[1]}, more "
                         f"than {options.max_megapixels:g} megapixels (--max-megapixels)")
    # A JPEG cannot hold alpha.
    color = 1 if options.color == -1 and info.transparent and options.encoding == ".jpg" else options.color
    array = decode(data, info, color, options.resize)
    if options.center_crop:
        array = _square(array)
    if min(array.shape[:2]) == min(target):
        array = array[:target[1], :target[0]]  # a reduced JPEG keeps a last column that is not whole
    if array.shape[1::-1] != target:
        array = shrink(array, *target)
    return Converted(_encode(array, options), info.upright, target, info.orientation)


def target_size(width: int, height: int, options: ImageOptions) -> tuple[int, int]:
    """The size that an image is stored with: centre crop, then the shorter edge to `options.resize`.

    Parameters
    ----------
    width, height : int
        Of the upright image, pixels.
    options : ImageOptions
        Its `center_crop` and `resize` count.

    Returns
    -------
    (int, int)
        Width and height; the longer edge is rounded down.
    """
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
        raise Unreadable(f"cannot be encoded as {options.encoding}: {text_of(error)}") from None
    if not done:
        raise Unreadable(f"cannot be encoded as {options.encoding} ({array.shape[1]} x {array.shape[0]} pixels)")
    return data.tobytes()


def _check_pass_through(data, info):
    if info.format not in (*_JPEG, "PNG") or (info.format in _JPEG and info.mode not in ("L", "RGB")):
        raise Unreadable(f"{info.format} ({info.mode}) cannot be passed through; MXNet's decoder takes JPEG (grey or "
                         "colour) and PNG")
    # Decoded all the same, as small as it goes: the stored bytes must be known to be whole.
    decode(data, info, resize=1)
