"""Graph in, graph out, numbers kept: canonical form, optimising, lowering."""
