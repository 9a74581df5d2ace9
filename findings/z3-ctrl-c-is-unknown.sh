#!/usr/bin/env bash
# Ctrl-C inside z3's Python `check()` raises nothing: the answer is `unknown`, and the program goes on.
#
# Guess before it was tried: a SIGINT during `Solver.check()` raises KeyboardInterrupt once the call returns, as
# every other C library called through ctypes has it.
# Seen (z3-solver 5.4.1.0, CPython 3.11): z3 installs a handler of its own for the time of the call, so Python's
# never runs; `check()` returns `unknown`, no exception is raised and the process ends with status 0.
# `z3.set_param("ctrl_c", False)` leaves SIGINT to Python: then KeyboardInterrupt is raised behind the call.
#
# Needs: python3 with venv, and 60 MB of download; half a minute.  Exits 1 when this changes.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q "z3-solver==5.4.1.0"
cat >"$work/ask.py" <<'END'
import os, signal, sys, threading
import z3
print("z3", z3.get_version_string(), "python", sys.version.split()[0])
if "off" in sys.argv:
    z3.set_param("ctrl_c", False)
    # Python runs its handler when the call is over: end it.
    threading.Timer(4, lambda: z3.main_ctx().interrupt()).start()
x, y = z3.BitVecs("x y", 128)
solver = z3.Solver()
solver.add(z3.ZeroExt(128, x) * z3.ZeroExt(128, y) == 2**201 - 20 * 2**80 + 1, z3.UGT(x, 1), z3.UGT(y, 1))
threading.Timer(2, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
try:
    print(solver.check(), "and nothing was raised")
except KeyboardInterrupt:
    print("KeyboardInterrupt")
END
as_it_is=$("$work/venv/bin/python" "$work/ask.py") || true
turned_off=$("$work/venv/bin/python" "$work/ask.py" off) || true
echo "as it is:      $as_it_is"
echo "ctrl_c off:    $turned_off"
[[ $as_it_is == *"unknown and nothing was raised" && $turned_off == *KeyboardInterrupt ]]
