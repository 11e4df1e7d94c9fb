"""Sweeps over λ and pruning ratios that find the smallest network at each accuracy."""
