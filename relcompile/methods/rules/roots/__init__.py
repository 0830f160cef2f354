"""Roots: where a layer's relevance is expanded, given, found in closed form or searched for."""
