"""What is asked of a model: targets, references, where relevance starts and is read."""
