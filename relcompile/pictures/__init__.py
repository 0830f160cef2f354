"""Photographs in, pictures out."""
