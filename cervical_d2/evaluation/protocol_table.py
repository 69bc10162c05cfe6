"""The protocols side by side, as text, beside what the papers print where the classes are theirs."""

from collections.abc import Mapping, Sequence
from typing import Any

from cervical_d2.datasets.classes import spelling_key
from cervical_d2.evaluation.protocols import PROTOCOLS, PUBLISHED, PUBLISHED_CLASSES, Protocol

MATCHING = {"best free": "the best box not yet taken", "best": "the best box or none"}
HEADER = ("protocol", "matches", "AP over", "box", "score", "NMS", "cap", "mAP", "AR")


def is_published(classes: Sequence[str]) -> bool:
    """Whether `classes` are those that the papers' figures are of."""
    return {spelling_key(name) for name in classes} == set(PUBLISHED_CLASSES)


def protocol_rows(figures: Mapping[str, Any], classes: Sequence[str]) -> list[list[Any]]:
    """Rows for `HEADER`: `figures` has NAME/mAP and NAME/AR of each protocol."""
    rows = [
        [*_settings(protocol), figures[f"{protocol.name}/mAP"], figures[f"{protocol.name}/AR"]]
        for protocol in PROTOCOLS
    ]
    if is_published(classes):
        by_name = {protocol.name: protocol for protocol in PROTOCOLS}
        rows += [[paper, *_settings(by_name[name])[1:], ap, recall] for name, paper, ap, recall in PUBLISHED]
    return rows


def _settings(protocol: Protocol) -> list[str]:
    box = "x2 - x1 + 1" if protocol.plus else "whole px" if protocol.whole else "x2 - x1"
    cap = f"{protocol.cap} / {protocol.each}"
    return [protocol.title, MATCHING[protocol.matching], protocol.interpolation, box, f"{protocol.score:g}",
            f"{protocol.nms:g}", cap]  # fmt: skip
