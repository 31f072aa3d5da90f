"""Benchmarks: every figure is a ratio of two things measured side by side in one run, in turns.

`python -m tests.bench [--quick] [T1 T2 ...]`. Absolute times say little about another machine, or about this one an
hour later; a ratio does. Servers are the real ones, with the project's configuration; load comes from processes of
its own, and how fast that load could go is printed beside every figure. docs/performance.md explains the measures.
"""
