"""Pyramids: Detectron2's where strides double; by hand, without resampling, where they are equal."""

import itertools

import pytest
import torch
import torch.nn.functional as F
from detectron2.layers import ShapeSpec
from detectron2.modeling import FPN, Backbone
from detectron2.modeling.backbone.fpn import LastLevelMaxPool, LastLevelP6P7
from detectron2.modeling.backbone.resnet import build_resnet_backbone

from cervical_d2.config import load_config
from cervical_d2.errors import UserError
from cervical_d2.modeling.fpn import EqualStrideFPN

STAGES = ("res2", "res3", "res4", "res5", "res6")
STRIDES = dict(zip(STAGES, (4, 8, 16, 16, 16), strict=True))
# Table 6 of 3cDe-Net: F[1..5] are C2..C6
FUSED = {
    (1, 2, 3, 4): {"p2": 4, "p3": 8, "p4": 16, "p5": 16},
    (1, 2, 3, 5): {"p2": 4, "p3": 8, "p4": 16, "p6": 16},
    (1, 2, 4, 5): {"p2": 4, "p3": 8, "p5": 16, "p6": 16},
    (1, 2, 3, 4, 5): {"p2": 4, "p3": 8, "p4": 16, "p5": 16, "p6": 16},
}


class Given(Backbone):
    """A network that answers with the features that it is given, of 3 channels at `strides`."""

    def __init__(self, strides):
        super().__init__()
        self._out_features = list(strides)
        self._out_feature_strides = dict(strides)
        self._out_feature_channels = dict.fromkeys(strides, 3)

    def forward(self, features):
        return dict(features)


def pyramid(strides=STRIDES, **others):
    return EqualStrideFPN(bottom_up=Given(strides), in_features=list(strides), out_channels=2, **others)


def whole_numbers(shape):
    """As floats, so that sums and products of a few are exact in any order."""
    return torch.randint(-8, 9, shape).double()


def exact(model):
    """`model` of weights that are whole numbers."""
    for parameter in model.double().parameters():
        parameter.data = whole_numbers(parameter.shape)
    return model


def given(strides=STRIDES, height=32, width=48, channels=3):
    torch.manual_seed(1)
    return {name: whole_numbers((2, channels, height // stride, width // stride)) for name, stride in strides.items()}


def fused_maps(model, features):
    """What goes into the output convolutions, by level."""
    found, hooks = {}, []
    for level in model.levels:
        conv = getattr(model, f"fpn_output{level.number}")
        key = f"p{level.number}"
        hooks.append(conv.register_forward_pre_hook(lambda _, args, key=key: found.update({key: args[0].detach()})))
    model(features)
    for hook in hooks:
        hook.remove()
    return found


def larger(x, times):
    """Each pixel `times` x `times`."""
    return x.repeat_interleave(times, dim=2).repeat_interleave(times, dim=3)


def resnet():
    options = ["MODEL.RESNETS.DEPTH", "18", "MODEL.RESNETS.RES2_OUT_CHANNELS", "64", "MODEL.RESNETS.NORM", "BN"]
    return build_resnet_backbone(load_config("faster_rcnn_R_50_FPN.yaml", options), ShapeSpec(channels=3))


def like_upstream(arguments, image):
    """Detectron2's pyramid and ours of the same seed, compared to the last bit in all that they share."""
    models = []
    for kind in (FPN, EqualStrideFPN):
        torch.manual_seed(5)
        models.append(kind(**arguments))
    theirs, ours = models
    assert ours.output_shape() == theirs.output_shape()
    assert ours.size_divisibility == theirs.size_divisibility
    square = [getattr(model, "padding_constraints", {}).get("square_size", 0) for model in models]
    assert square[0] == square[1]  # Detectron2's main branch has them
    for key, value in theirs.state_dict().items():
        assert torch.equal(value, ours.state_dict()[key]), key  # initialized alike
    torch.manual_seed(6)
    for parameter in theirs.parameters():
        parameter.data = torch.randn_like(parameter) / 10
    ours.load_state_dict(theirs.state_dict(), strict=True)
    expected, found = theirs(image), ours(image)
    assert list(found) == list(expected)
    for name in expected:
        assert torch.equal(found[name], expected[name]), name
    return ours


@pytest.mark.parametrize("fuse_type", ["sum", "avg"])
@pytest.mark.parametrize("norm", ["", "GN"])
@pytest.mark.parametrize("top", [None, "max pool", "p6, p7"])
def test_on_a_resnet_it_is_detectron2s(fuse_type, norm, top):
    torch.manual_seed(0)
    bottom_up = resnet()
    blocks = {None: None, "max pool": LastLevelMaxPool(), "p6, p7": LastLevelP6P7(512, 32)}
    arguments = {
        "bottom_up": bottom_up, "in_features": ["res2", "res3", "res4", "res5"], "out_channels": 32,
        "norm": norm, "top_block": blocks[top], "fuse_type": fuse_type,
    }  # fmt: skip
    ours = like_upstream(arguments, torch.rand(2, 3, 64, 96))
    levels = {None: "p2 p3 p4 p5", "max pool": "p2 p3 p4 p5 p6", "p6, p7": "p2 p3 p4 p5 p6 p7"}
    assert list(ours.output_shape()) == levels[top].split()


@pytest.mark.parametrize("names", [("s1", "s2", "s3", "s4"), ("p2", "p3", "p4", "p5")])
def test_on_any_network_of_doubling_strides_it_is_detectron2s(names):
    """RegNet's features are s1 to s4, and levels are named by their strides all the same; where a feature bears the
    name of a level, the top block takes the feature."""
    strides = dict(zip(names, (4, 8, 16, 32), strict=True))
    features = {name: feature.float() for name, feature in given(strides, 64, 96).items()}
    arguments = {"bottom_up": Given(strides), "in_features": list(names[1:]), "out_channels": 2}
    ours = like_upstream({**arguments, "top_block": LastLevelMaxPool()}, features)
    assert list(ours.output_shape()) == ["p3", "p4", "p5", "p6"]


@pytest.mark.parametrize("fuse_type", ["sum", "avg"])
@pytest.mark.parametrize("fused", FUSED)
def test_levels_by_hand(fused, fuse_type):
    """Weights are read from the state dict; sums and upsampling are written out."""
    torch.manual_seed(0)
    names = [STAGES[number - 1] for number in fused]
    model = exact(EqualStrideFPN(bottom_up=Given(STRIDES), in_features=names, out_channels=2, fuse_type=fuse_type))
    features, weight = given(), model.state_dict()
    found, above = model(features), None
    assert {name: shape.stride for name, shape in model.output_shape().items()} == FUSED[fused]
    for name in reversed(names):
        number = name[-1]
        fusion = torch.einsum("nihw,oi->nohw", features[name], weight[f"fpn_lateral{number}.weight"][:, :, 0, 0])
        fusion = fusion + weight[f"fpn_lateral{number}.bias"][:, None, None]
        if above is not None:
            fusion = fusion + (larger(above, 2) if name in ("res2", "res3") else above)
            fusion = fusion / 2 if fuse_type == "avg" else fusion
        above = fusion
        output = F.conv2d(fusion, weight[f"fpn_output{number}.weight"], weight[f"fpn_output{number}.bias"], padding=1)
        assert torch.equal(found[f"p{number}"], output), name


def test_c6_reaches_the_levels_of_its_stride_as_it_is(monkeypatch):
    """P6, P5 and P4 change by the lateral of the change, P3 and P2 by that upsampled; two maps are resampled."""
    torch.manual_seed(0)
    model, resampled = exact(pyramid()), []
    interpolate = F.interpolate
    monkeypatch.setattr(F, "interpolate", lambda x, **how: resampled.append(x.shape[-2:]) or interpolate(x, **how))
    features = given()
    before = fused_maps(model, features)
    assert resampled == [(2, 3), (4, 6)]  # P4 to the size of C3, P3 to that of C2
    change = whole_numbers((2, 3, 2, 3))
    after = fused_maps(model, {**features, "res6": features["res6"] + change})
    lateral = F.conv2d(change, model.fpn_lateral6.weight)  # a change has no bias
    assert lateral.abs().min() > 0
    expected = {"p6": lateral, "p5": lateral, "p4": lateral, "p3": larger(lateral, 2), "p2": larger(lateral, 4)}
    assert before.keys() == expected.keys()
    for name in expected:
        assert torch.equal(after[name] - before[name], expected[name]), name


def test_equal_strides_alone_resample_nothing(monkeypatch):
    monkeypatch.setattr(F, "interpolate", lambda *_, **__: pytest.fail("resampled"))
    torch.manual_seed(0)
    model = exact(pyramid(dict.fromkeys(("res4", "res5", "res6"), 16)))
    features = given()
    found = fused_maps(model, features)
    laterals = [getattr(model, f"fpn_lateral{number}")(features[f"res{number}"]) for number in (6, 5, 4)]
    for name, expected in zip(("p6", "p5", "p4"), itertools.accumulate(laterals), strict=True):
        assert torch.equal(found[name], expected), name


def test_sizes_that_are_no_doubles():
    """52 x 76 px unpadded: maps of 13 x 19, 7 x 10 and 4 x 5, which each pixel takes from the nearest above it."""
    torch.manual_seed(0)
    sizes = dict(zip(STAGES, [(13, 19), (7, 10), (4, 5), (4, 5), (4, 5)], strict=True))
    features = {name: whole_numbers((1, 3, *size)) for name, size in sizes.items()}
    model = exact(pyramid())
    found = fused_maps(model, features)
    for coarse, fine in (("4", "3"), ("3", "2")):
        lateral = getattr(model, f"fpn_lateral{fine}")(features[f"res{fine}"])
        (h, w), (height, width) = sizes[f"res{coarse}"], sizes[f"res{fine}"]
        rows = [row * h // height for row in range(height)]
        columns = [column * w // width for column in range(width)]
        assert torch.equal(found[f"p{fine}"], lateral + found[f"p{coarse}"][:, :, rows][..., columns])
    assert {name: tuple(level.shape[-2:]) for name, level in model(features).items()} == {
        f"p{name[-1]}": size for name, size in sizes.items()
    }


def test_a_top_block_halves_what_it_is_made_of():
    model = exact(pyramid(top_block=LastLevelMaxPool()))  # of p5
    assert {name: shape.stride for name, shape in model.output_shape().items()} == {
        **FUSED[1, 2, 3, 4, 5], "p7": 32
    }  # fmt: skip
    found = model(given())
    assert torch.equal(found["p7"], found["p5"][:, :, ::2, ::2])
    assert model.size_divisibility == 16


@pytest.mark.parametrize(
    ("features", "message"),
    [
        (["res2", "res7"], "MODEL.FPN.IN_FEATURES res2, res7: name some of res2, res3, res4, res5, res6, "),
        (["res3", "res2"], "MODEL.FPN.IN_FEATURES res3, res2: name some of"),
        (["res6", "res5"], "res6, res5: .* from fine to coarse"),
        (["res4", "res4"], "res4, res4: name some of"),
        ([], "MODEL.FPN.IN_FEATURES is empty: name some of"),
    ],
)
def test_features_that_make_no_pyramid_are_refused(features, message):
    with pytest.raises(UserError, match=message):
        EqualStrideFPN(bottom_up=Given(STRIDES), in_features=features, out_channels=2)


@pytest.mark.parametrize("strides", [{"last": 16}, {"res2": 8, "res3": 4}])
def test_a_network_whose_features_make_no_pyramid_is_refused(strides):
    names = ", ".join(strides)
    with pytest.raises(UserError, match=rf"MODEL.FPN.IN_FEATURES {names}: name some of {names}, each with a number at"):
        pyramid(strides)


def test_an_unknown_fusion_is_refused():
    with pytest.raises(UserError, match=r"MODEL.FPN.FUSE_TYPE 'max' is unknown; there are sum, avg"):
        pyramid(fuse_type="max")
