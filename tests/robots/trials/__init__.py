"""Trials of the promises about motion. Each is a function with a size: the suite runs it small, benchmarks/safety.py large.

The judges stand outside of the code under test: the fake robot's own monitor and clock, and a bare timer beside it.
"""
