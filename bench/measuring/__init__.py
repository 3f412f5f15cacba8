"""Clocks, ceilings, closeness and verdicts, which several suites need."""
