"""The files of a run's history while the training goes on."""

import json
import time
from pathlib import Path
from types import SimpleNamespace

from detectron2.utils.events import EventStorage
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from cervical_d2.engine.metrics import Metrics, ProgressLine


def opened(folder: Path, storage: EventStorage, state: dict | None = None) -> Metrics:
    """Before the first iteration, or after that of the checkpoint which holds `state`."""
    metrics = Metrics(folder, ProgressLine(lambda: 9, 1.0), also=lambda iterations: False)
    metrics.load_state_dict(state or {})
    metrics.open(storage, metrics.done)
    return metrics


def test_events_are_in_the_file_when_the_line_is(tmp_path: Path):
    with EventStorage() as storage:
        metrics = opened(tmp_path, storage)
        for iteration, loss in enumerate((2.0, 3.0)):  # the thread flushes the first one by itself
            storage.iter = iteration
            storage.put_scalar("loss", loss, smoothing_hint=False)
            metrics.act(iteration + 1)
        events = EventAccumulator(str(tmp_path))
        events.Reload()  # nothing is closed yet: what a kill would leave
        assert [(event.step, event.value) for event in events.Scalars("loss")] == [(0, 2.0), (1, 3.0)]
        metrics.after_train()


def test_open_files_cost_no_processor_time(tmp_path: Path):
    """A writer's thread that waits busily would take a processor, and the interpreter's lock from the training."""
    with EventStorage() as storage:
        metrics = opened(tmp_path, storage)
        storage.put_scalar("loss", 2.0)
        metrics.act(1)
        begin = time.process_time()
        time.sleep(1)
        assert time.process_time() - begin < 0.5  # seconds of a processor, in one of waiting
        metrics.after_train()


def written(metrics: Metrics, storage: EventStorage, start: int, end: int) -> None:
    """Write a line after each iteration, and close the files."""
    for iteration in range(start, end):
        storage.iter = iteration
        storage.put_scalar("loss", iteration / 2, smoothing_hint=False)
        metrics.act(iteration + 1)
    metrics.after_train()


def test_a_resume_cuts_off_what_was_written_after_the_checkpoint(tmp_path: Path):
    with EventStorage() as storage:
        metrics = opened(tmp_path, storage)
        metrics.trainer = SimpleNamespace(storage=storage)
        written(metrics, storage, 0, 2)
        state = {**metrics.state_dict(), "done": 2}
    with EventStorage() as storage:
        written(opened(tmp_path, storage, state), storage, 2, 5)  # and is killed
    with EventStorage() as storage:
        written(opened(tmp_path, storage, state), storage, 2, 3)
    lines = [json.loads(line) for line in (tmp_path / "metrics.json").read_text().splitlines()]
    assert lines == [{"iteration": number, "loss": number / 2} for number in range(3)]
