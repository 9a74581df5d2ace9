"""The old kernel's world as a description: read from a file, from this machine, from a guest.

    schema    TOML tables declared as dataclasses; knows nothing about hosts
    document  a host file as it is declared: fields, bounds, comments
    profile   TOML text <-> Host
    examples  hosts of every mode, as values
    capture   what /proc and /sys say of a machine -> TOML text
    collected what a script collected elsewhere -> Host, and that script
    guest     a real old kernel that stands in a machine -> Host and World

    xen       the same of a hypervisor with a dom0: its file, its examples, what it says of itself
    consistency what must be true between the fields of a host
    efi       the [efi] table of a host file
    files     a host as the files of /proc and /sys in which Linux would tell of it
    pc        the old kernel on QEMU's `pc` machine

May import: abi, errors, memory, model, x86
"""

from tightrope.host.capture import Captured, capture, read_copy, read_tree
from tightrope.host.collected import read, read_bytes, script
from tightrope.host.examples import PAGE_OFFSETS, SPLITS, example
from tightrope.host.files import files
from tightrope.host.guest import Guest, Told, read_guest, with_code
from tightrope.host.profile import schema, write
from tightrope.host.xen.capture import xen_file
from tightrope.host.xen.examples import xen_example
from tightrope.model.host import FOUR_FOUR

__all__ = [
    "FOUR_FOUR",
    "PAGE_OFFSETS",
    "SPLITS",
    "Captured",
    "Guest",
    "Told",
    "capture",
    "example",
    "files",
    "read",
    "read_bytes",
    "read_copy",
    "read_guest",
    "read_tree",
    "schema",
    "script",
    "with_code",
    "write",
    "xen_example",
    "xen_file",
]
