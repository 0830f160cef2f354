"""Questions asked of a graph, which change nothing."""
