"""Pictures of any kind are labelled as the network labels the images that it was tested on."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import slimnet
from slimnet.cli import main
from slimnet.data import Splits, eval_batches
from slimnet.preprocessing import Preprocessing, attach

Give = Callable[..., tuple[int, str, str]]
NAMES = ("top left", "top right", "bottom left", "bottom right")


@pytest.fixture
def give(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Give:
    """`slimnet predict` in this process: its exit status, output and errors."""

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["slimnet", "predict", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capsys.readouterr()
        return int(ended.value.code or 0), out, err

    return run


@pytest.fixture
def network(splits: Splits, tmp_path: Path) -> Path:
    """A network that tells a bright quarter by its position."""

    class Quarters(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.nn.functional.adaptive_avg_pool2d(x.mean(1, keepdim=True), 2).flatten(1) * 4

    model = Quarters()
    made = splits.preprocessing
    attach(model, Preprocessing(made.size, 3, made.mean, made.std, NAMES, "stretch"))
    slimnet.save(tmp_path / "net.pt", model)
    (tmp_path / f"{module_of(tmp_path)}.py").write_text(
        "import torch\n"
        "class Quarters(torch.nn.Module):\n"
        "    def forward(self, x):\n"
        "        x = x.mean(1, keepdim=True)\n"
        "        return torch.nn.functional.adaptive_avg_pool2d(x, 2).flatten(1) * 4\n"
    )
    return tmp_path / "net.pt"


@pytest.fixture
def pictures(splits: Splits, tmp_path: Path) -> Path:
    """A folder with a picture of each class, of other sizes and kinds, texts and a hidden file."""
    folder = tmp_path / "pictures"
    (folder / "more").mkdir(parents=True)
    images = splits.test.x.permute(0, 2, 3, 1).numpy()
    first = [int((splits.test.y == label).nonzero()[0]) for label in range(4)]
    kinds = ["a.png", "b.jpg", "c.bmp", "more/d.gif"]
    for name, index in zip(kinds, first, strict=True):
        picture = Image.fromarray(images[index]).resize((32, 24), Image.Resampling.NEAREST)
        (picture.convert("P") if name.endswith("gif") else picture).save(folder / name)
    (folder / "notes.txt").write_text("no picture")
    (folder / "more/notes.pdf").write_text("no picture, though Pillow could write one")
    (folder / ".hidden.png").write_text("no picture")
    return folder


def own(network: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.chdir(network.parent)
    return ["--model", f"{module_of(network.parent)}:Quarters"]


def module_of(folder: Path) -> str:
    """A name that no other test's module has."""
    return f"quarters_in_{folder.name}"


def test_a_folder_is_labelled(
    give: Give, network: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, out, err = give(network, pictures, *own(network, monkeypatch))
    assert (code, err) == (0, "")
    lines = [line.rpartition(": ") for line in out.splitlines()]
    assert [Path(file).name for file, _, _ in lines] == ["a.png", "b.jpg", "c.bmp", "d.gif"]
    assert [label.partition(" (")[0] for _, _, label in lines] == list(NAMES)


def test_json_holds_the_best_classes(
    give: Give, network: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, out, _ = give(
        network, pictures / "a.png", pictures / "b.jpg", "--top", 9, "--json", *own(network, monkeypatch)
    )
    rows = json.loads(out)
    assert (code, [row["label"] for row in rows]) == (0, ["top left", "top right"])
    for row in rows:
        chances = [one["probability"] for one in row["top"]]
        assert {one["class"] for one in row["top"]} == set(NAMES)
        assert chances == sorted(chances, reverse=True)
        assert sum(chances) == pytest.approx(1)
        assert row["probability"] == chances[0]


def test_what_is_no_picture_is_named_and_the_others_are_labelled(
    give: Give, network: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (pictures / "b.jpg").write_bytes((pictures / "b.jpg").read_bytes()[:200])
    asked = [pictures / "notes.txt", pictures, pictures / "none.png"]
    options = own(network, monkeypatch)
    code, out, err = give(network, *asked, *options)
    assert code == 1
    assert out.count("(") == 3
    assert [name for name in ("notes.txt", "b.jpg", "none.png", "hidden") if name in err] == [
        *("notes.txt", "b.jpg", "none.png")
    ]
    code, out, _ = give(network, *asked, "--json", *options)
    assert (code, sum("error" in row for row in json.loads(out))) == (1, 3)
    assert give(network, pictures / "notes.txt", *options)[0] == 2


def test_mistakes(give: Give, network: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (pictures / "empty").mkdir()
    options = own(network, monkeypatch)
    bare = network.with_name("bare.pt")
    slimnet.save(bare, slimnet.models.resnet([1], width=4))
    for arguments, said in (
        ([pictures / "a.png", pictures], "is not a slimnet file"),
        ([network, pictures / "empty", *options], "without pictures"),
        ([network, pictures], "--model"),
        ([bare, pictures], "slimnet export FILE NEW.pt adds that"),
        (["net.pt2", pictures], "predict reads .pt, .safetensors and .onnx"),
        (["none.onnx", pictures], "no such file"),
        ([network], "Missing argument"),
    ):
        code, out, err = give(*arguments)
        assert (code, out) == (2, ""), arguments
        assert said in err
        assert "Traceback" not in err


def test_exported_files_label_as_the_network_does(
    give: Give, splits: Splits, pictures: Path, tmp_path: Path
) -> None:
    pytest.importorskip("onnxruntime")
    from slimnet.export.artifact import FORMATS, Artifact
    from slimnet.export.files import TestSplit, export_file

    torch.manual_seed(0)
    model = slimnet.models.resnet([1], width=8, num_classes=4).eval()
    attach(model, splits.preprocessing)
    with torch.inference_mode():
        x, y = next(eval_batches(splits.test, splits, len(splits.test)))
        accuracy = float((model(x).argmax(1) == y).float().mean())
    artifact = Artifact(model, pixels="uint8")
    test = TestSplit.of(splits.test, artifact, accuracy)
    assert test.reported == TestSplit.of(splits.test, artifact, None).reported
    Image.fromarray(np.ascontiguousarray(splits.test.x[0].permute(1, 2, 0))).save(pictures / "exact.png")
    labels = {}
    for name in ("pt", "safetensors", "onnx"):
        export_file(artifact, tmp_path / f"net.{name}", FORMATS[name], test)
        code, out, _ = give(tmp_path / f"net.{name}", pictures / "exact.png", "--json")
        assert code == 0
        labels[name] = json.loads(out)[0]["probability"]
    assert labels["pt"] == labels["safetensors"] == pytest.approx(labels["onnx"], abs=1e-5)
    with torch.inference_mode():
        assert labels["pt"] == pytest.approx(float(model(x[:1]).softmax(1).max()), abs=1e-6)
