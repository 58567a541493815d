"""Arrays and the graph: tensors, primitives, the reverse pass and the gradient checker."""

from .anomaly import detect_anomaly, inside_layer
from .backend import (
    array_module,
    get_default_device,
    get_float32_matmul_precision,
    set_default_device,
    set_float32_matmul_precision,
)
from .creation import arange, full, ones, ones_like, rand, randn, zeros, zeros_like
from .dtypes import get_default_dtype, set_default_dtype
from .errors import AnomalyError, DeviceError, DTypeError, GraphError, ShapeError
from .gradcheck import GradcheckError, GradcheckReport, check_vjp, gradcheck
from .graph import sum_to_shape
from .primitive import primitive
from .random import default_generator, manual_seed
from .tensor import Tensor, as_tensor, enable_grad, grad, is_grad_enabled, no_grad, tensor
from .threads import get_num_threads, set_num_threads

__all__ = [
    "AnomalyError",
    "DTypeError",
    "DeviceError",
    "GradcheckError",
    "GradcheckReport",
    "GraphError",
    "ShapeError",
    "Tensor",
    "arange",
    "array_module",
    "as_tensor",
    "check_vjp",
    "default_generator",
    "detect_anomaly",
    "enable_grad",
    "full",
    "get_default_device",
    "get_default_dtype",
    "get_float32_matmul_precision",
    "get_num_threads",
    "grad",
    "gradcheck",
    "inside_layer",
    "is_grad_enabled",
    "manual_seed",
    "no_grad",
    "ones",
    "ones_like",
    "primitive",
    "rand",
    "randn",
    "set_default_device",
    "set_default_dtype",
    "set_float32_matmul_precision",
    "set_num_threads",
    "sum_to_shape",
    "tensor",
    "zeros",
    "zeros_like",
]
