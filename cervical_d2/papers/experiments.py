"""From a row of a paper's table to the trainings that reproduce it, in full size or in a size for two CPU cores."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from cervical_d2.config import config_value, load_config
from cervical_d2.errors import EXIT_USER, UserError
from cervical_d2.papers.quick import CELLS, quick_config, quick_options
from cervical_d2.papers.tables import Paper, Row, read_paper

PAPERS = {"xu": "xu2022", "3cde": "3cdenet", "starts": "starts"}


class Experiment(NamedTuple):
    """A row to train: its config, and KEY, VALUE, ... `options` on top of it."""

    row: Row
    config: str
    options: tuple[str, ...]

    @property
    def name(self) -> str:
        """The name of its folder."""
        return Path(str(self.row.config)).stem


class Plan(NamedTuple):
    """The experiments of a table, the baseline among them, the reasons for left-out rows by label, and the floor."""

    paper: Paper
    table: int
    experiments: list[Experiment]
    baseline: Experiment
    left_out: dict[str, str]
    floor: float


def parse_table(text: str) -> tuple[Paper, int]:
    """The paper and table number of a text such as `xu:5`. Raises `UserError` if the paper or table is unknown."""
    name, _, number = text.partition(":")
    if name not in PAPERS or not number.isdigit():
        raise UserError(f"{text}: name a paper ({', '.join(PAPERS)}) and a table, such as xu:5")
    paper = read_paper(PAPERS[name])
    if int(number) not in paper.rows:
        raise UserError(f"{text}: {paper.title} has the tables {', '.join(map(str, paper.rows))}")
    return paper, int(number)


def make_plan(
    paper: Paper,
    table: int,
    labels: Sequence[str] = (),
    quick: str = "",
    settings: Sequence[str] = (),
    pretrained: bool = False,
) -> Plan:
    """Plan the trainings of a table.

    Args:
        paper: the paper.
        table: the number of the table.
        labels: the rows, by default all. The baseline is always included.
        quick: a name of `quick.QUICK`: train on this data at its size. Rows that are identical there, such as the
            depths of a ResNet, are trained once.
        settings: KEY, VALUE, ... for all rows.
        pretrained: see `quick_options`.

    Raises:
        UserError: a row, quick dataset or setting is unknown, or the rows of the table differ in a setting.
    """
    rows = paper.rows[table]
    known = [row.label for row in rows]
    if unknown := [label for label in labels if label not in known]:
        raise UserError(f"no row {unknown[0]!r} in table {table}; there are {'; '.join(known)}")
    if pretrained and not any(row.facts.get("initialization", "").endswith(CELLS) for row in rows):
        raise UserError(f"--pretrained: no row of table {table} starts from a classifier of cells")
    task = paper.tasks[table]
    at_size = quick_config(quick, task) if quick else ""
    made: dict[tuple[str, ...], Experiment] = {}
    left_out: dict[str, str] = {}
    baseline = None
    for row in rows:
        options = quick_options(paper, row, at_size, pretrained) if at_size else ()
        reason = row.not_ours or (options if isinstance(options, str) else "")
        if reason:
            left_out[row.label] = reason
            continue
        config = at_size or str(row.config)
        key = (config, *options)
        is_baseline = row.config == paper.baselines[table]
        if key in made:
            left_out[row.label] = f"the same as {made[key].row.label!r} at this size"
        else:
            made[key] = Experiment(row, config, (*options, *settings))
        if is_baseline:
            baseline = made[key]
    if baseline is None:
        raise UserError(f"table {table}: its baseline cannot be trained here ({paper.baselines[table]})")
    chosen = [item for item in made.values() if item is baseline or not labels or item.row.label in labels]
    if settings:
        _refuse_factors(made.values(), settings)
    floor = paper.floors[task][quick or "full"]
    return Plan(paper, table, chosen, baseline, left_out, floor)


def _refuse_factors(experiments: Iterable[Experiment], settings: Sequence[str]) -> None:
    load_config("", settings)  # raises for an unknown key
    configs = [load_config(item.config, item.options[: -len(settings)]) for item in experiments]
    for name in settings[::2]:
        if len({str(config_value(cfg, name)) for cfg in configs}) > 1:
            raise UserError(f"--set {name}: the rows of the table differ in this key; remove it")


class Job(NamedTuple):
    """One training."""

    experiment: Experiment
    seed: int
    folder: Path

    @property
    def words(self) -> list[str]:
        """The arguments of the training command."""
        return ["--resume", "--config-file", self.experiment.config, "SEED", str(self.seed), "OUTPUT_DIR",
                str(self.folder), *self.experiment.options]  # fmt: skip


def jobs(plan: Plan, seeds: int, output: Path) -> list[Job]:
    """The jobs, ordered by seed and with the baseline first, so that every row gets a first result early."""
    order = [plan.baseline, *(item for item in plan.experiments if item is not plan.baseline)]
    return [Job(item, seed, output / item.name / f"seed{seed}") for seed in range(seeds) for item in order]


def run_jobs(
    todo: Sequence[Job], done: Callable[[Job], bool], train: Callable[[Job], int], tell: Callable[[str], None]
) -> None:
    """Train the jobs that are not `done`.

    A training that fails with exit code 2, for example because it diverges, does not stop the others.

    Raises:
        UserError: some trainings failed. Exit code 2 is reported at the end, others stop the loop.
    """
    failed = []
    for number, job in enumerate(todo, start=1):
        what = f"{number}/{len(todo)} {job.experiment.row.label}, seed {job.seed}"
        if done(job):
            tell(f"{what}: already done")
            continue
        tell(f"{what}: training into {job.folder}")
        if status := train(job):
            failed.append(f"{job.folder}: the training ended with exit code {status}; see above")
            tell(failed[-1])
            if status != EXIT_USER:
                break
    if failed:
        raise UserError("; ".join(failed))
