"""What makes the host wait for the device is counted."""

import numpy as np
import pytest

from minitorch_attn.simulator import Traffic, simulated_gpu


@pytest.mark.parametrize(
    "copy_back",
    [
        lambda x: x.get(),
        lambda x: x.sum().item(),
        lambda x: x.tolist(),
        lambda x: repr(x),
        lambda x: f"{x}",
        lambda x: x.tobytes(),
        lambda x: cupy_of(x).asnumpy(x),
    ],
)
def test_copies_to_the_host_are_counted(cupy, traffic, copy_back):
    x = cupy.ones(3)
    traffic.reset()
    copy_back(x)
    assert traffic == Traffic(to_host=1, synchronisations=1)


@pytest.mark.parametrize(
    "wait",
    [
        lambda x: np.nonzero(x),
        lambda x: x.nonzero(),
        lambda x: x[x > 0],
        lambda x: x.__setitem__(x > 0, 0),
        lambda x: np.unique(x),
        lambda x: np.where(x > 0),
        lambda x: np.bincount(x.astype(int)),
        lambda x: cupy_of(x).cuda.Device().synchronize(),
        lambda x: cupy_of(x).cuda.Stream.null.synchronize(),
    ],
)
def test_what_the_host_must_wait_for_is_counted(cupy, traffic, wait):
    x = cupy.ones(3)
    traffic.reset()
    wait(x)
    assert (traffic.synchronisations, traffic.to_host) == (1, 0)


def test_copies_to_the_device_are_counted(cupy, traffic):
    for value in (np.ones(3), [1, 2], 3.0):
        cupy.asarray(value)
    assert traffic == Traffic(to_device=3)


def test_arithmetic_stays_on_the_device(cupy, traffic):
    x = cupy.ones((3, 4))
    x[x.argmax(axis=0)] += np.where(x > 0, x, 0).sum()
    np.exp(x, out=x)[:, ::2].max(axis=1, keepdims=True)
    assert traffic == Traffic()


def test_launches_can_be_counted_without_running_the_kernels():
    with simulated_gpu(run_kernels=False) as traffic:
        import cupy

        kernel = cupy.RawKernel("this is no C++", "nothing")
        for _ in range(3):
            kernel((1,), (1,), (cupy.ones(1),))
    assert (traffic.launches, traffic.to_host) == (3, 0)


def cupy_of(x):
    import cupy

    return cupy.get_array_module(x)
