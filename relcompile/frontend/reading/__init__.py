"""Model files, read without running code from them."""
