"""What makes no sense in a study, though it would run: a sentence each, with what to do."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import ceil

from slimnet.models.catalogue import names_weights
from slimnet.pruning.options import NORM_SCORES
from slimnet.wording import plural
from sweeps.check.findings import DataFacts, Findings, NetworkFacts
from sweeps.config import Config
from sweeps.config.space import By, Entry, entries_of

FEW_TO_COMPARE = 200  # validation images below which accuracies differ by chance alone
MANY_CONSTANT = 0.01  # fraction of images of one colour
STALE = 0.02  # of the statistics that BatchNorms begin with, which is left after training
FEW_NAMED = 3  # classes that a sentence names
EPOCHS = ("passes", "sparse.epochs", "finetune.epochs")  # what the epochs of a trial follow from


def warnings_about(config: Config, findings: Findings) -> list[str]:
    """The sentences; none where all makes sense."""
    return [
        *_about_data(config, findings.data),
        *_about_init(config, findings.data),
        *_about_penalty(config, findings.network),
        *_about_pruning(config, findings.network),
        *_about_training(config, findings),
        *_about_epochs(config),
    ]


def _about_data(config: Config, data: DataFacts) -> Iterator[str]:
    if len(data.classes) < 2:
        yield f"the data have one class, {data.classes[0]}: there is nothing to learn; check the labels"
    for part, counts in (("train", data.train), ("validation", data.validation), ("test", data.test)):
        missing = [name for name, count in zip(data.classes, counts, strict=True) if not count]
        if missing:
            yield (
                f"the {part} split has no image of {_some(missing)}, so that its accuracy says nothing of "
                f"{'it' if len(missing) == 1 else 'them'}; add some"
            )
    if data.constant > MANY_CONSTANT * data.looked_at:
        yield (
            f"{data.constant:,} of the {data.looked_at:,} training images that were looked at are of one "
            "colour; check how they were made"
        )
    held = sum(data.validation)
    if held < FEW_TO_COMPARE:
        yield (
            f"validation has only {plural(held, 'image')}: two networks can be told apart where they differ "
            f"by some {2 * (0.5 / held) ** 0.5:.0%}; raise data.validation, or add images"
        )
    if config.data.crop * 2 >= min(data.image_shape[1:]):
        side = min(data.image_shape[1:])
        yield f"data.crop {config.data.crop} pads images of {side} pixels by their own size or more; lower it"


def _about_init(config: Config, data: DataFacts) -> Iterator[str]:
    init = config.model.init
    if init is not None and data.held_out and not names_weights(config.model.name, init):
        yield (
            "validation images are held out of the training images, and model.init has seen them if it was "
            "trained on those: accuracy is then too high on validation, and on test if it saw that too; give "
            "the data parts of their own"
        )


def _about_penalty(config: Config, network: NetworkFacts) -> Iterator[str]:
    """λ that acts on nothing, and scores by γ that nothing has sorted."""
    searched = config.search.space
    pulls = bool(config.sparse.lambda_ or config.sparse.target)
    pulls = pulls or "sparse.lambda" in searched or "sparse.target" in searched
    if pulls and not network.scaling_factors:
        yield (
            "sparse.lambda acts on scaling factors of BatchNorm, and no channel that can be pruned has one; "
            "choose prune.score l2, and leave lambda at 0"
        )
    by_norm = config.prune.score in NORM_SCORES and "prune.score" not in searched
    if not pulls and by_norm and config.model.init is not None:
        yield (
            f"prune.score {config.prune.score} ranks channels by scaling factors, which says little unless "
            "model.init was trained with a penalty on them; if it was not, choose prune.score l1"
        )
    elif not pulls and by_norm:
        yield (
            f"prune.score {config.prune.score} ranks channels by scaling factors, which no penalty sorts at "
            "sparse.lambda 0; set it or sparse.target, or choose prune.score l2"
        )


def _about_pruning(config: Config, network: NetworkFacts) -> Iterator[str]:
    widest = max((group.channels for group in network.groups if not group.whole_because), default=0)
    for name in ("min_channels", "round_to"):
        least = _least(entries_of(config.search.space, f"prune.{name}"), getattr(config.prune, name))
        if least >= widest > 0:
            yield (
                f"prune.{name} is {least}, and no layer that can be pruned has more than "
                f"{plural(widest, 'channel')}: nothing is removed; lower it"
            )
            return
    for cut in network.cuts:
        if cut.params is None:
            yield f"trials at {cut.at} would fail: {cut.refusal}"
        elif cut.params >= network.params and cut.at != "prune.ratio 0":
            yield f"{cut.at} removes nothing of the network's {network.params:,} parameters; choose another"


def _about_training(config: Config, findings: Findings) -> Iterator[str]:
    images = sum(findings.data.train)
    for name, section in (("sparse", config.sparse), ("finetune", config.finetune)):
        if section.batch_size > images:
            yield (
                f"{name}.batch_size is {section.batch_size}, more than the "
                f"{plural(images, 'training image')}: an epoch is one step; lower it"
            )
    outputs, classes = findings.network.outputs, len(findings.data.classes)
    if outputs > classes:
        yield (
            f"the network has {outputs:,} outputs for {classes} classes, and the rest are never used; "
            "let its factory take num_classes"
        )
    steps = config.most_epochs * ceil(images / config.sparse.batch_size)
    momentum = findings.network.norm_momentum
    left = (1 - momentum) ** steps
    if momentum > 0 and left > STALE and config.model.init is None:
        yield (
            f"BatchNorm moves its running statistics by {momentum:g} at a step, so that after "
            f"{plural(steps, 'step')} of training {left:.0%} of what they began as is left: the dense "
            "network and the uniformly narrower ones, which are not recalibrated, are measured below their "
            "worth; train longer, lower batch_size, or give the network's BatchNorms a momentum of 0.1"
        )
    if config.precision == "bfloat16" and findings.machine.precision == "float32":
        yield f"precision is bfloat16, which {findings.machine.name} only emulates; auto would be quicker"


def _about_epochs(config: Config) -> Iterator[str]:
    """Ways whose epochs are given one by one, such as by `finetune.epochs: {by: prune.score, …}`."""
    space = config.search.space
    by = {path: entry for path in EPOCHS if isinstance(entry := space.get(path), By)}
    if not by or any(path in space and path not in by for path in EPOCHS):
        return  # or else the number of epochs is what is searched
    if any(len(case.values() or ()) != 1 for entry in by.values() for _, case in entry.cases):
        return
    totals = sorted({one.passes * (one.sparse + one.finetune) for one in config.lengths})
    if len(totals) > 1:
        fields = " and ".join(dict.fromkeys(entry.field for entry in by.values()))
        yield (
            f"trials have from {plural(totals[0], 'epoch')} to {totals[-1]:,}, by their {fields}, so that "
            "one way may be ahead by its epochs alone; where search.space has "
            f"{' and '.join(by)}, change those too"
        )


def _least(entries: Sequence[Entry], value: int) -> int:
    """The smallest value of a field, searched or not."""
    if not entries:
        return value
    return min(int(min(entry.values() or [entry.low])) for entry in entries)  # type: ignore[union-attr]


def _some(names: Sequence[str]) -> str:
    """A few names, and how many more."""
    more = len(names) - FEW_NAMED
    named = ", ".join(names[:FEW_NAMED])
    return f"class{'es' * (len(names) > 1)} {named}" + (f" and {more} more" if more > 0 else "")
