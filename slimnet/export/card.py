"""The model card: what a network is, how good it is, and how to use it without slimnet."""

from __future__ import annotations

from collections.abc import Sequence

from slimnet.export.artifact import Artifact
from slimnet.export.files import Exported
from slimnet.models.building import architecture_of
from slimnet.preprocessing import Preprocessing, preprocessing_of
from slimnet.wording import file_size, plural

MOST_CLASSES = 30  # named in the card; all are in the files

_RESIZES = {
    "crop": "ImageOps.fit({picture}, ({width}, {height}), Image.Resampling.BILINEAR)",
    "pad": "ImageOps.pad({picture}, ({width}, {height}), Image.Resampling.BILINEAR)",
    "stretch": "{picture}.resize(({width}, {height}), Image.Resampling.BILINEAR)",
    "pool": "{picture}.resize(({width}, {height}), Image.Resampling.BOX)",
}

# As `slimnet.data.pictures` reads them.
_PICTURE = """\
picture = ImageOps.exif_transpose(Image.open("picture.png"))
if picture.mode.startswith("I"):  # 16 bits, of which the upper 8 are taken
    picture = Image.fromarray((np.asarray(picture).clip(0, 65535) >> 8).astype(np.uint8))
if picture.has_transparency_data:  # which shows white
    picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture.convert("RGBA"))
pixels = np.asarray({resized}, np.{dtype}).reshape(1, {height}, {width}, {channels}).transpose(0, 3, 1, 2)
"""

_ONNX = f"""\
import json
import numpy as np
import onnxruntime
from PIL import Image, ImageOps

session = onnxruntime.InferenceSession("{{file}}")
classes = json.loads(session.get_modelmeta().custom_metadata_map["classes"])
{_PICTURE}\
scores = session.run(None, {{{{"input": {{prepared}}}}}})[0]
print(classes[scores[0].argmax()])
"""

_PROGRAM = f"""\
import json
import numpy as np
import torch
from PIL import Image, ImageOps

texts = {{{{"metadata.json": ""}}}}
network = torch.export.load("{{file}}", extra_files=texts).module()
classes = json.loads(texts["metadata.json"])["classes"]
{_PICTURE}\
print(classes[network(torch.from_numpy({{prepared}}))[0].argmax()])
"""

_CODE = {"onnx": _ONNX, "pt2": _PROGRAM}


def card(
    title: str, artifact: Artifact, files: Sequence[Exported], *, data: str, sections: Sequence[str] = ()
) -> str:
    """The text of a model card, in Markdown.

    Args:
        title: names the network.
        artifact: the network.
        files: its files, which are in the folder of the card.
        data: a sentence on what it was trained on.
        sections: further ones, before those on its making.
    """
    preprocessing = preprocessing_of(artifact.network)
    parts = [
        f"# {title}",
        _summary(artifact),
        _files(files),
        *(_without_slimnet(one, artifact) for one in files if preprocessing and one.format.name in _CODE),
        _with_slimnet(artifact, files),
        f"## Data\n\n{data}\n\n{_input(artifact)}",
        _classes(preprocessing) if preprocessing else "",
        *sections,
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in lines)


def _summary(artifact: Artifact) -> str:
    said, metrics = artifact.description(), artifact.metrics
    channels, height, width = artifact.image_shape
    purpose = f"that tells {len(said['classes'])} classes apart in" if "classes" in said else "for"
    kind = {1: "greyscale", 3: "RGB"}.get(channels, f"{channels}-channel")
    text = (
        f"A network of {said['metrics']['params']:,} parameters and {said['metrics']['macs']:,} "
        f"multiply-accumulates {purpose} {kind} images of {width}x{height} pixels."
    )
    if "test_accuracy" in metrics:
        text += f" It gets {metrics['test_accuracy']:.1%} of the test split right"
        text += f" ({plural(metrics['test_images'], 'image')})." if "test_images" in metrics else "."
    return text


def _files(files: Sequence[Exported]) -> str:
    rows = [
        (
            f"[{one.path.name}]({one.path.name})",
            one.format.title,
            file_size(one.bytes),
            str(one.score) if one.score else "not checked",
        )
        for one in files
    ]
    checked = (
        "Each file was read back and run on the whole test split." if any(f.score for f in files) else ""
    )
    return f"## Files\n\n{table(('file', 'is', 'size', 'scores'), rows)}\n\n{checked}".rstrip()


def _without_slimnet(one: Exported, artifact: Artifact) -> str:
    p = artifact.preprocessing
    channels, height, width = p.image_shape
    mode = "L" if channels == 1 else "RGB"
    resized = _RESIZES.get(p.resize, _RESIZES["stretch"])
    code = _CODE[one.format.name].format(
        file=one.path.name,
        resized=resized.format(picture=f'picture.convert("{mode}")', width=width, height=height),
        height=height,
        width=width,
        channels=channels,
        dtype="uint8" if artifact.pixels == "uint8" else "float32",
        prepared=_prepared(artifact),
    )
    return f"## Use {one.path.name} without slimnet\n\n```python\n{code}```"


def _prepared(artifact: Artifact) -> str:
    """The expression that turns `pixels`, 0..255, into the input."""
    if artifact.pixels == "uint8":
        return "pixels"
    if artifact.pixels == "float":
        return "pixels / 255"
    p = artifact.preprocessing
    mean, std = (f"np.float32({[[[value]] for value in values]})" for values in (p.mean, p.std))
    return f"(pixels / 255 - {mean}) / {std}"


def _with_slimnet(artifact: Artifact, files: Sequence[Exported]) -> str:
    own = [one.path.name for one in files if one.format.name in ("pt", "safetensors")]
    if not own:
        return ""
    factory = (architecture_of(artifact.network) or {}).get("factory")
    option, model = (
        (f" --model {factory}", f", model={factory.rpartition(':')[2]}(…)") if factory else ("", "")
    )
    predict = f"```sh\nslimnet predict {own[0]} picture.png{option}\n```\n\n"
    return (
        f"## With slimnet\n\n{predict if preprocessing_of(artifact.network) else ''}"
        f'`slimnet.load("{own[0]}"{model})` '
        "gives the PyTorch network, which takes normalised images, to be trained or pruned further. "
        "Install slimnet from its repository; the project of that name on PyPI is another one."
    )


def _input(artifact: Artifact) -> str:
    p, said = preprocessing_of(artifact.network), artifact.description()
    text = (
        f"ONNX and torch.export files take {said['input']['dtype']} images in the layout N, C, H, W: "
        f"{said['input']['values']}."
    )
    if p is not None:
        mean, std = (", ".join(f"{value:.4f}" for value in values) for values in (p.mean, p.std))
        text += f" The network itself takes (pixels in [0, 1] - mean) / std, with mean {mean} and std {std}."
    return f"{text} The output is {said['output']['values']}."


def _classes(preprocessing: Preprocessing) -> str:
    names = preprocessing.classes
    more = f" and {len(names) - MOST_CLASSES} more" if len(names) > MOST_CLASSES else ""
    listed = ", ".join(f"{number} {name}" for number, name in enumerate(names[:MOST_CLASSES]))
    return f"Classes: {listed}{more}."
