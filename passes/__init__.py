"""Graph rewrites: one pass a file, graph in, graph out. A leaf: it imports torch and itself."""
