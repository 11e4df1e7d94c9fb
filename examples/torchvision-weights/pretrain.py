"""Trains torchvision's mobilenet_v3_small for a moment, and keeps its weights: they stand for yours."""

import torch
import torch.nn.functional as F
from torch import nn
from torchvision.models import mobilenet_v3_small

from slimnet.data import load_dataset, split, train_batches

STEPS = 15


def main() -> None:
    """Train, and save a plain state_dict."""
    torch.manual_seed(0)
    data = split(load_dataset("fashion-mini", image_size=28), validation=0.1, seed=0)
    model = mobilenet_v3_small(num_classes=10)
    model.features[0][0] = nn.Conv2d(1, 16, 3, stride=2, padding=1, bias=False)  # the pictures are grey
    optimiser = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    for _, (images, labels) in zip(
        range(STEPS), train_batches(data.train, data, 64, seed=0, epoch=0), strict=False
    ):
        optimiser.zero_grad()
        F.cross_entropy(model(images), labels).backward()
        optimiser.step()
    torch.save(model.state_dict(), "weights.pth")


if __name__ == "__main__":
    main()
