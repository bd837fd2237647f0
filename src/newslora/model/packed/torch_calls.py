"""What compiled kernels need to call oneDNN's product of bytes without Python's lock: torch's C functions and tensors' handles.

torch's C interface for compiled models (aoti_torch_*, kept stable for what AOTInductor makes) has the product that
`torch.ops.onednn.qlinear_pointwise` is. Tensors are handles there, 64-bit addresses here. kernels.py calls it.

Importing this module imports Numba: import it where it is used.
"""

import ctypes
import weakref
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numba import types
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch

_address, _int = types.uintp, types.int32
_NAMES = {
    "aoti_torch_cpu__qlinear_pointwise_tensor": _int(
        *[_address] * 7, types.float64, types.int64, *[_address] * 3, types.int64, *[_address] * 2
    ),
    "aoti_torch_create_tensor_from_blob": _int(
        _address, types.int64, _address, _address, types.int64, _int, _int, _int, _address
    ),
    "aoti_torch_get_data_ptr": _int(_address, _address),
    "aoti_torch_delete_tensor_object": _int(_address),
}
_functions: list[Any] = [types.ExternalFunction(name, signature) for name, signature in _NAMES.items()]
qlinear, from_blob, data_ptr, delete = _functions


@cache
def _library() -> ctypes.CDLL:
    import torch

    return ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"))


@cache
def linked() -> bool:
    """Whether this torch has the functions; here they are made known to the compiler."""
    import llvmlite.binding

    try:
        for name in _NAMES:
            llvmlite.binding.add_symbol(name, ctypes.cast(getattr(_library(), name), ctypes.c_void_p).value)
    except (OSError, AttributeError):
        return False
    return True


class Handles:
    """A product's tensors as `kernels.multiply` takes them: `array`, (10,) uint64, good for as long as this lives.

    Args:
        weight: from `qlinear_prepack`.
        scales, zeros: (out,) of the weight.
    """

    def __init__(self, weight: "torch.Tensor", scales: "torch.Tensor", zeros: "torch.Tensor") -> None:
        import torch

        tokens = torch.ones(1), torch.full((1,), 128, dtype=torch.int32)  # their scale comes later; their zero
        made = [_address_of(tensor) for tensor in (*tokens, weight, scales, zeros)]
        weakref.finalize(self, _free, made)
        types_of = _library().aoti_torch_dtype_float32(), _library().aoti_torch_dtype_uint8()
        self._held = np.array(types_of[:1], dtype=np.int32), np.frombuffer(b"none\0", dtype=np.uint8)
        result_type, none = (array.ctypes.data for array in self._held)
        words = [result_type, none, none + len("none"), types_of[1]]
        self.array: NDArray[np.uint64] = np.array([*made[:2], *words, *made[2:], len(scales)], dtype=np.uint64)


def _address_of(tensor: "torch.Tensor") -> int:
    """Of a new handle."""
    import torch

    read = ctypes.pythonapi.PyCapsule_GetPointer
    read.restype, read.argtypes = ctypes.c_void_p, (ctypes.py_object, ctypes.c_char_p)
    return int(read(torch._C._aoti.unsafe_alloc_void_ptr_from_tensor(tensor), None))


def _free(handles: list[int]) -> None:
    for handle in handles:
        _library().aoti_torch_delete_tensor_object(ctypes.c_void_p(handle))
