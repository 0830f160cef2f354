"""Measures of explanations: pure functions of arrays, each with its formula and its source."""
