"""Checkpoints' folders: names, records, verification, publishing."""

RECORD = ".sparkops/manifest.json"
"""The record in a folder of ours: what it should hold."""
