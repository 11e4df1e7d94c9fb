"""Networks of torchvision and timm, pruned at three ratios: what is kept, how exactly, and how soon.

With `pip install timm`, timm's too; without it, torchvision's alone.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torchvision.models import get_model, list_models, segmentation, video

import slimnet
from slimnet.graph.record import tensors_in

RATIOS = (0.3, 0.6, 0.9)
DETECTION = ("fasterrcnn_resnet50_fpn", "retinanet_resnet50_fpn", "ssdlite320_mobilenet_v3_large")
HEADS = ("head", "rpn.head")  # of detectors: what follows them sorts boxes, in which ties may swap
TORCHVISION = (
    "alexnet", "convnext_tiny", "deeplabv3_mobilenet_v3_large", "densenet121", "efficientnet_b0",
    "efficientnet_v2_s",
    "fcn_resnet50", "googlenet", "inception_v3", "lraspp_mobilenet_v3_large", "maxvit_t", "mc3_18",
    "mnasnet1_0", "mobilenet_v2",
    "mobilenet_v3_small", "r2plus1d_18", "r3d_18", "regnet_x_400mf", "regnet_y_400mf", "resnet18", "resnet50",
    "resnext50_32x4d", "shufflenet_v2_x1_0", "squeezenet1_0", "swin_t", "vgg11", "vgg16_bn",
    "vit_b_32",
    "wide_resnet50_2",
)  # fmt: skip
TIMM = (
    "bat_resnext26ts", "botnet26t_256", "convnext_atto", "convnextv2_atto", "crossvit_tiny_240",
    "cs3darknet_s",
    "cspdarknet53", "cspresnet50", "darknet53", "darknetaa53", "dla34", "dm_nfnet_f0", "dpn68",
    "eca_botnext26ts_256",
    "ecaresnet26t", "edgenext_xx_small", "efficientformer_l1", "efficientnet_es", "efficientnetv2_rw_t",
    "efficientvit_b0", "ese_vovnet19b_dw", "fastvit_t8", "fbnetc_100", "fbnetv3_b", "gcresnet33ts",
    "gernet_s",
    "ghostnet_050", "ghostnetv2_100", "halonet26t", "hardcorenas_a", "hgnet_tiny", "hrnet_w18_small",
    "inception_next_tiny", "inception_resnet_v2", "inception_v4", "lambda_resnet26t", "lcnet_050",
    "legacy_seresnet18",
    "levit_128s", "mixer_s32_224", "mixnet_s", "mnasnet_small", "mobilenetv2_050", "mobilenetv3_small_050",
    "mobilenetv4_conv_small", "mobileone_s0", "mobilevit_xxs", "nf_resnet26", "nfnet_l0", "pit_ti_224",
    "poolformer_s12",
    "regnetx_002", "regnety_004", "regnetz_005", "repghostnet_050", "repvgg_a0", "repvit_m0_9",
    "res2net50_14w_8s",
    "resmlp_12_224", "resnest14d", "resnet26t", "resnetblur18", "resnetv2_50", "resnext26ts", "rexnet_100",
    "rexnetr_200", "selecsls42", "semnasnet_050", "seresnet18", "skresnet18", "spnasnet_100", "starnet_s1",
    "tf_efficientnet_lite0", "tinynet_e", "tresnet_m", "vgg13_bn", "visformer_tiny", "vit_tiny_patch16_224",
    "vovnet39a", "xception41",
)  # fmt: skip

WHOLE_SIZE = ("bat_resnext26ts", "halonet26t", "inception_resnet_v2", "inception_v4")
"""Those of timm that do not run on images of 64x64, though they say that any size will do."""


def main() -> None:
    """Print a row per network."""
    names = [*TORCHVISION, *DETECTION, *(TIMM if find_spec("timm") else ())]
    print("| network | parameters | prunable | removed at .3 / .6 / .9 | with streams | deviation | trace |")
    print("|---|---|---|---|---|---|---|")
    for name in names:
        try:
            cells = _row(name)
        except Exception as error:
            cells = [f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"]
        print("| " + " | ".join([name, *cells]) + " |", flush=True)


def _row(name: str) -> list[str]:
    torch.manual_seed(0)
    model, x = _build(name)
    model = _scatter(model).double().eval()
    x = [image.double() for image in x] if isinstance(x, list) else x.double()
    example = (x,) if isinstance(x, list) else x
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    began = time.process_time()
    graph = slimnet.trace(model, example)
    seconds = time.process_time() - began
    every = _channels(graph.groups)
    free = _channels([group for group in graph.groups if not group.blocked])
    cells, largest = [], 0.0
    for streams in (False, True):
        kept, deviation = _pruned(model, graph, x, streams)
        cells.append(" / ".join(f"{removed / every:.0%}" for removed in kept) if kept else "nothing")
        largest = max(largest, deviation)
    assert all(torch.equal(tensor, before[key]) for key, tensor in model.state_dict().items()), (
        "it was changed"
    )
    params = f"{slimnet.count_params(model):,}"
    return [params, f"{free / every:.0%}", *cells, f"{largest:.1e}", f"{seconds:.2f} s"]


def _pruned(model: nn.Module, graph: slimnet.ChannelGraph, x: Any, streams: bool) -> tuple[list[int], float]:
    """Channels removed at each ratio, and the largest difference of masked and physical outputs.

    Relative to the largest output where that is above 1, with and without absorption.
    """
    groups = [group for group in graph.groups if not group.blocked and (streams or not group.coupled)]
    if not groups:
        return [], 0.0
    score: Any = "gamma" if any(group.scales for group in groups) else "l2"
    removed, largest = [], 0.0
    for ratio in RATIOS:
        plan = slimnet.plan(graph, ratio=ratio, streams=streams, score=score, min_channels=1)
        removed.append(plan.removed_channels)
        for absorb in (False, True):
            networks = slimnet.mask(model, plan, absorb=absorb), slimnet.prune(model, plan, absorb=absorb)
            masked, physical = (_outputs(network, x) for network in networks)
            for ours, theirs in zip(masked, physical, strict=True):
                assert ours.isfinite().all(), "it is not finite"
                size = max(1.0, float(theirs.abs().max()))
                largest = max(largest, float((ours - theirs).abs().max()) / size)
    return removed, largest


def _outputs(network: nn.Module, x: Any) -> list[Tensor]:
    """What a network returns; of a detector, what its heads do."""
    found: list[Tensor] = []
    detects = isinstance(x, list)
    heads = [module for name, module in network.named_modules() if detects and name in HEADS]
    hooks = [
        head.register_forward_hook(lambda _, __, output: found.extend(tensors_in(output))) for head in heads
    ]
    with torch.no_grad():
        result = network(x)
    for hook in hooks:
        hook.remove()
    return found if heads else tensors_in(result)


def _channels(groups: Sequence[slimnet.ChannelGroup]) -> int:
    return sum(group.size * group.unit_channels for group in groups)


def _build(name: str) -> tuple[nn.Module, Any]:
    """A network with new weights, and an example for it."""
    if name in TIMM:
        import timm

        model: nn.Module = timm.create_model(name, pretrained=False, num_classes=10)
        settings: Any = model.default_cfg
        size = settings["input_size"][-1]
        flexible = not settings.get("fixed_input_size") and name not in WHOLE_SIZE and size <= 300
        return model, torch.randn(2, 3, *([64, 64] if flexible else [size, size]))
    if name in DETECTION:
        size = {} if name.startswith("ssd") else {"min_size": 128, "max_size": 128}
        detector = get_model(name, weights=None, weights_backbone=None, num_classes=5, **size)
        return detector, [torch.rand(3, 128, 128)]
    options: dict[str, Any] = {"weights_backbone": None} if name in list_models(segmentation) else {}
    if name in ("googlenet", "inception_v3"):
        options["init_weights"] = False
    model = get_model(name, weights=None, **options)
    if name in list_models(video):
        return model, torch.randn(1, 3, 8, 64, 64)
    size = {"inception_v3": 96, "maxvit_t": 224, "vit_b_32": 224}.get(name, 64)
    return model, torch.randn(2, 3, size, size)


def _scatter(model: nn.Module) -> nn.Module:
    """Networks as training leaves them: no two channels alike, no head or layer scale that is 0."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
        for norm in model.modules():
            if isinstance(norm, _BatchNorm) and norm.affine:
                norm.weight.normal_(0.1, 0.5)
                norm.bias.normal_(0, 0.3)
                if norm.running_mean is not None and norm.running_var is not None:
                    norm.running_mean.normal_(0, 0.1)
                    norm.running_var.uniform_(0.5, 1.5)
    return model
