"""Where a crash kernel saves its dump, by what kdump-tools and kdump-utils are told.

    /etc/kdump.conf           Fedora, RHEL: raw, nfs, ssh or a file system's type; path,
                              core_collector, extra_modules
    /etc/default/kdump-tools  Debian, Ubuntu: SSH, NFS, FTP, KDUMP_COREDIR, MAKEDUMP_ARGS

Sources: kdump.conf(5); kdumpctl's check_config and kdump-lib.sh's kdump_read_conf in kdump-utils
(from # on a line is a comment; one target, no option twice, none without a value, or the service
does not start); kdump-config(8) and kdump-tools.conf of kdump-tools 1.8.1.

Rules: text in, values out.  An option that is not known here is passed over: a newer kdump-utils
has it.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum

from tightrope.errors import BadInput

UTILS_CONF = "/etc/kdump.conf"
FOLDER = "/var/crash"
UTILS_COLLECTOR = "makedumpfile -l --message-level 7 -d 31"
TOOLS_COLLECTOR = "makedumpfile -F -c -d 31"
_FILE_SYSTEMS = frozenset({"ext2", "ext3", "ext4", "minix", "btrfs", "xfs"})
_GONE = frozenset({"net", "options", "link_delay", "disk_timeout", "debug_mem_level", "blacklist"})
"""Options that kdumpctl refuses since they have others in their place."""
_MOUNT = re.compile(r"--mount[ =](?:\"([^\"]*)\"|'([^']*)')")


class Place(StrEnum):
    """What kind of place it is; the value is what a report calls it."""

    ROOT = "the root file system"
    DEVICE = "a file system"
    RAW = "a bare device"
    NFS = "NFS"
    SSH = "another machine over SSH"
    FTP = "another machine over FTP"

    @property
    def network(self) -> bool:
        """It needs a network, which a PC without one has not."""
        return self in (Place.NFS, Place.SSH, Place.FTP)


@dataclass(frozen=True, kw_only=True, slots=True)
class Target:
    """Where a dump is saved, and by what."""

    place: Place = Place.ROOT
    where: str = ""
    """A device, as UUID=, LABEL= or a path; or a server."""
    folder: str = FOLDER
    collector: str = UTILS_COLLECTOR
    modules: frozenset[str] = frozenset()
    """Modules that the initrd is told to have besides, _ for -."""


def of_utils(text: str | None) -> Target:
    """What /etc/kdump.conf says, None where it is not there.  Raises BadInput where kdumpctl
    refuses it: then no crash kernel is loaded."""
    said: dict[str, str] = {}
    place, where = Place.ROOT, ""
    for option, value in _options(text or ""):
        if option in _GONE:
            raise _refused(f"the option {option} is gone, and kdumpctl does not start with it")
        if not value:
            raise _refused("an option without a value", option)
        found = _place(option, value)
        key = option if found is None else "target"
        if key in said:
            raise _refused("said twice" if found is None else "more than one target", option)
        said[key] = value
        if found is not None:
            place, where = found
    collector = said.get("core_collector")
    if collector is None:
        flat = " -F" if place in (Place.RAW, Place.SSH) else ""
        collector = UTILS_COLLECTOR.replace("makedumpfile", f"makedumpfile{flat}")
    return Target(
        place=place,
        where=where,
        folder=said.get("path", FOLDER),
        collector=collector,
        modules=frozenset(each.replace("-", "_") for each in said.get("extra_modules", "").split()),
    )


def of_tools(said: Mapping[str, str]) -> Target:
    """What the assignments of /etc/default/kdump-tools say (the first that is said counts)."""
    places = ((Place.SSH, "SSH"), (Place.NFS, "NFS"), (Place.FTP, "FTP"))
    place, where = next(
        ((place, said[name]) for place, name in places if said.get(name)), (Place.ROOT, "")
    )
    arguments = said.get("MAKEDUMP_ARGS", "")
    if arguments and not arguments.startswith("-F"):  # kdump-config adds it
        arguments += " -F"
    return Target(
        place=place,
        where=where,
        folder=said.get("KDUMP_COREDIR") or FOLDER,
        collector=f"makedumpfile {arguments}" if arguments else TOOLS_COLLECTOR,
    )


def device(where: str) -> str:
    """The path of a device that is named as UUID=, LABEL=, PARTUUID=, PARTLABEL= or by its path."""
    kind, equals, name = where.partition("=")
    name = name.strip("\"'")
    kinds = {"UUID", "LABEL", "PARTUUID", "PARTLABEL"}
    return f"/dev/disk/by-{kind.lower()}/{name}" if equals and kind in kinds else where


def _options(text: str) -> Iterator[tuple[str, str]]:
    for line in text.splitlines():
        option, _, value = line.partition("#")[0].strip().partition(" ")
        if option:
            first, _, rest = option.partition("\t")
            yield first, f"{rest} {value}".strip()


def _place(option: str, value: str) -> tuple[Place, str] | None:
    """The target that a line names; None for other lines."""
    if option in _FILE_SYSTEMS:
        return Place.DEVICE, value
    if option == "dracut_args":
        found = _MOUNT.search(value)
        words = [] if found is None else _words(found[1] or found[2] or "")
        return (Place.DEVICE, words[0]) if words else None
    kinds = {"raw": Place.RAW, "nfs": Place.NFS, "ssh": Place.SSH}
    return (kinds[option], value) if option in kinds else None


def _words(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError:
        return text.split()


def _refused(problem: str, field: str | None = None) -> BadInput:
    return BadInput(f"{problem}: kdumpctl loads no crash kernel", source=UTILS_CONF, field=field)
