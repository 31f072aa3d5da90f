"""Benchmarks: every figure is a ratio of two measurements that alternate in one run.

`python -m tests.bench [--quick] [T1 T2 ...]`. Absolute times are not valid for another machine, or for the same one an
hour later; ratios are. Servers are real, with the project's configuration; load generators are separate processes, and
their maximum rate is printed beside every figure. docs/performance.md explains the measures.
"""
