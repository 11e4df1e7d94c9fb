"""The chain of stages of a trial, and the stages of the baseline, the controls and the curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from functools import cached_property
from typing import Any

from slimnet.data.augmentation import Augmentation
from slimnet.data.catalogue import PATHS, fingerprint
from slimnet.precision import Precision
from slimnet.pruning.options import CURVE_BATCHES, CURVE_RATIOS
from sweeps.config import Config, resolve
from sweeps.config.model import Model, Network
from sweeps.config.sections import ControlKind, Prune, Recipe
from sweeps.networks import Networks, name_of, read_off
from sweeps.stages.curve import CurveSpec
from sweeps.stages.finetune import FinetuneSpec
from sweeps.stages.latency import LatencySpec
from sweeps.stages.prune import PruneSpec
from sweeps.stages.sparse import EarlySpec, SparseSpec
from sweeps.stages.spec import DataSpec, ModelSpec, Spec

CHANGES = {change.name for change in fields(Augmentation)}


@dataclass(frozen=True)
class Stage:
    """One step of a trial, a control or the baseline, or a curve.

    Trials with the same stage, in one study or several, share its key and so its result.

    Attributes:
        spec: everything that the result depends on.
        inputs: the stages whose networks it starts from, by the field of the spec that holds their key.
    """

    spec: Spec
    inputs: Mapping[str, Stage] = field(default_factory=dict)

    @cached_property
    def key(self) -> str:
        """The hash of the spec."""
        return self.spec.key()

    @property
    def kind(self) -> str:
        """The kind of stage, which is also the name of the folder around the stage's folder."""
        return self.spec.kind

    @property
    def name(self) -> str:
        """The stage's name in its trial: its kind, numbered from the second pass on."""
        return self.spec.name

    @property
    def epochs(self) -> int:
        """Training epochs in the stage; pruning has none."""
        return self.spec.epochs


def chain(
    config: Config, precision: Precision, data: str | None = None, networks: Networks | None = None
) -> tuple[Stage, ...]:
    """The stages of a trial: sparse, prune and finetune, once in every pass.

    Args:
        config: the trial's config, resolved.
        precision: the study's precision.
        data: the fingerprint of the study's own data when it began; computed from them if not given.
        networks: what the study's networks were made of when it began; where it lacks one, what can
            be read off it without making it.
    """
    if config.data.name not in (*PATHS, "factory") or data is None:
        data = fingerprint(config.data.source)
    model = _model_spec(config.model, networks or {})
    stages: list[Stage] = []
    for number in range(1, config.passes + 1):
        stages += _one_pass(config, precision, data, model, number, stages[-1] if stages else None)
    return tuple(stages)


def dense_stage(
    config: Config,
    precision: Precision,
    data: str | None = None,
    networks: Networks | None = None,
    *,
    epochs: int | None = None,
    within: int | None = None,
) -> Stage:
    """A network that is never pruned, trained as the first stage of a trial is, at λ = 0 and in one go.

    Where the first stage trains for no epoch, as `sparse.epochs` is 0, it is trained as a pruned network is.

    Args:
        config, precision, data, networks: as for `chain`.
        epochs: of training; by default those of the longest trial that the study may have.
        within: the parameters to which the network is narrowed uniformly before training; None leaves it
            whole, which is the dense baseline.
    """
    first = chain(resolve(config, {"sparse.lambda": 0.0, "sparse.target": None}), precision, data, networks)[
        0
    ]
    assert isinstance(first.spec, SparseSpec)
    recipe = _long_recipe(config, epochs or config.most_epochs)
    return Stage(first.spec.model_copy(update={"recipe": recipe, "within": within}))


def control(
    kind: ControlKind,
    config: Config,
    precision: Precision,
    data: str | None = None,
    networks: Networks | None = None,
    *,
    params: int | None = None,
) -> tuple[Stage, ...]:
    """The stages of a control of a trial: a simpler way to a network of its size, with all of its epochs.

    Args:
        kind: "uniform", the network narrowed uniformly and trained from scratch, or from the same weights
            where the study starts from trained ones; "scratch", the pruned architecture from scratch;
            "random", random channels, as many in each layer, fine-tuned alike.
        config, precision, data, networks: of the trial, as for `chain`.
        params: the parameters of the trial's network, which "uniform" is narrowed to.
    """
    if kind == "uniform":
        assert params is not None, "without them it would be the dense network"
        return (dense_stage(config, precision, data, networks, epochs=config.trial_epochs, within=params),)
    stages = chain(config, precision, data, networks)
    if kind == "scratch":
        last = stages[-1]
        recipe = _long_recipe(config, config.trial_epochs)
        fields = ("seed", "data", "pass_number", "precision", "compile", "parent")
        spec = FinetuneSpec(
            **{name: getattr(last.spec, name) for name in fields}, weights="fresh", recipe=recipe
        )
        return (*stages[:-1], Stage(spec, {"parent": last.inputs["parent"]}))
    return _with_random_channels(stages)


def _with_random_channels(stages: Sequence[Stage]) -> tuple[Stage, ...]:
    """A chain whose prunings keep random channels; the stages after them change accordingly."""
    made: dict[str, Stage] = {}
    for stage in stages:
        inputs = {role: made[before.key] for role, before in stage.inputs.items()}
        changes: dict[str, Any] = {role: before.key for role, before in inputs.items()}
        if stage.kind == "prune":
            changes["shuffled"] = True
        made[stage.key] = Stage(stage.spec.model_copy(update=changes), inputs)
    return tuple(made.values())


def curve_stage(sparse: Stage, config: Config) -> Stage:
    """The stage that prunes a network at every ratio.

    Args:
        sparse: the sparse stage of a first pass, whose network is pruned.
        config: how channels are ranked and BatchNorm recalibrated; if it is not, the curve uses
            CURVE_BATCHES batches to show what recalibration would achieve.
    """
    options = config.prune.model_dump(exclude={"ratio", "params", "macs", "absorb"})
    spec = CurveSpec(
        seed=sparse.spec.seed,
        data=sparse.spec.data,
        parent=sparse.key,
        prune=Prune(**{**options, "recalibrate": config.prune.recalibrate or CURVE_BATCHES}),
        ratios=CURVE_RATIOS,
        batch_size=config.sparse.batch_size,
    )
    return Stage(spec, {"parent": sparse})


def _model_spec(model: Model, networks: Networks) -> ModelSpec:
    made = networks.get(name_of(model)) or read_off(model)
    return ModelSpec(**{name: getattr(model, name) for name in Network.model_fields}, **asdict(made))


def latency_stage(last: Stage, machine: str) -> Stage:
    """The stage that measures a network on a machine.

    Args:
        last: the stage whose network is measured.
        machine: the name of the device.
    """
    spec = LatencySpec(seed=last.spec.seed, data=last.spec.data, parent=last.key, machine=machine)
    return Stage(spec, {"parent": last})


def _one_pass(
    config: Config,
    precision: Precision,
    fingerprint: str,
    model: ModelSpec,
    number: int,
    before: Stage | None,
) -> tuple[Stage, ...]:
    """The stages of one pass, which starts from the network of the stage `before`, if there is one."""
    data = config.data
    which = {name: getattr(data, name) for name in DataSpec.model_fields.keys() - {"fingerprint"} - CHANGES}
    images = DataSpec(fingerprint=fingerprint, **which)
    augmented = images.model_copy(update=asdict(data.augmentation))
    shown = images.model_copy(update=asdict(data.augmentation.geometric))
    shared = {"seed": config.seed, "pass_number": number}
    training = {**shared, "data": augmented, "precision": precision, "compile": config.compile}

    penalty: dict[str, Any] = {}
    if config.sparse.epochs and (config.sparse.lambda_ or config.sparse.target):
        # else these have no effect, and all such stages are the same
        penalty = {
            "strength": config.sparse.lambda_,
            "penalty": config.sparse.penalty,
            "lambda_schedule": config.sparse.lambda_schedule,
            "target": config.sparse.target,
            "streams": config.prune.streams,
        }
    sparse = Stage(
        SparseSpec(
            **training,
            model=None if before else model,
            parent=before.key if before else None,
            recipe=_recipe(config.sparse),
            **penalty,
        ),
        {"parent": before} if before else {},
    )
    early = _early(config, sparse) if config.finetune.weights == "early" else None
    repaired = config.prune.recalibrate > 0  # else batches and their augmentation have no effect
    prune = Stage(
        PruneSpec(
            **shared,
            data=shown if repaired else images,
            parent=sparse.key,
            prune=_prune_of_pass(config),
            **({"batch_size": config.sparse.batch_size} if repaired else {}),
            **({"early": early.key} if early else {}),
        ),
        {"parent": sparse, **({"early": early} if early else {})},
    )
    distilled = config.finetune.distill > 0
    finetune = Stage(
        FinetuneSpec(
            **training,
            parent=prune.key,
            weights="fresh" if config.finetune.weights == "fresh" else "pruned",
            recipe=_recipe(config.finetune),
            **(
                {
                    "teacher": sparse.key,
                    "distill": config.finetune.distill,
                    "temperature": config.finetune.temperature,
                }
                if distilled
                else {}
            ),
        ),
        {"parent": prune, **({"teacher": sparse} if distilled else {})},
    )
    return sparse, *([early] if early else []), prune, finetune


def _early(config: Config, sparse: Stage) -> Stage:
    """The stage that repeats the first epochs of a sparse stage."""
    fields = {name: getattr(sparse.spec, name) for name in SparseSpec.model_fields if name != "kind"}
    return Stage(EarlySpec(**fields, until=config.finetune.rewind_to), sparse.inputs)


def _prune_of_pass(config: Config) -> Prune:
    """How each pass prunes; with a budget the ratio has no effect and stays at its default."""
    default = Prune.model_fields["ratio"].default
    ratio = default if config.prune.budget else ratio_of_pass(config.prune.ratio, config.passes)
    return config.prune.model_copy(update={"ratio": ratio})


def ratio_of_pass(ratio: float, passes: int) -> float:
    """The ratio of each pass such that all passes together remove the fraction `ratio` of the channels.

    >>> ratio_of_pass(0.75, passes=2)
    0.5
    """
    return ratio if passes == 1 else 1 - (1 - ratio) ** (1 / passes)


def _long_recipe(config: Config, epochs: int) -> Recipe:
    """The recipe of a training in one go: that of sparse training, if a trial has one."""
    section = config.sparse if config.sparse.epochs else config.finetune
    return _recipe(section).model_copy(update={"epochs": epochs})


def _recipe(section: Recipe) -> Recipe:
    """The fields of a section that every recipe has."""
    return Recipe(**{name: getattr(section, name) for name in Recipe.model_fields})
