"""How long and how fast networks are trained where nothing else is said, by commands and in sweeps alike."""

SPARSE_EPOCHS, SPARSE_LR = 16, 0.1
FINETUNE_EPOCHS, FINETUNE_LR = 6, 0.05
