"""What a look at a study finds, in primitives, so that it can cross between processes and into JSON."""

from __future__ import annotations

from dataclasses import dataclass

from sweeps.machine import Prepared


@dataclass(frozen=True)
class DataFacts:
    """The data as training sees them.

    Attributes:
        name: of the data set.
        image_shape: (C, H, W).
        classes: their names.
        train, validation, test: how many images each class has in each part.
        looked_at: how many training images were looked at for `constant`.
        constant: how many of those are of one colour.
        held_out: whether the validation images were taken from the training images.
    """

    name: str
    image_shape: tuple[int, int, int]
    classes: tuple[str, ...]
    train: tuple[int, ...]
    validation: tuple[int, ...]
    test: tuple[int, ...]
    looked_at: int
    constant: int
    held_out: bool = True


@dataclass(frozen=True)
class GroupFacts:
    """A group of channels that are kept or removed together.

    Attributes:
        name: its first layer.
        layers: how many layers produce it.
        channels: how many there are to choose from.
        whole_because: why this study never prunes it; empty where it does.
    """

    name: str
    layers: int
    channels: int
    whole_because: str


@dataclass(frozen=True)
class Cut:
    """What pruning at a point of the search space leaves of the network as it is now.

    Attributes:
        at: the point's setting, such as "prune.ratio 0.9".
        params: of the pruned network; None where pruning refused.
        refusal: what it said then.
    """

    at: str
    params: int | None
    refusal: str = ""


@dataclass(frozen=True)
class NetworkFacts:
    """The network before training.

    Attributes:
        name: as the config calls it.
        params, macs: its size; MACs of one image.
        outputs: how many numbers it returns for an image.
        scaling_factors: how many the penalty acts on.
        groups: in the order in which the network runs.
        cuts: at both ends of the search space.
        norm_momentum: the smallest share by which a BatchNorm moves its statistics at a step; 1 without one.
    """

    name: str
    params: int
    macs: int
    outputs: int
    scaling_factors: int
    groups: tuple[GroupFacts, ...]
    cuts: tuple[Cut, ...]
    norm_momentum: float = 1.0


@dataclass(frozen=True)
class Times:
    """Seconds, measured on one worker while nothing else ran.

    Attributes:
        step: of a training step of the whole network, at `sparse.batch_size`.
        pruned_step: of one pruned at the middle of the search space, at `finetune.batch_size`.
        pruned_params: its parameters.
        image: to measure the accuracy on one image.
        start: of a stage, up to its first step.
        prune: to trace and prune.
    """

    step: float
    pruned_step: float
    pruned_params: int
    image: float
    start: float
    prune: float


@dataclass(frozen=True, kw_only=True)
class Findings(Prepared):
    """All of it, with what a sweep needs to know before it begins.

    Attributes:
        workers, threads: how many processes compute stages at once, and the threads of each.
        data, network, times: see there.
    """

    workers: int
    threads: int
    data: DataFacts
    network: NetworkFacts
    times: Times
