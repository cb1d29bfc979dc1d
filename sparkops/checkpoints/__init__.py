"""Checkpoints as artefacts: manifests, and the hub that they come from."""
