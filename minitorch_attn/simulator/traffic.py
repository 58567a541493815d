"""What passes between host and device: counted, because on a GPU it is what costs."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Traffic:
    """Counts since a `simulated_gpu` was entered.

    Attributes
    ----------
    to_host, to_device : int
        Arrays copied from the device, and to it.
    synchronisations : int
        How often the host had to wait for the device: every copy to the host, and every call
        whose result's shape depends on values (``nonzero``, ``unique``, a boolean mask).
    launches : int
        Launches of kernels of our own. (CuPy's ready-made functions launch more: not counted.)
    runs_kernels : bool
        Whether these kernels are run, or their launches only counted.
    """

    to_host: int = 0
    to_device: int = 0
    synchronisations: int = 0
    launches: int = 0
    runs_kernels: bool = True

    def reset(self) -> None:
        """Count from 0 again."""
        self.to_host = self.to_device = self.synchronisations = self.launches = 0


counting: list[Traffic] = []  # of the simulated GPUs that are entered now


def kernels_run() -> bool:
    """Whether every simulated GPU that is entered now runs kernels."""
    return all(traffic.runs_kernels for traffic in counting)


def note(*kinds: str) -> None:
    """Add one to some of the counts, by name."""
    for traffic in counting:
        for kind in kinds:
            setattr(traffic, kind, getattr(traffic, kind) + 1)


def copied_to_host() -> None:
    """Note a copy to the host, for which the host waits."""
    note("to_host", "synchronisations")
