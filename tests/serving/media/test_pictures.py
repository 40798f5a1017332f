"""Encoded images to pixels: upright, RGB, sized as the reference does it; refused by place."""

from __future__ import annotations

import base64
import subprocess
import sys
import warnings
from contextlib import suppress
from dataclasses import replace
from io import BytesIO

import numpy as np
import pytest
from PIL import Image, PngImagePlugin
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from serving.errors import MediaInvalid, MediaTooLarge
from serving.media import MediaOptions
from serving.media.pictures import decode
from serving.media.resizing import Sizing
from tests.serving.media.pictures import encoded, noise, png_claiming, smooth

SIZING = Sizing(28, 3136, 602_112)
AS_IT_IS = Sizing(1, 1, 10**9)
KINDS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")


def pixels(data: bytes, sizing: Sizing = AS_IT_IS, **options: object) -> np.ndarray:
    return decode(data, sizing, replace(MediaOptions(), **options), "input.3")


# Formats


@pytest.mark.parametrize("kind", KINDS)
def test_every_format_is_read(kind: str) -> None:
    picture = smooth(40, 60)
    found = pixels(encoded(picture, kind))
    assert (found.shape, found.dtype) == ((40, 60, 3), np.uint8)
    assert np.abs(found.astype(int) - np.asarray(picture)).mean() < 12


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF"])
def test_a_lossless_format_is_read_bit_for_bit(kind: str) -> None:
    picture = noise(31, 17)
    assert np.array_equal(pixels(encoded(Image.fromarray(picture), kind)), picture)


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_adobe_deflate", "jpeg", "group4"])
def test_a_compressed_tiff_is_read(compression: str) -> None:
    picture = smooth(40, 60).convert("1" if compression == "group4" else "RGB")
    found = pixels(encoded(picture, "TIFF", compression=compression))
    assert np.abs(found.astype(int) - np.asarray(picture.convert("RGB"))).mean() < 5


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_of_several_frames_the_first_is_taken(kind: str) -> None:
    red, blue = Image.new("RGB", (9, 9), "red"), Image.new("RGB", (9, 9), "blue")
    data = encoded(red, kind, save_all=True, append_images=[blue])
    assert np.abs(pixels(data)[4, 4].astype(int) - (255, 0, 0)).max() < 8


@pytest.mark.parametrize("kind", ["ICO", "PPM", "TGA", "PCX"])
def test_other_formats_are_not_tried(kind: str) -> None:
    with pytest.raises(MediaInvalid, match=r"input\.3 is no image that can be read: it may be"):
        pixels(encoded(smooth(16, 16), kind))


# Orientation


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "TIFF", "JPEG", "WEBP"])
def test_an_exif_orientation_is_undone(kind: str, orientation: int) -> None:
    upright = Image.fromarray(np.kron(noise(3, 2, seed=4), np.ones((16, 16, 1), np.uint8)))
    lying = {
        1: upright,
        2: upright.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
        3: upright.transpose(Image.Transpose.ROTATE_180),
        4: upright.transpose(Image.Transpose.FLIP_TOP_BOTTOM),
        5: upright.transpose(Image.Transpose.TRANSPOSE),
        6: upright.transpose(Image.Transpose.ROTATE_90),
        7: upright.transpose(Image.Transpose.TRANSVERSE),
        8: upright.transpose(Image.Transpose.ROTATE_270),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    lossless = {"WEBP": {"lossless": True}, "JPEG": {"quality": 100, "subsampling": 0}}
    data = encoded(lying, kind, exif=exif, **lossless.get(kind, {}))
    found = pixels(data, Sizing(4, 1, 10**6))
    assert found.shape == (48, 32, 3)
    allowed = 12 if kind == "JPEG" else 0
    assert np.abs(found.astype(int) - np.asarray(upright)).max() <= allowed


@pytest.mark.parametrize("orientation", [0, 9, 77])
def test_an_orientation_that_there_is_not_changes_nothing(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    assert pixels(encoded(smooth(20, 30), "PNG", exif=exif)).shape == (20, 30, 3)


def test_an_exif_block_that_is_rubbish_changes_nothing() -> None:
    data = encoded(smooth(20, 30), "JPEG", exif=b"Exif\x00\x00II*\x00\x08\x00\x00\x00\xff\xffrubb")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert pixels(data).shape == (20, 30, 3)


# Colours (trap 12)


def test_trap_12_transparent_pixels_lie_over_white() -> None:
    picture = np.zeros((1, 3, 4), np.uint8)
    picture[0, :, 3] = 0, 128, 255
    picture[0, :, 0] = 200
    assert pixels(encoded(Image.fromarray(picture, "RGBA"), "PNG")).tolist() == [
        [[255, 255, 255], [227, 127, 127], [200, 0, 0]]
    ]


def test_trap_12_grey_with_alpha_lies_over_white() -> None:
    picture = np.array([[[0, 0], [0, 255], [100, 128]]], np.uint8)
    found = pixels(encoded(Image.fromarray(picture, "LA"), "PNG"))
    assert found[0, :, 0].tolist() == [255, 0, 177]


def test_trap_12_a_transparent_colour_of_a_palette_is_white() -> None:
    picture = Image.new("P", (2, 1))
    picture.putpalette([10, 20, 30, 40, 50, 60])
    picture.putpixel((1, 0), 1)
    assert pixels(encoded(picture, "PNG", transparency=0)).tolist() == [
        [[255, 255, 255], [40, 50, 60]]
    ]
    half = encoded(picture, "PNG", transparency=bytes([255, 0]))
    assert pixels(half).tolist() == [[[10, 20, 30], [255, 255, 255]]]
    assert pixels(encoded(picture, "PNG")).tolist() == [[[10, 20, 30], [40, 50, 60]]]


def test_trap_12_a_colour_declared_transparent_is_white() -> None:
    picture = Image.fromarray(np.array([[[1, 2, 3], [4, 5, 6]]], np.uint8))
    found = pixels(encoded(picture, "PNG", transparency=(1, 2, 3)))
    assert found.tolist() == [[[255, 255, 255], [4, 5, 6]]]


def test_trap_12_cmyk_is_turned_into_rgb() -> None:
    picture = Image.new("CMYK", (8, 8), (0, 255, 255, 0))
    for kind in ("TIFF", "JPEG"):
        assert np.abs(pixels(encoded(picture, kind))[4, 4].astype(int) - (255, 0, 0)).max() < 6


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_trap_12_of_sixteen_bits_the_upper_eight_are_kept(kind: str) -> None:
    picture = np.array([[0, 255, 256, 32768, 65535]], np.uint16)
    data = encoded(Image.fromarray(picture), kind)
    assert pixels(data)[0].tolist() == [[v] * 3 for v in (0, 0, 1, 128, 255)]


def test_trap_12_integers_are_cut_to_sixteen_bits() -> None:
    picture = np.array([[-5, 256, 65535, 70000]], np.int32)
    data = encoded(Image.fromarray(picture), "TIFF")
    assert pixels(data)[0, :, 1].tolist() == [0, 1, 255, 255]


def test_trap_12_floats_go_from_nought_to_one() -> None:
    picture = np.array([[-1, 0.25, 1, 9, np.nan]], np.float32)
    data = encoded(Image.fromarray(picture), "TIFF")
    assert pixels(data)[0, :, 2].tolist() == [0, 64, 255, 255, 0]


@pytest.mark.parametrize("mode", ["1", "L"])
def test_trap_12_black_and_white_and_grey(mode: str) -> None:
    picture = Image.fromarray(np.array([[0, 255]], np.uint8)).convert(mode)
    assert pixels(encoded(picture, "PNG")).tolist() == [[[0] * 3, [255] * 3]]


def test_lab_is_turned_into_rgb() -> None:
    picture = Image.new("LAB", (4, 4), (255, 128, 128))
    assert pixels(encoded(picture, "TIFF"))[2, 2].min() > 250


# The resize


@pytest.mark.parametrize("size", [(37, 91), (224, 224), (500, 333), (1000, 1999), (20, 23)])
@pytest.mark.parametrize("most", [50_176, 602_112, 2_000_000])
def test_pixels_are_exactly_the_references(size: tuple[int, int], most: int) -> None:
    picture = Image.fromarray(noise(*size))
    reference = Qwen2VLImageProcessorPil(min_pixels=3136, max_pixels=most)
    theirs = reference(picture, do_rescale=False, do_normalize=False, return_tensors="np")
    mine = pixels(encoded(picture, "PNG"), Sizing(28, 3136, most))
    again = reference(
        Image.fromarray(mine), do_rescale=False, do_normalize=False, return_tensors="np"
    )
    patches = reference(
        Image.fromarray(mine),
        do_resize=False,
        do_rescale=False,
        do_normalize=False,
        return_tensors="np",
    )
    assert np.array_equal(patches["pixel_values"], theirs["pixel_values"])
    assert np.array_equal(again["pixel_values"], theirs["pixel_values"]), "not a no-op"
    assert mine.shape[0] * mine.shape[1] // 784 == theirs["image_grid_thw"][0].prod() // 4


def test_a_palette_is_turned_into_rgb_before_it_is_resized() -> None:
    picture = Image.fromarray(noise(90, 120)).quantize(16)
    theirs = Qwen2VLImageProcessorPil(min_pixels=3136, max_pixels=3920)(
        picture, do_rescale=False, do_normalize=False, return_tensors="np"
    )
    mine = pixels(encoded(picture, "PNG"), Sizing(28, 3136, 3920))
    patches = Qwen2VLImageProcessorPil()(
        Image.fromarray(mine), do_resize=False, do_rescale=False, do_normalize=False
    )
    assert np.array_equal(np.array(patches["pixel_values"]), theirs["pixel_values"])


def test_any_pixel_count_up_to_the_limit_is_resized_and_not_refused() -> None:
    data = encoded(Image.new("L", (6000, 5000), 128), "PNG")
    assert pixels(data, SIZING).shape == (700, 840, 3)
    assert pixels(data, SIZING, pixels=30_000_000).shape == (700, 840, 3)
    with pytest.raises(MediaTooLarge):
        pixels(data, SIZING, pixels=29_999_999)


def test_fast_mode_shrinks_while_it_decodes_and_stays_close() -> None:
    data = encoded(smooth(1600, 2400), "JPEG", quality=92)
    plain, fast = pixels(data, SIZING), pixels(data, SIZING, fast=True)
    assert plain.shape == fast.shape == (616, 924, 3)
    assert not np.array_equal(plain, fast)
    assert np.abs(plain.astype(int) - fast).mean() < 1


def test_fast_mode_turns_an_image_upright_too() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded(smooth(1600, 2400), "JPEG", exif=exif)
    assert pixels(data, SIZING, fast=True).shape == (924, 616, 3)


def test_a_strip_is_refused() -> None:
    assert pixels(encoded(Image.new("L", (2000, 10)), "PNG"), SIZING).shape[2] == 3
    with pytest.raises(MediaInvalid, match=r"input\.3 is an image of 2001 x 10 pixels") as caught:
        pixels(encoded(Image.new("L", (2001, 10)), "PNG"), SIZING)
    assert caught.value.field == "input.3"


# Bombs, cut and lying files


@pytest.mark.parametrize("sides", [(20_000, 20_000), (2**31 - 1, 2**31 - 1), (100_000, 4000)])
def test_a_bomb_is_refused_from_its_header(sides: tuple[int, int]) -> None:
    data = png_claiming(*sides)
    assert len(data) < 200
    with pytest.raises(MediaTooLarge, match=r"input\.3 has .* \(media\.pixels\)") as caught:
        pixels(data)
    assert caught.value.status == 413


def test_a_webp_bomb_is_refused_before_its_decoder_is_made() -> None:
    data = bytearray(encoded(smooth(8, 8).convert("RGBA"), "WEBP", lossless=True, exif=b"Exif"))
    assert data[12:16] == b"VP8X"
    data[24:30] = b"\xff\xff\x00\xff\xff\x00"
    with pytest.raises(MediaTooLarge, match="an image may have"):
        pixels(bytes(data))


@pytest.mark.parametrize("kind", KINDS)
def test_a_truncated_file_is_refused_by_its_place(kind: str) -> None:
    data = encoded(Image.fromarray(noise(64, 64)), kind)
    for length in (10, 40, len(data) // 3, len(data) // 2, len(data) * 9 // 10):
        with pytest.raises(MediaInvalid, match=r"input\.3 ") as caught:
            pixels(data[:length])
        assert (caught.value.status, caught.value.field) == (422, "input.3")


def test_a_header_that_lies_is_refused() -> None:
    with pytest.raises(MediaInvalid, match="cut short, damaged"):
        pixels(png_claiming(500, 500))


@pytest.mark.parametrize(
    "data", [b"", b"hello", b"%PDF-1.7", b"\x89PNG\r\n\x1a\n", b"BM", b"GIF89a"]
)
def test_what_is_no_image_is_refused(data: bytes) -> None:
    with pytest.raises(MediaInvalid, match=r"input\.3 is no image that can be read"):
        pixels(data)


@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_file_never_raises_anything_of_pillows(kind: str) -> None:
    data = encoded(Image.fromarray(noise(32, 32)), kind)
    random = np.random.default_rng(7)
    refused = 0
    for _ in range(150):
        broken = bytearray(data)
        for at in random.integers(0, min(len(data), 300), 4):
            broken[at] = random.integers(256)
        with suppress(MediaInvalid, MediaTooLarge):
            assert pixels(bytes(broken), SIZING).shape[2] == 3
            refused -= 1
        refused += 1
    assert refused


def test_no_warning_of_pillows_escapes() -> None:
    code = (
        "import base64, sys;"
        "from serving.media import MediaOptions;"
        "from serving.media.pictures import decode;"
        "from serving.media.resizing import Sizing;"
        "data = base64.b64decode(sys.stdin.read());"
        "print(decode(data, Sizing(1, 1, 10**9), MediaOptions(), 'input.0').shape)"
    )
    data = encoded(smooth(20, 30), "JPEG", exif=b"Exif\x00\x00II*\x00\x08\x00\x00\x00\xff\xffrubb")
    with pytest.warns(UserWarning, match=r"(?i)corrupt exif"):
        Image.open(BytesIO(data)).getexif()
    ran = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        input=base64.b64encode(data).decode(),
        capture_output=True,
        text=True,
    )
    assert (ran.stdout, ran.stderr) == ("(20, 30, 3)\n", "")


def test_a_text_chunk_that_explodes_is_refused() -> None:
    facts = PngImagePlugin.PngInfo()
    facts.add_text("x", "a" * 3_000_000, zip=True)
    with pytest.raises(MediaInvalid):
        pixels(encoded(smooth(8, 8), "PNG", pnginfo=facts))
