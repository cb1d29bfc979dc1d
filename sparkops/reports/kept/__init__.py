"""Kept runs, as text and as JSON."""
