"""Faults at random moments of real applies on lab nodes, by a seed: `make chaos N=300 SEED=7`."""
