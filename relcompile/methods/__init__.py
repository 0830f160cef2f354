"""Rules, presets, composites, and how they are spelt."""
