"""How a study trains, prunes and compares, and where it runs, section by section."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, WithJsonSchema, model_validator

from slimnet.defaults import FINETUNE_EPOCHS, FINETUNE_LR, SPARSE_EPOCHS, SPARSE_LR
from slimnet.pruning.options import MIN_CHANNELS, CostAware, Score, ThresholdOver
from slimnet.training.recipe import Optimizer, Schedule
from slimnet.training.recipe import Recipe as LibraryRecipe
from slimnet.training.sparsity import LambdaSchedule, PenaltyName
from sweeps.config.base import MANY, WIDE, Section
from sweeps.config.messages import refusal
from sweeps.config.yaml_source import KeyPath


class Recipe(Section):
    """How a network is trained; defaults are those of `slimnet.training.recipe.Recipe`."""

    epochs: int = Field(ge=0, le=MANY, description="passes over the training split")
    lr: float = Field(gt=0, description="peak learning rate")
    optimizer: Optimizer = Field(LibraryRecipe.optimizer, description="sgd is with Nesterov momentum")
    momentum: float = Field(LibraryRecipe.momentum, ge=0, lt=1, description="of sgd")
    weight_decay: float = Field(
        LibraryRecipe.weight_decay, ge=0, description="not applied to scaling factors and biases of BatchNorm"
    )
    schedule: Schedule = Field(
        LibraryRecipe.schedule,
        description="steps divides lr by 10 at 50 % and 75 %; rewind is one-cycle from its peak",
    )
    batch_size: int = Field(
        LibraryRecipe.batch_size, ge=2, le=MANY, description="images per step; BatchNorm needs at least two"
    )
    evaluate_every: int = Field(
        LibraryRecipe.evaluate_every,
        ge=1,
        le=MANY,
        description="epochs between measurements of validation and test accuracy",
    )


class Sparse(Recipe):
    """Sparse training: a penalty drives scaling factors to zero."""

    epochs: int = Field(
        SPARSE_EPOCHS,
        ge=0,
        le=MANY,
        description="passes over the training split; 0 takes the network of model.init",
    )
    lr: float = Field(SPARSE_LR, gt=0, description="peak learning rate")
    lambda_: float = Field(0.0, ge=0, alias="lambda", description="strength of the penalty")
    lambda_schedule: LambdaSchedule = Field(
        "constant",
        description="warmup-tail raises lambda in the first fifth of the steps; it is 0 in the last",
    )
    target: float | None = Field(
        None, gt=0, lt=1, description="fraction of channels to bring near zero; lambda is adjusted to it"
    )
    penalty: PenaltyName = Field(
        "l1", description="on the prunable scaling factors; proximal leaves exact zeros"
    )

    @model_validator(mode="after")
    def _a_target_steers_lambda(self) -> Self:
        if self.target is not None and self.lambda_:
            clause = f"is {self.target:g}, which adjusts lambda, but lambda is {self.lambda_:g}; remove one."
            raise refusal((("target",), clause))
        if self.target is not None and self.lambda_schedule != "constant":
            clause = f"is {self.lambda_schedule}, but a target adjusts lambda; remove one."
            raise refusal((("lambda_schedule",), clause))
        return self


class Finetune(Recipe):
    """Training of the pruned network, without a penalty."""

    epochs: int = Field(FINETUNE_EPOCHS, ge=1, le=MANY, description="passes over the training split")
    lr: float = Field(FINETUNE_LR, gt=0, description="peak learning rate")
    weights: Literal["pruned", "fresh", "early"] = Field(
        "pruned",
        description="what it starts from: the pruned weights, new ones, or those of an early sparse epoch",
    )
    rewind_to: int = Field(
        1, ge=1, le=MANY, description="the epoch of sparse training whose weights early takes"
    )
    distill: float = Field(
        0.0,
        ge=0,
        le=1,
        description="weight of the distillation loss; its teacher is the network before pruning",
    )
    temperature: float = Field(
        LibraryRecipe.temperature, gt=0, description="of the distillation, if distill is above 0"
    )


Budget = (
    Annotated[int, Field(ge=1, le=10**15)]
    | Annotated[
        str,
        Field(pattern=r"^([1-9]\d?(\.\d+)?|0?\.\d*[1-9]\d*|100)%$"),
        WithJsonSchema({"const": 'a percentage of the network such as "50%"'}),
    ]
)


class Prune(Section):
    """Which channels are removed, and how the remaining network is repaired."""

    ratio: float = Field(0.5, ge=0, lt=1, description="fraction of channels removed")
    params: Budget | None = Field(
        None, description='instead of ratio: the most parameters to keep, as a number or as "50%"'
    )
    macs: Budget | None = Field(
        None, description='instead of ratio: the most MACs to keep, as a number or as "50%"'
    )
    threshold_over: ThresholdOver = Field(
        "prunable", description="all counts every BatchNorm channel; layer removes the fraction in each layer"
    )
    layer_floor: float = Field(
        0.0, ge=0, le=1, description="each layer keeps at least this fraction of what a uniform cut leaves"
    )
    cost_aware: CostAware | None = Field(
        None, description="rank channels by score per parameter or MAC freed"
    )
    cost_power: float = Field(1.0, ge=0, description="exponent of that cost; 0.5 takes its square root")
    min_channels: int = Field(MIN_CHANNELS, ge=1, le=WIDE, description="channels kept in every layer")
    max_ratio: float = Field(1.0, ge=0, le=1, description="the largest fraction removed from any layer")
    keep: list[str] = Field([], description="layers that keep all channels, by name or pattern")
    layer_ratios: dict[str, Annotated[float, Field(ge=0, lt=1)]] = Field(
        {},
        description="fraction removed from layers, by name or pattern; the others meet the ratio or budget",
    )
    score: Score = Field(
        "gamma",
        description="gamma-weight includes the weights that read a channel; l1, l2, fpgm and lamp go by the "
        "weights of its filter, taylor by its effect on the loss; random is a control",
    )
    streams: bool = Field(
        False, description="prune residual streams too, each as one group; they are penalised as well"
    )
    round_to: int = Field(1, ge=1, le=WIDE, description="widths are rounded up to multiples of this")
    drop_blocks: bool = Field(False, description="residual blocks that lose all channels may be dropped")
    absorb: bool = Field(
        True, description="fold the constant outputs of removed channels into the following layers"
    )
    recalibrate: int = Field(0, ge=0, le=MANY, description="training batches for new BatchNorm statistics")

    @property
    def budget(self) -> str | None:
        """The budget that replaces the ratio; None if there is none."""
        return "params" if self.params is not None else "macs" if self.macs is not None else None

    @model_validator(mode="after")
    def _one_target(self) -> Self:
        problems: list[tuple[KeyPath, str]] = []
        if self.budget and self.ratio != Prune.model_fields["ratio"].default:
            clause = f"is {self.ratio:g}, but {self.budget} replaces it; remove one."
            problems.append((("ratio",), clause))
        if self.budget and self.threshold_over == "all":
            problems.append((("threshold_over",), "is all, which needs a ratio; remove it or the budget."))
        if self.layer_floor and self.threshold_over != "prunable":
            clause = f"is {self.layer_floor:g}, which needs threshold_over prunable; remove one."
            problems.append((("layer_floor",), clause))
        if problems:
            raise refusal(*problems)
        return self

    def plan_options(self) -> dict[str, Any]:
        """The options as `slimnet.steps.prune` takes them: a ratio or budgets, and everything else."""
        options = self.model_dump()
        for name in ("ratio",) if self.budget else ("params", "macs"):
            del options[name]
        return options


ControlKind = Literal["uniform", "scratch", "random"]


class Controls(Section):
    """Simpler ways to small networks, which pruning has to beat: trained once the goal is reached."""

    uniform: bool = Field(
        False,
        description="a uniformly narrower network of the same parameters, same epochs: from scratch, or with "
        "model.init cut from the same weights",
    )
    scratch: bool = Field(False, description="the pruned architecture from new weights, same epochs")
    random: bool = Field(
        False,
        description="random channels, as many in each layer, fine-tuned the same way; not for fresh weights",
    )

    def chosen(self) -> list[ControlKind]:
        """The controls that are on."""
        switches: dict[ControlKind, bool] = {
            "uniform": self.uniform,
            "scratch": self.scratch,
            "random": self.random,
        }
        return [kind for kind, on in switches.items() if on]


class Confirm(Section):
    """What is done for points of the front once the goal is reached: their controls, and further seeds."""

    seeds: int = Field(
        1, ge=1, le=100, description="seeds of each point, its controls and the dense network, first included"
    )
    points: int = Field(6, ge=1, le=MANY, description="points of the front, spread over its sizes")


OF_RAY = ("address", "gpus_per_stage", "cpus_per_stage")


class Executor(Section):
    """Where stages are computed: by processes of this machine, or on a Ray cluster.

    One section may describe both, as --executor chooses between them.
    """

    kind: Literal["local", "ray"] = Field("local", description="processes of this machine, or a Ray cluster")
    gpu_share: int = Field(
        1, ge=1, le=100, description="stages on each GPU at once, with workers: auto; they share its memory"
    )
    address: str = Field(
        "auto",
        min_length=1,
        description="ray: of the cluster, as HOST:PORT; auto joins the one that this machine belongs to, or "
        "else starts one",
    )
    gpus_per_stage: Literal["auto"] | Annotated[float, Field(ge=0, le=1000)] = Field(
        "auto",
        description="ray: auto is 1, or its part by gpu_share, if the cluster has GPUs; below 1, stages "
        "share one and its memory",
    )
    cpus_per_stage: Annotated[float, Field(gt=0, le=1000)] = Field(
        1.0, description="ray: which threads: auto follows"
    )

    @model_validator(mode="before")
    @classmethod
    def _ray_is_asked_for(cls, values: Any) -> Any:
        """Of a config that forgets the kind, the fields for Ray would have no effect."""
        if (
            isinstance(values, dict)
            and "kind" not in values
            and (given := [f for f in OF_RAY if f in values])
        ):
            raise refusal((("kind",), f"is missing; {given[0]} takes effect with executor.kind: ray."))
        return values

    @model_validator(mode="after")
    def _gpus_are_shared_or_whole(self) -> Self:
        gpus = self.gpus_per_stage
        if gpus == "auto":
            return self
        if gpus > 1 and gpus != int(gpus):
            raise refusal((("gpus_per_stage",), f"is {gpus:g}; above 1, a stage takes whole GPUs."))
        if self.kind == "ray" and self.gpu_share > 1:
            no_effect = f"is {self.gpu_share}, which has no effect beside gpus_per_stage: {gpus:g}"
            raise refusal((("gpu_share",), f"{no_effect}; leave out one of them."))
        return self


class Wandb(Section):
    """Where trials are logged. auto decides by WANDB_MODE, then by whether there is a key."""

    project: str = Field("slimnet", pattern=r"^[^/\\#?%:]{1,128}$", description=r"without / \ # ? % :")
    entity: str | None = Field(None, min_length=1, description="the team or user")
    mode: Literal["auto", "online", "offline", "disabled"] = Field("auto", description="where runs go")
    artifacts: Literal["all", "front", "none"] = Field(
        "front", description="the trials whose networks are uploaded"
    )
