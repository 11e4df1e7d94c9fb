"""The training loop, its recipe, and the penalties that make a network sparse."""
