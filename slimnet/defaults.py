"""How networks are trained and repaired where nothing else is said."""

# By commands and in sweeps alike.
SPARSE_EPOCHS, SPARSE_LR = 16, 0.1
FINETUNE_EPOCHS, FINETUNE_LR = 6, 0.05

# By commands alone, for a network of which neither is said; with blocks, its width is as in a sweep's config.
BLOCKS, WIDTH = (1, 1, 1), 16

# By commands alone too. In a sweep's config both are 0 unless it says otherwise: with other defaults, the
# config of a study that has begun would be that of another, and its stages have other keys.
STRENGTH = 0.005  # λ, where neither it nor a target is given
RECALIBRATE = 20  # batches; `sweeps init` writes them into its configs
