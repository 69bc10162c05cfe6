"""Every figure of an evaluation, for the images as they are and for any resample of them.

S weightings of U units; I images; K classes. Figures are in percent, but for costs and counts; NaN where there is
nothing to be measured. docs/metrics.md says what each is, and when to use it.
"""

import functools
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from cervical_d2.evaluation.calibration import Bins, bins_of, calibration_error
from cervical_d2.evaluation.centers import SCORE, match_centers
from cervical_d2.evaluation.coco import IOU_THRESHOLDS
from cervical_d2.evaluation.confusion import Calls, calls, mean_cost
from cervical_d2.evaluation.curves import Ranking, rankings
from cervical_d2.evaluation.error_types import Errors, error_types
from cervical_d2.evaluation.froc import RATES, lesions, sensitivities
from cervical_d2.evaluation.ground_truth import DatasetTruth
from cervical_d2.evaluation.matching import Bools, Detections, Floats, Ints, Matches, Truth, match_coco, select
from cervical_d2.evaluation.protocols import ANY_AREA, IOU_50, PROTOCOLS, averages, protocol_rankings
from cervical_d2.evaluation.severity import Severity
from cervical_d2.evaluation.strata import recall_of, strata
from cervical_d2.evaluation.units import Units, area_under_roc, rates_at, units_of

CLASS_GROUPS = ("AP", "AP50", "recall50", "froc")
"""Of `Figures`: one name for each class."""

Figures = dict[str, Floats]
"""group/name -> (S,); the group of a class's figures ends with its name."""


class EvaluationInput(NamedTuple):
    """What is evaluated. `unit`: the slide or patient of each image where `grouped`, otherwise its own number."""

    classes: Sequence[str]
    truth: Truth
    detections: Detections
    unit: Ints  # (I,) from 0 without a gap
    grouped: bool
    severity: Severity
    centers: Floats  # (G, 2) px
    radius: float | None  # px by which centers are matched, None where boxes are the labels

    @property
    def units(self) -> int:
        """U."""
        return int(self.unit.max(initial=-1)) + 1


def make_input(
    data: DatasetTruth, detections: Detections, classes: Sequence[str], severity: Severity, radius: float | None
) -> EvaluationInput:
    """All of `data`."""
    return EvaluationInput(classes, data.boxes, detections, data.unit, data.grouped, severity, data.centers, radius)


def of_images(inputs: EvaluationInput, chosen: Sequence[int]) -> EvaluationInput:
    """What the images `chosen` (numbers) hold of it."""
    numbers = np.unique(np.array(chosen, np.int64))
    place = np.full(len(inputs.unit), -1)
    place[numbers] = np.arange(len(numbers))
    rows, found = place[inputs.truth.image] >= 0, place[inputs.detections.image] >= 0
    truth, detections = select(inputs.truth, rows), select(inputs.detections, found)
    return inputs._replace(
        truth=truth._replace(image=place[truth.image]),
        detections=detections._replace(image=place[detections.image]),
        unit=np.unique(inputs.unit[numbers], return_inverse=True)[1].reshape(-1),
        centers=inputs.centers[rows],
    )


class Analysis:
    """The verdicts on a inputs, which no resampling changes; `figures` weights them."""

    def __init__(self, inputs: EvaluationInput, score: float = SCORE):
        """`score`: the threshold of what depends on one."""
        self.inputs, self.score = inputs, score
        self.size = {"num_classes": len(inputs.classes), "num_images": len(inputs.unit)}

    @functools.cached_property
    def ranked(self) -> Mapping[str, list[Ranking]]:
        """By protocol, class by class: COCO's at its ten IoUs, the others at 0.5."""
        truth, detections = self.inputs.truth, self.inputs.detections
        return {
            protocol.name: protocol_rankings(
                protocol, truth, detections, ious=IOU_THRESHOLDS if protocol.name == "coco" else IOU_50, **self.size
            )
            for protocol in PROTOCOLS
        }

    @functools.cached_property
    def present(self) -> Bools:
        """(K,) classes with cells to find."""
        return np.array([ranking.wanted.any() for ranking in self.ranked["coco"]], bool)

    @functools.cached_property
    def matches(self) -> Matches:
        """All detections, COCO's rule at an IoU of 0.5."""
        detections = self.inputs.detections
        return match_coco(self.inputs.truth, detections, IOU_50, ANY_AREA, len(detections.score))

    @functools.cached_property
    def lesions(self) -> Ranking:
        """Lesions of any grade as one class; by the distance of centers where these are the labels."""
        inputs = self.inputs
        truth, detections = lesions(inputs.truth, inputs.detections, inputs.severity.abnormal)
        if inputs.radius:
            centers = inputs.centers[inputs.severity.abnormal[inputs.truth.label]]
            matches = match_centers(truth, centers, detections, inputs.radius, len(detections.score))
        else:
            matches = match_coco(truth, detections, IOU_50, ANY_AREA, len(detections.score))
        return rankings(matches, truth, num_classes=1, num_images=len(inputs.unit))[0]

    @functools.cached_property
    def units(self) -> Mapping[str, Units]:
        """Images, and slides where they are known."""
        inputs = self.inputs
        numbers = {"image": np.arange(len(inputs.unit)), **({"slide": inputs.unit} if inputs.grouped else {})}
        return {
            name: units_of(inputs.truth, inputs.detections, inputs.severity.abnormal, unit)
            for name, unit in numbers.items()
        }

    @functools.cached_property
    def calls(self) -> Calls:
        """What each cell was called at the threshold."""
        return calls(self.inputs.truth, self.inputs.detections, len(self.inputs.classes), self.score)

    @functools.cached_property
    def bins(self) -> Bins:
        """Of scores."""
        return bins_of(self.matches, len(self.inputs.unit))

    @functools.cached_property
    def errors(self) -> Errors:
        """Of each detection and true box."""
        return error_types(self.inputs.truth, self.inputs.detections, self.matches)

    def figures(self, weights: Floats | None = None) -> Figures:
        """All of them under each of `weights` (S, U), how often each unit counts; None: each once."""
        inputs = self.inputs
        weights = np.ones((1, inputs.units)) if weights is None else weights
        of_images = weights[:, inputs.unit]
        return {
            **self._averages(of_images),
            **self._free_response(weights, of_images),
            **self._units(weights, of_images),
            **self._at_threshold(of_images),
        }

    def _averages(self, of_images: Floats) -> Figures:
        figures: Figures = {}
        for protocol in PROTOCOLS:
            found = averages(protocol, self.ranked[protocol.name], of_images)
            if protocol.name == "coco":
                figures["coco/AP"] = self._mean(found.ap.mean(axis=1))
                figures["coco/AP75"] = self._mean(found.ap[:, 5])
                for name, ap, recall in zip(self.inputs.classes, found.ap.T, found.recall.T, strict=True):
                    figures |= {f"AP/{name}": 100 * ap.mean(axis=0), f"AP50/{name}": 100 * ap[0]}
                    figures[f"recall50/{name}"] = 100 * recall[0]
            figures[f"{protocol.name}/mAP"] = self._mean(found.ap[:, 0])
            figures[f"{protocol.name}/AR"] = self._mean(found.recall[:, 0])
        return figures

    def _mean(self, by_class: Floats) -> Floats:
        """(S,) in percent: the mean of (S, K) over the classes that the inputs has cells of.

        NaN where a resample has none of one of them: a mean over fewer classes would be another figure.
        """
        return 100 * by_class[:, self.present].mean(axis=1) if self.present.any() else np.full(len(by_class), np.nan)

    def _free_response(self, weights: Floats, of_images: Floats) -> Figures:
        figures: Figures = {}
        counted = {"image": of_images.sum(axis=1), **({"slide": weights.sum(axis=1)} if self.inputs.grouped else {})}
        for name, units in counted.items():
            rows = 100 * sensitivities(self.lesions, of_images, units)
            figures |= {f"froc_{name}/{rate:g}": rows[:, number] for number, rate in enumerate(RATES)}
            figures[f"froc_{name}/mean"] = rows.mean(axis=1)
        images = counted["image"]
        for label, name in enumerate(self.inputs.classes):
            rows = sensitivities(self.ranked["coco"][label], of_images, images)
            figures[f"froc/{name}"] = 100 * rows.mean(axis=1)
        return figures

    def _units(self, weights: Floats, of_images: Floats) -> Figures:
        figures: Figures = {}
        for name, units in self.units.items():
            weight = weights if name == "slide" else of_images
            rates = rates_at(units, weight, self.score)
            figures[f"{name}/AUC"] = 100 * area_under_roc(units, weight)
            figures[f"{name}/sensitivity"] = 100 * rates.sensitivity
            figures[f"{name}/specificity"] = 100 * rates.specificity
        return figures

    def _at_threshold(self, of_images: Floats) -> Figures:
        inputs = self.inputs
        figures = {"calibration/ECE": 100 * calibration_error(self.bins, of_images)}
        if inputs.severity.known.any():
            figures["severity/cost"] = mean_cost(self.calls, inputs.severity.costs, of_images)
        sure = self.errors.found >= self.score
        for stratum in strata(inputs.truth):
            figures[f"recall_by_{stratum.by}/{stratum.name}"] = 100 * recall_of(stratum, inputs.truth, sure, of_images)
        return figures
