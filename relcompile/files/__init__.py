"""Files and texts that others chose: opened with limits, read into typed values, written whole or not at all."""
