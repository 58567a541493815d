"""The commands of the project: ``python -m minitorch_attn COMMAND``."""

import argparse
import importlib
import sys
from importlib.metadata import PackageNotFoundError, version

COMMANDS = {
    "train": ("minitorch_attn.training_cli", "train a model on a data set"),
    "reproduce": ("minitorch_attn.reproduce", "repeat an experiment of a paper in small"),
    "compare": ("minitorch_attn.compare", "every mechanism of the course under one roof"),
    "class": ("minitorch_attn.classroom.cli", "hand out, collect and grade, for a class"),
    "grade": ("minitorch_attn.course.grade_cli", "grade notebooks of exercises"),
    "progress": ("minitorch_attn.course.progress_cli", "show which exercises are done"),
    "build": ("minitorch_attn.course.build", "build lessons and exercises from their sources"),
}


def main(argv: list[str] | None = None) -> int:
    """Run a command and return its exit status.

    Only the module of the command that is asked for is imported, so that help is quick.
    """
    argv = sys.argv[1:] if argv is None else argv
    parser = argparse.ArgumentParser(
        prog="python -m minitorch_attn",
        description="Attention for vision, built from scratch in NumPy.",
        epilog="python -m minitorch_attn COMMAND --help tells more of a command.",
    )
    parser.add_argument("--version", action="version", version=f"minitorch_attn {_version()}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for name, (module, summary) in COMMANDS.items():
        command = commands.add_parser(name, help=summary)
        if argv[:1] == [name]:
            implementation = importlib.import_module(module)
            implementation.add_arguments(command)
            command.set_defaults(run=implementation.run)
    args = parser.parse_args(argv)
    try:
        return args.run(args)
    except KeyboardInterrupt:
        return 130


def _version() -> str:
    try:
        return version("minitorch-attn")
    except PackageNotFoundError:
        return "of a checkout that is not installed"


if __name__ == "__main__":
    sys.exit(main())
