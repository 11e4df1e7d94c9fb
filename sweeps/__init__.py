"""Sweeps over how a network is pruned and trained, which find the smallest one at each accuracy."""
