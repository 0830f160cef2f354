"""Operators in terms of others: what `Decompose` and `SeparateComplex` write for each."""
