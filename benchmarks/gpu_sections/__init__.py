"""The sections of benchmarks/gpu.py: each module's `run(bench, ...)` emits rows."""
