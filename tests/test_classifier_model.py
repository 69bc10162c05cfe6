"""The classifier: pooling, layers, loss, freezing, and torchvision's backbones, against torch and torchvision."""

import copy

import numpy as np
import pytest
import torch
import torchvision
from classifier_scenes import SmallBackbone
from detectron2.layers import FrozenBatchNorm2d, ShapeSpec
from detectron2.modeling import build_backbone, build_model
from detectron2.utils.events import EventStorage
from sklearn.metrics import log_loss
from torch import nn

from cervical_d2.checkpoint.conversion.convert import convert
from cervical_d2.config import load_config
from cervical_d2.errors import UserError
from cervical_d2.modeling.adapt import stages_of
from cervical_d2.modeling.classifier import CellClassifier, classification_loss, layers_from
from cervical_d2.modeling.norm import EvalBN
from cervical_d2.modeling.torchvision_networks import TorchvisionNetworks

RESNET = ("MODEL.BACKBONE.NAME", "build_cervical_resnet_backbone")
NETWORKS = ("MODEL.BACKBONE.NAME", "build_torchvision_backbone", "MODEL.BACKBONE.NETWORKS")
R18 = (*RESNET, "MODEL.RESNETS.DEPTH", 18, "MODEL.RESNETS.RES2_OUT_CHANNELS", 64)


def config(*options):
    words = ["MODEL.DEVICE", "cpu", *map(str, options)]
    return load_config("classifier/Base-classifier.yaml", words)


def without_numbers(*options):
    """A model of shapes alone, which is built at once."""
    with torch.device("meta"):
        return build_model(config("MODEL.DEVICE", "meta", *options))


def batch(count=3, side=64, classes=2):
    generator = torch.Generator().manual_seed(1)
    return [
        {"image": torch.randint(0, 256, (3, side, side), generator=generator, dtype=torch.uint8), "label": n % classes}
        for n in range(count)
    ]


def classifier(layers: nn.Module, features=("res3",), **others) -> CellClassifier:
    torch.manual_seed(0)
    return CellClassifier(
        backbone=SmallBackbone(), in_features=features, classifier=layers, pixel_mean=[100.0, 110.0, 120.0],
        pixel_std=[50.0, 60.0, 70.0], **others,
    )  # fmt: skip


def test_scores_are_the_softmax_of_layers_on_pooled_features():
    torch.manual_seed(0)
    model = classifier(nn.Linear(16, 3), ("res3", "res2")).eval()
    images = batch(2, side=24)
    found = torch.stack([item["scores"] for item in model(images)])
    pixels = torch.stack([item["image"] for item in images]).double()
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in ([100.0, 110, 120], [50.0, 60, 70]))
    features = model.backbone(((pixels - mean) / std).float())
    pooled = torch.cat([nn.AdaptiveAvgPool2d(1)(features[name]).flatten(1) for name in ("res3", "res2")], dim=1)
    torch.testing.assert_close(found, torch.softmax(model.classifier(pooled), dim=1))
    assert found.sum(dim=1).tolist() == pytest.approx([1, 1])


def test_loss_by_hand_and_beside_scikit_learn():
    # Two images of class 0 with p = 1/2, 1/4 and one of class 1 with p = 3/4, weights 2 and 1:
    # (2 ln 2 + 2 ln 4 + ln 4/3) / 3.
    chance = torch.tensor([[0.5, 0.5], [0.25, 0.75], [0.25, 0.75]])
    label, weights = torch.tensor([0, 0, 1]), torch.tensor([2.0, 1.0])
    loss = classification_loss(chance.log(), label, weights)
    assert loss.item() == pytest.approx((2 * np.log(2) + 2 * np.log(4) + np.log(4 / 3)) / 3)
    plain = log_loss(label, chance)
    assert classification_loss(chance.log(), label).item() == pytest.approx(plain)
    parts = [classification_loss(chance[n : n + 1].log(), label[n : n + 1], weights) for n in range(3)]
    assert (sum(parts) / 3).item() == pytest.approx(loss.item())


def test_training_returns_the_weighted_loss_and_tells_the_accuracy():
    model = classifier(nn.Linear(8, 2), class_weights=(3.0, 1.0))
    images = batch(4, side=24)
    with EventStorage() as storage:
        loss = model(images)["loss_cls"]
        accuracy = storage.latest()["train_accuracy"][0]
    again = copy.deepcopy(model)
    features = again.backbone(torch.stack([(i["image"] - again.pixel_mean) / again.pixel_std for i in images]))["res3"]
    logits, label = again.classifier(features.mean(dim=(2, 3))), torch.tensor([0, 1, 0, 1])
    expected = (torch.tensor([3.0, 1, 3, 1]) * -logits.log_softmax(1)[range(4), label]).sum() / 4
    torch.testing.assert_close(loss, expected)
    assert accuracy == pytest.approx(100 * (logits.argmax(1) == label).float().mean().item())


@pytest.mark.parametrize("on_scores", [False, True])
def test_a_dropout_stands_behind_each_layer(on_scores):
    cfg = config("MODEL.CLASSIFIER.FC_DIMS", (32, 16), "MODEL.CLASSIFIER.DROPOUT", 0.25,
                 "MODEL.CLASSIFIER.DROPOUT_ON_SCORES", on_scores, "MODEL.CLASSIFIER.NUM_CLASSES", 5)  # fmt: skip
    layers = layers_from(cfg, 64)
    kinds = [type(layer).__name__ for layer in layers]
    assert kinds == ["Linear", "ReLU", "Dropout"] * 2 + ["Linear"] + ["Dropout"] * on_scores
    assert {layer.p for layer in layers if isinstance(layer, nn.Dropout)} == {0.25}
    assert [tuple(layer.weight.shape) for layer in layers if isinstance(layer, nn.Linear)] == [
        (32, 64),
        (16, 32),
        (5, 16),
    ]


@pytest.mark.parametrize("depth", [18, 34, 50, 101, 152])
def test_every_resnet_has_the_weights_of_torchvisions(depth):
    wide = ("MODEL.RESNETS.RES2_OUT_CHANNELS", 64 if depth < 50 else 256)
    ours = without_numbers(*RESNET, "MODEL.RESNETS.DEPTH", depth, *wide, "MODEL.CLASSIFIER.NUM_CLASSES", 7)
    with torch.device("meta"):
        theirs = torchvision.models.get_model(f"resnet{depth}", num_classes=7)
    assert sum(p.numel() for p in ours.parameters()) == sum(p.numel() for p in theirs.parameters())
    assert {name.split(".")[1] for name in ours.state_dict()} == {"stem", "res2", "res3", "res4", "res5", "scores"}


def test_dc_resnet_is_the_default_and_pools_its_last_stage():
    model = without_numbers()
    assert model.in_features == ["res6"]
    backbone = sum(p.numel() for p in model.backbone.parameters())
    assert backbone / 1e6 == pytest.approx(17.239, abs=0.006)  # of the paper's table of stages, and the stem
    assert tuple(model.classifier.scores.weight.shape) == (2, 1024)


def test_scores_are_those_of_torchvisions_resnet():
    torch.manual_seed(0)
    theirs = torchvision.models.resnet18(num_classes=2).eval()
    model = build_model(config(*R18, "MODEL.PIXEL_MEAN", [0.0, 0, 0], "MODEL.PIXEL_STD", [255.0] * 3)).eval()
    state = convert({"model": theirs.state_dict()}, "resnet18.pth").state
    state = {name.replace("backbone.bottom_up.", "backbone."): value for name, value in state.items()}
    state |= {f"classifier.scores.{name}": value for name, value in theirs.fc.state_dict().items()}
    missing = model.load_state_dict(state, strict=False).missing_keys
    assert [name for name in missing if not name.endswith("num_batches_tracked")] == []
    images = batch(2)
    with torch.no_grad():
        expected = theirs(torch.stack([item["image"] for item in images]) / 255).softmax(dim=1)
        torch.testing.assert_close(torch.stack([item["scores"] for item in model(images)]), expected)


def test_only_the_named_stages_stay():
    torch.manual_seed(0)
    model = build_model(config(*R18, "MODEL.BACKBONE.FREEZE_STAGES", "('stem', 'res3')")).train()
    before = copy.deepcopy(model.state_dict())
    with EventStorage():
        model(batch(4, side=32))["loss_cls"].backward()
    torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1).step()
    moved = {name.split(".")[1] for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert moved == {"res2", "res4", "res5", "scores"}


def test_a_plain_resnet_knows_eval_norm_and_its_stages():
    backbone = build_backbone(config(*R18, "MODEL.RESNETS.NORM", "EvalBN"), ShapeSpec(channels=3))
    assert sum(isinstance(module, EvalBN) for module in backbone.modules()) == 20
    assert stages_of(backbone) == ["stem", "res2", "res3", "res4", "res5"]
    with pytest.raises(UserError, match="build_cervical_resnet_backbone has no stage 'res6'; it has stem, res2"):
        build_backbone(config(*R18, "MODEL.BACKBONE.FREEZE_STAGES", "('res6',)"), ShapeSpec(channels=3))


def test_networks_of_torchvision_side_by_side():
    torch.manual_seed(0)
    networks = TorchvisionNetworks(networks=["resnet18", "densenet121"]).eval()
    images = torch.rand(2, 3, 64, 64)
    pooled = []
    for name, heads in (("resnet18", "fc"), ("densenet121", "classifier")):
        whole = torchvision.models.get_model(name)
        whole.load_state_dict(getattr(networks, name).state_dict(), strict=False)
        setattr(whole, heads, nn.Identity())  # what it computes scores from
        pooled.append(whole.eval()(images))
    found = networks(images)["pooled"]
    assert found.shape == (2, 512 + 1024, 1, 1)
    torch.testing.assert_close(found.flatten(1), torch.cat(pooled, dim=1))
    assert networks.output_shape()["pooled"].channels == 1536


def test_inception_has_all_but_its_heads():
    model = without_numbers(*NETWORKS, "('inception_v3',)")
    with torch.device("meta"):
        whole = torchvision.models.inception_v3(init_weights=False)
    heads = sum(p.numel() for name, p in whole.named_parameters() if name.startswith(("fc.", "AuxLogits.")))
    backbone = sum(p.numel() for p in model.backbone.parameters())
    assert backbone == sum(p.numel() for p in whole.parameters()) - heads
    assert tuple(model.classifier.scores.weight.shape) == (2, 2048)


@pytest.mark.parametrize(
    ("norm", "kind"), [("FrozenBN", FrozenBatchNorm2d), ("EvalBN", EvalBN), ("BN", nn.BatchNorm2d)]
)
def test_networks_have_the_norm_asked_for_and_freeze_as_wholes(norm, kind):
    options = ("MODEL.RESNETS.NORM", norm, "MODEL.BACKBONE.FREEZE_STAGES", "('resnet50',)")
    networks = without_numbers(*NETWORKS, "('resnet18', 'resnet50')", *options).backbone
    norms = [type(m) for m in networks.resnet18.modules() if isinstance(m, nn.BatchNorm2d | FrozenBatchNorm2d)]
    assert norms == [kind] * 20
    assert not any(p.requires_grad for p in networks.resnet50.parameters())
    assert all(p.requires_grad for p in networks.resnet18.parameters())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((*R18, "MODEL.CLASSIFIER.IN_FEATURES", "('res6',)"), "IN_FEATURES: no feature 'res6'; the backbone has res5"),
        ((*R18, "MODEL.CLASSIFIER.DROPOUT", 1.0), "DROPOUT is 1.0; allowed: 0"),
        ((*R18, "MODEL.CLASSIFIER.FC_DIMS", "(64, 0)"), "0 is not a number of channels"),
        ((*NETWORKS, "('alexnet',)"), "no network 'alexnet'; there are inception_v3, "),
        ((*NETWORKS, "()"), "name one or more"),
        ((*NETWORKS, "('resnet18',)", "MODEL.RESNETS.NORM", "GN"), "'GN': torchvision's networks have BN, FrozenBN"),
    ],
)
def test_settings_that_cannot_be_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        build_model(config(*options))
