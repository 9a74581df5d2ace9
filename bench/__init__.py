"""Benchmarks: figures, never tests.  `python -m bench` prints them all.

Rules: each figure stands beside what a user would use instead, measured in the same run, as a ratio.
Medians of several runs; the machine is whatever it is run on.
"""
