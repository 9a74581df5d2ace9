"""What an image's parts put into memory, byte by byte: the other door that tests read them through."""

from __future__ import annotations

from itertools import pairwise

from tightrope import image as room
from tightrope.errors import ImageError
from tightrope.model import Image

PAGE = 4096


def laid_out(image: Image) -> bytes:
    """The `init_size` bytes from the image's base, 0xee where no part has anything."""
    memory = bytearray(b"\xee" * image.init_size)
    for part in image.parts:
        memory[part.offset : part.offset + part.size] = bytes(part.data).ljust(part.size, b"\0")
    assert len(memory) == image.init_size
    return bytes(memory)


def is_sound(image: Image) -> None:
    """What every image promises, whatever its format."""
    assert image.parts
    assert image.entries
    assert image.parts[0].offset == 0
    for part in image.parts:
        assert part.data.readonly
        assert part.size > 0
        assert len(part.data) <= part.size
    for below, above in pairwise(image.parts):
        last = (image.pref_address + below.offset + below.size - 1) // PAGE
        assert last < (image.pref_address + above.offset) // PAGE
    assert max(part.offset + part.size for part in image.parts) <= image.init_size
    for entry in image.entries:
        assert any(0 <= entry.offset - part.offset < len(part.data) for part in image.parts)


def answer_to(data: bytes, source: str = "any") -> Image | ImageError:
    """What `read` makes of any bytes; everything but an Image or an ImageError escapes."""
    try:
        answer: Image | ImageError = room.read(data, source)
    except ImageError as refusal:
        answer = refusal
    assert answer.source.startswith(source)
    if isinstance(answer, Image):
        is_sound(answer)
    return answer
