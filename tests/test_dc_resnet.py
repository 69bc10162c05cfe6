"""DC-ResNet-59 by the paper's table, against the same network written once more with torch's functions."""

import math

import pytest
import torch
from dc_resnets import DETNET, PAPER, STAGES, built, lively
from torch import Tensor, nn
from torch.nn import functional as F


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def stage_parameters(blocks, inside, mid, out, groups):
    """Weights k k C_in C_out / groups, and a scale and a shift for each channel, summed over the blocks."""
    inputs = inside + (blocks - 1) * out  # of all the first 1x1
    branches = inputs * mid + blocks * (9 * mid * mid // groups + mid * out + 2 * (mid + mid + out))
    return branches + inside * out + 2 * out


def test_parameters_are_the_papers():
    found = {name: count(stage) for name, stage in built().named_children()}
    stem = 7 * 7 * 3 * 64 + 2 * 64
    assert found == {"stem": stem, **{name: stage_parameters(*row[:5]) for name, *row in PAPER}}
    # What the table above comes to, 17.239 M in all.
    assert found == {
        "stem": 9_536, "res2": 205_824, "res3": 1_197_056, "res4": 7_022_592, "res5": 4_402_176, "res6": 4_402_176,
    }  # fmt: skip
    assert sum(found.values()) == 17_239_360


def test_detnet_59_is_a_setting():
    model = built(*DETNET)
    # res2 to res4 are ResNet-50's 215,808 + 1,219,584 + 7,098,368; 17.348 M in all.
    assert count(model) == 9_536 + 215_808 + 1_219_584 + 7_098_368 + 2 * 4_402_176 == 17_347_648
    assert {module.groups for module in model.modules() if isinstance(module, nn.Conv2d)} == {1}


def test_59_layers_and_five_projections():
    convolutions = [name for name, module in built().named_modules() if isinstance(module, nn.Conv2d)]
    projections = [name for name in convolutions if name.endswith("shortcut")]
    assert projections == [f"{name}.0.shortcut" for name in STAGES]  # blocks B; all others are A
    assert len(convolutions) == 63
    assert len(convolutions) - len(projections) == 1 + 3 * (3 + 4 + 6 + 3 + 3) == 58  # and the classifier's fc


def reference(state: dict[str, Tensor], image: Tensor, training: bool = False) -> dict[str, Tensor]:
    """The network of `PAPER` on weights by name; in training the running statistics of `state` are updated."""

    def layer(x, name, stride=1, pad=0, dilation=1, groups=1):
        x = F.conv2d(x, state[f"{name}.weight"], None, stride, pad, dilation, groups)
        norm = [state[f"{name}.norm.{leaf}"] for leaf in ("running_mean", "running_var", "weight", "bias")]
        return F.batch_norm(x, *norm, training, 0.1, 1e-5)

    x = F.max_pool2d(F.relu(layer(image, "stem.conv1", 2, 3)), 3, 2, 1)
    features = {}
    for name, blocks, _, _, _, groups, first_stride, dilation in PAPER:
        for number in range(blocks):
            block, stride = f"{name}.{number}", first_stride if number == 0 else 1
            y = F.relu(layer(x, f"{block}.conv1"))
            y = F.relu(layer(y, f"{block}.conv2", stride, dilation, dilation, groups))
            y = layer(y, f"{block}.conv3")
            x = F.relu(y + (layer(x, f"{block}.shortcut", stride) if number == 0 else x))
        features[name] = x
    return features


def copied(model: nn.Module) -> dict[str, Tensor]:
    names = {name for name, _ in model.named_parameters()}
    return {key: value.clone().requires_grad_(key in names) for key, value in model.state_dict().items()}


def test_features_are_those_of_the_reference():
    torch.manual_seed(0)
    model = lively(built()).eval()
    image = torch.randn(2, 3, 75, 96)
    with torch.no_grad():
        found, expected = model(image), reference(copied(model), image)
    assert list(found) == list(expected)
    for name, feature in found.items():
        scale = expected[name].abs().max().item()
        torch.testing.assert_close(feature, expected[name], rtol=1e-5, atol=1e-5 * scale)


def test_a_step_of_training_is_that_of_the_reference():
    torch.manual_seed(0)
    model = lively(built()).double().train()
    weights, image = copied(model), torch.randn(2, 3, 48, 48, dtype=torch.float64)

    def loss(features):
        return sum(feature.square().mean() for feature in features.values())

    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    loss(model(image)).backward()
    optimizer.step()
    loss(reference(weights, image, training=True)).backward()
    for name, value in model.state_dict().items():
        if name.endswith("num_batches_tracked"):
            continue
        expected = weights[name].detach()
        if weights[name].requires_grad:
            assert weights[name].grad.abs().max() > 0, name
            expected = expected - 0.01 * weights[name].grad
        torch.testing.assert_close(value, expected, rtol=1e-5, atol=1e-8)


def test_projections_start_as_the_other_convolutions():
    """He et al. 2015, by what goes out: a deviation of sqrt(2 / (k k C_out / groups))."""
    torch.manual_seed(0)
    model = built()
    for name in ("res5", "res6"):  # the second one's is of a block B, which Detectron2 does not know
        for conv, fan_out in ((model.get_submodule(f"{name}.0.shortcut"), 1024), (getattr(model, name)[0].conv2, 2304)):
            assert conv.weight.std().item() == pytest.approx(math.sqrt(2 / fan_out), rel=0.02)
            assert conv.weight.mean().item() == pytest.approx(0, abs=1e-3)


@pytest.mark.parametrize("size", [(64, 96), (97, 130)])
def test_strides_are_those_of_the_features(size):
    model = built().eval()
    shapes = model.output_shape()
    assert {name: (shape.channels, shape.stride) for name, shape in shapes.items()} == {
        "res2": (256, 4), "res3": (512, 8), "res4": (1024, 16), "res5": (1024, 16), "res6": (1024, 16),
    }  # fmt: skip
    with torch.no_grad():
        features = model(torch.zeros(1, 3, *size))
    for name, shape in shapes.items():
        assert features[name].shape == (1, shape.channels, *(math.ceil(side / shape.stride) for side in size))
    assert model.size_divisibility == 16


def test_dilated_blocks_keep_the_size():
    """Eq. 1: y = (x - k - (k - 1)(d - 1) + 2 p) / s + 1."""
    model = built().eval()
    dilated = [block.conv2 for name in ("res5", "res6") for block in getattr(model, name)]
    assert len(dilated) == 6
    for conv in dilated:
        (k, _), (d, _), (p, _), (s, _) = conv.kernel_size, conv.dilation, conv.padding, conv.stride
        assert (k, d, p, s) == (3, 2, 2, 1)
    for x in (1, 7, 50):
        assert (x - k - (k - 1) * (d - 1) + 2 * p) / s + 1 == x
        assert dilated[0](torch.zeros(1, 256, x, x)).shape[-2:] == (x, x)
    others = [block.conv2 for name in ("res2", "res3", "res4") for block in getattr(model, name)]
    assert {conv.dilation for conv in others} == {(1, 1)}
