"""Decodes, crops, resizes and encodes images: file bytes to upright pixels, and file bytes to the bytes of a record.

Thread-safe; knows nothing of the records' format and never touches MXNet.
"""
from __future__ import annotations

import contextlib
from dataclasses import dataclass

import cv2
import numpy as np
from PIL import Image

from gluon_ft.data.images import opener, orientation
from gluon_ft.data.images.header import MAX_MEGAPIXELS, Probe, Unreadable, decoding, opened, probe, text_of

# At reduced scale libjpeg leaves out the high frequencies of each 8x8 block: a better low-pass filter than decoding in
# full and skipping pixels, and much quicker. `reduction` decides when it is used.
_REDUCED = {(1, 2): cv2.IMREAD_REDUCED_COLOR_2, (1, 4): cv2.IMREAD_REDUCED_COLOR_4, (1, 8): cv2.IMREAD_REDUCED_COLOR_8,
            (0, 2): cv2.IMREAD_REDUCED_GRAYSCALE_2, (0, 4): cv2.IMREAD_REDUCED_GRAYSCALE_4,
            (0, 8): cv2.IMREAD_REDUCED_GRAYSCALE_8, (1, 1): cv2.IMREAD_COLOR, (0, 1): cv2.IMREAD_GRAYSCALE}
_JPEG = ("JPEG", "MPO")
_BAND_PIXELS = 1 << 20


@dataclass(frozen=True)
class ImageOptions:
    """How images are stored in records. `records.pack` checks the values.

    Attributes
    ----------
    resize : int
        Shorter edge in pixels; 0 keeps the size.
    center_crop : bool
        Cut the image to a square before resizing it.
    quality : int
        JPEG 1..100, PNG compression 0..9.
    color : {1, 0, -1}
        1: RGB; 0: grey; -1: as in the file (grey stays grey; alpha stays in PNG).
    encoding : {'.jpg', '.png'}
    pass_through : bool
        Keep the file's own bytes.
    max_megapixels : float
        Larger images are refused.
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
    """An image, encoded as it will be stored.

    Attributes
    ----------
    data : bytes
        The encoded file.
    source_size, size : (width, height)
        Of the upright image before and after, pixels.
    orientation : int
        EXIF orientation of the source, 1..8.
    """

    data: bytes
    source_size: tuple[int, int]
    size: tuple[int, int]
    orientation: int = 1


def reduction(width: int, height: int, resize: int) -> int:
    """The factor by which a JPEG is reduced while it is decoded: 1, 2, 4 or 8.

    The reduced image has exactly the wanted size, or at least twice that. On the photos of
    `tests/data/images/test_decode.py` the result is closer to a full decode with area averaging than im2rec's bilinear
    resize is (PSNR, checked there).

    Parameters
    ----------
    width, height : int
        Of the image in the file, pixels.
    resize : int
        Wanted length of the shorter edge, pixels; 0: no reduction.
    """
    short, factor = min(width, height), 1
    while resize and factor < 8 and (short >= 4 * factor * resize or short == 2 * factor * resize):
        factor *= 2
    return factor


def decode(data: bytes, info: Probe, color: int = 1, resize: int = 0) -> np.ndarray:
    """Decodes an image file to upright pixels of 8 bits per channel.

    16 bits become 8, and only the first frame of an animation is decoded.

    Parameters
    ----------
    data : bytes
        The whole file.
    info : Probe
        The result of `header.probe(data)`.
    color : {1, 0, -1}
        1 (default): colour; 0: grey; -1: as in the file, grey or colour, with alpha if the file has it. With 1 and 0
        transparent parts become white.
    resize : int, default 0
        Wanted length of the shorter edge, pixels: a JPEG may be decoded at reduced scale, see `reduction`. 0: in full.

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
        if array is None:  # another format, or a JPEG of which Pillow's error says what is wrong
            array = _decode_pillow(data, color)
            if array.shape[1::-1] != info.upright:
                raise Unreadable("damaged: {} x {} pixels, and the header says {} x {}".format(*array.shape[1::-1],
                                                                                               *info.upright))
        return np.ascontiguousarray(array)


def _decode_jpeg(data, info, color, resize):
    """As `decode`; None where OpenCV fails, or finds another size than the header's."""
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


def decode_rgb(data: bytes, channels: int = 3, resize: int = 0, max_megapixels: float = MAX_MEGAPIXELS) -> np.ndarray:
    """Decodes an image file to upright RGB or grey pixels.

    Parameters
    ----------
    data : bytes
    channels : {3, 1}
    resize : int, default 0
        See `decode`.
    max_megapixels : float, default 100
        Larger images are refused, see `header.probe`.

    Returns
    -------
    ndarray
        uint8, upright: (height, width, 3) in RGB, or (height, width) for one channel.

    Raises Unreadable with the reason.
    """
    image = decode(data, probe(data, max_megapixels), int(channels == 3), resize)
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB) if channels == 3 else image


def _decode_pillow(data, color):
    with opened(data) as image:
        # Pillow reads a TIFF's metadata, and warns about them, only when it loads the pixels.
        with opener.quiet() if image.format == "TIFF" else contextlib.nullcontext():
            image.load()
        return _pixels(image, orientation.of_image(image), color)


def _pixels(image, exif_orientation, color):
    """The upright pixels, converted band by band: on a whole image each step would take another 4 bytes per pixel."""
    rows = max(1, _BAND_PIXELS // image.width)
    if image.height <= rows:
        return orientation.upright(_band(image, color), exif_orientation)
    channels = _band(image.crop((0, 0, image.width, 1)), color).shape[2:]
    size = (image.height, image.width) if exif_orientation < 5 else (image.width, image.height)
    out = np.empty((*size, *channels), np.uint8)
    stored = orientation.as_stored(out, exif_orientation)
    for top in range(0, image.height, rows):
        stored[top:top + rows] = _band(image.crop((0, top, image.width, min(top + rows, image.height))), color)
    return out


def _band(image, color):
    if image.mode.startswith("I") or image.mode == "F":
        image = _eight_bits(image)
    if image.mode == "LAB":
        image = image.convert("RGB")  # Pillow cannot convert LAB to grey
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

    Up to 2 times smaller: bilinear, which still uses every pixel and gives what im2rec stores. Up to 4 times: bilinear
    to twice the wanted size, then 2x2 averages, which is close to area averaging in a third of its time. Beyond: area
    averaging. (im2rec is bilinear throughout, and skips pixels.)

    Parameters
    ----------
    array : ndarray
        uint8 (height, width) or (height, width, channels).
    width, height : int
        Of the result, pixels; it may be larger than the image (bilinear).

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
    """Turns an image file's bytes into the bytes to be stored, by `options`; sizes are computed as im2rec does.

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
        array = array[:target[1], :target[0]]  # reduced decoding rounds up, and may leave one more row or column
    if array.shape[1::-1] != target:
        array = shrink(array, *target)
    return Converted(_encode(array, options), info.upright, target, info.orientation)


def target_size(width: int, height: int, options: ImageOptions) -> tuple[int, int]:
    """The size that an image is stored with, after the centre crop and the resize of its shorter edge.

    Parameters
    ----------
    width, height : int
        Of the upright image, pixels.
    options : ImageOptions
        Only `center_crop` and `resize` matter.

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
    # Decoded nevertheless, at the smallest scale: damaged bytes must not be stored.
    decode(data, info, resize=1)
