"""The mathematics: one family of rules a file, every rule a frozen dataclass that knows nothing of graphs."""
