"""The command line: one table of commands, and one way to start each of them.

A command is a module of this folder with a docstring (its help), `add_arguments(parser)`, `run(args)`, which returns an
exit code or None for 0, and `check(parser, args)` where arguments depend on each other. It imports torch and this
package inside `run`, so that --help answers at once. Here only the standard library is imported.
"""

import argparse
import difflib
import importlib
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import NamedTuple, NoReturn

PROGRAM = "cervical-d2"
EXIT_OK, EXIT_USER = 0, 2  # as in cervical_d2.errors, which cannot be imported before Detectron2 is installed


class Command(NamedTuple):
    """`words` are put before those that the user types."""

    name: str
    module: str
    help: str
    words: tuple[str, ...] = ()


# These run before anything else is installed.
INSTALLATION = (
    Command("doctor", "doctor", "check this installation, and say what to do if something is missing"),
    Command("install-detectron2", "install_detectron2", "install Detectron2 so that it works with current libraries"),
    Command("completion", "completion", "print the shell completion script for bash or zsh"),
)
GROUPS = {
    "Data": (
        Command("check", "check_dataset", "find faults in annotations and images"),
        Command("audit", "audit_dataset", "find leaks between splits and cells boxed twice"),
        Command("statistics", "dataset_statistics", "describe datasets: classes, box sizes, image sizes, pixels"),
        Command("visualize", "visualize_data", "draw annotated images, as stored and as the network sees them"),
        Command("augmentations", "visualize_augmentation", "draw what each augmentation does to an image"),
        Command("make-tiles", "make_tiles", "cut slides and large images into tiles with annotations, or into crops"),
        Command("split", "split_dataset", "divide a dataset into splits or folds, by slide or patient"),
        Command("convert", "convert_dataset", "convert annotations between COCO, VOC, YOLO, CSV and GeoJSON"),
        Command("mean-std", "compute_mean_std", "compute the mean and standard deviation of the pixels"),
        Command("anchors", "cluster_anchors", "compute anchors that fit the boxes, by k-means"),
    ),
    "Train and evaluate": (
        Command("train", "train", "train a detector"),
        Command("evaluate", "train", "evaluate a detector, the same as train --eval-only", ("--eval-only",)),
        Command("predict", "predict", "find cells in images"),
        Command("train-classifier", "train_classifier", "train and test a classifier of single cells"),
        Command("find-lr", "find_learning_rate", "find a learning rate by a range test"),
        Command("convert-weights", "convert_checkpoint", "convert torchvision, mmdetection or Detectron2 weights"),
    ),
    "Look and compare": (
        Command("report", "report", "write an HTML page with all figures, their intervals and every image"),
        Command("draw", "draw_results", "draw predictions beside the ground truth"),
        Command("compare", "compare_predictions", "test which of two models is better on the same images"),
        Command("compare-runs", "compare_runs", "show how runs differ: settings, results, curves"),
        Command("proposals", "proposal_recall", "measure the recall of the RPN's proposals, class by class"),
        Command("robustness", "robustness", "measure AP under blur, noise, JPEG, light and stain"),
        Command("parameters", "count_parameters", "count a model's parameters"),
    ),
    "Published tables": (Command("reproduce", "reproduce", "repeat a table of a paper"),),
    "This installation": INSTALLATION,
}
COMMANDS = {command.name: command for group in GROUPS.values() for command in group}


class Number(NamedTuple):
    """A kind of number that an argument takes: `type="share"`, and so on. `low` itself is allowed unless `open`."""

    kind: type[int] | type[float]
    low: float
    high: float
    words: str
    open: bool = False

    def __call__(self, text: str) -> float:
        """The number in `text`; argparse makes one line of the error."""
        try:
            value = self.kind(text)
        except ValueError:
            value = self.kind(-1)
        if not self.low <= value <= self.high or (self.open and value == self.low):
            raise argparse.ArgumentTypeError(f"{text!r} is not {self.words}")
        return value


MOST = 2**31 - 1  # NumPy and torch take larger numbers, but no seed or count needs them
NUMBERS = {
    "share": Number(float, 0, 1, "a number from 0 to 1"),
    "fraction": Number(float, 0, 1, "a number above 0 and up to 1", open=True),
    "rate": Number(float, 0, 1e6, "a number above 0", open=True),
    "amount": Number(float, 0, 1e6, "a number, 0 or more"),
    "natural": Number(int, 1, MOST, "a whole number, 1 or more"),
    "count": Number(int, 0, MOST, "a whole number, 0 or more"),
}
EXAMPLES = """Examples:
  {prog} train --config-file quick/demo.yaml       # learns on the embedded demo images, in minutes on a CPU
  {prog} report output/quick/demo                  # its evaluation as a page to open in a browser
  {prog} predict smears/ --weights output/quick/demo/model_best.pth --output predictions
"""


def overview(prog: str) -> str:
    """The page of `--help`."""
    lines = [f"usage: {prog} COMMAND ...", "", "Detect cervical cells in cytology images, on Detectron2."]
    width = max(map(len, COMMANDS))
    for title, commands in GROUPS.items():
        lines += ["", f"{title}:", *(f"  {command.name:{width}}  {command.help}" for command in commands)]
    ends = f"{prog} COMMAND --help explains a command. Documentation: README.md and docs/ in the source tree."
    return "\n".join([*lines, "", EXAMPLES.format(prog=prog), ends])


def module_of(command: Command) -> ModuleType:
    """The module that does the command's work."""
    return importlib.import_module(f"{__package__}.{command.module}")


def fill(parser: argparse.ArgumentParser, module: ModuleType) -> None:
    """Add the command's arguments; `type="share"` and so on are the `NUMBERS`."""
    for kind, number in NUMBERS.items():
        parser.register("type", kind, number)
    module.add_arguments(parser)


def child(name: str) -> list[str]:
    """The first words of a process that runs a command of this folder, installed or not."""
    return [sys.executable, str(Path(__file__).with_name(f"{COMMANDS[name].module}.py"))]


def run_command(name: str, argv: Sequence[str], prog: str) -> int:
    """Parse `argv` and run; returns the exit code. `prog` is what the user typed to start the command."""
    command = COMMANDS[name]
    module = module_of(command)
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog, description=module.__doc__, formatter_class=formatter)
    fill(parser, module)
    args = parser.parse_args([*command.words, *argv])
    if hasattr(module, "check"):
        module.check(parser, args)
    args.command = shlex.join([PROGRAM, name, *argv])
    try:
        if command in INSTALLATION:
            return module.run(args) or EXIT_OK
        from cervical_d2.errors import run_main
    except ModuleNotFoundError as error:
        print(f"error: {error}; `{PROGRAM} doctor` says what to install", file=sys.stderr)
        return EXIT_USER
    return run_main(lambda: module.run(args))


def main(argv: Sequence[str] | None = None, prog: str = PROGRAM) -> int:
    """Run the command that `argv` (default: sys.argv) names; returns the exit code."""
    name, *words = (sys.argv[1:] if argv is None else argv) or ["--help"]
    if name in ("-h", "--help", "help"):
        print(overview(prog))
        return EXIT_OK
    if name not in COMMANDS:
        near = difflib.get_close_matches(name, COMMANDS, 1, 0.5)
        hint = f"did you mean {near[0]}?" if near else f"`{prog} --help` lists the commands"
        print(f"error: {name}: no such command; {hint}", file=sys.stderr)
        return EXIT_USER
    return run_command(name, words, f"{prog} {name}")


def script(file: str) -> NoReturn:
    """Run a module of this folder as a script: `cervical-d2 predict ...`.

    The folder becomes a package, as it is for `cervical-d2`, so that its modules can import each other.
    """
    path = Path(file).resolve()
    sys.path[0] = str(path.parents[1])  # was the folder itself
    cli = importlib.import_module(f"{path.parent.name}.cli")
    name = next(command.name for command in cli.COMMANDS.values() if command.module == path.stem)
    sys.exit(cli.run_command(name, sys.argv[1:], path.name))
