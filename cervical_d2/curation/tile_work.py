"""Cuts the tiles of a plan in several processes; tiles cut before an interruption are not cut again.

The work folder of each slide holds `plan.json` and `overview.png` once its tiles are planned, and one file for each
chunk of tiles once all of its tiles are written.
"""

import json
import multiprocessing
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np

from cervical_d2.curation.tile_plan import Plan, SlideLabels, Tile, TileSettings, plan_slide
from cervical_d2.errors import MachineError
from cervical_d2.files import write_bytes, write_json
from cervical_d2.slides.slide import Slide, open_slide
from cervical_d2.slides.tissue import focus

CHUNK = 16  # tiles: at most this many per process are cut again after an interruption
WAITING = 3  # queued chunks per process, so that none waits while a slide is planned


class Chunk(NamedTuple):
    """Tiles of one slide that one process cuts before it writes `result`."""

    path: Path
    scale: float
    tiles: list[Tile]
    images: Path
    result: Path
    scratch: Path
    settings: TileSettings


def chunks(labels: Iterable[SlideLabels], folder: Path, settings: TileSettings, bar: Any) -> Iterator[Chunk]:
    """The chunks of all slides that are not cut yet; `bar` advances by the tiles that need no cutting."""
    for item in labels:
        work, images = folder / "work" / item.name, folder / "images" / item.name
        scratch = work / "scratch"
        known = planned(work)
        if known and all((work / f"{number:05d}.json").exists() for number in range(known["chunks"])):
            bar.update(known["tiles"])
            continue
        with open_slide(item.path, scratch) as slide:
            plan = plan_slide(slide, item, settings)
        wanted = [tile for tile in plan.tiles if tile.fate in ("cells", "empty")]
        parts = [wanted[start : start + CHUNK] for start in range(0, len(wanted), CHUNK)]
        _write_plan(plan, len(parts), work)
        bar.update(len(plan.tiles) - len(wanted))
        for number, part in enumerate(parts):
            result = work / f"{number:05d}.json"
            if result.exists():
                bar.update(len(part))
            else:
                yield Chunk(item.path, plan.scale, part, images, result, scratch, settings)


def planned(work: Path) -> dict[str, Any] | None:
    """The content of `plan.json`; None if it does not exist yet."""
    path = work / "plan.json"
    return json.loads(path.read_bytes()) if path.exists() else None


def results(work: Path) -> Iterator[dict[str, Any]]:
    """The tiles that were cut, in the order of the plan."""
    for number in range((planned(work) or {})["chunks"]):
        yield from json.loads((work / f"{number:05d}.json").read_bytes())


def _write_plan(plan: Plan, count: int, work: Path) -> None:
    bgr = cv2.cvtColor(plan.overview, cv2.COLOR_RGB2BGR)
    write_bytes(work / "overview.png", cv2.imencode(".png", bgr)[1].tobytes())
    tiles = [[tile.x, tile.y, tile.size, tile.fate] for tile in plan.tiles]
    content = {"tiles": len(tiles), "chunks": count, "scale": plan.scale, "overview_scale": plan.overview_scale}
    write_json(work / "plan.json", content | {"places": tiles})


_open: dict[Path, Slide] = {}  # the slide that this process read last


def cut(chunk: Chunk) -> int:
    """Write the tiles of the chunk, then its result; returns the number of tiles."""
    if chunk.path not in _open:
        close_slides()
        _open[chunk.path] = open_slide(chunk.path, chunk.scratch)
    write_json(chunk.result, [_cut(tile, _open[chunk.path], chunk) for tile in chunk.tiles])
    return len(chunk.tiles)


def close_slides() -> None:
    """Close the slide that this process has open."""
    for slide in _open.values():
        slide.close()
    _open.clear()


def _cut(tile: Tile, slide: Slide, chunk: Chunk) -> dict[str, Any]:
    settings, scale = chunk.settings, chunk.scale
    side = tile.size / scale
    pixels = slide.read_region(tile.x / scale, tile.y / scale, side, side, scale)
    sharpness = round(focus(pixels), 3)
    kept = tile.fate == "cells" or sharpness >= settings.min_focus
    about = tile._asdict() | {"focus": sharpness, "fate": tile.fate if kept else "blurred"}
    if kept:
        write_bytes(chunk.images / (tile.name + settings.suffix), _encoded(pixels, settings))
    return about


def _encoded(pixels: np.ndarray, settings: TileSettings) -> bytes:
    quality = settings.jpeg_quality
    options = [] if quality is None else [cv2.IMWRITE_JPEG_QUALITY, quality]
    return cv2.imencode(settings.suffix, cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), options)[1].tobytes()


def in_processes(jobs: Iterable[Chunk], work: Callable[[Chunk], int], processes: int) -> Iterator[int]:
    """The results of `work` for each of `jobs`, in order. `processes` 1 means this process. Jobs are drawn when needed.

    Raises:
        MachineError: a process was killed.
    """
    if processes == 1:
        yield from map(work, jobs)
        return
    # A forked process has all imports already; a spawned one must repeat them.
    method = "fork" if "fork" in multiprocessing.get_all_start_methods() else "spawn"
    context = multiprocessing.get_context(method)
    pool = ProcessPoolExecutor(processes, context, initializer=_end_with, initargs=(os.getpid(),))
    waiting: deque[Future[int]] = deque()
    try:
        pool.submit(os.getpid).result()  # forks now, before planning starts threads, which do not survive a fork
        for job in jobs:
            waiting.append(pool.submit(work, job))
            if len(waiting) >= WAITING * processes:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    except BrokenProcessPool as error:
        raise MachineError(
            "a process was killed, perhaps for lack of memory; lower --processes, and run this again to continue"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _end_with(parent: int) -> None:
    """End this process when its parent was killed; otherwise it would wait for work forever."""
    cv2.setNumThreads(0)  # 1 would wait for threads that the fork did not copy

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
