"""Many hosts against new kernels: one rehearsal for all hosts whose decisive facts are equal.

    decisive   the facts of a host that its verdict depends on, as a key
    cargo      kernels, initrd and old kernel: what every worker needs, once, by digest
    work       what a worker does: sort hosts into classes, rehearse one
    pools      where the workers are: processes of this computer, or Dask's
    carried    the cargo on Dask's workers
    flight     work that is out at the workers; one that dies loses nothing
    sweep      all of it
    journal    what a sweep has told so far, a line a row, to go on from

Rules: no scheduler, queue or retry beyond what `concurrent.futures` and Dask have, but for one
thing that the first lacks: a task that kills its worker is told apart from those that died with it.

May import: check, deeds, errors, host, image, machine, memory, model, participants, plan
"""
