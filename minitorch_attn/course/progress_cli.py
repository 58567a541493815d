"""`python -m minitorch_attn progress`: the progress page in a terminal."""

import argparse

from .progress import overview, progress_path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``python -m minitorch_attn progress``."""
    parser.description = "Show which exercises are done, and what is next."
    parser.add_argument("--file", action="store_true", help="only say where progress is kept")


def run(args: argparse.Namespace) -> int:
    """Print the page; 0 always."""
    print(progress_path() if args.file else overview())
    return 0
