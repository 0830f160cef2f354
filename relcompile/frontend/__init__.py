"""A model file or module becomes a captured graph."""
