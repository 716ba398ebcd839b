"""Image files without what is said beside their pixels, which Pillow refuses with the pixels where it is broken."""

import zlib

_PNG = b"\x89PNG\r\n\x1a\n"
_JPEG = b"\xff\xd8"
_SCAN, _APP0, _EXIF, _ADOBE, _APP15, _COMMENT = 0xDA, 0xE0, 0xE1, 0xEE, 0xEF, 0xFE  # second bytes of JPEG's marks


def without_metadata(encoded: bytes) -> bytes:
    """A PNG or JPEG without comments, color profiles and the like; any other file as it is.

    What decides pixels stays, and so do EXIF data, which say how an image lies, unless a PNG's have a wrong checksum.
    """
    if encoded.startswith(_PNG):
        return _png(encoded)
    return _jpeg(encoded) if encoded.startswith(_JPEG) else encoded


def _png(encoded: bytes) -> bytes:
    kept, place = [_PNG], len(_PNG)
    while place < len(encoded):
        length, kind = int.from_bytes(encoded[place : place + 4], "big"), encoded[place + 4 : place + 8]
        chunk = encoded[place : place + 12 + length]
        checked = zlib.crc32(chunk[4:-4]) == int.from_bytes(chunk[-4:], "big")
        if kind[:1].isupper() or (kind == b"eXIf" and checked):  # a capital letter: needed for the pixels
            kept.append(chunk)
        place += 12 + length
    return b"".join(kept)


def _jpeg(encoded: bytes) -> bytes:
    kept, place = [_JPEG], len(_JPEG)
    while encoded[place : place + 1] == b"\xff" and encoded[place + 1 : place + 2] not in (b"", bytes([_SCAN])):
        mark, end = encoded[place + 1], place + 2 + int.from_bytes(encoded[place + 2 : place + 4], "big")
        segment = encoded[place:end]
        beside_pixels = _APP0 <= mark <= _APP15 or mark == _COMMENT
        exif = mark == _EXIF and segment[4:10] == b"Exif\0\0"
        adobe = mark == _ADOBE and segment[4:9] == b"Adobe" and len(segment) >= 16  # says what the channels are
        if not beside_pixels or exif or adobe:
            kept.append(segment)
        place = end
    return b"".join(kept) + encoded[place:]
