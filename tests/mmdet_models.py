"""mmdetection 2.x's Faster R-CNN and RetinaNet, reimplemented in plain torch, to compare with converted weights.

Written from its documentation and naming alone; nothing here knows how the weights are converted. Modules have its
names. Boxes are XYXY in pixels; A anchors a cell go ratio by ratio; classes come first, the background last.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import batched_nms, roi_align

RATIOS = (0.5, 1.0, 2.0)
CLIP = abs(math.log(16 / 1000))


class Bottleneck(nn.Module):
    def __init__(self, inside: int, mid: int, stride: int, caffe: bool):
        super().__init__()
        strides = (stride, 1) if caffe else (1, stride)
        self.conv1, self.bn1 = nn.Conv2d(inside, mid, 1, strides[0], bias=False), nn.BatchNorm2d(mid)
        self.conv2, self.bn2 = nn.Conv2d(mid, mid, 3, strides[1], 1, bias=False), nn.BatchNorm2d(mid)
        self.conv3, self.bn3 = nn.Conv2d(mid, 4 * mid, 1, bias=False), nn.BatchNorm2d(4 * mid)
        if stride > 1 or inside != 4 * mid:
            self.downsample = nn.Sequential(nn.Conv2d(inside, 4 * mid, 1, stride, bias=False), nn.BatchNorm2d(4 * mid))

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(self.bn1(self.conv1(x)).relu())).relu()
        return (self.bn3(self.conv3(y)) + (self.downsample(x) if hasattr(self, "downsample") else x)).relu()


class ResNet(nn.Module):
    def __init__(self, blocks: tuple[int, ...], caffe: bool):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64)
        inside = 64
        for stage, count in enumerate(blocks):
            mid = 64 * 2**stage
            first = Bottleneck(inside, mid, 1 if stage == 0 else 2, caffe)
            rest = [Bottleneck(4 * mid, mid, 1, caffe) for _ in range(count - 1)]
            self.add_module(f"layer{stage + 1}", nn.Sequential(first, *rest))
            inside = 4 * mid

    def forward(self, x: Tensor) -> list[Tensor]:
        x = F.max_pool2d(self.bn1(self.conv1(x)).relu(), 3, 2, 1)
        out = []
        for stage in range(1, 5):
            x = getattr(self, f"layer{stage}")(x)
            out.append(x)
        return out


class ConvModule(nn.Module):
    def __init__(self, inside: int, out: int, kernel: int, stride: int = 1):
        super().__init__()
        self.conv = nn.Conv2d(inside, out, kernel, stride, kernel // 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


class FPN(nn.Module):
    """Levels from `start` on, then a subsampled one, or with `extra` two more convolutions on the last stage."""

    def __init__(self, width: int, start: int, extra: bool, relu_before_extra_convs: bool):
        super().__init__()
        channels = [256, 512, 1024, 2048][start:]
        self.start, self.extra, self.relu = start, extra, relu_before_extra_convs
        self.lateral_convs = nn.ModuleList(ConvModule(number, width, 1) for number in channels)
        self.fpn_convs = nn.ModuleList(ConvModule(width, width, 3) for _ in channels)
        if extra:
            self.fpn_convs += [ConvModule(2048, width, 3, 2), ConvModule(width, width, 3, 2)]

    def forward(self, stages: list[Tensor]) -> list[Tensor]:
        stages = stages[self.start :]
        laterals = [conv(x) for conv, x in zip(self.lateral_convs, stages, strict=True)]
        for level in range(len(laterals) - 1, 0, -1):
            up = F.interpolate(laterals[level], size=laterals[level - 1].shape[-2:], mode="nearest")
            laterals[level - 1] = laterals[level - 1] + up
        out = [conv(x) for conv, x in zip(self.fpn_convs, laterals, strict=False)]
        if not self.extra:
            return [*out, F.max_pool2d(out[-1], 1, 2)]
        p6 = self.fpn_convs[3](stages[-1])
        return [*out, p6, self.fpn_convs[4](p6.relu() if self.relu else p6)]


def anchors_of(feature: Tensor, stride: int, scales: list[float]) -> Tensor:
    """(H * W * A, 4), ratio by ratio at each cell, as `AnchorGenerator` with scale_major."""
    cells = [
        (stride * scale / math.sqrt(ratio), stride * scale * math.sqrt(ratio)) for ratio in RATIOS for scale in scales
    ]
    cell = torch.tensor([[-w / 2, -h / 2, w / 2, h / 2] for w, h in cells]).to(feature)
    y, x = torch.meshgrid(*(torch.arange(size) * stride for size in feature.shape[-2:]), indexing="ij")
    corners = torch.stack([x, y, x, y], dim=-1).reshape(-1, 1, 4).to(feature)
    return (corners + cell).reshape(-1, 4)


def decoded(anchors: Tensor, deltas: Tensor, stds: tuple[float, ...], size: tuple[int, int] | None) -> Tensor:
    """(R, 4) boxes, clipped to an image of `size` (h, w)."""
    deltas = deltas * torch.tensor(stds).to(deltas)
    centers, sides = (anchors[:, :2] + anchors[:, 2:]) / 2, anchors[:, 2:] - anchors[:, :2]
    centers = centers + deltas[:, :2] * sides
    half = sides * deltas[:, 2:].clamp(-CLIP, CLIP).exp() / 2
    boxes = torch.cat([centers - half, centers + half], dim=1)
    return clipped(boxes, size) if size else boxes


def clipped(boxes: Tensor, size: tuple[int, int]) -> Tensor:
    height, width = size
    return torch.minimum(boxes.clamp(min=0), torch.tensor([width, height, width, height]).to(boxes))


def by_anchor(prediction: Tensor, channels: int) -> Tensor:
    """(1, A * channels, H, W) -> (H * W * A, channels)."""
    return prediction[0].permute(1, 2, 0).reshape(-1, channels)


def best(boxes: Tensor, scores: Tensor, labels: Tensor, threshold: float, most: int) -> tuple[Tensor, ...]:
    """Boxes, scores, labels after suppression by label."""
    keep = batched_nms(boxes, scores, labels, threshold)[:most]
    return boxes[keep], scores[keep], labels[keep]


class RPNHead(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.rpn_conv = nn.Conv2d(width, width, 3, padding=1)
        self.rpn_cls, self.rpn_reg = nn.Conv2d(width, 3, 1), nn.Conv2d(width, 12, 1)

    def forward(self, levels: list[Tensor], size: tuple[int, int]) -> Tensor:
        """(R, 4) proposals, best first."""
        boxes, scores, number = [], [], []
        for level, (feature, stride) in enumerate(zip(levels, (4, 8, 16, 32, 64), strict=True)):
            hidden = self.rpn_conv(feature).relu()
            score = by_anchor(self.rpn_cls(hidden), 1)[:, 0].sigmoid()
            score, order = score.sort(descending=True)
            order, score = order[:1000], score[:1000]
            deltas, anchors = by_anchor(self.rpn_reg(hidden), 4), anchors_of(feature, stride, [8])
            boxes.append(decoded(anchors[order], deltas[order], (1, 1, 1, 1), size))
            scores.append(score)
            number.append(torch.full(score.shape, level))
        every = torch.cat(boxes)
        there = ((every[:, 2:] - every[:, :2]) > 0).all(dim=1)  # min_bbox_size 0
        return best(every[there], torch.cat(scores)[there], torch.cat(number)[there], 0.7, 1000)[0]


class BBoxHead(nn.Module):
    def __init__(self, width: int, hidden: int, classes: int):
        super().__init__()
        self.shared_fcs = nn.ModuleList([nn.Linear(width * 49, hidden), nn.Linear(hidden, hidden)])
        self.fc_cls, self.fc_reg = nn.Linear(hidden, classes + 1), nn.Linear(hidden, 4 * classes)

    def forward(self, levels: list[Tensor], boxes: Tensor) -> tuple[Tensor, Tensor]:
        """Scores (R, K + 1) before the softmax and deltas (R, 4 * K)."""
        scale = (boxes[:, 2:] - boxes[:, :2]).prod(dim=1).sqrt()
        level = (scale / 56 + 1e-6).log2().floor().clamp(0, 3)
        pooled = levels[0].new_zeros(len(boxes), levels[0].shape[1], 7, 7)
        for number, stride in enumerate((4, 8, 16, 32)):
            chosen = level == number
            pooled[chosen] = roi_align(levels[number], [boxes[chosen]], 7, 1 / stride, 0, aligned=True)
        x = pooled.flatten(1)
        for layer in self.shared_fcs:
            x = layer(x).relu()
        return self.fc_cls(x), self.fc_reg(x)


class RoIHead(nn.Module):
    def __init__(self, width: int, hidden: int, classes: int):
        super().__init__()
        self.bbox_head = BBoxHead(width, hidden, classes)


class FasterRCNN(nn.Module):
    def __init__(self, blocks=(3, 4, 6, 3), caffe: bool = False, width: int = 16, hidden: int = 32, classes: int = 3):
        super().__init__()
        self.backbone = ResNet(blocks, caffe)
        self.neck = FPN(width, 0, False, False)
        self.rpn_head = RPNHead(width)
        self.roi_head = RoIHead(width, hidden, classes)
        self.classes = classes

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        """Boxes, scores, labels of one normalized image (1, 3, H, W)."""
        size = (pixels.shape[2], pixels.shape[3])
        levels = self.neck(self.backbone(pixels))
        proposals = self.rpn_head(levels, size)
        logits, deltas = self.roi_head.bbox_head(levels, proposals)
        scores = logits.softmax(dim=1)[:, : self.classes]
        repeated = proposals.repeat_interleave(self.classes, dim=0)
        boxes = decoded(repeated, deltas.reshape(-1, 4), (0.1, 0.1, 0.2, 0.2), size)
        labels = torch.arange(self.classes).repeat(len(proposals))
        keep = scores.reshape(-1) > 0.05
        return best(boxes[keep], scores.reshape(-1)[keep], labels[keep], 0.5, 100)


class RetinaHead(nn.Module):
    def __init__(self, width: int, classes: int):
        super().__init__()
        self.cls_convs = nn.ModuleList(ConvModule(width, width, 3) for _ in range(4))
        self.reg_convs = nn.ModuleList(ConvModule(width, width, 3) for _ in range(4))
        self.retina_cls = nn.Conv2d(width, 9 * classes, 3, padding=1)
        self.retina_reg = nn.Conv2d(width, 36, 3, padding=1)

    def forward(self, feature: Tensor) -> tuple[Tensor, Tensor]:
        scores, deltas = feature, feature
        for one, other in zip(self.cls_convs, self.reg_convs, strict=True):
            scores, deltas = one(scores).relu(), other(deltas).relu()
        return self.retina_cls(scores), self.retina_reg(deltas)


class RetinaNet(nn.Module):
    def __init__(self, blocks=(3, 4, 6, 3), relu_before_extra_convs: bool = False, width: int = 16, classes: int = 3):
        super().__init__()
        self.backbone = ResNet(blocks, False)
        self.neck = FPN(width, 1, True, relu_before_extra_convs)
        self.bbox_head = RetinaHead(width, classes)
        self.classes = classes

    def predictions(self, pixels: Tensor) -> list[tuple[Tensor, Tensor, Tensor]]:
        """For each level anchors (R, 4), logits (R, K), deltas (R, 4)."""
        scales = [4 * 2 ** (octave / 3) for octave in range(3)]
        out = []
        for feature, stride in zip(self.neck(self.backbone(pixels)), (8, 16, 32, 64, 128), strict=True):
            logits, deltas = self.bbox_head(feature)
            anchors = anchors_of(feature, stride, scales)
            out.append((anchors, by_anchor(logits, self.classes), by_anchor(deltas, 4)))
        return out

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        """Boxes, scores, labels; clipped after the suppression, then without the empty, as Detectron2 has it.

        mmdetection clips before.
        """
        boxes, scores, labels = [], [], []
        for anchors, logits, deltas in self.predictions(pixels):
            score = logits.sigmoid().reshape(-1)
            (kept,) = torch.where(score > 0.05)
            score, order = score[kept].sort(descending=True)
            kept, score = kept[order[:1000]], score[:1000]
            rows = kept // self.classes
            boxes.append(decoded(anchors[rows], deltas[rows], (1, 1, 1, 1), None))
            scores.append(score)
            labels.append(kept % self.classes)
        found = best(torch.cat(boxes), torch.cat(scores), torch.cat(labels), 0.5, 100)
        found = clipped(found[0], (pixels.shape[2], pixels.shape[3])), *found[1:]
        there = ((found[0][:, 2:] - found[0][:, :2]) > 0).all(dim=1)
        return found[0][there], found[1][there], found[2][there]
