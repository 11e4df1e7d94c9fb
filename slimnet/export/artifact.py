"""What leaves slimnet: a network with all that is known of it, in the formats that it is written in."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from slimnet.checkpoint import load, save
from slimnet.cost import count_macs, count_params
from slimnet.errors import SlimnetError
from slimnet.export.aside import reason, require
from slimnet.export.deployed import Deployed, Pixels, as_texts, describe, example_of, prepare
from slimnet.export.onnx import NEEDS, export_onnx
from slimnet.export.program import export_program
from slimnet.export.tensors import export_tensors
from slimnet.models.building import architecture_of
from slimnet.preprocessing import Preprocessing, preprocessing_of
from slimnet.pruning.blocks import dropped_layers

METADATA = "metadata.json"  # the name in a .pt2 file


@dataclass(frozen=True)
class Predictor:
    """A file as a function.

    Attributes:
        preprocessing: as the file has it.
        scores: from images (N, C, H, W), uint8, to scores (N, classes).
    """

    preprocessing: Preprocessing
    scores: Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Artifact:
    """A network to be written for use elsewhere.

    Attributes:
        network: on the CPU, in eval mode.
        metrics: what was measured of it.
        config: what it was made from.
        source: where it comes from, for people: file, study, trial.
        pixels: what the exported graph takes; "normalized" where the network has no `preprocessing`.
        shape: (C, H, W) of its images where it has none, which would tell.
    """

    network: nn.Module
    metrics: dict[str, Any] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    source: dict[str, Any] = field(default_factory=dict)
    pixels: Pixels = "float"
    shape: tuple[int, ...] | None = None

    @property
    def preprocessing(self) -> Preprocessing:
        """That of the network.

        Raises:
            SlimnetError: it has none.
        """
        found = preprocessing_of(self.network)
        if found is None:
            raise SlimnetError(
                "the network does not say how its images were normalised; name its data set (--data)"
            )
        return found

    @property
    def image_shape(self) -> tuple[int, ...]:
        """(C, H, W) of the images that it takes."""
        return self.shape or self.preprocessing.image_shape

    @property
    def graph(self) -> nn.Module:
        """The network as it is exported, with its normalisation in front unless `pixels` is "normalized"."""
        if self.pixels == "normalized":
            return self.network
        return Deployed(self.network, self.preprocessing, self.pixels).eval()

    @property
    def example(self) -> Tensor:
        """One empty image, as `graph` takes it."""
        return example_of(self.image_shape, self.pixels)

    def description(self) -> dict[str, Any]:
        """What the files say about the network."""
        example = torch.zeros(1, *self.image_shape)
        size = {"params": count_params(self.network), "macs": count_macs(self.network, example)}
        return self._described(self.pixels, {**size, **self.metrics})

    def description_of_tensors(self) -> dict[str, Any]:
        """The same for files that hold the tensors of the network alone, and what it takes to build it."""
        return {
            **self._described("normalized", self.metrics),
            "architecture": architecture_of(self.network),
            "dropped": dropped_layers(self.network),
            "resized": dict(getattr(self.network, "resized", {})),
            "config": self.config,
        }

    def _described(self, pixels: Pixels, metrics: dict[str, Any]) -> dict[str, Any]:
        return describe(self.image_shape, preprocessing_of(self.network), pixels, metrics, self.source)


@dataclass(frozen=True)
class Format:
    """A kind of file.

    Attributes:
        name: also the suffix of its files, without the dot.
        title: what it is, for people.
        needs: packages that are not part of a plain installation.
        write: writes an artifact.
        open: reads a file of an artifact back, as a function.
    """

    name: str
    title: str
    needs: tuple[str, ...]
    write: Callable[[Artifact, Path], None]
    open: Callable[[Path, Artifact], Predictor]

    @property
    def suffix(self) -> str:
        """Of its files, with the dot."""
        return f".{self.name}"


def _write_pt(artifact: Artifact, path: Path) -> None:
    save(path, artifact.network, metrics=artifact.metrics, config=artifact.config)


def _write_safetensors(artifact: Artifact, path: Path) -> None:
    export_tensors(artifact.network, path, artifact.description_of_tensors())


def _write_onnx(artifact: Artifact, path: Path) -> None:
    export_onnx(artifact.graph, artifact.example, path, metadata=as_texts(artifact.description()))


def _write_program(artifact: Artifact, path: Path) -> None:
    text = json.dumps(artifact.description(), indent=2, ensure_ascii=False)
    export_program(artifact.graph, artifact.example, path, extra_files={METADATA: text})


def open_network(network: nn.Module) -> Predictor:
    """A network that `slimnet.load` returned, as a function.

    Raises:
        SlimnetError: it does not say how images become its input.
    """
    found = preprocessing_of(network)
    if found is None:
        raise SlimnetError(
            "the file does not say how images become the network's input, as older ones do not; "
            "slimnet export FILE NEW.pt adds that"
        )

    def scores(images: Tensor) -> Tensor:
        output: Tensor = network(prepare(images, found, "normalized"))
        return output

    return Predictor(found, scores)


def open_onnx(path: Path) -> Predictor:
    """An ONNX file that slimnet exported, as a function.

    Raises:
        SlimnetError: a package is missing, or the file is no such file.
    """
    require(("onnxruntime",))
    import onnxruntime

    if not path.is_file():
        raise SlimnetError(f"{path}: no such file")
    try:
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        texts = session.get_modelmeta().custom_metadata_map
        pixels: Pixels = json.loads(texts["input"])["pixels"]
        known = texts.get("preprocessing")
        found = Preprocessing.from_record(json.loads(known)) if known else None
    except Exception as error:  # onnxruntime has a class of its own for each of its reasons
        raise SlimnetError(f"{path} is not an ONNX file that slimnet exported: {reason(error)}") from error
    if found is None:
        raise SlimnetError(
            f"{path} does not say how images become the network's input; export it again with --data"
        )

    def scores(images: Tensor) -> Tensor:
        taken = prepare(images, found, pixels).contiguous()
        return torch.from_numpy(session.run(None, {"input": taken.numpy()})[0])

    return Predictor(found, scores)


def _open_program(path: Path) -> Predictor:
    inside = {METADATA: ""}
    module = torch.export.load(path, extra_files=inside).module()
    said = json.loads(inside[METADATA])
    found, pixels = Preprocessing.from_record(said["preprocessing"]), said["input"]["pixels"]

    def scores(images: Tensor) -> Tensor:
        output: Tensor = module(prepare(images, found, pixels))
        return output

    return Predictor(found, scores)


def _reopen(path: Path, artifact: Artifact) -> Predictor:
    architecture = architecture_of(artifact.network)
    own = architecture is None or "factory" in architecture
    return open_network(load(path, model=copy.deepcopy(artifact.network) if own else None))


FORMATS = {
    one.name: one
    for one in (
        Format("pt", "slimnet's own file, to train or prune further", (), _write_pt, _reopen),
        Format("safetensors", "the tensors, described in JSON", (), _write_safetensors, _reopen),
        Format("onnx", "ONNX, for any runtime", NEEDS, _write_onnx, lambda path, _: open_onnx(path)),
        Format("pt2", "a torch.export program", (), _write_program, lambda path, _: _open_program(path)),
    )
}
"""The formats, by name."""
