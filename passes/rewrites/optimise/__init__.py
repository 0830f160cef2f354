"""The same numbers from fewer and faster nodes."""
