"""Turns slides and labels into tiles and COCO JSON, or into crops of single cells and a CSV.

Everything is written into `OUTPUT.partial`, which is renamed to `OUTPUT` when complete. The same command continues an
interrupted run, and writes the same files as a run without interruption.
"""

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from cervical_d2.curation.split_files import NAME
from cervical_d2.curation.tile_files import SlideTiles, check_ratios, slide_tiles, write_set
from cervical_d2.curation.tile_labels import check_slides
from cervical_d2.curation.tile_plan import SlideLabels, TileSettings
from cervical_d2.curation.tile_work import chunks, close_slides, cut, in_processes, planned
from cervical_d2.data.mapper import read_image
from cervical_d2.errors import MachineError, UserError
from cervical_d2.files import write_bytes, write_json
from cervical_d2.progress import progress_bar
from cervical_d2.slides.grid import starts

Picture = Callable[[np.ndarray, Sequence[Sequence[Any]], float], np.ndarray]
"""Draws a slide from its overview, its tiles (x, y, size, fate) and the overview's pixels per tile pixel."""


def make_tiles(
    labels: Sequence[SlideLabels],
    output: Path,
    settings: TileSettings,
    ratios: Mapping[str, float],
    name: str,
    processes: int,
    picture: Picture | None = None,
) -> Iterator[str]:
    """Write the folder `output`; yields lines about it.

    Raises:
        UserError: `output` exists, `OUTPUT.partial` belongs to another command, or a slide cannot be used.
        MachineError: the disk is full, or a process was killed; the same command continues from there.
    """
    if (output / "work").is_dir() and (output / "tiles.json").is_file():
        shutil.rmtree(output / "work")  # a run was killed just before this last step
        yield f"{output}: is complete"
        return
    if output.exists():
        raise UserError(f"{output}: exists already; choose another output")
    if not NAME.fullmatch(name):
        raise UserError(f"{name!r} is not a name for a dataset; give one of letters and digits with --name")
    check_ratios(ratios, len(labels))
    sizes = check_slides(labels, settings.mpp)
    folder = output.with_name(f"{output.name}.partial")
    _begin(folder, labels, settings)
    try:
        with progress_bar(total=_count(labels, sizes, settings), desc="cutting", unit="tile") as bar:
            for done in in_processes(chunks(labels, folder, settings, bar), cut, processes):
                bar.update(done)
        slides = [slide_tiles(item, folder / "work" / item.name) for item in labels]
        if picture:
            _draw(slides, folder, picture)
        yield from write_set(folder, slides, ratios, name, settings)
        _sweep(folder)
        folder.rename(output)
        shutil.rmtree(output / "work")
    except OSError as error:
        cause = f"{error.filename or folder}: {error.strerror}"
        raise MachineError(f"{cause}; {output} is not complete; run this again to continue") from error
    finally:
        close_slides()


def _begin(folder: Path, labels: Sequence[SlideLabels], settings: TileSettings) -> None:
    """Mark `folder` as started with these slides, labels and settings, or check an existing mark."""
    key = [json.dumps(settings._asdict())]
    for item in labels:
        state = item.path.stat()
        own = (item.boxes.tolist(), item.classes, item.regions.tolist(), item.ignored.tolist())
        key.append(json.dumps([item.name, state.st_size, state.st_mtime_ns, *own]))
    mark = {"begun_with": hashlib.sha256("\n".join(key).encode()).hexdigest()}
    path = folder / "work" / "begun.json"
    if path.exists() and json.loads(path.read_bytes()) != mark:
        raise UserError(
            f"{folder}: started with other slides, labels or settings; finish that run, or delete this folder"
        )
    if folder.exists() and not path.exists() and any(folder.iterdir()):
        raise UserError(f"{folder}: holds something else; move it away")
    write_json(path, mark)


def _sweep(folder: Path) -> None:
    """Remove temporary files of `files.write_bytes` that killed processes left behind."""
    for path in folder.rglob(".*"):
        if path.suffix[1:].isdigit() and path.is_file():
            path.unlink()


def _count(labels: Sequence[SlideLabels], sizes: Sequence[tuple[int, int]], settings: TileSettings) -> int | None:
    """The number of tiles to plan; None with `mpp`, because the scale of each slide is not known yet."""
    if settings.around_cells is not None:
        return sum(len(item.boxes) for item in labels)
    if settings.mpp is not None:
        return None
    lengths = [[int(np.ceil(side * settings.scale - 1e-6)) for side in size] for size in sizes]
    along = [[len(starts(length, settings.size, settings.overlap)) for length in pair] for pair in lengths]
    return sum(columns * rows for columns, rows in along)


def _draw(slides: Sequence[SlideTiles], folder: Path, picture: Picture) -> None:
    for slide in progress_bar(slides, desc="drawing", unit="slide"):
        work = folder / "work" / slide.labels.name
        plan = planned(work)
        assert plan is not None
        kept = {(tile["x"], tile["y"]) for tile in slide.kept}
        places = [
            (x, y, size, "blurred" if fate == "empty" and (x, y) not in kept else fate)
            for x, y, size, fate in plan["places"]
        ]
        overview = read_image(str(work / "overview.png"), "RGB")
        drawn = picture(overview, places, plan["overview_scale"])
        content = cv2.imencode(".png", cv2.cvtColor(drawn, cv2.COLOR_RGB2BGR))[1]
        write_bytes(folder / "pictures" / f"{slide.labels.name}.png", content.tobytes())
