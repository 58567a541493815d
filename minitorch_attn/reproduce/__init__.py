"""`python -m minitorch_attn reproduce`: experiments of the papers, in small."""

from __future__ import annotations

import argparse
import importlib

EXPERIMENTS = {
    "retrieval": "global descriptors of images, with classes unseen in training",
    "stn": "spatial transformers on distorted digits (Jaderberg et al. 2015, table 1)",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``python -m minitorch_attn reproduce``."""
    parser.description = (
        "Repeat an experiment of a paper in small, and print what comes out beside its numbers."
    )
    experiments = parser.add_subparsers(metavar="EXPERIMENT", required=True)
    for name, summary in EXPERIMENTS.items():
        module = importlib.import_module(f".{name}", __name__)
        experiment = experiments.add_parser(name, help=summary)
        module.add_arguments(experiment)
        experiment.set_defaults(experiment=module.run)


def run(args: argparse.Namespace) -> int:
    """Run the experiment that was asked for, and return its exit status."""
    return args.experiment(args)
