"""What travels backwards, and the passes that write it."""
