"""Checkpoints' folders: names, records, verification, publishing."""
