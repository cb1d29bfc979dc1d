"""Benchmarks: side by side with a peer or a physical limit in the same run, a ratio and JSON out, no verdict."""
