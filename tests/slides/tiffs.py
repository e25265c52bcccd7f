"""Tiled TIFFs with whatever tags a test wants, one directory a level; the caller answers for sense."""

import struct
import zlib

import numpy as np

SHORT, LONG, RATIONAL, ASCII, LONG8 = 3, 4, 5, 2, 16
_CODES = {SHORT: "H", LONG: "I", RATIONAL: "I", LONG8: "Q"}


def tiff(path, image, *, tile=128, resolution=(40_000, 40_000), encode=None, tags=None, spoil=(), levels=()):
    """Write ``image``, uint8 or uint16 of shape (height, width[, samples]), and smaller ``levels``.

    ``encode`` turns a tile into bytes (deflate by default; give another compression among ``tags``); ``tags``
    are added to those of the first level or replace them, as ``{code: (type, values)}``; tiles whose numbers
    are in ``spoil`` hold no picture.
    """
    encode = encode or (lambda pixels: zlib.compress(pixels.tobytes(), 1))
    out = bytearray(struct.pack("<2sHHHQ", b"II", 43, 8, 0, 0))
    link = 8
    for number, pixels in enumerate(map(np.asarray, [image, *levels])):
        height, width, samples = (*pixels.shape, 1)[:3]
        offsets, sizes = [], []
        for y in range(0, height, tile):
            for x in range(0, width, tile):
                part = pixels[y : y + tile, x : x + tile]
                pad = [(0, tile - part.shape[0]), (0, tile - part.shape[1]), (0, 0)][: pixels.ndim]
                data = encode(np.pad(part, pad, mode="edge"))
                if number == 0 and len(offsets) in spoil:
                    data = b"\xa5" * len(data)
                offsets.append(len(out))
                sizes.append(len(data))
                out += data
        entries = {
            254: (LONG, [1 if number else 0]),
            256: (LONG, [width]),
            257: (LONG, [height]),
            258: (SHORT, [pixels.dtype.itemsize * 8] * samples),
            259: (SHORT, [8]),
            262: (SHORT, [2 if samples >= 3 else 1]),
            277: (SHORT, [samples]),
            282: (RATIONAL, [resolution[0], 1]),
            283: (RATIONAL, [resolution[1], 1]),
            284: (SHORT, [1]),
            296: (SHORT, [3]),
            322: (LONG, [tile]),
            323: (LONG, [tile]),
            324: (LONG8, offsets),
            325: (LONG8, sizes),
        }
        if samples in (2, 4):
            entries[338] = (SHORT, [2])
        entries |= (tags or {}) if number == 0 else {}
        while len(out) % 8:
            out.append(0)
        position = len(out)
        external = position + 8 + 20 * len(entries) + 8
        directory, extra = struct.pack("<Q", len(entries)), b""
        for code in sorted(entries):
            kind, values = entries[code]
            data = values if kind == ASCII else struct.pack(f"<{len(values)}{_CODES[kind]}", *values)
            count = len(values) // (2 if kind == RATIONAL else 1)
            directory += struct.pack("<HHQ", code, kind, count)
            if len(data) <= 8:
                directory += data.ljust(8, b"\0")
            else:
                directory += struct.pack("<Q", external + len(extra))
                extra += data
        out += directory + bytes(8) + extra
        out[link : link + 8] = struct.pack("<Q", position)
        link = position + 8 + 20 * len(entries)
    path.write_bytes(out)
    return path
