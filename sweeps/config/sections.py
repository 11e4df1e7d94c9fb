"""The sections of a config: fields, types, bounds, defaults, and the rules between fields of one section."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    WithJsonSchema,
    field_validator,
    model_validator,
)
from pydantic.json_schema import SkipJsonSchema

from slimnet.data.augmentation import Augmentation
from slimnet.data.catalogue import IMAGE_SIDES, PATHS, Channels, DataName, Resize, Source
from slimnet.defaults import FINETUNE_EPOCHS, FINETUNE_LR, SPARSE_EPOCHS, SPARSE_LR
from slimnet.errors import SlimnetError
from slimnet.models.catalogue import (
    LIBRARIES,
    NAMES,
    SIZES,
    SPELLINGS,
    WIDTHS,
    WITH_STEM,
    Family,
    SizeName,
    family_of,
    is_of_library,
    suggestion,
)
from slimnet.models.source import split_factory
from slimnet.models.stems import Stem
from slimnet.pruning.options import MIN_CHANNELS, CostAware, Score, ThresholdOver
from slimnet.training.recipe import Optimizer, Schedule
from slimnet.training.recipe import Recipe as LibraryRecipe
from slimnet.training.sparsity import LambdaSchedule, PenaltyName
from slimnet.wording import after_question
from sweeps.config.messages import refusal, show
from sweeps.config.yaml_source import KeyPath

MANY = 1_000_000  # more epochs, steps or images than anyone means; above it, sums of them would overflow
WIDE = 65_536  # channels, or pixels of a side

STRICT = ConfigDict(strict=True, allow_inf_nan=False)


class Section(BaseModel):
    """What all sections share: strict types, no unknown keys, no change after validation."""

    model_config = ConfigDict(**STRICT, frozen=True, extra="forbid")


class Augment(Section):
    """How training images are changed at random; fields as in `slimnet.data.augmentation`."""

    crop: int = Field(0, ge=0, le=WIDE, description="pixels of padding before a random crop")
    flip: bool = Field(False, description="mirror training images at random")
    vertical_flip: bool = Field(False, description="turn training images upside down at random")
    resized_crop: float | None = Field(
        None,
        gt=0,
        le=1,
        description="cut out a random part, at least this fraction of the area, and stretch it",
    )
    jitter: float = Field(
        0.0, ge=0, le=1, description="strength of random brightness, contrast and saturation; 0.4 is usual"
    )
    randaugment: int = Field(
        0, ge=0, le=100, description="operations of RandAugment that an image goes through; 2 is usual"
    )
    cutout: float = Field(
        0.0, ge=0, le=1, description="side of a blanked square, as a fraction of the image's shorter side"
    )
    mixup: float = Field(
        0.0, ge=0, description="alpha of mixup, which blends pairs of images and their labels; 0.2 is usual"
    )

    @model_validator(mode="after")
    def _one_crop(self) -> Self:
        if self.resized_crop is not None and self.crop:
            clause = f"is {self.resized_crop:g}, but crop is {self.crop}, and both cut out; remove one."
            raise refusal((("resized_crop",), clause))
        return self

    @property
    def augmentation(self) -> Augmentation:
        """The changes as `slimnet` takes them."""
        return Augmentation(**{name: getattr(self, name) for name in Augment.model_fields})


class Data(Augment):
    """The images, the split and the augmentation."""

    name: DataName = Field(description="the data set; factory if one is given")
    path: Path | None = Field(
        None,
        strict=False,
        description="where your own data are: a folder with a folder of pictures per class, an npz file, a "
        "folder of npy files; or the folder of a factory's module, by default that of the config",
    )
    factory: str | None = Field(
        None, description="package.module:function that makes your data, instead of name"
    )
    args: dict[str, JsonValue] = Field({}, description="arguments of the factory, by name")
    image_size: int | None = Field(
        None,
        ge=1,
        le=WIDE,
        description="side in pixels: pictures are resized to it, arrays pooled by a whole factor",
    )
    channels: Channels | None = Field(
        None, description="of pictures: 3 for RGB or 1 for greys; a folder's are RGB by default"
    )
    resize: Resize | None = Field(
        None,
        description="how pictures are brought to image_size: crop (the default) cuts the middle out, stretch "
        "and pad keep all of it, pool stretches by means",
    )
    validation: float = Field(
        0.1,
        gt=0,
        le=0.5,
        description="fraction of the training images held out for selection, where the data have none",
    )
    mean: tuple[float, ...] | None = Field(
        None,
        strict=False,
        description="to normalise by, per channel in [0, 1]; else that of the training images",
    )
    std: tuple[Annotated[float, Field(gt=0)], ...] | None = Field(
        None,
        strict=False,
        description="to normalise by, per channel in [0, 1]; else that of the training images",
    )

    @property
    def source(self) -> Source:
        """The data as `slimnet.data` takes them."""
        return Source(self.name, self.path, self.factory, self.args)

    @model_validator(mode="before")
    @classmethod
    def _a_factory_needs_no_name(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("factory") is not None:
            return {"name": "factory", **values}
        return values

    @model_validator(mode="after")
    def _path_belongs_to_the_name(self) -> Self:
        if self.name in PATHS and self.path is None:
            raise refusal((("path",), f"is missing; data.name {self.name} needs {PATHS[self.name]}."))
        if self.name not in (*PATHS, "factory") and self.path is not None:
            clause = (
                f"is {show(self.path)}, but data.name {self.name} reads no file of yours "
                f"({', '.join(PATHS)} do); remove it."
            )
            raise refusal((("path",), clause))
        if self.name == "factory" and self.factory is None:
            raise refusal((("factory",), "is missing; name factory needs package.module:function."))
        if self.name != "factory" and self.factory is not None:
            clause = f"is {show(self.factory)}, but name is {self.name}; remove one."
            raise refusal((("factory",), clause))
        if self.args and self.factory is None:
            raise refusal((("args",), f"is {show(self.args)}, but there is no factory to take them."))
        return self

    @model_validator(mode="after")
    def _arrays_stay_as_they_are(self) -> Self:
        side = IMAGE_SIDES.get(self.name)
        if side and self.image_size and side % self.image_size:
            sizes = ", ".join(str(size) for size in range(2, side + 1) if side % size == 0)
            clause = f"is {self.image_size}; the {side} pixels of {self.name} can be pooled to {sizes}."
            raise refusal((("image_size",), clause))
        for field in ("channels", "resize"):
            if (side or self.name in ("npz", "npy")) and (given := getattr(self, field)) is not None:
                clause = f"is {show(given)}, but {self.name} holds arrays, not pictures; remove it."
                raise refusal(((field,), clause))
        return self


LibraryName = Annotated[
    str,
    Field(pattern=rf"^({'|'.join(LIBRARIES)})/[^/]+$"),
    WithJsonSchema({"enum": [f"{library}/NAME" for library in LIBRARIES]}),
]


class Network(Section):
    """A network: a family of slimnet's, one of torchvision or timm, or one's own from a factory."""

    name: Literal[Family, SizeName] | LibraryName | SkipJsonSchema[None] = Field(
        None, description="a family, at any size, or a network with a name"
    )
    factory: str | SkipJsonSchema[None] = Field(
        None,
        description="instead of name: package.module:function that makes your network, found beside the "
        "config or where Python finds modules",
    )
    args: dict[str, JsonValue] = Field(
        {}, description="arguments of a factory or a network of a library, by name"
    )
    blocks: tuple[Annotated[int, Field(ge=1, le=1000)], ...] = Field(
        (),
        strict=False,
        description="blocks in each stage; convolutions for a vgg",
        json_schema_extra={"minItems": 1},
    )
    width: int = Field(64, ge=1, le=WIDE, description="channels of the first layer; stages double them")
    stem: Stem = Field("cifar", description="the first layers of a ResNet or MobileNet")

    @property
    def family(self) -> str | None:
        """The family of slimnet's that the network belongs to; None for any other network."""
        return family_of(self.name) if self.name and "/" not in self.name else None

    @property
    def label(self) -> str:
        """What the network is called."""
        return str(self.factory or self.name)

    def description(self) -> dict[str, Any]:
        """The network as `slimnet.models.building` takes it."""
        if self.factory is not None:
            return {"factory": self.factory, "args": self.args}
        if self.family is None:
            return {"name": self.name, "args": self.args}
        stem = {"stem": self.stem} if self.family in WITH_STEM else {}
        return {"name": self.family, "blocks": list(self.blocks), "width": self.width, **stem}


class Model(Network):
    """The network of a study, its first weights, and where its code is."""

    init: str | None = Field(
        None,
        description="trained weights to start from: a file (slimnet, safetensors, state_dict), or by name, "
        "such as DEFAULT for torchvision and pretrained for timm",
    )
    path: Path | None = Field(
        None,
        strict=False,
        description="folder in which a factory is looked for first; by default that of the config",
    )

    @model_validator(mode="before")
    @classmethod
    def _fill_in_sizes(cls, values: Any) -> Any:
        name = values.get("name") if isinstance(values, dict) else None
        if not isinstance(name, str):
            return values
        if name in SIZES:
            return {"blocks": SIZES[name].blocks, "width": SIZES[name].width, **values}
        return {"width": WIDTHS[name], **values} if name in WIDTHS else values

    @field_validator("name", mode="before")
    @classmethod
    def _names_a_network(cls, name: Any) -> Any:
        if isinstance(name, str) and name not in NAMES and not is_of_library(name):
            takes = f"it takes {SPELLINGS}. Or give a factory."
            raise refusal(((), f"is {show(name)}; {after_question(suggestion(name), takes)}"))
        return name

    @model_validator(mode="after")
    def _is_one_network(self) -> Self:
        if self.factory is None and self.name is None:
            raise refusal((("name",), f"is missing; it takes {SPELLINGS}. Or give a factory."))
        if self.factory is not None and self.name is not None:
            raise refusal(
                (("name",), f"is {show(self.name)}, but factory names another network; remove one.")
            )
        if self.factory is not None:
            try:
                split_factory(self.factory)
            except SlimnetError:
                clause = (
                    f"is {show(self.factory)}; it takes package.module:function, such as nets:small for the "
                    "function small in nets.py."
                )
                raise refusal((("factory",), clause)) from None
        return self

    @model_validator(mode="after")
    def _fields_are_of_the_network(self) -> Self:
        problems: list[tuple[KeyPath, str]] = []
        if size := SIZES.get(self.name or ""):
            for key, own in (("blocks", size.blocks), ("width", size.width)):
                if (given := getattr(self, key)) != own:
                    clause = (
                        f"is {show(given)}, but {self.name} has {show(own)}; "
                        f"remove it, or use model.name {size.family}."
                    )
                    problems.append(((key,), clause))
        if self.family is None:
            for key in ("blocks", "width"):
                if (given := getattr(self, key)) != Network.model_fields[key].default:
                    clause = (
                        f"is {show(given)}, but {self.label} is no family of slimnet's; remove it, or give "
                        "the network's own arguments by args."
                    )
                    problems.append(((key,), clause))
        elif not self.blocks:
            clause = (
                "is missing; it takes a list of 1 or more items, each a whole number, at least 1 and at most "
                f"1,000 ({Network.model_fields['blocks'].description})."
            )
            problems.append((("blocks",), clause))
        if self.family is not None and self.args:
            clause = f"is {show(self.args)}, but {self.name} takes none; use blocks, width and stem."
            problems.append((("args",), clause))
        if self.family not in WITH_STEM and self.stem != "cifar":
            clause = f"is {self.stem}, but {self.label} has no stem; remove it, or use a ResNet."
            problems.append((("stem",), clause))
        if self.factory is None and self.path is not None:
            clause = f"is {show(self.path)}, but only a factory is looked for in a folder; remove it."
            problems.append((("path",), clause))
        if problems:
            raise refusal(*problems)
        return self


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
