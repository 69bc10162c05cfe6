"""Random detectors with non-trivial weights to convert, and a converted checkpoint as a Detectron2 model."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import ROOT, tool
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from torch import Tensor, nn

from cervical_d2.checkpoint.checkpointer import CervicalCheckpointer
from cervical_d2.config import load_config

HEIGHT, WIDTH = 96, 128


def picture(height: int = HEIGHT, width: int = WIDTH, seed: int = 0) -> Tensor:
    """(3, H, W) RGB 0..255 with different channels, so that swapped channels are detected."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, 3, height // 8, width // 8, generator=generator)
    smooth = nn.functional.interpolate(coarse, size=(height, width), mode="bilinear")[0]
    return (smooth * torch.tensor([250.0, 150.0, 90.0])[:, None, None]).round()


def lively(model: nn.Module, backbone: nn.Module, run: Callable[[], object], outputs: dict[str, float], seed: int = 0):
    """Random weights in place: BatchNorm with small and uneven statistics, outputs of which none outweighs the others.

    `run` passes a picture through the model; `outputs`: the name of a layer, and how wide its weights are to be.
    """
    torch.manual_seed(seed)
    norms = {name: module for name, module in backbone.named_modules() if isinstance(module, nn.BatchNorm2d)}
    for module in backbone.modules():
        if isinstance(module, nn.Conv2d):
            module.weight.data *= 0.05  # variances near the eps, so that a wrong eps shows
    for name, norm in norms.items():
        norm.momentum = 1.0
        norm.weight.data.uniform_(0.6, 1.4)
        if name.endswith("bn3"):
            norm.weight.data *= 0.3  # else a hundred layers would make of rounding what the tests take for mistakes
        norm.bias.data.normal_(0, 0.2)
    with torch.no_grad():
        model.eval()
        backbone.train()
        run()
        backbone.eval()
        for norm in norms.values():
            norm.running_mean += norm.running_var.sqrt() * torch.randn_like(norm.running_mean) / 4
            norm.running_var *= torch.empty_like(norm.running_var).uniform_(0.7, 1.4)
        for name, factor in outputs.items():
            balance(model.get_submodule(name), factor, run)


def balance(layer: nn.Module, factor: float, run: Callable[[], object]) -> None:
    """Set random weights of a last layer, and biases that make its rows nearly equal on average."""
    means = []
    layer.weight.normal_(0, factor * layer.weight[0].numel() ** -0.5)
    layer.bias.zero_()
    hook = layer.register_forward_hook(lambda _, __, out: means.append(out.transpose(0, 1).flatten(1).mean(dim=1)))
    run()
    hook.remove()
    layer.bias.copy_(torch.randn_like(layer.bias) / 10 - torch.stack(means).mean(dim=0))


def convert_file(folder: Path, checkpoint: dict, capsys: pytest.CaptureFixture, *options: str) -> str:
    """Save, convert with the command into d2.pth, and return the YAML that it prints."""
    torch.save(checkpoint, folder / "source.pth")
    capsys.readouterr()
    assert tool("convert-weights", folder / "source.pth", folder / "d2.pth", "--overwrite", *options) == 0, (
        capsys.readouterr().err
    )
    return capsys.readouterr().out


def model_of(folder: Path, settings: str, base: str, strict: bool = True) -> tuple[CfgNode, nn.Module]:
    """The Detectron2 model of config `base` with the printed settings and d2.pth, which must fill it if `strict`."""
    (folder / "config.yaml").write_text(f"_BASE_: {ROOT}/configs/{base}.yaml\n{settings}")
    cfg = load_config(str(folder / "config.yaml"), ["MODEL.DEVICE", "cpu"])
    model = build_model(cfg)
    CervicalCheckpointer(model, strict=strict).load(str(folder / "d2.pth"))
    return cfg, model.eval()


def detections(cfg: CfgNode, model: nn.Module, rgb: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Boxes, scores, labels that the converted model finds in a picture, read in the order of its INPUT.FORMAT."""
    with torch.no_grad():
        (found,) = model([model_input(cfg, rgb)])
    found = found["instances"]
    return found.pred_boxes.tensor, found.scores, found.pred_classes


def model_input(cfg: CfgNode, rgb: Tensor) -> dict[str, object]:
    image = rgb if cfg.INPUT.FORMAT == "RGB" else rgb.flip(0)
    return {"image": image, "height": rgb.shape[1], "width": rgb.shape[2]}


def assert_same(ours: tuple[Tensor, ...], theirs: tuple[Tensor, ...], least: int = 20) -> None:
    """Each detection has one of the same label with boxes to 1e-5 of the picture's width and scores to 1e-5.

    Of a hundred two may lack it: of two boxes whose overlap rounds to either side of the threshold, one stays.
    """
    assert len(theirs[0]) >= least and len(ours[0]) >= least
    assert len(theirs[2].unique()) > 1
    near = (ours[0][:, None] - theirs[0][None]).abs().amax(dim=2) < 1e-5 * WIDTH
    near &= (ours[1][:, None] - theirs[1][None]).abs() < 1e-5
    near &= ours[2][:, None] == theirs[2][None]
    lacking = max((~near.any(dim=1)).sum().item(), (~near.any(dim=0)).sum().item())
    assert lacking <= 0.02 * len(theirs[0]), f"{lacking} of {len(theirs[0])} detections differ"
