#!/usr/bin/env bash
# What Dask scatters with broadcast=True is on every worker for a moment only, and the tasks that ask for it
# are cancelled when the one worker that still has it is gone.
#
# Guess before it was tried: a broadcast stays on all workers, so that work goes on when one of them is killed.
# Seen with distributed 2026.8.0: two copies at once, one a few seconds later (the active memory manager, on by
# default, takes back replicas that no waiting task needs); with the worker that holds it gone, a task that is
# submitted then ends with a FutureCancelledError, though another worker is there.  Scattered bytes
# have no recipe to be made again from.  A WorkerPlugin is on each worker, and on one that joins later.
#
# Needs: python3 with venv and pip; half a minute.  Exits 1 when this changes.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv env
env/bin/pip install -q --disable-pip-version-check distributed==2026.8.0
cat > seen.py <<'PY'
import logging, sys, time
import distributed
from distributed import Client, LocalCluster

if __name__ == "__main__":
    logging.disable(logging.CRITICAL)
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster:
        with Client(cluster) as client:
            data = client.scatter(b"some bytes", broadcast=True, hash=False)
            holders = lambda: list(client.who_has([data])[data.key])
            first = len(holders())
            limit = time.monotonic() + 60
            while len(holders()) > 1 and time.monotonic() < limit:
                time.sleep(0.5)
            last = holders()
            name = next(n for n, each in cluster.workers.items() if each.worker_address == last[0])
            cluster.workers[name].process.process.kill()
            while last[0] in client.scheduler_info()["workers"] and time.monotonic() < limit:
                time.sleep(0.2)
            try:
                ended = client.submit(len, data, pure=False).result(timeout=60)
            except Exception as error:
                ended = type(error).__name__
            print("distributed", distributed.__version__)
            print("copies at once:", first, "- later:", len(last), "- a task after the kill:", ended)
            sys.exit(not (first == 2 and len(last) == 1 and ended == "FutureCancelledError"))
PY
env/bin/python seen.py
