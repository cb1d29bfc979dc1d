"""Measure what a link between two nodes carries."""
