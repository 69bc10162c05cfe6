"""Detectron2's evaluator of boxes, with COCO's numbers, the papers' and those of every class."""

import itertools
import logging
import os
from collections import OrderedDict
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from detectron2.data import MetadataCatalog
from detectron2.evaluation import COCOEvaluator
from detectron2.structures import BoxMode
from detectron2.utils import comm

from cervical_d2.errors import UserError
from cervical_d2.evaluation.analysis import Analysis, EvaluationInput, make_input, of_images
from cervical_d2.evaluation.centers import SCORE, center_metrics
from cervical_d2.evaluation.coco import class_metrics, coco_tables, paper_metrics, summarize_coco
from cervical_d2.evaluation.curves import mean
from cervical_d2.evaluation.figures import figures_of
from cervical_d2.evaluation.ground_truth import open_split
from cervical_d2.evaluation.matching import Detections
from cervical_d2.evaluation.predictions import PREDICTIONS
from cervical_d2.evaluation.protocols import HEADER, PROTOCOLS, protocol_rows
from cervical_d2.evaluation.severity import OWN, read_severity
from cervical_d2.evaluation.table import aligned, metrics_text
from cervical_d2.files import plain, write_json, write_text

PROTOCOL_NAMES = {protocol.name for protocol in PROTOCOLS}
COCO_CAPS = (1, 10, 100)
"""Detections per image and class at which COCO's AR is taken."""
IN_BBOX = ("AP", "AP50", "recall50")
"""Figures of classes that results have under `bbox`, of all detections."""

Rows = Sequence[Mapping[str, Any]]
"""Upstream's predictions: image_id, category_id from 0, bbox XYWH in pixels, score."""
WITHOUT_TRUTH = "cervical_d2_without_truth"
MetadataCatalog.get(WITHOUT_TRUTH).set(json_file=str(Path(__file__).with_name("without_truth.json")))
logger = logging.getLogger("detectron2.cervical_d2")


class CervicalCOCOEvaluator(COCOEvaluator):
    """COCO metrics of boxes without pycocotools, compiled code or a JSON file of the truth.

    `evaluate` returns {"bbox": metrics} in percent, NaN where there is no truth: AP, AP50, AP75, APs, APm, APl,
    AR1, AR10, AR100 (and AR<max_dets_per_image>), ARs, ARm, ARl, the papers' mAP and AR (`paper_metrics`), and
    per class AP-<name>, AP50-<name> and recall50-<name>, whose dash keeps them out of Detectron2's CSV line. The
    keys are the same for a model that finds nothing. Beside it stand {GROUP: {NAME: ...}} of all figures of
    `analysis.Analysis`: the protocols of the papers, FROC, images and slides, calibration, costs, recall by size.

    A dataset whose labels are centers (`center_radius` px in its metadata) adds {"center": ...}, matched by distance:
    AP and, at a score of 0.5, F1, precision and recall, means over the classes and per class.

    In `output_dir`: metrics.json (what is returned, NaN as null), metrics.txt (a table) and predictions.json, a
    COCO result list with a category_name in each entry. Its category_id is that of the dataset's own JSON where
    the metadata has `thing_dataset_id_to_contiguous_id`, otherwise the position in `thing_classes`, from 1.
    """

    _results: OrderedDict[str, dict[str, float]]

    def __init__(
        self,
        dataset_name: str,
        output_dir: str | os.PathLike[str] | None = None,
        *,
        distributed: bool = True,
        max_dets_per_image: int = 100,
        score: float = SCORE,
        severity: Path = OWN,
    ) -> None:
        """Read the truth.

        Args:
            dataset_name: a registered dataset whose metadata has `thing_classes`.
            distributed: gather the predictions of all processes; only the main one returns metrics.
            max_dets_per_image: detections kept per image and class, by score. Above 100 it adds an AR of its
                own; below, the ARs of larger caps are left out.
            score: the threshold of the figures that depend on one.
            severity: which classes are lesions, and what mistakes cost.

        Raises:
            UserError: the dataset has no class names, or an annotation that cannot be understood.
        """
        # Upstream reads the truth from a COCO file, and for other datasets writes one that it then reads again however
        # old it is. It gets one without annotations, as of a test set whose truth is held back: it collects the
        # predictions and leaves their evaluation, and the metadata, alone. Without output_dir it keeps no second copy.
        super().__init__(WITHOUT_TRUTH, distributed=distributed, use_fast_impl=False)
        self._metadata = MetadataCatalog.get(dataset_name)
        self._folder = Path(output_dir) if output_dir is not None else None
        self._max_dets = max_dets_per_image
        self._classes = self._metadata.get("thing_classes")
        if not self._classes:
            raise UserError(f"{dataset_name}: no class names; set thing_classes in its metadata")
        self._radius = self._metadata.get("center_radius")
        self._score, self._severity = score, read_severity(self._classes, severity)
        self._data = open_split(dataset_name).truth

    def evaluate(self, img_ids: Collection[Any] | None = None) -> dict[str, Any]:
        """The metrics, see the class; {} in all processes but the main one. `img_ids`: of these images only."""
        results = super().evaluate(img_ids)
        if results or (self._distributed and not comm.is_main_process()):
            return results
        # Upstream answers {} if no image was processed; whoever reads the results expects the keys.
        self._results = OrderedDict()
        self._eval_predictions([], img_ids)
        return dict(self._results)

    def _eval_predictions(
        self, predictions: Sequence[Mapping[str, Any]], img_ids: Collection[Any] | None = None
    ) -> None:
        rows = self._whole(list(itertools.chain.from_iterable(prediction["instances"] for prediction in predictions)))
        inputs = make_input(self._data, self._detections(rows), self._classes, self._severity, self._radius)
        if img_ids is not None:
            inputs = of_images(inputs, [self._data.images[image_id] for image_id in img_ids])
        caps = [cap for cap in COCO_CAPS if cap < self._max_dets] + [self._max_dets]
        tables = coco_tables(inputs.truth, inputs.detections, num_classes=len(self._classes), max_dets=caps)
        overall = paper_metrics(tables) | summarize_coco(tables)
        per_class = class_metrics(tables)
        self._results["bbox"] = overall | self._named(per_class)
        caption = f"{len(inputs.unit)} images, at most {self._max_dets} detections per image and class; %"
        text = metrics_text(
            f"{self._metadata.name}: {caption}",
            overall,
            {
                "class": self._classes,
                "truths": tables.truths.tolist(),
                **per_class,
                "detections": tables.detections.tolist(),
            },
        )
        if self._radius:
            text += "\n\n" + self._by_centers(inputs)
        text += "\n\n" + self._analyzed(inputs)
        logger.info("Evaluation:\n%s", text)
        self._write(rows, text)

    def _analyzed(self, inputs: EvaluationInput) -> str:
        """Adds all other figures, and returns the protocols and the rest as text."""
        figures = {name: float(values[0]) for name, values in figures_of(Analysis(inputs, self._score)).items()}
        groups: dict[str, dict[str, float]] = {}
        for name, value in figures.items():
            group, _, leaf = name.partition("/")
            groups.setdefault(group, {})[leaf] = value
        froc = groups.pop("froc")
        groups = {group: part for group, part in groups.items() if group not in IN_BBOX}
        self._results |= groups
        self._results["froc_image"] |= {f"mean-{name}": value for name, value in froc.items()}
        rows = [[f"{group}/{leaf}", value] for group, part in groups.items() if group not in PROTOCOL_NAMES
                for leaf, value in part.items() if "-" not in leaf]  # fmt: skip
        protocols = aligned(HEADER, protocol_rows(figures, self._classes))
        return f"mAP and AR by protocol (docs/metrics.md), in %:\n\n{protocols}\n\n" + aligned(
            ("figure", f"%, costs as they are; from a score of {self._score:g} on where one counts"), rows
        )

    def _by_centers(self, inputs: EvaluationInput) -> str:
        """Adds the results by distance of centers, and returns them as text."""
        per_class = center_metrics(
            inputs.truth, inputs.centers, inputs.detections,
            num_classes=len(self._classes), radius=self._radius, cap=self._max_dets, score=self._score,
        )  # fmt: skip
        overall = {name: mean(np.array(values)) for name, values in per_class.items()}
        self._results["center"] = overall | self._named(per_class)
        title = (
            f"by centers within {self._radius:g} px; F1, precision and recall at a score of {self._score:g} and more; %"
        )
        return metrics_text(title, overall, {"class": self._classes, **per_class})

    def _named(self, per_class: Mapping[str, Sequence[float]]) -> dict[str, float]:
        return {
            f"{metric}-{name}": value
            for metric, values in per_class.items()
            for name, value in zip(self._classes, values, strict=True)
        }

    def _whole(self, rows: Rows) -> Rows:
        """Without detections that are no box or no number, which a diverging model may make: the training goes on."""
        whole = [row for row in rows if np.isfinite([*row["bbox"], row["score"]]).all() and min(row["bbox"][2:]) >= 0]
        if len(whole) < len(rows):
            logger.warning(
                "%s: left out %d of %d detections, whose box or score is not a number, or whose size is negative",
                self._metadata.name, len(rows) - len(whole), len(rows),
            )  # fmt: skip
        return whole

    def _detections(self, rows: Rows) -> Detections:
        for row in rows:
            if row["image_id"] not in self._data.images:
                raise UserError(
                    f"{self._metadata.name}: there is a prediction for image_id {row['image_id']!r}, but no such "
                    "image; evaluate on the dataset that the loader reads"
                )
            if not 0 <= row["category_id"] < len(self._classes):
                raise UserError(
                    f"{self._metadata.name}: the model predicts class {row['category_id']}, but there are "
                    f"{len(self._classes)} classes; set NUM_CLASSES of MODEL.ROI_HEADS or MODEL.RETINANET"
                )
        box = np.array([row["bbox"] for row in rows], float).reshape(-1, 4)
        return Detections(
            image=np.array([self._data.images[row["image_id"]] for row in rows], np.int64),
            label=np.array([row["category_id"] for row in rows], np.int64),
            box=BoxMode.convert(box, BoxMode.XYWH_ABS, BoxMode.XYXY_ABS),
            score=np.array([row["score"] for row in rows], float),
        )

    def _write(self, rows: Rows, text: str) -> None:
        if self._folder is None:
            return
        write_json(self._folder / PREDICTIONS, self._coco_results(rows))
        write_json(self._folder / "metrics.json", plain(self._results), indent=2)
        write_text(self._folder / "metrics.txt", text + "\n")

    def _coco_results(self, rows: Rows) -> list[dict[str, Any]]:
        own_ids = self._metadata.get("thing_dataset_id_to_contiguous_id")
        own_ids = own_ids or {label + 1: label for label in range(len(self._classes))}
        ids = {label: own for own, label in own_ids.items()}
        return [
            {**row, "category_id": ids[row["category_id"]], "category_name": self._classes[row["category_id"]]}
            for row in rows
        ]
