"""One image: formats, orientation, transparency, sizes, refusals, and what a reduced JPEG costs."""
from __future__ import annotations

import io
import struct
import threading
import time
import tracemalloc
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest
from conftest import shared_data
from PIL import Image, ImageOps

from gluon_ft.data.images import decode, header, orientation
from gluon_ft.data.images.decode import ImageOptions
from gluon_ft.data.images.header import Unreadable


def picture(width=60, height=40, seed=0) -> Image.Image:
    """Smooth colours, different in every corner."""
    small = np.random.default_rng(seed).integers(0, 256, (3, 4, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


def saved(image, kind, **options) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def decoded(data, color=1, resize=0):
    array = decode.decode(data, header.probe(data), color, resize)
    return cv2.cvtColor(array, cv2.COLOR_BGR2RGB) if array.ndim == 3 and array.shape[2] == 3 else array


def psnr(a, b):
    return 10 * np.log10(255 ** 2 / max(float(np.mean((a.astype(np.float64) - b) ** 2)), 1e-9))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_exif_orientation(orientation, kind):
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = picture()
    data = saved(image, kind, exif=exif, **({"quality": 95} if kind != "PNG" else {}))
    wanted = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB"))
    assert header.probe(data).orientation == (1 if kind == "TIFF" else orientation)  # Pillow turns a TIFF itself
    assert psnr(decoded(data), wanted) > 38
    assert decode.convert(data, ImageOptions()).source_size == wanted.shape[1::-1]


@pytest.mark.parametrize("exif", [b"", b"Exif\0\0", b"Exif\0\0II*\0\xff\xff\xff\xff", b"MM\0*\0\0\0\x08\xff\xff\x01",
                                  b"II*\0\x08\0\0\0\x01\0\x12\x01\x02\0\x01\0\0\0\x06\0\0\0"])
def test_damaged_exif_counts_as_upright(exif):
    assert orientation.of_jpeg(exif, b"") == 1


def test_modes():
    image = picture()
    rgb = np.asarray(image)
    assert psnr(decoded(saved(image.convert("CMYK"), "JPEG", quality=98)), rgb) > 35
    palette = image.quantize(64)
    assert np.array_equal(decoded(saved(palette, "PNG")), np.asarray(palette.convert("RGB")))
    assert np.array_equal(decoded(saved(image.convert("L"), "PNG")), np.asarray(image.convert("L").convert("RGB")))
    assert np.array_equal(decoded(saved(image.convert("1"), "PNG")), np.asarray(image.convert("1").convert("RGB")))
    for kind in ("BMP", "PPM", "TIFF"):
        assert np.array_equal(decoded(saved(image, kind)), rgb)


def test_transparent_parts_become_white():
    image = picture().convert("RGBA")
    alpha = np.full((40, 60), 255, np.uint8)
    alpha[:, :20], alpha[:, 20:40] = 0, 128
    image.putalpha(Image.fromarray(alpha))
    got, rgb = decoded(saved(image, "PNG")), np.asarray(image.convert("RGB")).astype(int)
    assert (got[:, :20] == 255).all() and np.array_equal(got[:, 40:], rgb[:, 40:])
    assert np.abs(got[:, 20:40].astype(int) - (rgb[:, 20:40] * 128 + 255 * 127) / 255).max() <= 1
    palette = picture().quantize(8)
    hidden = decoded(saved(palette, "PNG", transparency=3))
    assert (hidden[np.asarray(palette) == 3] == 255).all()
    assert decoded(saved(image, "PNG"), color=-1).shape == (40, 60, 4)
    stored = decode.convert(saved(image, "PNG"), ImageOptions(color=-1, encoding=".png", quality=3)).data
    assert Image.open(io.BytesIO(stored)).mode == "RGBA"
    stored = decode.convert(saved(image, "PNG"), ImageOptions(color=-1)).data  # JPEG has no alpha
    assert np.asarray(Image.open(io.BytesIO(stored)))[:, :12].min() > 250


def test_sixteen_bits_are_scaled_to_eight():
    values = np.linspace(0, 65535, 60 * 40).reshape(40, 60).astype(np.uint16)
    for data in (cv2.imencode(".png", values)[1].tobytes(), saved(Image.fromarray(values), "TIFF")):
        assert np.abs(decoded(data, color=0).astype(float) - values / 257).max() <= 0.51
    rgb16 = np.dstack([values, values[::-1], values[:, ::-1]])
    got = decode.decode(*(lambda d: (d, header.probe(d)))(cv2.imencode(".png", rgb16)[1].tobytes()))
    assert np.abs(got.astype(float) - rgb16 / 257).max() <= 1
    with pytest.raises(Unreadable, match="pixels of mode F beyond 16 bits"):
        decoded(saved(Image.fromarray(values.astype(np.float32)), "TIFF"))


def test_animations_give_their_first_frame():
    first, second = picture(), picture(seed=1)
    for kind, options in (("WEBP", {"lossless": True}), ("PNG", {}), ("GIF", {})):
        data = saved(first, kind, save_all=True, append_images=[second], duration=50, **options)
        assert psnr(decoded(data), np.asarray(first)) > 24 and psnr(decoded(data), np.asarray(second)) < 20, kind


def test_grey_is_that_of_opencv():
    data = saved(picture(), "JPEG")
    assert np.array_equal(decoded(data, color=0), cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE))
    grey = saved(picture().convert("L"), "JPEG")
    assert decoded(grey, color=-1).ndim == 2 and decoded(grey, color=1).shape == (40, 60, 3)


@pytest.mark.parametrize(("size", "options", "wanted"), [
    ((60, 40), {}, (60, 40)), ((60, 40), {"resize": 20}, (30, 20)), ((40, 61), {"resize": 20}, (20, 30)),
    ((60, 40), {"resize": 80}, (120, 80)), ((60, 40), {"center_crop": True}, (40, 40)),
    ((41, 60), {"center_crop": True, "resize": 16}, (16, 16)), ((1000, 700), {"resize": 32}, (45, 32))])
def test_sizes_are_those_of_im2rec(size, options, wanted):
    done = decode.convert(saved(picture(*size), "JPEG"), ImageOptions(**options))
    assert done.size == wanted and done.source_size == size
    assert Image.open(io.BytesIO(done.data)).size == wanted


def test_centre_crop_is_the_centre():
    array = np.zeros((40, 100, 3), np.uint8)
    array[:, 30:70] = 200
    for resize in (0, 10):
        options = ImageOptions(center_crop=True, resize=resize, encoding=".png", quality=1)
        got = np.asarray(Image.open(io.BytesIO(decode.convert(saved(Image.fromarray(array), "PNG"), options).data)))
        assert (got > 190).all()


def png_header(width, height) -> bytes:
    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
            + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b""))


def test_huge_images_are_refused_by_their_header():
    tracemalloc.start()
    with pytest.raises(Unreadable, match="30000 x 30000 pixels are 900 megapixels, at most 100 are decoded"):
        decode.convert(png_header(30_000, 30_000), ImageOptions(resize=256))
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()
    with pytest.raises(Unreadable, match="would become 256 x 2560000, more than 100 megapixels"):
        decode.convert(saved(Image.new("RGB", (1, 10_000)), "PNG"), ImageOptions(resize=256))
    assert header.probe(png_header(12_000, 12_000), 150).width == 12_000
    assert Image.MAX_IMAGE_PIXELS is not None
    assert header.probe(saved(picture(), "PNG"), 0.0024).width == 60
    with pytest.raises(Unreadable, match=r"60 x 40 pixels of WEBP take about 0 MB to decode, at most 0 are used"):
        header.probe(saved(picture(), "WEBP"), 0.0024)


def test_bad_files(tmp_path):
    def reason(name, data=None):
        path = tmp_path / name
        if data is not None:
            path.write_bytes(data)
        with pytest.raises(Unreadable) as error:
            decode.convert(header.read_file(path), ImageOptions(resize=16))
        return str(error.value)

    assert reason("zero.jpg", b"") == "empty file (0 bytes)"
    assert reason("text.jpg", b"hello, no image") == "not an image (begins with b'hello, no im')"
    assert reason("none.jpg") == "no such file"
    (tmp_path / "folder.jpg").mkdir()
    assert reason("folder.jpg") == "a folder"
    jpeg, png = saved(picture(400, 300), "JPEG", quality=90), saved(picture(), "PNG")
    for cut in (len(jpeg) // 2, len(jpeg) - 30, len(jpeg) - 3):
        assert "damaged or truncated" in reason("cut.jpg", jpeg[:cut])
    assert "damaged or truncated" in reason("cut.png", png[:len(png) // 2])
    assert "damaged" in reason("header.png", png[:20])
    for kind in ("GIF", "BMP", "WEBP", "TIFF"):
        data = saved(picture(), kind)
        assert reason(f"cut.{kind}", data[:len(data) * 2 // 3]), kind


def test_pass_through_takes_what_mxnet_decodes():
    options = ImageOptions(pass_through=True)
    for image in (picture(), picture().convert("L")):
        data = saved(image, "JPEG")
        assert decode.convert(data, options).data == data
    assert decode.convert(saved(picture(), "PNG"), options).size == (60, 40)
    with pytest.raises(Unreadable, match=r"JPEG \(CMYK\) cannot be passed through; MXNet's decoder takes JPEG"):
        decode.convert(saved(picture().convert("CMYK"), "JPEG"), options)
    with pytest.raises(Unreadable, match="GIF"):
        decode.convert(saved(picture(), "GIF"), options)
    with pytest.raises(Unreadable, match="truncated"):
        decode.convert(saved(picture(300, 300), "JPEG")[:-40], options)


def test_when_a_jpeg_is_reduced():
    assert [decode.reduction(4000, 3000, resize) for resize in (0, 1600, 1500, 760, 750, 256, 128, 10)] == \
        [1, 1, 2, 1, 4, 4, 8, 8]
    assert decode.reduction(512, 700, 256) == 2 and decode.reduction(513, 700, 256) == 1


def compared(data, resize):
    """PSNR of our result and of im2rec's bilinear resize, against a full decode with area averaging."""
    full = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    height, width = full.shape[:2]
    assert decode.reduction(width, height, resize) > 1
    size = decode.target_size(width, height, ImageOptions(resize=resize))
    wanted = cv2.resize(full, size, interpolation=cv2.INTER_AREA)
    stored = decode.convert(data, ImageOptions(resize=resize, encoding=".png", quality=1)).data
    return psnr(cv2.imdecode(np.frombuffer(stored, np.uint8), cv2.IMREAD_COLOR), wanted), \
        psnr(cv2.resize(full, size), wanted)


def test_reduced_decoding_of_12_megapixels_cannot_be_seen():
    for path in sorted(shared_data("caltech256").rglob("*.jpg"))[::140]:
        large = cv2.resize(cv2.imread(str(path)), (4000, 3000), interpolation=cv2.INTER_CUBIC)
        data = cv2.imencode(".jpg", large, [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes()
        ours, theirs = compared(data, 256)
        assert ours > 38 and ours > theirs, path


def test_reduced_decoding_of_real_photos_is_closer_than_im2rec():
    """To 64 and 40 pixels, so that photos as small as these are reduced; the finest detail there is makes it hard."""
    pairs = []
    for path in sorted(shared_data("caltech256").rglob("*.jpg"))[::9]:
        data = path.read_bytes()
        info = header.probe(data)
        pairs += [compared(data, r) for r in (64, 40) if decode.reduction(info.width, info.height, r) > 1]
    ours, theirs = np.array(pairs).T
    assert len(pairs) > 40 and (ours >= theirs).all()
    assert np.median(ours) > 36 and np.median(ours) > np.median(theirs) + 6


def test_shrinking_without_reduction_is_close_to_area_averaging_on_real_photos():
    values = []
    for path in sorted(shared_data("caltech256").rglob("*.jpg"))[::9]:
        full = cv2.imread(str(path))
        height, width = full.shape[:2]
        for ratio in (2.3, 3.1, 4.7):
            size = (int(width / ratio), int(height / ratio))
            wanted = cv2.resize(full, size, interpolation=cv2.INTER_AREA)
            values.append(psnr(decode.shrink(full, *size), wanted))
    assert np.median(values) > 42 and min(values) > 30


@pytest.mark.parametrize("kept", [150, -2000])  # within the headers, so that no quick way tells; within the pixels
def test_damaged_jpegs_decoded_in_parallel_leave_pillows_limit_alone(kept):
    """Pillow is asked about each; its limit of an image's size belongs to the whole process."""
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (200, 300, 3), dtype=np.uint8)).save(buffer, "JPEG")
    damaged = buffer.getvalue()[:kept]
    limit, seen, done = Image.MAX_IMAGE_PIXELS, set(), threading.Event()
    filters = list(warnings.filters)

    def watch():
        while not done.is_set():
            seen.add(Image.MAX_IMAGE_PIXELS)
            time.sleep(0)

    def read(_):
        with pytest.raises(Unreadable):
            decode.decode_rgb(damaged)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(read, range(400)))
    finally:
        done.set()
        watcher.join()
    assert seen == {limit} and limit == Image.MAX_IMAGE_PIXELS and warnings.filters == filters
