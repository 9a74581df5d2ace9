"""What the new kernel has to unpack, unpacked here while the walk is walked.

    main thread   plan -- tables ------- walk ------- check -- findings
    beside it     payload ------------------------------------/
                  initrd -----------------------------/

A kernel whose payload is corrupt is entered all the same and dies in its decompressor, one whose
initrd is none has no /init, and what one does whose own checksum does not fit nobody knows: the
walk cannot see it.  The decompressors release the interpreter's lock, so that looking costs a
second core and hardly any time.  A check asks for the initrd's size and does not wait for more.

Rules: nothing that comes out is kept, so memory stays as it was; a rehearsal that ends early does
not wait for it.  What was found in an image is remembered as long as the image is there, where
nobody can change its bytes: who rehearses one kernel on a thousand hosts unpacks it once.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING
from weakref import ref

from tightrope.deeds.beside import Beside
from tightrope.image import initrd_contents, kernel_unchanged, payload_contents
from tightrope.model import Buffer, Contents, Image, Protocol

if TYPE_CHECKING:
    from tightrope.model import Finding

PAYLOAD, INITRD, KERNEL = "payload-unpacks", "initrd-unpacks", "kernel-unchanged"
SHIPPED_VERSION = "tightrope-shipped"
"""How the shipped kernel's version string begins: it speaks in many lines and gives a verdict."""


LARGE = 512 << 20
"""Bytes of an initrd from which on it is read once it has a place: most that have none are as
large."""


Begun = Beside[dict[str, Contents]]
"""What an image itself holds, being unpacked."""


def begin(image: Image) -> Begun:
    """Unpack the payload of an image, for a caller that has still to read the initrd."""
    return Beside(lambda: _in_image(image))


class Unpacking:
    """The payload of an image and an initrd, each being unpacked in a thread of its own.

    The initrd is the image's own where none is given.  The same may serve many rehearsals.  `begun`
    is what `begin` has made of this image.
    """

    def __init__(self, image: Image, initrd: Buffer | None, begun: Begun | None = None) -> None:
        given = image.initrd if initrd is None else initrd
        self._image = begun or begin(image)
        self._initrd: Beside[Contents] | None = None
        if given is not None and unpacks_an_initrd(image):
            self._initrd = Beside(lambda: initrd_contents(given))

    def contents(self) -> tuple[Contents, ...]:
        """What was found, once all is unpacked."""
        return tuple(self._answers().values())

    def initrd_size(self) -> int | None:
        """Bytes that the initrd unpacks to; None where there is none, or it is not whole."""
        return None if self._initrd is None else self._initrd.result().size

    def findings(self) -> Iterator[Finding]:
        """What is wrong, once all is unpacked."""
        from tightrope.model import Finding, Step  # which `begin` need not wait for

        for rule, found in self._answers().items():
            if found.flaw is None:
                continue
            evidence = {"where": found.where} if found.where else {}
            if found.says:
                evidence["linux says"] = found.says
            what, mend = _WORDS[rule]
            yield Finding(
                rule=rule,
                step=Step.PREPARE,
                message=f"{what}: {found.flaw}",
                evidence=evidence,
                mend=mend,
            )

    def _answers(self) -> dict[str, Contents]:
        """In the order in which a report says them."""
        found = dict(self._image.result())
        if self._initrd is not None:
            found[INITRD] = self._initrd.result()
        return {each: found[each] for each in (PAYLOAD, INITRD, KERNEL) if each in found}


_FOUND: dict[int, tuple[ref[Image], dict[str, Contents]]] = {}
"""What was found in images, by identity: to compare two by value costs as much as to unpack."""


def _in_image(image: Image) -> dict[str, Contents]:
    """What the image itself holds, payload and checksum; looked at once for each image."""
    number = id(image)
    found = _FOUND.get(number)
    if found is not None and found[0]() is image:
        return found[1]
    own = Beside(lambda: kernel_unchanged(image))
    answers = {}
    if image.payload is not None:
        answers[PAYLOAD] = payload_contents(image)
    if (unchanged := own.result()) is not None:
        answers[KERNEL] = unchanged
    if _is_constant(image):
        _FOUND[number] = ref(image, lambda _gone: _FOUND.pop(number, None)), answers
    return answers


def _is_constant(image: Image) -> bool:
    """Whether its bytes are `bytes`: a bytearray, or a mapped file, can be another one tomorrow."""
    held = [each.data for each in image.parts]
    held += [] if image.file is None else [image.file]
    return all(isinstance(memoryview(each).obj, bytes) for each in held)


_WORDS = {
    KERNEL: (
        "the kernel was changed after it was built",
        "fetch or build the kernel again: which byte is another one, nobody can tell",
    ),
    PAYLOAD: (
        "the payload does not unpack",
        "fetch or build the kernel again: its decompressor would stop there",
    ),
    INITRD: (
        "the initrd is not what Linux unpacks",
        "make it again: cpio archives (-H newc), compressed or not, one after the other",
    ),
}
"""By rule: what is wrong, and what would mend it."""


def is_linux(image: Image) -> bool:
    """Whether this is Linux: what another kernel knows of command lines and initrds is not
    guessed."""
    linux = (Protocol.LINUX_64, Protocol.LINUX_32)
    return any(entry.protocol in linux for entry in image.entries)


def speaks_for_itself(image: Image) -> bool:
    """Whether this is the shipped kernel, which says on the console what it was handed."""
    return (image.version or "").startswith(SHIPPED_VERSION)


def unpacks_an_initrd(image: Image) -> bool:
    """Whether the kernel makes files of its initrd; the shipped one takes any bytes, and sums
    them."""
    return is_linux(image) and not speaks_for_itself(image)
