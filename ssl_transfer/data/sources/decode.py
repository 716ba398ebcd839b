"""From the bytes of an image file, of any mode and size, to a square uint8 canvas."""

import io
from functools import lru_cache
from typing import NoReturn

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import UInt8
from PIL import Image, UnidentifiedImageError
from PIL.ImageFile import ImageFile
from PIL.TiffImagePlugin import TiffImageFile
from torch import Tensor

from ssl_transfer.data.sources.metadata import without_metadata

# What is read, by Pillow's names: each has a mark by which its content is known and complains of a cut file. Others are
# not tried, whatever a file is called: Pillow would start Ghostscript for a PostScript file named x.jpg.
FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "MPO", "PNG", "PPM", "TIFF", "WEBP")
SUFFIXES = tuple(
    ".apng .avif .bmp .gif .j2k .jfif .jp2 .jpe .jpeg .jpg .mpo .pbm .pgm .png .pnm .ppm .tif .tiff .webp".split()
)

_LONGEST = 32  # times as long as wide: of a longer image its middle of that shape is resized, and not the whole

_DARK = 16  # of 255: nothing in an image of more than 8 bits is brighter, so its values did not fill their range

_ORIENTATION = 0x0112
_UPRIGHT = {  # by what EXIF says of an image, how it is turned upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def decode(encoded: bytes, size: int) -> UInt8[Tensor, "3 size size"]:
    """Read an image of any mode as RGB, its shorter side resized to ``size`` and its middle kept.

    The image is turned upright where its EXIF data say how, then resized bilinearly, antialiased, as torchvision's
    ``Resize(size)`` and ``CenterCrop(size)`` do; one more than 32 times as long as wide is cut to its middle before.
    Of an animation, and of a file of several pages, it is the first. What becomes of each mode is said by
    :func:`to_rgb`.

    Raises:
        ValueError: the bytes are no whole image of one of :data:`FORMATS`, or the range of its values is not known.
    """
    try:
        pixels = _pixels(encoded, size)
    except ValueError:
        bare = without_metadata(encoded)
        if bare == encoded:
            raise
        pixels = _pixels(bare, size)
    return square(pixels, size)


def square(pixels: UInt8[np.ndarray, "height width 3"], size: int) -> UInt8[Tensor, "3 size size"]:
    """RGB pixels resized so that the shorter side is ``size``, and their middle, as :func:`decode` makes it."""
    pixels = _middle_of_long(pixels)
    # torch resizes bytes to within 1 of Pillow, in less time: 1.0 to 1.7 times the images/s, decoding included
    height, width = (max(size, size * side // min(pixels.shape[:2])) for side in pixels.shape[:2])
    whole = torch.from_numpy(pixels).permute(2, 0, 1)[None]
    resized = F.interpolate(whole, (height, width), mode="bilinear", antialias=True)[0]
    top, left = round((height - size) / 2), round((width - size) / 2)
    return resized[:, top : top + size, left : left + size].contiguous()


def _pixels(encoded: bytes, size: int) -> UInt8[np.ndarray, "height width 3"]:
    """All pixels, upright; of a JPEG at the smallest scale at which no side is shorter than ``size``."""
    try:
        with Image.open(io.BytesIO(encoded), formats=_known_formats()) as image:
            if _lacks_its_end(encoded, image.format):
                raise ValueError("the end of the file is missing")
            image.draft("RGB", (size, size))
            rgb = to_rgb(image)
            turn = _UPRIGHT.get(_orientation(image))  # asked after it is loaded: then Pillow has turned a TIFF itself
            return np.array(rgb if turn is None else rgb.transpose(turn))
    except UnidentifiedImageError as error:
        raise ValueError(f"it is no image in a format that is read: {', '.join(FORMATS)}") from error
    except Exception as error:  # each of Pillow's formats has its own ways to fail on a broken file
        raise ValueError(" ".join(str(error).split()) or type(error).__name__) from error


def _lacks_its_end(encoded: bytes, kind: str | None) -> bool:
    """Whether a file was cut, or zeroed by a crash, in a way that Pillow does not complain of."""
    if kind == "PNG":
        return b"IEND\xaeB`\x82" not in encoded
    if kind in ("JPEG", "MPO") and not any(encoded[-16:]):
        return encoded.rfind(b"\xff\xd9") < encoded.rfind(b"\xff\xda")  # the mark of an end, and of a scan of pixels
    # These two have no mark, but whole ones do not end in 16 zeros, as black pixels can in a lossy WebP.
    if kind == "WEBP" and encoded[12:16] == b"VP8L":
        end = 20 + int.from_bytes(encoded[16:20], "little")
        return not any(encoded[end - 16 : end])
    if kind == "AVIF":
        start = encoded.find(b"mdat") - 4  # the box of the pixels, the last one
        end = start + int.from_bytes(encoded[start : start + 4], "big")
        return start >= 0 and end >= start + 8 and not any(encoded[end - 16 : end])
    return False


def to_rgb(image: ImageFile) -> Image.Image:
    """Any mode to 8-bit RGB.

    Transparency is dropped. Of 16 bits the upper byte is kept. Values of 32 bits, whole or not, must lie between 0 and
    1, which become 0 and 255, or be whole numbers of 0 to 255, which are kept. An image of more than 8 bits that would
    become nearly black is refused: most likely its values fill a part of the range only, such as 12 bits of 16.

    Raises:
        ValueError: the values are of a range that is not known.
    """
    # Asked before it is loaded: of several channels of 16 bits Pillow keeps the upper bytes, and forgets that it did.
    deep = any(";16" in str(tile[3]) for tile in image.tile)
    image.load()
    rgb: Image.Image = image
    if image.mode.startswith(("I", "F")):
        values = np.asarray(image)
        gray = _to_8_bits(values, 16 if _has_16_bits(image) else 32)
        deep = bool(values.any())  # nothing but 0 is black in any range
        rgb = Image.fromarray(255 - gray if _white_is_zero(image) else gray)
    elif image.mode == "P" and "transparency" in image.info:
        rgb = image.convert("RGBA")
    if rgb.mode != "RGB":  # else convert would copy
        rgb = rgb.convert("RGB")
    if deep and (brightest := np.asarray(rgb).max()) <= _DARK:
        _refuse_range(f"its brightest pixel would be {brightest} of 255")
    return rgb


def _to_8_bits(values: np.ndarray, bits: int) -> UInt8[np.ndarray, "height width"]:
    if bits == 16:
        return (values >> 8).astype(np.uint8)
    low, high = values.min(), values.max()
    if 0 <= low and high <= 1:
        return (values * 255.0).round().astype(np.uint8)
    if 0 <= low and high <= 255 and np.array_equal(values, np.floor(values)):
        return values.astype(np.uint8)
    _refuse_range(f"it has 32 bits and values of {low:g} to {high:g}, neither 0 to 1 nor whole numbers of 0 to 255")


def _refuse_range(why: str) -> NoReturn:
    raise ValueError(f"the range of its values is not known ({why}): save it with 8 bits")


def _has_16_bits(image: ImageFile) -> bool:
    """Whether gray values are of 16 bits: PNG and PPM have no more, in whatever mode Pillow keeps them."""
    return image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM"))


def _white_is_zero(image: ImageFile) -> bool:
    """Whether a TIFF counts from white to black, which Pillow turns around for 8 bits and not for more."""
    return isinstance(image, TiffImageFile) and image.tag_v2.get(262) == 0


def _orientation(image: ImageFile) -> int:
    """How the image lies, by its EXIF data; 1, upright, where they are missing or broken: its pixels are whole."""
    try:
        return image.getexif().get(_ORIENTATION, 1)
    except Exception:  # as many ways to fail as there are formats
        return 1


def _middle_of_long(pixels: UInt8[np.ndarray, "height width 3"]) -> UInt8[np.ndarray, "_ _ 3"]:
    """Pixels of at most 32 times their shorter side: resized whole, one row of 20,000 would take gigabytes."""
    longest = _LONGEST * min(pixels.shape[:2])
    # An even number of pixels goes, so that the middle stays where it was.
    top, left = (max(0, side - longest) // 2 for side in pixels.shape[:2])
    return pixels[top : len(pixels) - top, left : pixels.shape[1] - left]


@lru_cache(maxsize=1)
def _known_formats() -> tuple[str, ...]:
    """Those of :data:`FORMATS` that this Pillow has; an image in another is refused like one that is broken."""
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)
