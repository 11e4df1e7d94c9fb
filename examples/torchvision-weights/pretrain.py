"""Trains torchvision's shufflenet_v2_x0_5 for a moment, and keeps its weights: they stand for yours."""

import torch
import torch.nn.functional as F
from torch import nn
from torchvision.models import shufflenet_v2_x0_5

from slimnet.data import load_dataset, split, train_batches

EPOCHS = 3


def main() -> None:
    """Train, and save a plain state_dict."""
    torch.manual_seed(0)
    data = split(load_dataset("fashion-mini", image_size=28), validation=0.2, seed=0)
    model = shufflenet_v2_x0_5(num_classes=10)
    model.conv1[0] = nn.Conv2d(1, 24, 3, stride=2, padding=1, bias=False)  # the pictures are grey
    optimiser = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, EPOCHS)
    for epoch in range(EPOCHS):
        for images, labels in train_batches(data.train, data, 64, seed=0, epoch=epoch):
            optimiser.zero_grad()
            F.cross_entropy(model(images), labels).backward()
            optimiser.step()
        schedule.step()
    torch.save(model.state_dict(), "weights.pth")


if __name__ == "__main__":
    main()
