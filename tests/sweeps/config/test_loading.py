"""Configs are read strictly; messages name the key, the line, the value and what is valid."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from slimnet.defaults import FINETUNE_EPOCHS, FINETUNE_LR, SPARSE_EPOCHS, SPARSE_LR
from slimnet.errors import SlimnetError
from sweeps.config import Config, ConfigError, dump_config, load_config, resolve, shipped_configs
from sweeps.config.model import Model

BASE = """\
seed: 3
data:
  name: fashion-mini
  image_size: 14
model:
  name: resnet
  blocks: [1, 2]
sparse:
  epochs: 2
  lr: 0.1
finetune: {epochs: 1, lr: 1e-2}
search:
  sampler: tpe
  trials: 5
  space:
    sparse.lambda: [0, 1e-3]
    prune.ratio: {range: [0.3, 0.9], step: 0.1}
"""

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes BASE, with texts replaced, or another text, and returns the file."""

    def write(*replaced: tuple[str, str], text: str | bytes = BASE, name: str = "study-1.yaml") -> Path:
        for old, new in replaced:
            assert isinstance(text, str)
            assert text.count(old) == 1, f"{old!r} stands {text.count(old)} times in the text"
            text = text.replace(old, new)
        file = tmp_path / name
        file.write_bytes(text.encode() if isinstance(text, str) else text)
        return file

    return write


def refused(file: Path | str, *overrides: str) -> list[str]:
    """The lines of the error that loading ends with, the folder of `file` left out."""
    with pytest.raises(ConfigError) as caught:
        load_config(file, overrides)
    return str(caught.value).replace(f"{Path(file).parent}/", "").splitlines()


def space(spelling: str) -> list[str]:
    return [f"search.space={{{spelling}}}"]


def values(file: Path | str, spelling: str) -> list[Any] | None:
    (entry,) = load_config(file, space(spelling)).search.space.values()
    return entry.values()


# What a config holds


def test_fields_defaults_and_types(write: Write) -> None:
    config = load_config(write())
    assert (config.study, config.seed) == ("study-1", 3)
    assert config.data.model_dump() == {
        "name": "fashion-mini", "path": None, "factory": None, "args": {}, "image_size": 14, "channels": None,
        "resize": None, "validation": 0.1, "mean": None, "std": None, "crop": 0, "flip": False,
        "vertical_flip": False, "resized_crop": None, "jitter": 0.0, "randaugment": 0, "cutout": 0.0,
        "mixup": 0.0,
    }  # fmt: skip
    assert (config.model.blocks, config.model.width, config.model.stem) == ((1, 2), 64, "cifar")
    recipe = {
        "optimizer": "sgd",
        "momentum": 0.9,
        "weight_decay": 5e-4,
        "schedule": "one-cycle",
        "batch_size": 128,
        "evaluate_every": 1,
    }
    assert config.finetune.model_dump() == {
        "epochs": 1, "lr": 0.01, **recipe, "weights": "pruned", "rewind_to": 1,
            "distill": 0.0, "temperature": 4.0,
    }  # fmt: skip
    assert config.sparse.model_dump(by_alias=True) == {
        "epochs": 2, "lr": 0.1, **recipe, "lambda": 0.0, "lambda_schedule": "constant", "target": None,
        "penalty": "l1",
    }  # fmt: skip
    assert config.prune.model_dump() == {
        "ratio": 0.5, "params": None, "macs": None, "threshold_over": "prunable", "layer_floor": 0.0,
        "cost_aware": None, "cost_power": 1.0, "min_channels": 3, "max_ratio": 1.0, "keep": [],
        "layer_ratios": {}, "score": "gamma", "streams": False,
        "round_to": 1, "drop_blocks": False, "absorb": True, "recalibrate": 0,
    }  # fmt: skip
    assert (config.search.trials, config.search.ahead) == (5, 4)
    assert list(config.search.objectives.items()) == [("val_accuracy", "maximize"), ("params", "minimize")]
    assert (config.workers, config.device, config.precision) == ("auto", "auto", "auto")
    assert config.wandb.model_dump() == {
        "project": "slimnet",
        "entity": None,
        "mode": "auto",
        "artifacts": "front",
    }


def test_options_of_a_cluster_without_the_kind_are_refused() -> None:
    message = "executor.kind is missing; address takes effect with executor.kind: ray"
    with pytest.raises(ConfigError, match=message):
        load_config("smoke", ["executor={address: 'head:6379'}"])


def test_one_section_describes_both_executors() -> None:
    section = "executor={kind: ray, gpu_share: 2, cpus_per_stage: 4}"
    for kind in ("local", "ray"):
        executor = load_config("smoke", [section, f"executor.kind={kind}"]).executor
        assert (executor.kind, executor.gpu_share, executor.cpus_per_stage) == (kind, 2, 4)


def test_two_ways_to_share_a_gpu_are_refused() -> None:
    section = "executor={kind: ray, gpus_per_stage: 1, gpu_share: 2}"
    message = r"executor.gpu_share is 2, which has no effect beside gpus_per_stage: 1; leave out one of them"
    with pytest.raises(ConfigError, match=message):
        load_config("smoke", [section])
    assert load_config("smoke", [section, "executor.kind=local"]).executor.gpu_share == 2
    assert load_config("smoke", [section, "executor.gpus_per_stage=auto"]).executor.gpu_share == 2


@pytest.mark.parametrize("text", ["1e-5", "1E-5", "0.00001", ".00001", "+1.0e-05"])
def test_numbers_are_those_of_yaml_1_2(write: Write, text: str) -> None:
    assert load_config(write(("lr: 0.1", f"lr: {text}"))).sparse.lr == 1e-5


def test_an_int_becomes_a_float_where_the_field_is_one(write: Write) -> None:
    config = load_config(write(("lr: 0.1", "lr: 1")))
    assert isinstance(config.sparse.lr, float)
    assert [type(value) for value in config.search.space["sparse.lambda"].values() or []] == [float, float]


@pytest.mark.parametrize(
    ("name", "blocks", "width"),
    [
        ("resnet50", (3, 4, 6, 3), 64),
        ("resnet20", (3, 3, 3), 16),
        ("resnet56", (9, 9, 9), 16),
        ("resnet110", (18, 18, 18), 16),
        ("vgg16", (2, 2, 3, 3, 3), 64),
        ("vgg19", (2, 2, 4, 4, 4), 64),
    ],
)
def test_a_network_with_a_name_needs_no_sizes(
    write: Write, name: str, blocks: tuple[int, ...], width: int
) -> None:
    model = load_config(write(("name: resnet\n  blocks: [1, 2]", f"name: {name}"))).model
    assert (model.blocks, model.width) == (blocks, width)


@pytest.mark.parametrize(("name", "width"), [("resnet", 64), ("basic-resnet", 16), ("vgg", 64)])
def test_a_family_has_a_width_by_default(write: Write, name: str, width: int) -> None:
    file = write(("name: resnet\n", f"name: {name}\n"))
    assert load_config(file).model.width == width
    assert load_config(file, ["model.width=8"]).model.width == 8


def test_a_path_of_data_starts_at_the_folder_that_names_it(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write(("name: fashion-mini", "name: npz\n  path: sets/own.npz"))
    assert load_config(file).data.path == file.parent / "sets/own.npz"
    monkeypatch.chdir("/")
    assert load_config(file, ["data.path=own.npz"]).data.path == Path("/own.npz")


# Shipped configs


@pytest.mark.parametrize(
    ("name", "trials", "sizes"),
    [
        ("fashion-mini", 10, {"prune.params": 6, "prune.score": 2}),
        ("smoke", 3, {"sparse.lambda": 2, "prune.ratio": 4}),
        ("fashion-mnist", 14, {"prune.params": 7, "prune.score": 2}),
        ("cifar10-resnet20", 24, {"prune.score": 2, "sparse.lambda": 5, "prune.ratio": 7}),
        ("cifar10-resnet50", 6, {"sparse.lambda": 3, "prune.ratio": 2}),
        ("cifar10-resnet50-strong", 24, {"sparse.lambda": 5, "prune.ratio": 14}),
        ("cifar10-resnet56", 24, {"prune.score": 2, "sparse.lambda": 5, "prune.ratio": 7}),
        ("cifar10-resnet110", 24, {"prune.score": 2, "sparse.lambda": 5, "prune.ratio": 7}),
        ("cifar10-vgg16", 24, {"prune.score": 2, "sparse.lambda": 5, "prune.ratio": 6}),
        ("cifar10-vgg19", 9, {"sparse.lambda": 3, "prune.ratio": 3}),
    ],
)
def test_shipped_configs(name: str, trials: int, sizes: dict[str, int]) -> None:
    config = load_config(name)
    assert config == load_config(f"{name}.yaml") == load_config(shipped_configs()[name])
    assert (config.study, config.search.trials) == (name, trials)
    chosen = {path: len(entry.values() or []) for path, entry in config.search.space.items()}
    assert {path: count for path, count in chosen.items() if count > 1} == sizes


@pytest.mark.parametrize("name", [name for name in shipped_configs() if name.startswith("cifar10-")])
def test_what_papers_compare_on_has_a_control_and_seeds(name: str) -> None:
    config = load_config(name)
    assert config.controls.uniform
    assert (config.confirm.seeds, config.confirm.points) == (3, 3)


def test_no_shipped_config_is_untested() -> None:
    (mark,) = test_shipped_configs.pytestmark  # type: ignore[attr-defined]
    assert {name for name, *_ in mark.args[1]} == shipped_configs().keys()


def test_the_first_experiment_has_its_recipe() -> None:
    config = load_config("cifar10-resnet50")
    assert (config.model.name, config.model.stem, config.data.name) == (
        "resnet50",
        "cifar-maxpool",
        "cifar10",
    )
    recipe = config.sparse
    assert (recipe.optimizer, recipe.lr, recipe.weight_decay, recipe.schedule) == ("adam", 1e-3, 0, "steps")
    assert (recipe.batch_size, recipe.epochs, config.finetune.epochs) == (100, 40, 40)
    assert (config.finetune.optimizer, config.finetune.lr, config.finetune.weight_decay) == (
        "adamw",
        1e-3,
        1e-5,
    )
    prune = config.prune
    assert (prune.threshold_over, prune.min_channels, prune.absorb, prune.recalibrate) == ("all", 3, False, 0)
    lambdas, ratios = (entry.values() for entry in config.search.space.values())
    assert (lambdas, ratios, config.search.sampler) == ([0, 1e-5, 1e-4], [0.5, 0.9], "grid")


# Networks


def model_of(write: Write, model: str, *overrides: str) -> Model:
    file = write(("  name: resnet\n  blocks: [1, 2]\n", ""), ("model:\n", f"model: {model}\n"))
    return load_config(file, overrides).model


def test_a_factory_is_looked_for_beside_the_config(write: Write, tmp_path: Path) -> None:
    model = model_of(write, '{factory: "nets:small", args: {depth: 3}, init: net.pth}')
    assert (model.path, model.init) == (tmp_path, str(tmp_path / "net.pth"))
    assert model.description() == {"factory": "nets:small", "args": {"depth": 3}}
    assert (model.family, model.label) == (None, "nets:small")
    elsewhere = model_of(write, '{factory: "nets:small", path: code}')
    assert elsewhere.path == tmp_path / "code"
    given = load_config(write(), ["model={factory: 'nets:small'}"])
    assert given.model.path == Path.cwd()
    again = tmp_path / "again.yaml"
    again.write_text(dump_config(given))
    assert load_config(again) == given


def test_weights_are_named_or_in_a_file(write: Write, tmp_path: Path) -> None:
    assert model_of(write, "{name: torchvision/vgg11, init: DEFAULT}").init == "DEFAULT"
    assert model_of(write, "{name: timm/repvgg_a0, init: pretrained}").init == "pretrained"
    assert model_of(write, "{name: vgg16, init: pretrained}").init == str(tmp_path / "pretrained")


def test_a_network_of_a_library_has_arguments(write: Write) -> None:
    model = model_of(write, "{name: torchvision/vgg11, args: {dropout: 0.1}}")
    assert model.description() == {"name": "torchvision/vgg11", "args": {"dropout": 0.1}}
    family = model_of(write, "{name: mobilenet-v2, stem: imagenet}")
    assert family.description() == {
        "name": "mobilenet", "blocks": [1, 2, 3, 4, 3, 3, 1], "width": 32, "stem": "imagenet",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("{}", "model.name is missing; it takes resnet, *torchvision/NAME, timm/NAME. Or give a factory."),
        ("{name: resnet56, factory: 'nets:small'}", 'model.name is "resnet56", but factory names another*'),
        ("{factory: small}", 'model.factory is "small"; it takes package.module:function, *'),
        (
            "{factory: 'nets:small', width: 8}",
            "model.width is 8, but nets:small is no family*; remove it, or *by args.",
        ),
        (
            "{name: torchvision/vgg11, blocks: [1]}",
            "model.blocks is [1], but torchvision/vgg11 is no family*",
        ),
        ("{name: timm/x, stem: imagenet}", "model.stem is imagenet, but timm/x has no stem*"),
        ("{name: resnet56, args: {depth: 3}}", 'model.args is {"depth": 3}, but resnet56 takes none; *'),
        ("{name: resnet56, path: code}", "model.path is *, but only a factory is looked for in a folder*"),
        ("{name: keras/vgg11}", 'model.name is "keras/vgg11"; did you mean torchvision/vgg11? It takes *'),
        ("{name: keras/x}", 'model.name is "keras/x"; it takes *torchvision/NAME, timm/NAME. Or give *'),
        ("{factory: 'nets:small', args: 3}", "model.args is 3; it takes keys with values*"),
        ("{name: resnet56, init: 3}", "model.init is 3; it takes text or null*"),
    ],
)
def test_a_network_that_is_none_is_one_line(write: Write, model: str, expected: str) -> None:
    text = BASE.replace("model:\n  name: resnet\n  blocks: [1, 2]\n", f"model: {model}\n")
    (message,) = refused(write(text=text))
    start, *parts = expected.split("*")
    assert message.startswith(f"study-1.yaml:5: {start}")
    assert [part for part in parts if part not in message] == []


def test_a_wrong_name_hides_no_other_mistake_of_the_network(write: Write) -> None:
    model = "{name: resnt, blocks: foo, typo: 1}"
    messages = refused(
        write(text=BASE.replace("model:\n  name: resnet\n  blocks: [1, 2]\n", f"model: {model}\n"))
    )
    assert sorted(message.partition(": ")[2].partition(" is ")[0] for message in messages) == [
        "model.blocks",
        "model.name",
        "model.typo",
    ]


def test_where_code_and_weights_are_is_not_searched(write: Write) -> None:
    for field in ("model.path", "model.init"):
        (message,) = refused(write(), f"search.space.{field}=[a, b]")
        assert f"{field} cannot be searched" in message


@pytest.mark.parametrize(
    ("overrides", "clause"),
    [
        (["sparse.epochs=0"], "sparse.epochs is 0, which needs a network that was trained before"),
        (["search.space={sparse.epochs: [0, 2]}"], "search.space.sparse.epochs is 0, which needs"),
        (
            ["sparse.epochs=0", "model.init=a.pth"],
            "search.space.sparse.lambda has no effect, as sparse.epochs is 0",
        ),
        (
            ["sparse={epochs: 0, lambda: 0.1}", "model.init=a.pth", "search.space={prune.ratio: [0.5]}"],
            "sparse.lambda has no effect, as sparse.epochs is 0; remove it.",
        ),
    ],
)
def test_only_a_trained_network_does_without_sparse_training(
    write: Write, overrides: list[str], clause: str
) -> None:
    assert clause in " ".join(refused(write(), *overrides))


def test_recipes_have_the_defaults_of_the_commands(write: Write) -> None:
    config = load_config(write(("sparse:\n  epochs: 2\n  lr: 0.1\nfinetune: {epochs: 1, lr: 1e-2}\n", "")))
    assert (config.sparse.epochs, config.sparse.lr) == (SPARSE_EPOCHS, SPARSE_LR)
    assert (config.finetune.epochs, config.finetune.lr) == (FINETUNE_EPOCHS, FINETUNE_LR)


# The search space


@pytest.mark.parametrize(
    ("spelling", "expected"),
    [
        ("prune.ratio: {range: [0.3, 0.9], step: 0.1}", [0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]),
        ("prune.ratio: {range: [0.3, 0.9], step: 0.25}", [0.3, 0.55, 0.8]),
        ("prune.ratio: {range: [0.8, 0.9], step: 0.1}", [0.8, 0.9]),
        ("prune.ratio: {range: [0.3, 0.9]}", None),
        ("sparse.epochs: {range: [2, 5]}", [2, 3, 4, 5]),
        ("sparse.epochs: {range: [2, 8], step: 3}", [2, 5, 8]),
        ("sparse.lambda: {log: [1e-5, 1e-3], steps: 5}", [1e-05, 3.16228e-05, 1e-04, 3.16228e-04, 1e-03]),
        ("sparse.lambda: {log: [0.003, 0.04], steps: 2}", [0.003, 0.04]),
        ("sparse.lambda: {log: [0.003, 0.04]}", None),
        ("sparse.batch_size: {log: [16, 256], steps: 5}", [16, 32, 64, 128, 256]),
        ("sparse.epochs: {log: [1, 4], steps: 9}", [1, 2, 3, 4]),
        ("finetune.optimizer: [sgd, adam]", ["sgd", "adam"]),
        ("data.flip: {choices: [true, false]}", [True, False]),
        ("model.blocks: [[1, 1], [2, 2]]", [(1, 1), (2, 2)]),
        ("seed: {range: [0, 2]}", [0, 1, 2]),
    ],
)
def test_entries_of_a_space(write: Write, spelling: str, expected: list[Any] | None) -> None:
    found = values(write(), spelling)
    assert found == expected
    assert [type(value) for value in found or []] == [type(value) for value in expected or []]


@pytest.mark.parametrize(
    ("spelling", "parts"),
    [
        ("sparse.lambda: [0.1, -1]", ["sparse.lambda takes a number, at least 0", "not -1"]),
        ("prune.ratio: {range: [0.3, 1.2], step: 0.1}", ["at least 0 and below 1", "not 1.2"]),
        ("prune.ratio: {range: [0.9, 0.3]}", ["0.9", "below", "0.3"]),
        ("prune.ratio: {range: [0.3, 0.9], step: 0}", ["step 0 ", "at most", "0.6"]),
        ("prune.ratio: {range: [0.3, 0.9], step: 1e-9}", ["step 1e-09", "10,000", "larger"]),
        ("sparse.epochs: {range: [1, 5], step: 0.5}", ["step 0.5", "whole number"]),
        ("sparse.lambda: {log: [0, 1]}", ["log scale starts above 0", "choices"]),
        ("sparse.lambda: {log: [0.1, 1], steps: 1}", ["steps is 1", "from 2"]),
        ("sparse.lambda: {log: [0.1, 1], step: 1}", ["{log: [low, high], steps: n}"]),
        ("sparse.lambda: 0.1", ["is 0.1", "a list of choices"]),
        ("sparse.optimizer: [sgd, sdg]", ["sgd, adam or adamw", 'not "sdg" (did you mean sgd?).']),
        ("sparse.penalty: [proximal, L1]", ["l1, proximal or polarization", 'not "L1" (did you mean l1?).']),
        ("sparse.optimizer: {range: [sgd, adam]}", ["only numbers have a range"]),
        ("sparse.epochs: ['3']", ["sparse.epochs takes a whole number, at least 0", 'not "3"']),
        ("sparse.lr: [0.1, 0.1]", ["0.1 is given twice"]),
        ("prune.params: [50%, 60%, 50.0%]", ["50% and 50.0% are the same; keep one"]),
        ("sparse.lr: []", ["at least one choice"]),
        ("prune.ration: [0.5]", ["cannot be searched", "did you mean prune.ratio?"]),
        ("search.trials: [3]", ["cannot be searched", "seed, passes, or a field of data, model, sparse"]),
        ("sparse.target: [0.5, 1.0]", ["sparse.target takes", "below 1", "not 1"]),
        ("data.image_size: [7, 13]", ["contains 13", "2, 4, 7, 14, 28"]),
        ("", ["at least one field"]),
    ],
)
def test_a_space_is_refused_with_the_reason(write: Write, spelling: str, parts: list[str]) -> None:
    (line,) = refused(write(), *space(spelling))
    path = spelling.partition(":")[0]
    assert f": search.space{path and '.'}{path} " in line
    assert [part for part in parts if part not in line] == []


def test_a_grid_takes_all_its_points_by_default(write: Write) -> None:
    grid = write(("sampler: tpe\n  trials: 5", "sampler: grid"))
    assert load_config(grid).search.trials == 14
    assert load_config(grid, ["search.trials=9"]).search.trials == 9
    (line,) = refused(grid, "search.trials=15")
    assert "search.trials is 15, more than the grid's points; use at most 14." in line
    (line,) = refused(grid, "search.space.prune.ratio={range: [0.3, 0.9]}")
    assert "prune.ratio" in line
    assert "a step or choices" in line


TARGET = ("lr: 0.1", "lr: 0.1\n  target: 0.9")


def test_a_target_is_searched_like_any_field(write: Write) -> None:
    config = load_config(write(), space("sparse.target: [0.5, 0.9]"))
    assert resolve(config, {"sparse.target": 0.9}).sparse.target == 0.9


@pytest.mark.parametrize(
    ("overrides", "parts"),
    [
        (
            ["sparse.lambda=0.01", *space("seed: [1, 2]")],
            ["sparse.target is 0.9", "lambda is 0.01; remove one"],
        ),
        (
            ["sparse.lambda_schedule=warmup-tail", *space("seed: [1, 2]")],
            ["sparse.lambda_schedule is warmup-tail"],
        ),
        (space("sparse.lambda: [0, 0.01]"), ["search.space.sparse.lambda contains 0.01", "adjusts lambda"]),
        (
            space("sparse.lambda: {log: [0.001, 0.01]}"),
            ["search.space.sparse.lambda contains 0.01", "adjusts lambda"],
        ),
    ],
)
def test_a_target_leaves_no_room_for_lambda(write: Write, overrides: list[str], parts: list[str]) -> None:
    (line,) = refused(write(TARGET), *overrides)
    assert [part for part in parts if part not in line] == []


@pytest.mark.parametrize(
    ("overrides", "parts"),
    [
        (["finetune.weights=early", "finetune.rewind_to=2"], ["finetune.rewind_to is 2", "has 2 epochs"]),
        (["finetune.weights=early", "sparse.epochs=1"], ["finetune.rewind_to is 1", "has 1 epoch;"]),
        (
            ["finetune.weights=early", *space("finetune.rewind_to: [1, 9]")],
            ["search.space.finetune.rewind_to is 9", "has 2 epochs"],
        ),
        (
            ["finetune.weights=early", "finetune.rewind_to=3", *space("sparse.epochs: {range: [3, 9]}")],
            ["finetune.rewind_to is 3", "has 3 epochs"],
        ),
        (
            ["finetune.rewind_to=2", *space("finetune.weights: [pruned, early]")],
            ["finetune.rewind_to is 2", "has 2 epochs"],
        ),
    ],
)
def test_an_early_epoch_comes_before_the_last_wherever_it_is_searched(
    write: Write, overrides: list[str], parts: list[str]
) -> None:
    (line,) = refused(write(), *overrides)
    for part in parts:
        assert part in line


def test_an_early_epoch_that_nothing_goes_back_to_may_be_any(write: Write) -> None:
    assert not load_config(write(), ["finetune.rewind_to=9"]).rewinds
    searched = load_config(write(), space("finetune.weights: [pruned, early]"))
    assert searched.rewinds
    far = ["finetune.weights=early", "finetune.rewind_to=2", *space("sparse.epochs: {range: [3, 9]}")]
    assert load_config(write(), far).finetune.rewind_to == 2


def test_the_most_epochs_are_those_of_the_longest_trial(write: Write) -> None:
    config = load_config(write())
    assert config.trial_epochs == config.most_epochs == 3
    longest = space("sparse.epochs: {range: [3, 9]}, finetune.epochs: [1, 5, 2], passes: [1, 2]")
    assert load_config(write(), longest).most_epochs == 2 * (9 + 5)
    assert load_config(write(), longest).trial_epochs == 3
    assert load_config(write(), space("sparse.epochs: {log: [2, 40]}")).most_epochs == 41
    shared = "finetune.weights: [pruned, fresh], sparse.epochs: {by: finetune.weights, fresh: [1]}"
    shared += ", finetune.epochs: {by: finetune.weights, fresh: [9]}"
    equal = ["sparse.epochs=4", "finetune.epochs=6", *space(shared)]
    assert load_config(write(), equal).most_epochs == 10, "not the most before the cut and the most after it"
    points = "{sparse.epochs: 6, finetune.epochs: 1}, {sparse.epochs: 1, finetune.epochs: 9}"
    listed = [f"search={{points: [{points}]}}"]
    assert load_config(write(), listed).most_epochs == 10
    assert load_config(write(), [*listed, "search.trials=3"]).most_epochs == 15, "a third may be both"


def test_controls_that_are_on_come_in_one_order(write: Write) -> None:
    assert load_config(write()).controls.chosen() == []
    some = load_config(write(), ["controls={random: true, uniform: true}"])
    assert some.controls.chosen() == ["uniform", "random"]
    (line,) = refused(write(), "controls={uniformly: true}")
    assert "did you mean controls.uniform?" in line
    (line,) = refused(write(), "confirm.seeds=0")
    assert "confirm.seeds is 0" in line


def test_a_seed_that_is_searched_is_not_repeated(write: Write) -> None:
    assert load_config(write(), space("seed: [1, 2]")).confirm.seeds == 1
    (line,) = refused(write(), "confirm.seeds=2", *space("seed: [1, 2]"))
    assert "confirm.seeds is 2, but seed is searched; use 1, or remove search.space.seed." in line


@pytest.mark.parametrize(
    ("spelling", "parts"),
    [
        (
            "prune.layer_floor: [0, 0.2], prune.threshold_over: [prunable, layer]",
            ['prune.threshold_over contains "layer", with which, at prune.layer_floor 0.2, prune'],
        ),
        (
            "prune.threshold_over: [prunable, layer], prune.layer_floor: {range: [0, 0.4]}",
            ["search.space.prune.layer_floor contains 0.4, with which, at prune.threshold_over", "layer"],
        ),
    ],
)
def test_searched_fields_that_do_not_go_together_are_refused(
    write: Write, spelling: str, parts: list[str]
) -> None:
    (line,) = refused(write(), *space(spelling))
    assert [part for part in parts if part not in line] == []
    assert load_config(write(), space("prune.layer_floor: [0, 0.2], prune.score: [gamma, random]"))


def test_lambda_and_a_target_are_not_searched_together(write: Write) -> None:
    (line,) = refused(write(), *space("sparse.lambda: [0, 0.01], sparse.target: [0.9]"))
    assert "search.space.sparse.target is searched together with sparse.lambda" in line


def test_a_budget_takes_the_place_of_the_ratio(write: Write) -> None:
    config = load_config(write(), space("prune.params: [2000, 9000]"))
    assert resolve(config, {"prune.params": 2000}).prune.plan_options()["params"] == 2000
    assert "ratio" not in resolve(config, {"prune.params": 2000}).prune.plan_options()
    config = load_config(write(), space('prune.macs: ["50%", "12.5%", 90000]'))
    assert resolve(config, {"prune.macs": "12.5%"}).prune.plan_options()["macs"] == "12.5%"
    for overrides, expected in (
        (["prune.params=150%"], 'prune.params is "150%"; it takes'),
        (["prune.params=0%"], 'a percentage of the network such as "50%"'),
        (["prune.params=2000", "prune.ratio=0.7"], "prune.ratio is 0.7, but params replaces it"),
        (["prune.params=2000", "passes=2"], "passes is above 1, but a budget is met in one pass"),
        (
            space("prune.params: [2000], prune.ratio: [0.5]"),
            "prune.ratio is searched together with prune.params",
        ),
        (
            ["prune.layer_floor=0.5", "prune.threshold_over=layer"],
            "prune.layer_floor is 0.5, which needs",
        ),
    ):
        assert any(expected in line for line in refused(write(), *overrides)), expected


def test_samplers_but_grid_need_trials(write: Write) -> None:
    (line,) = refused(write(("  trials: 5\n", "")))
    assert line.startswith("study-1.yaml:12: search.trials is missing; sampler tpe")


def test_trials_can_be_judged_by_what_is_measured(write: Write) -> None:
    objectives = "search.objectives={val_accuracy: maximize, latency_ms_64: minimize}"
    found = load_config(write(), [objectives, "search.limits={file_bytes: 100000, val_accuracy: 0.8}"])
    assert found.judges_latency
    facts = {"file_bytes": 100_000, "val_accuracy": 0.8}
    assert found.search.allows(facts)
    assert not found.search.allows({**facts, "file_bytes": 100_001})
    assert not found.search.allows({**facts, "val_accuracy": 0.79})
    assert not load_config(write()).judges_latency
    for judged in (objectives, "search.limits={latency_ms: 2}"):
        (line,) = refused(write(), judged, "latency=false")
        assert "latency is false, but search judges trials by latency_ms" in line


def test_the_test_split_is_never_searched_on(write: Write) -> None:
    (line,) = refused(write(), "search.objectives={test_accuracy: maximize, params: minimize}")
    assert "search.objectives.test_accuracy is refused" in line
    assert "the test split is measured and reported, never searched on" in line


# What is refused


@pytest.mark.parametrize(
    ("old", "new", "line", "expected"),
    [
        ("  epochs: 2", "  epoch: 2", 9, "sparse.epoch is not a known key; did you mean sparse.epochs?"),
        ("seed: 3", "ratio: 3", 1, "ratio is not a known key; did you mean prune.ratio?"),
        ("seed: 3", "sparse.lr: 3", 1, "sparse.lr is not a known key; write `lr:` * under `sparse:`."),
        ("seed: 3", "xyz: 3", 1, "xyz is not a known key; a config takes the keys study, seed, *."),
        ("seed: 3", "seed: -1", 1, "seed is -1; it takes a whole number, at least 0 *"),
        ("  epochs: 2", '  epochs: "2"', 9, 'sparse.epochs is "2"; it takes a whole number, at least 0*'),
        ("  epochs: 2", "  epochs: true", 9, "sparse.epochs is true; it takes a whole number*"),
        ("  epochs: 2", "  epochs: 2.0", 9, "sparse.epochs is 2.0; it takes a whole number*"),
        ("  epochs: 2", "  epochs:", 9, "sparse.epochs is null; it takes a whole number*"),
        ("  epochs: 2", "  epochs: 0", 9, "sparse.epochs is 0, *name its weights in model.init."),
        ("  name: fashion-mini\n", "", 2, "data.name is missing; it takes fashion-mini, *"),
        ("lr: 0.1", "lr: .nan", 10, 'sparse.lr is ".nan"; it takes a number, above 0*'),
        ("lr: 0.1", "lr: 1e999", 10, "sparse.lr is Infinity; it takes a number, above 0*"),
        ("seed: 3", "device: GPU", 1, 'device is "GPU"; it takes auto, cpu, cuda, mps or xpu *'),  # not xpu
        (
            "lr: 1e-2}",
            "lr: 1, schedule: step}",
            11,
            'finetune.schedule is "step"; did you mean steps? It takes *cosine, steps, constant or rewind*',
        ),
        (
            *("name: fashion-mini\n", "name: CIFAR-10\n", 3),
            'data.name is "CIFAR-10"; did you mean cifar10? It takes *',
        ),
        (
            *("name: fashion-mini\n", "name: torchvision/CIFAR10\n", 3),
            'data.name is "torchvision/CIFAR10"; did you mean cifar10? It takes *',
        ),
        ("image_size: 14", "flip: yes", 4, 'data.flip is "yes"; it takes true or false*'),
        ("image_size: 14", "image_size: 13", 4, "data.image_size is 13; *pooled to 2, 4, 7, 14, 28."),
        ("image_size: 14", "validation: 0.6", 4, "data.validation is 0.6; *above 0 and at most 0.5*"),
        ("image_size: 14", "path: a.npz", 4, "data.path is *; remove it."),
        ("name: fashion-mini", "name: npz", 2, "data.path is missing; *"),
        ("[1, 2]", "[1, 0]", 7, "model.blocks is [1, 0]; *1 or more items, each a whole number*"),
        ("  blocks: [1, 2]\n", "", 5, "model.blocks is missing; *"),
        ("name: resnet\n", "name: resnet50\n", 7, "model.blocks is [1, 2], but resnet50 has [3, 4, 6, 3]; *"),
        (
            "name: resnet\n  blocks: [1, 2]",
            "name: vgg19\n  width: 8",
            7,
            "model.width is 8, but vgg19 has 64; remove it, or use model.name vgg.",
        ),
        (
            "name: resnet\n",
            "name: vgg\n  stem: imagenet\n",
            7,
            "model.stem is imagenet, but vgg has no stem; *",
        ),
        (
            "name: resnet\n  blocks: [1, 2]",
            "name: vgg",
            5,
            "model.blocks is missing; *convolutions for a vgg*",
        ),
        (
            *("name: resnet\n", "name: vgg11\n", 6),
            'model.name is "vgg11"; did you mean torchvision/vgg11? It takes *vgg, *',
        ),
        (
            *("name: resnet\n", "name: torchvison/vgg11\n", 6),
            'model.name is "torchvison/vgg11"; did you mean torchvision/vgg11? It takes *vgg, *',
        ),
        (
            *("name: resnet\n", "name: ResNet-56\n", 6),
            'model.name is "ResNet-56"; did you mean resnet56? It takes *',
        ),
        ("name: resnet\n", "name: [vgg]\n", 6, 'model.name is ["vgg"]; it takes *'),
        ("seed: 3", "workers: 0", 1, "workers is 0; it takes auto or a whole number, at least 1*"),
        ("seed: 3", "workers: Auto", 1, 'workers is "Auto"; did you mean auto? It takes auto or a whole *'),
        (
            *("seed: 3", "executor: {kind: ray, gpus_per_stage: atuo}", 1),
            'executor.gpus_per_stage is "atuo"; did you mean auto? It takes auto or a number*',
        ),
        ("lr: 0.1", "penalty: [L1]", 10, 'sparse.penalty is ["L1"]; did you mean l1? It takes l1, *'),
        ("seed: 3", "study: a/b", 1, 'study is "a/b"; *letters, digits*'),
        ("seed: 3", "study: Stages", 1, "study is Stages, *; choose another name."),
        ("seed: 3", "wandb: {project: a/b}", 1, 'wandb.project is "a/b"; *without / *'),
        ("seed: 3", "prune:", 1, "prune is null; it takes the keys ratio, *"),
        ("lr: 0.1", "lr: 0.1\n  lr: 0.2", 11, "sparse.lr is given twice, on lines 10 and 11; keep one."),
    ],
)
def test_a_mistake_is_one_line(write: Write, old: str, new: str, line: int, expected: str) -> None:
    (message,) = refused(write((old, new)))
    start, *parts = expected.split("*")
    assert message.startswith(f"study-1.yaml:{line}: {start}")
    assert [part for part in parts if part not in message] == []


def test_all_mistakes_are_told_in_the_order_of_the_file_then_overrides(write: Write) -> None:
    file = write(
        ("seed: 3", "sed: 3"),
        ("lr: 0.1", "lr: x"),
        ("step: 0.1", "step: 7"),
        ("blocks", "width: 0\n  blocks"),
    )
    lines = refused(file, "prune.ratio=1", "crop=2")
    assert [line.partition(" is ")[0] for line in lines] == [
        "study-1.yaml:1: sed",
        "study-1.yaml:7: model.width",
        "study-1.yaml:11: sparse.lr",
        "study-1.yaml:18: search.space.prune.ratio",
        "--set prune.ratio=1: prune.ratio",
        "--set crop=2: crop",
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ["study-1.yaml is empty"]),
        ("# only this\n", ["study-1.yaml is empty"]),
        ("- 1\n", ["study-1.yaml does not hold", "top level"]),
        ("seed: 1\ndata:\n\tname: npz\n", ["study-1.yaml:3: ", "indent with spaces"]),
        ("seed: 1\ndata: [1\n", ["study-1.yaml:3: not valid YAML", "expected ',' or ']'"]),
        ("seed: 1\n---\nseed: 2\n", ["study-1.yaml:2: ", "single document"]),
        (b"seed: 1\nstudy: caf\xe9\n", ["study-1.yaml:2: byte 0xe9 is not UTF-8"]),
        ("seed: 1\nstudy: \x07\n", ["study-1.yaml:2: character '\\x07'"]),
        ("seed: &one 1\n", ["study-1.yaml:1: ", "anchors", "are not supported"]),
        ("seed: !!python/name:os.system 1\n", ["study-1.yaml:1: ", "tags", "are not supported"]),
        ("[" * 3000, ["study-1.yaml:1: nested too deeply"]),
    ],
)
def test_a_file_that_is_no_config(write: Write, text: str | bytes, expected: list[str]) -> None:
    (line,) = refused(write(text=text))
    assert [part for part in expected if part not in line] == []


def test_a_key_that_is_no_name(write: Write) -> None:
    assert "study-1.yaml:1: a key is a plain name, not a list or a mapping." in refused(
        write(("seed", "[seed]"))
    )


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    (line,) = refused("fashion-mni")
    assert line.startswith("fashion-mni is neither a file nor a shipped config")
    assert all(name in line for name in shipped_configs())
    assert line.endswith("; did you mean fashion-mini?")
    assert "did you mean" not in refused("qqq.yaml")[0]
    assert "is a folder" in refused(tmp_path)[0]


def test_a_file_name_that_cannot_name_a_study(write: Write) -> None:
    (line,) = refused(write(name="my study.yaml"))
    assert line.startswith('my study.yaml: study is "my study"; it takes ')


def test_errors_are_slimnet_errors() -> None:
    assert issubclass(ConfigError, SlimnetError)


# Overrides


def test_overrides_reach_every_field_in_order(write: Write) -> None:
    config = load_config(
        write(),
        [
            "sparse.epochs=7",
            "sparse.lambda=1e-4",
            "prune={ratio: 0.2}",
            "prune.absorb=false",
            "study=other",
            "data.image_size=",
            "search.trials=20",
            "search.space.prune.ratio=[0.1]",
            "search.space.seed={range: [0, 4]}",
        ],
    )
    assert (config.sparse.epochs, config.sparse.lambda_, config.study) == (7, 1e-4, "other")
    assert (config.prune.ratio, config.prune.absorb, config.data.image_size) == (0.2, False, None)
    assert config.search.trials == 20
    lengths = {path: len(entry.values() or []) for path, entry in config.search.space.items()}
    assert lengths == {"sparse.lambda": 2, "prune.ratio": 1, "seed": 5}


def test_an_override_replaces_a_mistake_in_the_file(write: Write) -> None:
    assert load_config(write(("  epochs: 2", "  epochs: x")), ["sparse.epochs=2"]).sparse.epochs == 2


@pytest.mark.parametrize(
    ("override", "clause"),
    [
        ("sparse.epoch=2", "sparse.epoch is not a known key; did you mean sparse.epochs?"),
        ("sparce.epochs=2", "sparce.epochs is not a known key; did you mean sparse.epochs?"),
        ("epochs=2", "epochs is not a known key; did you mean sparse.epochs or finetune.epochs?"),
        ("seed.x=1", "seed.x is not a known key; did you mean seed?"),
        ("model.args.depth=4", "model.args.depth cannot be set alone; give all of model.args: it takes keys"),
        ("search.objectives.params=minimize", "search.objectives.params cannot be set alone; give all of"),
        ("prune.qqq=1", "prune.qqq is not a known key; prune takes the keys ratio, "),
        ("sparse.epochs=two", 'sparse.epochs is "two"; it takes a whole number'),
        ("sparse.epochs=", "sparse.epochs is null; it takes a whole number"),
        ("sparse.lr=[1", "not valid YAML: "),
        ("prune={ratio: 0.1, ratio: 0.2}", "ratio is given twice; keep one."),
        ("sparse.epochs", "write key=value"),
        ("=2", "write key=value"),
    ],
)
def test_a_bad_override_is_named(write: Write, override: str, clause: str) -> None:
    (line,) = refused(write(), override)
    assert line.startswith(f"--set {override}: {clause}")


# Trials


def test_resolve_fills_in_a_trial(write: Write) -> None:
    config = load_config(write())
    trial = resolve(config, {"sparse.lambda": 0.001, "prune.ratio": 0.4, "seed": 9, "model.blocks": [2, 2]})
    assert (trial.sparse.lambda_, trial.prune.ratio, trial.seed, trial.model.blocks) == (
        0.001,
        0.4,
        9,
        (2, 2),
    )
    assert (
        resolve(trial, {"sparse.lambda": 0.0, "prune.ratio": 0.5, "seed": 3, "model.blocks": [1, 2]})
        == config
    )


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"prune.ratio": 1.5}, "prune.ratio is 1.5; it takes a number"),
        ({"prune.ration": 0.5}, "prune.ration cannot be searched; did you mean prune.ratio?"),
        ({"data.image_size": 13}, "data.image_size is 13;"),
    ],
)
def test_resolve_refuses_what_does_not_fit(write: Write, params: dict[str, Any], message: str) -> None:
    config = load_config(write())
    with pytest.raises(ConfigError, match=message):
        resolve(config, params)


# Written and read back

unit = st.floats(0.001, 0.999)
recipes = {
    "epochs": st.integers(1, 10**6),
    "lr": st.floats(min_value=0, exclude_min=True, allow_infinity=False),
    "optimizer": st.sampled_from(["sgd", "adam", "adamw"]),
    "schedule": st.sampled_from(["one-cycle", "cosine", "steps", "constant"]),
    "weight_decay": st.floats(min_value=0, allow_infinity=False),
}
entries = {
    "sparse.lambda": st.tuples(unit, st.none() | st.integers(2, 9)).map(
        lambda drawn: {"log": [drawn[0], drawn[0] + 1]} | ({"steps": drawn[1]} if drawn[1] else {})
    ),
    "prune.ratio": st.lists(unit, min_size=1, max_size=4, unique=True),
    "finetune.epochs": st.integers(1, 9).map(lambda low: {"range": [low, low + 6], "step": 2}),
    "finetune.lr": unit.map(lambda low: {"range": [low, low + 1]}),
    "model.blocks": st.lists(
        st.lists(st.integers(1, 9), min_size=1, max_size=4), min_size=1, max_size=3, unique_by=tuple
    ),
}
configs = st.fixed_dictionaries(
    {
        "study": st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,9}", fullmatch=True).filter(
            lambda name: name.lower() != "stages"
        ),
        "seed": st.integers(0, 2**32 - 1),
        "data": st.sampled_from(
            [{"name": "npz", "path": "/sets/on off ü.npz"}, {"name": "cifar10", "flip": True}]
        ),
        "model": st.sampled_from(
            [
                {"name": "resnet", "blocks": [1, 2]},
                {"name": "basic-resnet", "blocks": [2]},
                {"name": "vgg", "blocks": [1]},
            ]
        ),
        "sparse": st.fixed_dictionaries({**recipes, "lambda": unit}),
        "finetune": st.fixed_dictionaries(recipes),
        "search": st.fixed_dictionaries(
            {
                "trials": st.integers(1, 10**6),
                "space": st.fixed_dictionaries({}, optional=entries).filter(bool),
                "objectives": st.dictionaries(
                    st.sampled_from(["val_accuracy", "params", "macs"]),
                    st.sampled_from(["maximize", "minimize"]),
                    min_size=1,
                ),
            }
        ),
        "workers": st.just("auto") | st.integers(1, 99),
        "wandb": st.fixed_dictionaries(
            {"entity": st.none() | st.sampled_from(["1e5", "null", "on", "a: b", "#"])}
        ),
    }
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(values=configs)
def test_a_config_written_and_read_back_is_equal(tmp_path: Path, values: dict[str, Any]) -> None:
    config = Config.model_validate(values)
    file = tmp_path / "config.yaml"
    file.write_text(dump_config(config), encoding="utf-8")
    again = load_config(file)
    assert again == config
    assert list(again.search.objectives) == list(config.search.objectives)
    assert dump_config(again) == dump_config(config)
