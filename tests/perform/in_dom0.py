"""Runs inside dom0: interface v1 with pages of our own, told and driven line by line.

    in_dom0.py COUNT PAGES      COUNT frames are asked for; then wait for the file PAGES
    tightrope: frames RUNS      what Xen gave: FIRST+COUNT in hexadecimal, with commas between
    PAGES                       a line of JSON (slots, indirection, start), then by 8 + 4096 bytes
                                machine addresses and pages; the other frames hold zeros

Rules: nothing is decided here; what was decided is in PAGES.
"""

from __future__ import annotations

import json
import os
import sys
import time

from tests.stand_ins.xen_v1 import Frames, load_v1, unload_v1
from tightrope.abi.xen import KexecType
from tightrope.perform.privcmd import Privcmd
from tightrope.perform.xen import XenKexec


def runs(numbers: tuple[int, ...]) -> str:
    """Consecutive numbers as FIRST+COUNT."""
    out: list[list[int]] = []
    for number in numbers:
        if out and number == out[-1][0] + out[-1][1]:
            out[-1][1] += 1
        else:
            out.append([number, 1])
    return ",".join(f"{first:x}+{count:x}" for first, count in out)


def main(count: int, path: str) -> None:
    with Privcmd() as calls:
        kexec, pages = XenKexec(calls), {}
        frames = Frames(calls, count)
        print(f"tightrope: frames {runs(tuple(sorted(frames.numbers)))}", flush=True)
        while not os.path.exists(path):
            time.sleep(0.05)
        frames.view[:] = bytes(len(frames.view))
        with open(path, "rb") as file:
            head = json.loads(file.readline())
            while row := file.read(8 + 4096):
                pages[int.from_bytes(row[:8], "little")] = row[8:]
        frames.write(pages)
        slots = {int(slot): address for slot, address in head["slots"].items()}
        for _ in range(2):
            load_v1(kexec, KexecType.DEFAULT, slots, head["indirection"], head["start"])
            print("tightrope: v1 loaded", kexec.status(KexecType.DEFAULT), flush=True)
            if _ == 0:
                unload_v1(kexec, KexecType.DEFAULT)
                print("tightrope: v1 unloaded", kexec.status(KexecType.DEFAULT), flush=True)
        kexec.kexec(KexecType.DEFAULT)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
