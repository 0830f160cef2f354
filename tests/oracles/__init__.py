"""Slow float64 oracles written from the papers. They import nothing from relcompile or passes."""
