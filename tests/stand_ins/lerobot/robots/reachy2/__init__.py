"""A robot whose own package is not installed."""

raise ImportError("'reachy2_sdk' is required but not installed")
