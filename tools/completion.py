"""Print the completion script of a shell: subcommands, their options, choices and file names.

eval "$(cervical-d2 completion bash)"        # in ~/.bashrc
eval "$(cervical-d2 completion zsh)"         # in ~/.zshrc, after compinit
"""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("shell", choices=("bash", "zsh"))


def run(args: argparse.Namespace) -> None:
    """Print the script, for the parsers of all commands."""
    import shtab

    from .cli import COMMANDS, PROGRAM, fill, module_of

    root = argparse.ArgumentParser(PROGRAM)
    parsers = root.add_subparsers()
    for command in COMMANDS.values():
        parser = parsers.add_parser(command.name, help=command.help)
        fill(parser, module_of(command))
        for action in parser._actions:
            # Config files and weights are strings, as they may be names of packaged ones.
            if action.type is Path or "FILE" in str(action.metavar):
                action.complete = shtab.FILE  # type: ignore[attr-defined]
    print(shtab.complete(root, shell=args.shell))
