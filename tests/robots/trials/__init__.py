"""Trials of the promises about motion: functions with a size, small in the suite, large in benchmarks/safety.py.

The judges stand outside of the code under test: the fake robot's own monitor and clock, and a bare timer beside it.
"""
