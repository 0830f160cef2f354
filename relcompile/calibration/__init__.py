"""Calibration: what a rule has to learn from data before it can be compiled, and the files that hold it."""
