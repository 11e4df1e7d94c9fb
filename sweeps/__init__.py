"""Sweeps over λ and pruning ratios: which networks are smallest at which accuracy."""
