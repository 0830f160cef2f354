"""Concepts: what the channels of a layer stand for, told by the samples that they are most relevant in."""
