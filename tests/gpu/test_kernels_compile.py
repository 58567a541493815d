"""Every kernel of the library, with each set of constants it is launched with, compiled by NVRTC.

No GPU is needed: the compiler goes all the way to machine code for the cards named. What comes
out is not run.
"""

import importlib
import pkgutil
import re

import pytest

from minitorch_attn.engine.kernels import KERNELS

nvrtc = pytest.importorskip("cuda.bindings.nvrtc")

CARDS = ["sm_75", "sm_80", "sm_90"]  # Turing has no matrix units that the kernels know


def _import_all():
    """A kernel is known once the module that defines it is imported."""
    for room in ("minitorch_attn.ops", "minitorch_attn.optim", "minitorch_attn.attention"):
        package = importlib.import_module(room)
        for module in pkgutil.walk_packages(package.__path__, f"{room}."):
            importlib.import_module(module.name)


_import_all()
VARIANTS = [
    (kernel, constants, card)
    for kernel in KERNELS
    for constants in kernel.variants
    for card in CARDS
    if card != "sm_75" or not (constants.get("MATRIX_UNITS") or constants.get("UNIT"))
]


def compile_for(card, source, name):
    """Compile to machine code; return it and the compiler's log.

    `ValueError` with the log where the source is wrong.
    """

    def done(answer):
        error, *values = answer
        assert error == nvrtc.nvrtcResult.NVRTC_SUCCESS, error
        return values[0] if values else None

    def text(size_of, get):
        size = done(size_of(program))
        buffer = bytearray(size)
        done(get(program, buffer))
        return bytes(buffer)

    program = done(nvrtc.nvrtcCreateProgram(source.encode(), name.encode(), 0, [], []))
    try:
        # -ftz=true, subnormal float32 are 0, is CuPy's own addition.
        options = [f"-arch={card}".encode(), b"-std=c++17", b"-ftz=true", b"--ptxas-options=-v"]
        (error,) = nvrtc.nvrtcCompileProgram(program, len(options), options)
        log = text(nvrtc.nvrtcGetProgramLogSize, nvrtc.nvrtcGetProgramLog)
        log = log.rstrip(b"\0").decode(errors="replace")
        if error != nvrtc.nvrtcResult.NVRTC_SUCCESS:
            raise ValueError(f"{name} for {card}: {error.name}\n{log}")
        return text(nvrtc.nvrtcGetCUBINSize, nvrtc.nvrtcGetCUBIN), log
    finally:
        done(nvrtc.nvrtcDestroyProgram(program))


def _label(value):
    if isinstance(value, dict):
        return "-".join(f"{name}={constant}" for name, constant in value.items()) or "plain"
    return getattr(value, "name", str(value))


@pytest.mark.parametrize(("kernel", "constants", "card"), VARIANTS, ids=_label)
def test_kernel_compiles(kernel, constants, card, record_property):
    code, log = compile_for(card, kernel.code(constants), kernel.name)
    assert code.startswith(b"\x7fELF") and kernel.name.encode() in code
    for what, found in resources(log).items():
        record_property(what, found)


def resources(log):
    """What the compiler says that a thread of the kernel takes: in a report, for who tunes it."""
    patterns = {
        "registers": r"Used (\d+) registers",
        "static shared bytes": r"(\d+) bytes smem",
        "spilled bytes": r"(\d+) bytes spill stores",
    }
    found = {what: re.search(pattern, log) for what, pattern in patterns.items()}
    return {what: int(match[1]) for what, match in found.items() if match}


def test_the_library_has_kernels():
    assert len({kernel.name for kernel in KERNELS}) == len(KERNELS) > 0


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("y[0] = x;", "x"),
        ("y[0] = 1.0f", "expected"),
        ("__shared__ float too_much[100000]; y[threadIdx.x] = too_much[threadIdx.x];", "shared"),
    ],
)
def test_the_compiler_says_what_is_wrong(body, said):
    source = f'extern "C" __global__ void broken(float* y) {{ {body} }}'
    with pytest.raises(ValueError, match=f"(?s)broken for sm_80.*{said}"):
        compile_for("sm_80", source, "broken")


def test_what_a_kernel_takes_is_read_from_the_log():
    source = """extern "C" __global__ void reversed(float* y) {
        __shared__ float row[64];
        row[threadIdx.x] = y[threadIdx.x];
        __syncthreads();
        y[threadIdx.x] = row[63 - threadIdx.x];
    }"""
    _, log = compile_for("sm_80", source, "reversed")
    taken = resources(log)
    assert taken["static shared bytes"] == 256 and 0 < taken["registers"] <= 32, log
    assert taken["spilled bytes"] == 0
