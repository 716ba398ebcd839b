"""Whatever is written beside the pixels of a file, they are read; and what is missing of them is not made up."""

import io
import random
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from ssl_transfer.data.sources.decode import decode
from ssl_transfer.data.sources.metadata import without_metadata

NOISE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 30, 3), dtype=np.uint8))
SEGMENTS = {
    0xE0: [b"JFIF\0", b"JFXX\0"],
    0xE1: [b"Exif\0\0", b"Exif\0\0II*\0\x08\0\0\0", b"http://ns.adobe.com/xap/1.0/\0"],
    0xE2: [b"ICC_PROFILE\0", b"MPF\0II*\0\x08\0\0\0", b"FPXR\0"],
    0xED: [b"Photoshop 3.0\0", b"Photoshop 3.0\x008BIM\x03\xed"],
    0xEE: [b"Adobe"],
    0xFE: [b""],
}
CHUNKS = "eXIf tEXt zTXt iTXt iCCP gAMA cHRM sRGB pHYs tIME bKGD sBIT hIST acTL fcTL tRNS sPLT prVt".split()


def saved(kind: str, **options) -> bytes:
    file = io.BytesIO()
    NOISE.save(file, kind, **options)
    return file.getvalue()


def chunk(kind: str, content: bytes, checked: bool = True) -> bytes:
    body = kind.encode() + content
    return struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body) ^ (not checked))


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow remarks on broken EXIF data
@pytest.mark.parametrize("mark", SEGMENTS)
def test_a_jpeg_is_read_whatever_its_segments_hold(mark):
    random_bytes, whole = random.Random(mark), saved("JPEG", quality=90)
    expected = decode(whole, 16)
    for start in SEGMENTS[mark] * 20:
        content = start + random_bytes.randbytes(random_bytes.choice([0, 1, 3, 9, 40, 200]))
        segment = bytes([0xFF, mark]) + struct.pack(">H", len(content) + 2) + content
        assert torch.equal(decode(whole[:2] + segment + whole[2:], 16), expected), content


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("kind", CHUNKS)
def test_a_png_is_read_whatever_its_chunks_hold(kind):
    random_bytes, whole = random.Random(kind), saved("PNG")
    expected = decode(whole, 16)
    for start in [b"", b"Comment\0\0", b"Raw profile type exif\0\0", b"XML:com.adobe.xmp\0\0\0\0\0"] * 10:
        content = start + random_bytes.randbytes(random_bytes.choice([0, 1, 2, 4, 9, 40]))
        for checked in (True, False):
            assert torch.equal(decode(whole[:33] + chunk(kind, content, checked) + whole[33:], 16), expected), content


def test_an_image_with_broken_chunks_is_still_turned_upright():
    exif = Image.Exif()
    exif[0x0112] = 6
    turned, broken = saved("PNG", exif=exif), chunk("cHRM", b"short")
    assert torch.equal(decode(turned[:33] + broken + turned[33:], 16), decode(turned, 16))
    assert not torch.equal(decode(turned, 16), decode(saved("PNG"), 16))


def test_the_colors_of_a_cmyk_jpeg_stay_with_broken_segments():
    file = io.BytesIO()
    NOISE.convert("CMYK").save(file, "JPEG", quality=95)
    whole = file.getvalue()
    broken = b"\xff\xe2" + struct.pack(">H", 14) + b"ICC_PROFILE\0"
    assert torch.equal(decode(whole[:2] + broken + whole[2:], 16), decode(whole, 16))


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_a_file_that_was_cut_is_not_made_whole(kind):
    whole = saved(kind)
    for length in range(0, len(whole), 97):
        assert len(without_metadata(whole[:length])) <= length
        with pytest.raises(ValueError):
            decode(whole[:length], 16)


def test_other_files_stay_as_they_are():
    for content in (b"", b"text", saved("BMP"), saved("WEBP")):
        assert without_metadata(content) == content
