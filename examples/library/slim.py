"""Network Slimming in a loop of one's own: python slim.py [EPOCHS]"""

import sys

import torch
import torch.nn.functional as F
from torch import nn

import slimnet
from slimnet.data import Splits, eval_batches, load_dataset, split, train_batches

EPOCHS, STRENGTH, RATIO = 3, 0.01, 0.5


def train(model: nn.Module, data: Splits, epochs: int, strength: float) -> None:
    """Plain SGD; `strength` is λ, the pull on the scaling factors of BatchNorm towards zero."""
    optimiser = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, nesterov=True)
    gammas = [layer.weight for layer in model.modules() if isinstance(layer, nn.BatchNorm2d)]
    for epoch in range(epochs):
        for images, labels in train_batches(data.train, data, 64, seed=0, epoch=epoch):
            optimiser.zero_grad()
            loss = F.cross_entropy(model.train()(images), labels)
            (loss + strength * sum(gamma.abs().sum() for gamma in gammas)).backward()
            optimiser.step()


def tell(name: str, model: nn.Module, data: Splits) -> None:
    """Print the size of a network, and its accuracy on the test images."""
    with torch.no_grad():
        batches = eval_batches(data.test, data, 500)
        right = sum(int((model.eval()(x).argmax(1) == y).sum()) for x, y in batches)
    print(f"{name:14}{slimnet.count_params(model):8,} parameters {right / len(data.test):8.1%}")


def main(epochs: int) -> None:
    """Train sparsely, prune, recalibrate, fine-tune, save."""
    torch.manual_seed(0)
    data = split(load_dataset("fashion-mini", image_size=14), validation=0.1, seed=0)
    model = slimnet.models.resnet([1, 1, 1], width=8, num_classes=10, in_channels=1, stem="cifar")
    train(model, data, epochs, STRENGTH)
    tell("sparse", model, data)
    plan = slimnet.plan(slimnet.trace(model, data.example), ratio=RATIO)
    smaller = slimnet.prune(model, plan)
    tell("pruned", smaller, data)
    slimnet.recalibrate(
        smaller, [images for images, _ in train_batches(data.train, data, 64, seed=1, epoch=0)][:20]
    )
    tell("recalibrated", smaller, data)
    train(smaller, data, epochs, strength=0.0)
    tell("fine-tuned", smaller, data)
    slimnet.save("small.pt", smaller)
    tell("from its file", slimnet.load("small.pt"), data)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else EPOCHS)
