"""Networks of a study that are not slimnet's own: what they are made of, and stages that know it."""

from __future__ import annotations

import re
import subprocess
import sys
import textwrap
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from running import PATIENCE, ROOT, Command

import slimnet
from slimnet.errors import SlimnetError
from sweeps.config import Config, ConfigError, load_config, resolve
from sweeps.jobs import Job, Place, Watch
from sweeps.networks import Made, check_factories, check_networks, make_networks, needs_making
from sweeps.stages import Stage, Store, chain, control, dense_stage
from sweeps.study import check_config, keep_config, make_study, open_study
from sweeps.worker import compute

NETS = """
    import torch
    from torch import nn
    from {parts} import block

    class Net(nn.Module):
        def __init__(self, width, num_classes, in_channels):
            super().__init__()
            self.stem = block(in_channels, width, 3, padding=1)
            self.depthwise = block(width, width, 3, padding=1, groups=width)
            self.scale = nn.Parameter(torch.ones(2 * width))
            self.fc = nn.Linear(2 * width, num_classes)

        def forward(self, x):
            x = self.stem(x)
            x = torch.cat([x, self.depthwise(x)], 1)
            return self.fc(x.mean((2, 3)) * self.scale)

    def net(num_classes, in_channels, width=6):
        print("made")
        return Net(width, num_classes, in_channels)
"""
PARTS = """
    from torch import nn

    def block(*args, **kwargs):
        return nn.Sequential(nn.Conv2d(*args, **kwargs), nn.BatchNorm2d(args[1]), nn.ReLU())
"""
SHAPE, CLASSES = (1, 7, 7), 10
LoadStudy = Callable[..., Config]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's folder with study.yaml, and modules whose names no other test has imported."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    unique = f"{tmp_path.name}_{tmp_path.parent.name}".replace("-", "_")
    (tmp_path / f"nets_{unique}.py").write_text(textwrap.dedent(NETS.format(parts=f"parts_{unique}")))
    (tmp_path / f"parts_{unique}.py").write_text(textwrap.dedent(PARTS))
    shipped = load_config("smoke").model_dump(mode="json", by_alias=True)
    assert shipped["study"] == "smoke"
    text = (Path(slimnet.__file__).parents[1] / "sweeps/configs/smoke.yaml").read_text()
    line = next(line for line in text.splitlines() if line.startswith("model:"))
    (tmp_path / "study.yaml").write_text(text.replace(line, f'model: {{factory: "nets_{unique}:net"}}'))
    return tmp_path


@pytest.fixture
def load(folder: Path) -> LoadStudy:
    return lambda *overrides: load_config(folder / "study.yaml", overrides)


def edit(folder: Path, start: str = "parts") -> None:
    (file,) = folder.glob(f"{start}_*.py")
    file.write_text(file.read_text() + "\n# edited\n")


def made(config: Config, notes: list[str] | None = None) -> dict[str, Made]:
    return make_networks(config, SHAPE, CLASSES, (notes if notes is not None else []).append)


def stages(config: Config, networks: dict[str, Made] | None = None) -> tuple[Stage, ...]:
    return chain(resolve(config, {"sparse.lambda": 0.02, "prune.ratio": 0.5}), "float32", None, networks)


def run(store: Store, stage: Stage, config: Config) -> bool:
    store.folder(stage).prepare(stage)
    return compute(Job.of(stage, store, config), Place("cpu", 1), Watch())


# What networks are made of


def test_slimnets_own_networks_need_no_look() -> None:
    assert not needs_making(load_config("smoke"))
    assert not needs_making(load_config("smoke", ["search.space={model.width: {log: [4, 8]}}"]))
    assert made(load_config("smoke")) == {}


def test_a_factory_is_known_by_its_source_and_its_structure(folder: Path, load: LoadStudy) -> None:
    (found,) = made(load()).values()
    assert found.weights is None
    (wider,) = made(load("model.args={width: 8}")).values()
    assert (wider.source, wider.structure != found.structure) == (found.source, True)
    edit(folder)
    (edited,) = made(load()).values()
    assert edited.source != found.source
    assert edited.structure == found.structure


def test_every_network_of_the_space_is_made(load: LoadStudy) -> None:
    searched = load("search.space={model.args: [{width: 4}, {width: 8}], prune.ratio: [0.5]}")
    assert len({one.structure for one in made(searched).values()}) == 2
    narrow, wide = (stages(resolve(searched, {"model.args": {"width": w}}), made(searched)) for w in (4, 8))
    assert narrow[0].key != wide[0].key


def test_a_library_is_known_by_its_version() -> None:
    config = load_config("smoke", ["model={name: torchvision/squeezenet1_1}", "data.image_size=28"])
    (found,) = make_networks(config, (1, 28, 28), CLASSES, print).values()
    assert found.source is not None
    assert found.source.startswith("torchvision 0.")
    assert "+" not in found.source


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model.args={depth: 3}", "takes no argument depth; it takes num_classes, in_channels, width"),
        ('model.factory="nest:net"', "there is no module nest in "),
        ("model.init=gone.pth", "gone.pth cannot be read"),
        ("model={name: torchvision/alexnet}", "torchvision/alexnet does not take images of 1x7x7"),
        (
            "model={name: torchvision/mobilenet_v2, init: DEFAULT, args: {weights: 3}}",
            "trained weights by init",
        ),
    ],
)
def test_what_cannot_be_trained_is_found_before(load: LoadStudy, override: str, message: str) -> None:
    overrides = ["model.factory=null", "model.path=null"] if override.startswith("model={") else []
    with pytest.raises((SlimnetError, ConfigError), match=message):
        made(load(*overrides, override))


# Keys


def test_the_key_holds_what_the_network_is_made_of(folder: Path, load: LoadStudy) -> None:
    networks = made(load())
    key = stages(load(), networks)[0].key
    assert stages(load(), networks)[0].key == key
    ((name, before),) = networks.items()
    for other in (
        {name: replace(before, source="sha256:1")},
        {name: replace(before, structure="sha256:1")},
        {name: replace(before, weights="sha256:1")},
    ):
        assert stages(load(), other)[0].key != key
    dumped = stages(load(), networks)[0].spec.dump()["model"]
    assert not {"path", "init"} & dumped.keys()
    assert str(folder) not in str(dumped)


def test_a_moved_folder_has_the_same_keys(
    folder: Path, load: LoadStudy, tmp_path_factory: pytest.TempPathFactory
) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    for file in folder.iterdir():
        (elsewhere / file.name).write_bytes(file.read_bytes())
    assert stages(load_config(elsewhere / "study.yaml"))[0].key == stages(load())[0].key


# A study that goes on


def test_a_study_is_told_that_its_network_was_edited(folder: Path, load: LoadStudy) -> None:
    home = folder / "runs"
    home.mkdir()
    make_study(home, load(), "float32", made(load()))
    study = open_study(home, load())
    assert study.facts.networks == made(load())
    make_study(home, load(), None)
    (name,) = study.facts.networks
    other = {name: replace(study.facts.networks[name], structure="sha256:1")}
    with pytest.raises(SlimnetError, match="has other layers than when the study smoke began"):
        check_networks(load(), study.facts.networks, other)
    check_factories(load(), study.facts.networks)
    edit(folder)
    edited = r"the source of nets_\w+:net has been edited since the study smoke began"
    with pytest.raises(SlimnetError, match=edited):
        make_study(home, load(), None)
    with pytest.raises(SlimnetError, match=f"{edited}.* leave out --no-check"):
        check_factories(load(), study.facts.networks)


def test_a_library_of_another_version_is_another_network() -> None:
    config = load_config("smoke", ["model={name: torchvision/squeezenet1_1}"])
    began = {name: replace(one, source="torchvision 0.1") for name, one in _read_off(config).items()}
    with pytest.raises(SlimnetError, match=r"torchvision 0.1 has become torchvision 0\.\d+"):
        check_networks(config, began)
    check_factories(config, began)  # but it may be exported as it is


def _read_off(config: Config) -> dict[str, Made]:
    from sweeps.networks import name_of, read_off

    return {name_of(config.model): read_off(config.model)}


def test_weights_may_move_but_not_change(folder: Path, load: LoadStudy) -> None:
    config = load_config("smoke", [f"model.init={folder / 'net.pth'}"])
    torch.save(slimnet.models.resnet([1, 1], 8, in_channels=1).state_dict(), folder / "net.pth")
    networks = made(config)
    keep_config(folder, config)
    (folder / "net.pth").rename(folder / "moved.pth")
    moved = load_config("smoke", [f"model.init={folder / 'moved.pth'}"])
    check_config(folder, moved)
    check_networks(moved, networks)
    assert stages(moved, networks)[0].key == stages(config, networks)[0].key
    with pytest.raises(ConfigError, match=r"model\.init was a file, is None"):
        check_config(folder, load_config("smoke"))
    torch.save(slimnet.models.resnet([1, 1], 8, in_channels=1).state_dict(), folder / "moved.pth")
    with pytest.raises(
        SlimnetError, match=r"the weights in .*moved\.pth have changed since the study smoke began"
    ):
        check_networks(moved, networks)


@pytest.mark.slow  # a sweep in a process of its own
def test_a_sweep_ends_with_files_and_says_when_its_network_was_edited(folder: Path, command: Command) -> None:
    study = ["run", folder / "study.yaml", "--runs", folder / "runs", "--wandb", "disabled", "--trials"]
    status, _, err = command(*study, 1, "--set", "model.args={depth: 3}")
    assert (status, "takes no argument depth" in err) == (2, True)
    assert not (folder / "runs").exists()

    program = [sys.executable, "-m", "sweeps", *map(str, study), "1"]
    done = subprocess.run(program, cwd=ROOT, text=True, capture_output=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr
    assert ("made\n" in done.stdout, "made\n" in done.stderr) == (False, True)  # by the factory, in workers
    load_one = r"load one: +slimnet\.load\(.*, model=net\(…\)\)  # trial 0, with nets_\w+:net"
    assert re.search(load_one, done.stdout)

    edit(folder)
    status, _, err = command(*study, 2)
    assert (status, "has been edited since the study smoke began" in err) == (2, True)
    assert len((folder / "runs/smoke/trials.jsonl").read_text().splitlines()) == 1

    (parts,) = folder.glob("parts_*.py")  # what was trained is exported as long as the code still makes it
    export = ["export", folder / "study.yaml", 0, "--runs", folder / "runs", folder / "net.safetensors"]
    status, out, err = command(*export)
    assert (status, "as reported" in out) == (0, True), err
    parts.write_text(parts.read_text().replace("nn.ReLU()", "nn.Identity()"))
    program = [sys.executable, "-m", "sweeps", *map(str, export), "--force"]
    other = subprocess.run(program, cwd=ROOT, text=True, capture_output=True, timeout=PATIENCE)
    assert (other.returncode, "it was not written" in other.stderr) == (2, True), other.stderr


# Stages


def test_ones_own_network_goes_the_whole_way(folder: Path, load: LoadStudy) -> None:
    config, store = load("sparse.epochs=1", "finetune.weights=fresh"), Store(folder)
    networks = made(config)
    trial = stages(config, networks)
    for stage in trial:
        assert run(store, stage, config)
    sparse, prune, finetune = (store.folder(stage).read(stage).metrics for stage in trial)
    assert finetune["params"] == prune["params"] < sparse["params"]
    saved = slimnet.read(store.folder(trial[2]).checkpoint)
    assert saved.architecture == {
        "factory": config.model.factory,
        "args": {"num_classes": CLASSES, "in_channels": 1},
    }
    with pytest.raises(SlimnetError, match="holds a network of your own"):
        slimnet.load(store.folder(trial[2]).checkpoint)


def test_a_network_that_was_edited_meanwhile_is_not_mixed_in(folder: Path, load: LoadStudy) -> None:
    config, store = load("sparse.epochs=1"), Store(folder)
    sparse, prune, _ = stages(config, made(config))
    assert run(store, sparse, config)
    edit(folder)
    with pytest.raises(
        SlimnetError, match="has been edited since the study began; undo that and use `retry`"
    ):
        run(store, prune, config)


@pytest.fixture
def trained(folder: Path) -> Path:
    """Weights of the smoke config's network for 4 classes."""
    torch.manual_seed(0)
    model = slimnet.models.resnet([1, 1], 8, num_classes=4, in_channels=1)
    torch.save(model.state_dict(), folder / "net.pth")
    return folder / "net.pth"


def test_a_study_may_start_from_trained_weights_and_train_no_sparse_epoch(trained: Path) -> None:
    config = load_config(
        "smoke",
        [f"model.init={trained}", "sparse.epochs=0", "search.space={prune.ratio: [0.5]}", "search.trials=1"],
    )
    notes: list[str] = []
    networks, store = made(config, notes), Store(trained.parent)
    assert ["fc, starts with new weights" in note for note in notes] == [True]
    sparse, prune, _ = chain(config, "float32", None, networks)
    assert sparse.epochs == 0
    for stage in (sparse, prune):
        assert run(store, stage, config)
    record = store.folder(sparse).read(sparse)
    assert (record.state, record.history) == ("done", [])
    assert {"params", "val_accuracy", "near_zero"} <= record.metrics.keys()
    kept, given = slimnet.load(store.folder(sparse).checkpoint).state_dict(), torch.load(trained)
    assert torch.equal(kept["stages.0.0.conv2.weight"], given["stages.0.0.conv2.weight"])


def test_simple_controls_start_from_the_same_weights(trained: Path) -> None:
    still = ["finetune.lr=1e-9", "finetune.weight_decay=0"]  # so that weights are found again
    given = [
        f"model.init={trained}",
        "sparse.epochs=0",
        "search.space={prune.ratio: [0.5]}",
        "search.trials=1",
    ]
    config = load_config("smoke", [*given, *still])
    networks, store = made(config), Store(trained.parent)
    dense = dense_stage(config, "float32", None, networks)
    assert dense.epochs == config.finetune.epochs  # of a trial
    assert dense.spec.dump()["recipe"]["lr"] == config.finetune.lr
    (uniform,) = control("uniform", config, "float32", None, networks, params=2000)
    assert run(store, uniform, config)
    whole = torch.load(trained)["conv1.weight"]
    kept = slimnet.load(store.folder(uniform).checkpoint).state_dict()["conv1.weight"]
    assert len(kept) < len(whole)
    assert all(any(torch.allclose(row, other, atol=1e-6) for other in whole) for row in kept)
