"""An image's parts at another address than the one it is linked at.

Rules: only the words that the image names are changed, and none where it names none.
"""

from __future__ import annotations

from dataclasses import replace

from tightrope.model import Image, Part


def moved(image: Image, distance: int) -> tuple[Part, ...]:
    """The parts with `distance` (bytes, may be negative) added to each word of `relocations`.

    What the decompressor of a 32-bit kernel does (Linux arch/x86/boot/compressed/misc.c,
    handle_relocations).
    """
    if image.relocations is None or not distance:
        return image.parts
    import numpy as np

    flat = np.zeros(max(part.offset + len(part.data) for part in image.parts), np.uint8)
    for part in image.parts:
        flat[part.offset : part.offset + len(part.data)] = np.frombuffer(part.data, np.uint8)
    places = image.relocations[:, np.newaxis] + np.arange(4)
    words = np.ascontiguousarray(flat[places]).view("<u4")
    words += np.uint32(distance & 0xFFFF_FFFF)
    flat[places] = words.view(np.uint8)
    whole = memoryview(flat.tobytes())
    return tuple(
        replace(part, data=whole[part.offset : part.offset + len(part.data)])
        for part in image.parts
    )
