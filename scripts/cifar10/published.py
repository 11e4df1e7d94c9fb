"""What others report on CIFAR-10, with its source, what slimnet counts, and where the numbers disagree."""

from __future__ import annotations

from dataclasses import dataclass

from cifar10 import networks
from cifar10.markdown import millions, percent, table
from cifar10.networks import REPORT_90, counted
from slimnet.models import resnet50, resnet56
from sweeps.report.wording import UNKNOWN, count

GITHUB = "https://github.com"
TORCH_PRUNING = f"{GITHUB}/VainF/Torch-Pruning/tree/master/reproduce"
SELECTION = sum((16, *[64] * 18, *[128] * 18, *[256] * 18))
"""Inputs of the blocks and of the end of a ResNet-164, each with a constant in network-slimming's code."""
SOURCES = {
    "report": "the lab report",
    "sanster": f"[Sanster/pytorch-network-slimming]({GITHUB}/Sanster/pytorch-network-slimming)",
    "slimming": f"[Eric-mingjie/network-slimming]({GITHUB}/Eric-mingjie/network-slimming)",
    "paper": "[Liu et al., 2017](https://arxiv.org/abs/1708.06519)",
    "table": f"[Torch-Pruning, table]({TORCH_PRUNING}/readme.md)",
    "logs": f"[Torch-Pruning, logs]({TORCH_PRUNING}/run/cifar10/prune)",
    "hrank": f"[lmbxmu/HRank]({GITHUB}/lmbxmu/HRank)",
    "fastnas": f"[NVIDIA Model-Optimizer]({GITHUB}/NVIDIA/Model-Optimizer/tree/main/examples/pruning)",
}


@dataclass(frozen=True)
class Published:
    """A row as it was published, accuracies in percent.

    Attributes:
        base: of the dense network; None where the source has none.
        size: what is said of the size, in the source's own numbers.
        sources: keys of SOURCES.
        dense, smaller: the networks before and after as `networks.counted` names them; None where the widths
            are not published or the network cannot be built here.
    """

    method: str
    network: str
    base: float | None
    pruned: float
    size: str
    sources: tuple[str, ...]
    dense: str | None = None
    smaller: str | None = None


FINE_TUNED = (
    Published(
        "slimming, 50 %", "ResNet-50", 91, 91, "23,513,162 → 9,824,205", ("report",), "ResNet-50, max-pool",
    ),
    Published(
        "slimming, 90 %", "ResNet-50", 91, 90.3, "23,513,162 → 3,665,475", ("report",),
        "ResNet-50, max-pool", "report 90 %",
    ),
    Published("slimming, 75 %", "ResNet-50", 94.65, 95.29, "23.5 M → 5.3 M", ("sanster",)),
    Published("slimming, 50 %", "ResNet-50", 94.65, 95.42, "23.5 M → 14.8 M", ("sanster",)),
    Published("slimming, 40 %", "ResNet-164", 94.75, 95.05, "1.71 M → 1.45 M", ("slimming",), "ResNet-164"),
    Published("slimming, 60 %", "ResNet-164", 94.75, 93.81, "1.71 M → 1.12 M", ("slimming",), "ResNet-164"),
    Published("slimming, 70 %", "VGG-19", 93.77, 93.78, "20.04 M → 2.25 M", ("slimming",), "VGG-19"),
    Published("slimming, 70 %", "VGG-19", 93.66, 93.80, "88.5 % fewer parameters", ("paper",), "VGG-19"),
    Published(
        "slimming by DepGraph (Group-BN)", "ResNet-56", 93.53, 93.29, "2.12x fewer MACs", ("table", "logs"),
        "ResNet-56", "Group-BN 2.11",
    ),
    Published(
        "DepGraph", "ResNet-56", 93.53, 93.77, "2.13x fewer MACs", ("table", "logs"),
        "ResNet-56", "DepGraph 2.11",
    ),
    Published(
        "DepGraph", "ResNet-56", 93.53, 93.64, "2.57x fewer MACs", ("table", "logs"),
        "ResNet-56", "DepGraph 2.55",
    ),
    Published("ResRep", "ResNet-56", 93.71, 93.71, "2.12x fewer MACs", ("table",)),
    Published("polarization", "ResNet-56", 93.80, 93.83, "1.88x fewer MACs", ("table",)),
    Published("HRank", "ResNet-56", None, 93.17, "0.49 M, 62.72 M FLOPs", ("hrank",), "ResNet-56, option A"),
    Published("FastNAS", "ResNet-20", 90.97, 90.28, "268 K → 174 K", ("fastnas",), "ResNet-20, option A"),
)  # fmt: skip

RIGHT_AFTER = (
    Published("slimming, 50 %", "ResNet-50", None, 89.97, "9,824,205", ("report",)),
    Published("slimming, 90 %", "ResNet-50", None, 29.45, "3,665,475", ("report",)),
    Published("slimming, 70 %", "VGG-19", 93.30, 32.54, "2.25 M", ("slimming",)),
    Published("slimming, 40 %", "ResNet-164", 94.76, 94.58, "1.45 M", ("slimming",)),
    Published("slimming, 60 %", "ResNet-164", 94.76, 47.73, "1.12 M", ("slimming",)),
    Published("slimming, 60 %", "DenseNet-40", 94.17, 89.46, "0.49 M", ("slimming",)),
    Published("slimming by DepGraph (Group-BN)", "ResNet-56", 93.90, 11.15, "0.37 M", ("logs",)),
    Published("DepGraph", "ResNet-56", 93.24, 88.85, "0.43 M", ("logs",)),
    Published("DepGraph", "ResNet-56", 93.56, 79.60, "0.29 M", ("logs",)),
    Published("FastNAS", "ResNet-20", 90.97, 60.37, "174 K", ("fastnas",)),
)


def after_fine_tuning() -> str:
    """The table of published results, with what slimnet counts in the networks that can be built."""
    header = ["method", "network", "source", "before → after", "size, as published", "parameters", "MACs"]
    rows = [
        [*_name(one), _accuracies(one), one.size, _counted(one, "params"), _counted(one, "macs")]
        for one in FINE_TUNED
    ]
    return table(header, rows, text=3)


def right_after_pruning() -> str:
    """The table of accuracies before any fine-tuning."""
    header = ["method", "network", "source", "before → right after", "parameters, as published"]
    return table(header, [[*_name(one), _accuracies(one), one.size] for one in RIGHT_AFTER], text=3)


def networks_counted() -> str:
    """What slimnet counts in every network that can be built."""
    header = ["network", "parameters", "of them in BatchNorm", "MACs"]
    rows = [
        [_TITLES.get(name, name), count(one.params), count(one.norm), count(one.macs)]
        for name, one in counted().items()
    ]
    return table(header, rows)


_TITLES = {
    "ResNet-50, max-pool": "ResNet-50 with a max-pool after the 3x3 stem, as in the lab report",
    "ResNet-50": "ResNet-50 without the max-pool",
    "report 90 %": "the lab report's 90 % network, from its widths",
    "ResNet-50 x 25/64": "ResNet-50 with the max-pool, every width times 25/64",
    "ResNet-164": "ResNet-164 (18 bottlenecks in each of three stages, 16 channels)",
    "Group-BN 2.11": "ResNet-56 as pruned by Group-BN, widths from the log",
    "DepGraph 2.11": "ResNet-56 as pruned by DepGraph at 2.11x, widths from the log",
    "DepGraph 2.55": "ResNet-56 as pruned by DepGraph at 2.55x, widths from the log",
}


def limits() -> str:
    """Which networks are not counted, and why."""
    return (
        "MACs are those of convolutions and linear layers at 32x32. slimnet's ResNet-164 has BatchNorm "
        "after each convolution, the published one before it; channel for channel the two have the same "
        "BatchNorms, so that parameters and MACs agree. The networks of Torch-Pruning are those of its "
        "logs, which are near the rows of its table and not quite the same. Option A pads the shortcut with "
        "channels of zeros; slimnet's own ResNets of basic blocks have a convolution there. Not counted: "
        "pruned networks whose widths are not published, DenseNet-40 and RepVGG, which the package cannot "
        "build, and Sanster's ResNet-50, as 23.5 M parameters do not tell which stem it has: from "
        f"{millions(counted()['ResNet-50, max-pool'].macs)} to {millions(counted()['ResNet-50'].macs)} MACs "
        "all have them."
    )


def disagreements() -> list[str]:
    """Where published numbers do not fit each other or the networks, and what makes them hard to compare."""
    return [*_in_the_report(), *_in_torch_pruning(), *_in_slimming(), *_in_others()]


def _in_the_report() -> list[str]:
    dense, pruned = counted()["ResNet-50, max-pool"], counted()["report 90 %"]
    narrow, full = counted()["ResNet-50 x 25/64"], resnet50().widths
    ends = sum(full[3::3])
    inside, left = (sum(widths) - widths[0] - sum(widths[3::3]) for widths in (full, REPORT_90))
    shortcuts = networks.shortcut_params(resnet50(widths=REPORT_90))
    return [
        f"**The lab report's 90 %** is of all {count(dense.channels)} BatchNorm channels, {count(ends)} of "
        "which, the last of each bottleneck, stay in any case. What went is "
        f"{count(dense.channels - pruned.channels)}, or {_share(1 - pruned.channels / dense.channels)} of "
        f"all and {_share(1 - left / inside)} of the {count(inside)} inside the bottlenecks.",
        "**What is left in that network** is mostly what the scheme never touches: its four shortcut "
        f"convolutions hold {count(shortcuts)} of the {count(pruned.params)} parameters. A ResNet-50 of "
        f"25/64 of all widths is as small ({count(narrow.params)}) with {narrow.macs / pruned.macs:.2f} "
        f"times the MACs ({millions(narrow.macs)} beside {millions(pruned.macs)}). The report has no such "
        "control, has one run of each, and chose by test accuracy.",
    ]


def _in_torch_pruning() -> list[str]:
    dense, found = counted()["ResNet-56"], networks.operations(resnet56())
    logged = ("Group-BN 2.11", "DepGraph 2.11", "DepGraph 2.55")
    group_bn, first, second = (f"{dense.macs / counted()[name].macs:.2f}x" for name in logged)
    return [
        "**Torch-Pruning's 127.12 M** for the dense ResNet-56 are more than multiply-accumulates. "
        f"{millions(dense.macs)} are in convolutions and the linear layer; with two operations for each "
        "output of a BatchNorm, one for each output of a ReLU module (there is one in each block), one for "
        f"each input of the pooling and one for each bias it comes to {found / 1e6:.2f} M. In convolutions "
        f"and the linear layer alone the networks of the logs have {group_bn} (Group-BN), {first} and "
        f"{second} (DepGraph) fewer, where the logs say 2.12x, 2.12x and 2.61x.",
        "**DepGraph's row of 93.77** has a difference of +0.38 beside it, but 93.77 less 93.53 is +0.24; "
        "+0.38 goes with 93.91, where an earlier log of that run ends. The logs that the repository has now "
        "(commit e80127d) say 93.89 at 2.12x, and 93.57 at 2.61x where the table says 93.64 at 2.57x.",
        "**The best epoch on the test split** is what those logs report: for Group-BN 93.29 is the best of "
        "100, and 93.17 the last; for DepGraph 93.89 and 93.83. The Group-BN network had 93.90 after sparse "
        "training, before it was pruned to 11.15, so that it ends 0.61 below its own accuracy, not 0.24.",
        "**HRank in Torch-Pruning's table** has 92.17 with a difference of -0.09 to 93.26; HRank itself "
        "reports 93.17, which that difference fits.",
        f"**ResRep's 2.12x** fits the 52.9 % fewer FLOPs of its README ({1 / (1 - 0.529):.2f}x). Its "
        "accuracies, and those of polarization, are second-hand here, from Torch-Pruning's table.",
    ]


def _in_slimming() -> list[str]:
    ten, hundred, vgg = (counted()[name] for name in ("ResNet-164", "ResNet-164, 100 classes", "VGG-19"))
    selecting = ten.params + SELECTION
    return [
        "**ResNet-164** has 1.71 M parameters as the baseline and 1.73 M after sparse training in "
        f"network-slimming's table, though it is one network. It has {count(ten.params)}, to which that code "
        f"adds {count(SELECTION)} constants of its channel selection ({selecting / 1e6:.2f} M); 1.73 M is "
        f"the size with 100 classes ({count(hundred.params)}).",
        f"**VGG-19** has {count(vgg.params)} parameters, of which 2.25 M are "
        f"{_share(1 - 2.25e6 / vgg.params)} fewer; the paper, whose run is another one, says 88.5 %.",
    ]


def _in_others() -> list[str]:
    hrank, fastnas = counted()["ResNet-56, option A"], counted()["ResNet-20, option A"]
    return [
        f"**HRank's ResNet-56** is one of option A ({count(hrank.params)} parameters, {count(hrank.macs)} "
        f"MACs), of which 62.72 M are {_share(62.72e6 / hrank.macs)}, as it says. Its README warns that the "
        "pruning rates of the paper do not count the inputs that the next layer loses.",
        f"**FastNAS's 268 K** leave out BatchNorm: of the {count(fastnas.params)} parameters of ResNet-20 "
        f"with option A {count(fastnas.params - fastnas.norm)} are elsewhere. Its 40.6 M FLOPs are "
        f"multiply-accumulates ({count(fastnas.macs)}).",
        "**Sanster's ResNet-18**, in the table that the two ResNet-50 are from, has 4.5 M parameters at "
        "ratio 0.75 and 3.5 M at 0.5, and 389 K at 0.75 without sparse training. Two of them look "
        "exchanged, and its other sizes are to be taken with care.",
        "**Sanster's gains** (94.65 to 95.29 and 95.42) are those of 120 further epochs as well: the base "
        "is the sparsely trained network itself, and no dense network of 240 epochs stands beside it.",
        "**No row has a standard error.** network-slimming's README speaks of about 0.5 points between "
        "runs, which is more than most differences in these tables.",
    ]


def _share(fraction: float) -> str:
    """0.859 -> "85.9 %"."""
    return f"{100 * fraction:.1f} %"


def _name(one: Published) -> list[str]:
    return [one.method, one.network, ", ".join(SOURCES[source] for source in one.sources)]


def _accuracies(one: Published) -> str:
    before = UNKNOWN if one.base is None else percent(one.base / 100)
    return f"{before} → {percent(one.pruned / 100)}"


def _counted(one: Published, what: str) -> str:
    write = count if what == "params" else millions
    sizes = [getattr(counted()[name], what) if name else None for name in (one.dense, one.smaller)]
    return " → ".join(map(write, sizes)) if one.dense else UNKNOWN
