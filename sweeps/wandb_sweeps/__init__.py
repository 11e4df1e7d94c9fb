"""Studies that W&B's own sweeps run: W&B hands out the points, and its agents run single trials."""
