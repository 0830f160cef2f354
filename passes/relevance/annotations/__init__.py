"""Facts that rules ask for, found before relevance is propagated."""
