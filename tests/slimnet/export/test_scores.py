"""An exported file takes raw images, and scores on the test split what the network is reported to score."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from torch import Tensor

import slimnet
from slimnet.cli import main
from slimnet.data import Images, eval_batches, load_dataset, split
from slimnet.data.pictures import read_picture
from slimnet.export import aside, files
from slimnet.export.artifact import Artifact


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network that `slimnet train` has written."""
    path = tmp_path_factory.mktemp("trained") / "net.pt"
    sizes = ["--image-size", "14", "--blocks", "1", "--width", "8", "--batch-size", "64"]
    give("train", *sizes, "--epochs", "2", "--lambda", "0", "--threads", "1", "--out", str(path))
    return path


def give(*arguments: str) -> int:
    """Run the command line in this process; returns its exit status."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["slimnet", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
    return int(ended.value.code or 0)


def test_onnxruntime_on_raw_images_scores_what_is_reported(trained: Path, tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    assert give("export", str(trained), "--onnx", str(tmp_path / "net.onnx")) == 0
    session = onnxruntime.InferenceSession(str(tmp_path / "net.onnx"), providers=["CPUExecutionProvider"])
    data = load_dataset("fashion-mini", image_size=14)
    images = data.x_test.transpose(0, 3, 1, 2).astype(np.float32) / 255
    (scores,) = session.run(None, {"input": images})
    reported = slimnet.read(trained).metrics["test_accuracy"]
    assert reported > 0.6
    assert abs((scores.argmax(1) == data.y_test).mean() - reported) * len(data.y_test) <= 2


def test_every_format_says_what_it_scores_and_what_it_takes(trained: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    assert give("export", str(trained), str(tmp_path / "out")) == 0
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {
        *("model.pt", "model.safetensors", "model.json", "model.onnx", "model.pt2", "README.md"),
    }
    card = (tmp_path / "out" / "README.md").read_text()
    assert card.count("% of 2,000 test images") == 4
    assert "T-shirt/top" in card
    before = slimnet.read(trained)
    for name in ("model.pt", "model.safetensors"):
        again = slimnet.read(tmp_path / "out" / name)
        assert again.preprocessing == before.preprocessing
        assert again.architecture == before.architecture
        assert again.metrics["test_accuracy"] == before.metrics["test_accuracy"]
        assert all(torch.equal(again.state[key], value) for key, value in before.state.items())


@pytest.mark.parametrize("pixels", ["float", "uint8", "normalized"])
@pytest.mark.parametrize("kind", ["onnx", "pt2"])
def test_raw_images_give_the_very_scores_of_the_network(
    trained: Path, tmp_path: Path, pixels: str, kind: str
) -> None:
    if kind == "onnx":
        pytest.importorskip("onnxruntime")
    path = tmp_path / f"net.{kind}"
    assert give("export", str(trained), str(path), "--input", pixels, "--no-check") == 0
    data = load_dataset("fashion-mini", image_size=14)
    splits = split(data, validation=0.1, seed=0)
    images = splits.test.x[:100].contiguous()
    normalised, _ = next(eval_batches(splits.test, splits, 100))
    taken = {"float": images / 255, "uint8": images, "normalized": normalised.contiguous()}[pixels]
    with torch.inference_mode():
        expected = slimnet.load(trained)(normalised)
    texts, found = run(path, taken)
    assert json.loads(texts["input"])["dtype"] == ("uint8" if pixels == "uint8" else "float32")
    assert json.loads(texts["classes"])[8] == "Bag"
    assert json.loads(texts["preprocessing"]) == slimnet.load(trained).preprocessing.record()
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert torch.equal(found.argmax(1), expected.argmax(1))


def run(path: Path, images: Tensor) -> tuple[dict[str, str], Tensor]:
    """The metadata of a file, each entry as JSON, and its scores."""
    if path.suffix == ".pt2":
        inside = {"metadata.json": ""}
        module = torch.export.load(path, extra_files=inside).module()
        return {k: json.dumps(v) for k, v in json.loads(inside["metadata.json"]).items()}, module(images)
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (scores,) = session.run(None, {"input": images.numpy()})
    return session.get_modelmeta().custom_metadata_map, torch.from_numpy(scores)


@pytest.mark.parametrize(("kind", "pixels"), [("onnx", "float"), ("pt2", "uint8"), ("pt2", "normalized")])
def test_the_code_in_the_card_works_without_slimnet(
    trained: Path, tmp_path: Path, kind: str, pixels: str
) -> None:
    if kind == "onnx":
        pytest.importorskip("onnxruntime")
    out = tmp_path / "out"
    options = ["--format", kind, "--input", pixels, "--no-check"]
    assert give("export", str(trained), str(out), *options) == 0
    data = load_dataset("fashion-mini")
    Image.fromarray(data.x_test[3, ..., 0]).save(out / "picture.png")  # of twice the size
    splits = split(load_dataset("fashion-mini", image_size=14), validation=0.1, seed=0)
    normalised, _ = next(eval_batches(splits.test, splits, 4))
    with torch.inference_mode():
        label = int(slimnet.load(trained)(normalised)[3].argmax())
    codes = re.findall(r"```python\n(.*?)```", (out / "README.md").read_text(), re.DOTALL)
    (code,) = codes
    steps = [line for line in code.splitlines() if line and not line.startswith(("import", "from"))]
    assert len(steps) <= 10
    alone = f"import sys\nsys.modules['slimnet'] = sys.modules['sweeps'] = None\n{code}"
    result = subprocess.run([sys.executable, "-c", alone], cwd=out, text=True, capture_output=True)
    assert result.stdout.strip() == splits.classes[label], result.stderr


def test_the_card_reads_pictures_as_training_does(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert give("export", str(trained), str(tmp_path / "out"), "--format", "pt2", "--no-check") == 0
    card = (tmp_path / "out" / "README.md").read_text()
    reading = re.search(r"^picture = .*?^pixels = .*?\n", card, re.DOTALL | re.MULTILINE)
    assert reading is not None
    pixels = np.random.default_rng(0).integers(0, 256, (28, 42, 4), np.uint8)
    sixteen = pixels[..., :2].copy().view(np.uint16)[..., 0]
    held = Image.Exif()
    held[0x0112] = 6  # with its right side up
    pictures = {
        "turned": (Image.fromarray(pixels[..., :3]), {"exif": held}),
        "transparent": (Image.fromarray(pixels), {}),
        "of 16 bits": (Image.fromarray(sixteen), {}),
        "of 16 bits, the upper first": (
            Image.frombytes("I;16B", (42, 28), sixteen.astype(">u2").tobytes()),
            {"format": "tiff"},  # whatever it is called
        ),
    }
    monkeypatch.chdir(tmp_path)
    for kind, (picture, options) in pictures.items():
        picture.save("picture.png", **options)
        scope: dict[str, Any] = {"np": np, "Image": Image, "ImageOps": ImageOps}
        exec(reading[0], scope)
        expected = read_picture(Path("picture.png"), (14, 14), 1, "pool")
        assert np.abs(scope["pixels"][0, 0] - expected[..., 0]).max() <= 1, kind  # which "pool" rounds twice


def test_a_file_that_scores_otherwise_is_not_kept(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    saved = slimnet.read(trained)
    wrong = {**saved.metrics, "test_accuracy": saved.metrics["test_accuracy"] + 0.01}
    slimnet.save(tmp_path / "wrong.pt", slimnet.load(trained), metrics=wrong, config=saved.config)
    for out in ("out", "out.pt2", "out.safetensors"):
        assert give("export", str(tmp_path / "wrong.pt"), str(tmp_path / out)) == 2
        assert re.search(
            r"would get 1,\d+ of 2,000 test images right, where 1,\d+ are", capsys.readouterr().err
        )
    assert [path.name for path in tmp_path.iterdir()] == ["wrong.pt"]


def test_other_files_of_a_folder_stay(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    export = ("export", str(trained), str(tmp_path), "--format", "pt", "--no-check")
    assert give(*export) == 0
    before = (tmp_path / "model.pt").stat().st_mtime_ns
    assert give(*export) == 2
    assert "model.pt is there already" in capsys.readouterr().err
    assert (tmp_path / "model.pt").stat().st_mtime_ns == before
    assert give(*export, "--force") == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["README.md", "model.pt", "notes.txt"]


@pytest.mark.parametrize(("out", "number"), [("net.pt", signal.SIGTERM), ("out", signal.SIGINT)])
def test_an_export_that_is_ended_leaves_nothing(
    trained: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    out: str,
    number: signal.Signals,
) -> None:
    def ended(*_: object) -> int:
        os.kill(os.getpid(), number)
        raise AssertionError

    monkeypatch.setattr(files, "_correct", ended)
    before = signal.getsignal(number)
    assert give("export", str(trained), str(tmp_path / out), "--format", "pt") == 128 + number
    assert list(tmp_path.iterdir()) == []
    assert signal.getsignal(number) is before
    assert capsys.readouterr().err.startswith("interrupted. Go on with: ")


@pytest.mark.parametrize("out", ["net.pt", "out"])
def test_what_a_killed_export_left_goes_with_the_next_one(trained: Path, tmp_path: Path, out: str) -> None:
    left, new, foreign, link = (
        tmp_path / f".{out}.{end}" for end in ("0123abcd.aside", "456789ef.aside", "settings", "link.aside")
    )
    for folder in (left, new, foreign):
        folder.mkdir()
        (folder / "model.pt").write_bytes(b"half")
    link.symlink_to("nowhere")
    for path in (left, foreign, link):
        os.utime(path, (0, 0), follow_symlinks=False)
    assert give("export", str(trained), str(tmp_path / out), "--format", "pt", "--no-check") == 0
    assert set(tmp_path.iterdir()) == {tmp_path / out, new, foreign, link}


def test_exports_to_one_path_at_once_leave_each_other_alone(tmp_path: Path) -> None:
    path = tmp_path / "net.pt"

    def write(number: int) -> None:
        for _ in range(100):
            with aside.written(path) as file:
                file.write_text(str(number))

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(write, range(4)))
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(("out", "left"), [("net.pt", ["net.pt"]), ("out", ["README.md", "model.pt"])])
def test_two_exports_at_once_do_not_meet(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, out: str, left: list[str]
) -> None:
    """The second writes all of its files while the first checks its own."""
    export = ("export", str(trained), str(tmp_path / out), "--format", "pt", "--force")
    correct = files._correct

    def meanwhile(*arguments: Any) -> int:
        monkeypatch.setattr(files, "_correct", correct)
        assert give(*export) == 0
        return correct(*arguments)

    monkeypatch.setattr(files, "_correct", meanwhile)
    assert give(*export) == 0
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file()) == left


def test_the_folder_one_is_in_may_be_exported_to(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert give("export", str(trained), ".", "--format", "pt", "--no-check") == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["README.md", "model.pt"]


@pytest.mark.parametrize("kind", ["pt", "safetensors", "onnx", "pt2"])
def test_a_full_disk_is_one_message(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    resource = pytest.importorskip("resource")
    if kind == "onnx":
        pytest.importorskip("onnxruntime")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1024, limits[1]))  # bytes, which no file may exceed
    try:
        code = give("export", str(trained), str(tmp_path / f"net.{kind}"), "--no-check")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert code == 2
    assert re.search(r"cannot write .*; make room or choose another folder", capsys.readouterr().err)
    assert not list(tmp_path.iterdir())


def test_without_the_packages_of_onnx_the_others_are_written(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (aside, files):
        monkeypatch.setattr(module, "find_spec", lambda name: None)
    assert give("export", str(trained), str(tmp_path / "out"), "--no-check") == 0
    assert "without onnx: pip install onnx onnxscript onnxruntime" in capsys.readouterr().out
    assert not (tmp_path / "out" / "model.onnx").exists()
    assert give("export", str(trained), str(tmp_path / "net.onnx")) == 2
    assert "needs onnx; get it with: pip install onnx onnxscript onnxruntime" in capsys.readouterr().err
    assert give("export", str(trained), str(tmp_path / "new"), "--format", "onnx") == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]


def test_the_data_must_be_of_the_networks_size(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ("--data", "fashion-mini", "--image-size", "7")
    assert give("export", str(trained), str(tmp_path / "net.pt2"), *options) == 2
    assert "takes images of 1x14x14, and the data are of 1x7x7" in capsys.readouterr().err


def test_images_that_stream_are_those_of_the_split(trained: Path) -> None:
    data = load_dataset("fashion-mini", image_size=14)
    x = torch.from_numpy(np.concatenate([data.x_train, data.x_test])).permute(0, 3, 1, 2)
    rows = torch.arange(len(data.x_train), len(x))
    streaming = Images(x, torch.from_numpy(data.y_test), rows)
    network = slimnet.load(trained)
    reported = slimnet.read(trained).metrics["test_accuracy"]
    test = files.TestSplit.of(streaming, Artifact(network), None)
    assert abs(test.reported - reported * len(rows)) <= 2


def test_a_network_of_an_older_file_takes_the_normalisation_of_its_data(
    trained: Path, tmp_path: Path
) -> None:
    saved, network = slimnet.read(trained), slimnet.load(trained)
    del network.preprocessing
    slimnet.save(tmp_path / "older.pt", network, metrics=saved.metrics, config=saved.config)
    assert give("export", str(tmp_path / "older.pt"), str(tmp_path / "new.pt")) == 0
    assert slimnet.load(tmp_path / "new.pt").preprocessing == saved.preprocessing


def test_what_is_not_known_of_a_network_is_not_made_up(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("onnxruntime")
    network = slimnet.load(trained)
    del network.preprocessing
    slimnet.save(tmp_path / "bare.pt", network)
    options = ("--no-check", "--input", "normalized", "--input-shape", "1x14x14")
    out = tmp_path / "out"
    assert give("export", str(tmp_path / "bare.pt"), str(out), *options) == 0
    described = json.loads((out / "model.json").read_text())
    assert described["input"]["shape"] == ["batch", 1, 14, 14]
    assert not described.keys() & {"classes", "preprocessing"}
    card = (out / "README.md").read_text()
    assert "for greyscale images of 14x14 pixels" in card
    assert not re.search(r"classes|\bmean\b|picture\.png", card, re.IGNORECASE)
    for name in ("model.pt", "model.safetensors"):
        assert slimnet.read(out / name).preprocessing is None
    Image.new("L", (14, 14)).save(tmp_path / "a.png")
    capsys.readouterr()
    for name in ("model.pt", "model.safetensors", "model.onnx"):
        assert give("predict", str(out / name), str(tmp_path / "a.png")) == 2
        assert "does not say how images become" in capsys.readouterr().err
    export = ("export", str(tmp_path / "bare.pt"), str(tmp_path / "net.pt2"), *options[:-1])
    assert give(*export, "3x14x14") == 2
    assert "does not take images of 3x14x14" in capsys.readouterr().err


def test_the_card_of_ones_own_network_names_what_makes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "nets_of_card.py").write_text(
        "from torch import nn\n"
        "def net(num_classes, in_channels):\n"
        "    first = nn.Conv2d(in_channels, 8, 3, 2), nn.BatchNorm2d(8), nn.ReLU()\n"
        "    return nn.Sequential(*first, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, num_classes))\n"
    )
    own = ("--model", "nets_of_card:net")
    assert give("train", *own, "--image-size", "7", "--epochs", "1", "--threads", "1", "--out", "net.pt") == 0
    assert give("export", "net.pt", "out", *own, "--format", "safetensors") == 0
    card = Path("out/README.md").read_text()
    assert "slimnet predict model.safetensors picture.png --model nets_of_card:net" in card
    assert 'slimnet.load("model.safetensors", model=net(…))' in card
    assert give("evaluate", "out/model.safetensors", *own) == 0
    assert give("evaluate", "out/model.safetensors") == 2
