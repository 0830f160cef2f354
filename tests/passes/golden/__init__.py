"""Explainer graphs of small networks, printed: a change of the graphs is read as a difference of text.

`python -m tests.passes.golden` writes them anew. One node a line, in the order of the graph; a value is named after its
operator, so that a node more or less leaves the names of other operators alone.
"""
