"""What leaves slimnet: a network with all that is known of it, in the formats that it is written in."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from slimnet.checkpoint import load, save
from slimnet.cost import count_macs, count_params
from slimnet.errors import SlimnetError
from slimnet.export.deployed import Deployed, Pixels, as_texts, describe, example_of, prepare
from slimnet.export.onnx import NEEDS, export_onnx
from slimnet.export.program import export_program
from slimnet.export.tensors import export_tensors
from slimnet.preprocessing import Preprocessing, preprocessing_of
from slimnet.pruning.blocks import dropped_layers

METADATA = "metadata.json"  # the name in a .pt2 file

Predict = Callable[[Tensor], Tensor]
"""From images (N, C, H, W), uint8, to scores (N, classes)."""


@dataclass(frozen=True)
class Artifact:
    """A network to be written for use elsewhere.

    Attributes:
        network: on the CPU, in eval mode, with a `preprocessing`.
        metrics: what was measured of it.
        config: what it was made from.
        source: where it comes from, for people: file, study, trial.
        pixels: what the exported graph takes.
    """

    network: nn.Module
    metrics: dict[str, Any] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    source: dict[str, Any] = field(default_factory=dict)
    pixels: Pixels = "float"

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
    def graph(self) -> nn.Module:
        """The network as it is exported, with its normalisation in front unless `pixels` is "normalized"."""
        if self.pixels == "normalized":
            return self.network
        return Deployed(self.network, self.preprocessing, self.pixels).eval()

    @property
    def example(self) -> Tensor:
        """One empty image, as `graph` takes it."""
        return example_of(self.preprocessing, self.pixels)

    def predict(self, images: Tensor) -> Tensor:
        """The network's scores for images (N, C, H, W), uint8."""
        output: Tensor = self.network(prepare(images, self.preprocessing, "normalized"))
        return output

    def description(self) -> dict[str, Any]:
        """What the files say about the network."""
        example = torch.zeros(1, *self.preprocessing.image_shape)
        size = {"params": count_params(self.network), "macs": count_macs(self.network, example)}
        return describe(self.preprocessing, self.pixels, {**size, **self.metrics}, self.source)

    def description_of_tensors(self) -> dict[str, Any]:
        """The same for files that hold the tensors of the network alone, and what it takes to build it."""
        return {
            **describe(self.preprocessing, "normalized", self.metrics, self.source),
            "architecture": getattr(self.network, "architecture", None),
            "dropped": dropped_layers(self.network),
            "config": self.config,
        }


@dataclass(frozen=True)
class Format:
    """A kind of file.

    Attributes:
        name: also the suffix of its files, without the dot.
        title: what it is, for people.
        needs: packages that are not part of a plain installation.
        raw: whether the files take raw pixels, if not asked for normalised ones.
        write: writes an artifact.
        open: reads a file back, as a function.
    """

    name: str
    title: str
    needs: tuple[str, ...]
    raw: bool
    write: Callable[[Artifact, Path], None]
    open: Callable[[Path, Artifact], Predict]

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


def _open_network(path: Path, artifact: Artifact) -> Predict:
    own = getattr(artifact.network, "architecture", None) is None
    return replace(
        artifact, network=load(path, model=copy.deepcopy(artifact.network) if own else None)
    ).predict


def _open_onnx(path: Path, artifact: Artifact) -> Predict:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])

    def predict(images: Tensor) -> Tensor:
        pixels = prepare(images, artifact.preprocessing, artifact.pixels).contiguous()
        return torch.from_numpy(session.run(None, {"input": pixels.numpy()})[0])

    return predict


def _open_program(path: Path, artifact: Artifact) -> Predict:
    module = torch.export.load(path).module()

    def predict(images: Tensor) -> Tensor:
        output: Tensor = module(prepare(images, artifact.preprocessing, artifact.pixels))
        return output

    return predict


FORMATS = {
    one.name: one
    for one in (
        Format("pt", "slimnet's own file, to train or prune on", (), False, _write_pt, _open_network),
        Format("safetensors", "the tensors, described in JSON", (), False, _write_safetensors, _open_network),
        Format("onnx", "ONNX, for any runtime", NEEDS, True, _write_onnx, _open_onnx),
        Format("pt2", "a torch.export program", (), True, _write_program, _open_program),
    )
}
"""The formats, by name."""
