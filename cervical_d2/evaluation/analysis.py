"""What an evaluation rests on: verdicts on every detection and every cell, and the images weighted in S ways.

U units (slides or patients where they are known, otherwise the images); I images; K classes; R rates of false
positives. `figures` has the table of what is computed from these.
"""

import functools
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from cervical_d2.evaluation.calibration import Bins, bins_of
from cervical_d2.evaluation.centers import SCORE, match_centers
from cervical_d2.evaluation.coco import IOU_THRESHOLDS
from cervical_d2.evaluation.confusion import Calls, calls
from cervical_d2.evaluation.curves import Ranking, rankings
from cervical_d2.evaluation.error_types import Errors, error_types
from cervical_d2.evaluation.froc import lesions, sensitivities, without_repeats
from cervical_d2.evaluation.ground_truth import DatasetTruth
from cervical_d2.evaluation.matching import Bools, Detections, Floats, Ints, Matches, Truth, match_coco, select
from cervical_d2.evaluation.protocols import ANY_AREA, IOU_50, PROTOCOLS, Averages, averages, protocol_rankings
from cervical_d2.evaluation.severity import Severity
from cervical_d2.evaluation.strata import Stratum, strata
from cervical_d2.evaluation.units import Rates, Units, rates_at, units_of


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
        """How many units there are."""
        return int(self.unit.max(initial=-1)) + 1


def make_input(
    data: DatasetTruth, detections: Detections, classes: Sequence[str], severity: Severity, radius: float | None
) -> EvaluationInput:
    """`detections` on all images of `data`."""
    return EvaluationInput(classes, data.boxes, detections, data.unit, data.grouped, severity, data.centers, radius)


def of_images(inputs: EvaluationInput, chosen: Sequence[int]) -> EvaluationInput:
    """The part of `inputs` that is of the images `chosen` (their numbers)."""
    numbers = np.unique(np.array(chosen, np.int64))
    place = np.full(len(inputs.unit), -1)
    place[numbers] = np.arange(len(numbers))
    rows = place[inputs.truth.image] >= 0
    truth = select(inputs.truth, rows)
    detections = select(inputs.detections, place[inputs.detections.image] >= 0)
    return inputs._replace(
        truth=truth._replace(image=place[truth.image]),
        detections=detections._replace(image=place[detections.image]),
        unit=np.unique(inputs.unit[numbers], return_inverse=True)[1].reshape(-1),
        centers=inputs.centers[rows],
    )


class Analysis:
    """The verdicts on `inputs`, each computed once when it is asked for; no resampling changes them."""

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
    def findings(self) -> list[Ranking]:
        """Class by class, as `lesions` are: no repeats, and no limit of detections; for FROC."""
        matches = without_repeats(self.matches, self.inputs.detections)
        return rankings(matches, self.inputs.truth, **self.size)

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
        matches = without_repeats(matches, detections)
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
        """How often detections of a score are right."""
        return bins_of(self.matches, len(self.inputs.unit))

    @functools.cached_property
    def errors(self) -> Errors:
        """The kind of mistake of each detection, and what became of each true box."""
        return error_types(self.inputs.truth, self.inputs.detections, self.matches)

    @functools.cached_property
    def strata(self) -> list[Stratum]:
        """Cells by size and by crowding."""
        return strata(self.inputs.truth)


class Weighted:
    """An `Analysis` under weightings of its units; what several figures share is computed once."""

    def __init__(self, analysis: Analysis, weights: Floats | None = None):
        """`weights`: (S, U) how often each unit counts; None: each once."""
        self.analysis, self.inputs = analysis, analysis.inputs
        self.units = np.ones((1, self.inputs.units)) if weights is None else weights
        self.images = self.units[:, self.inputs.unit]  # (S, I)

    def weights_of(self, kind: str) -> Floats:
        """How often each "image", or each "slide", counts."""
        return self.units if kind == "slide" else self.images

    @functools.cached_property
    def averages(self) -> Mapping[str, Averages]:
        """AP and recall of every class, by protocol."""
        return {
            protocol.name: averages(protocol, self.analysis.ranked[protocol.name], self.images)
            for protocol in PROTOCOLS
        }

    @functools.cached_property
    def sensitivities(self) -> Mapping[str, Floats]:
        """(S, R) in percent: lesions found at so many false positives an image, and a slide where slides are known."""
        return {
            kind: 100 * sensitivities(self.analysis.lesions, self.images, self.weights_of(kind).sum(axis=1))
            for kind in self.analysis.units
        }

    @functools.cached_property
    def rates(self) -> Mapping[str, Rates]:
        """Sensitivity and specificity at the threshold, for images, and slides where they are known."""
        return {
            kind: rates_at(units, self.weights_of(kind), self.analysis.score)
            for kind, units in self.analysis.units.items()
        }

    def mean_of_classes(self, by_class: Floats) -> Floats:
        """(S,) in percent: the mean of (S, K) over the classes that the inputs have cells of.

        NaN where a resample has none of one of them: a mean over fewer classes would be another figure.
        """
        present = self.analysis.present
        return 100 * by_class[:, present].mean(axis=1) if present.any() else np.full(len(by_class), np.nan)
