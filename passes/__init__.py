"""Graph rewrites, and the words they are written in. A leaf: it imports torch and itself.

graphs     the words a graph is written in: nodes, and the emitter that writes them
operators  what an operator is: its kind, its operands, its exact adjoint
views      questions asked of a graph, which change nothing
relevance  what travels backwards, and the passes that write it
rewrites   graph in, graph out, numbers kept: canonical form, optimising, lowering

`runner` runs passes, `stages` says what a graph may hold after which of them, `pipelines` in which order they run.
"""
