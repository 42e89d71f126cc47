"""A device that is not the CPU, on the CPU: for code that must bring its tensors together before it may use them, where no GPU is at hand.

Tensors on it report "cuda:0", hold a tensor of the CPU, and may do what CUDA's may: an operation with a CPU tensor of one dimension or more, NumPy's
view of one, or a CPU generator for one raise, as they do there; and nothing there is float64, which
Apple's GPUs lack. Kernels and their rounding are the CPU's.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

DEVICE = torch.device("cuda:0")
BETWEEN = {torch.ops.aten.copy_, torch.ops.aten._to_copy}
"""Go from one device to another."""
INDEXING = {torch.ops.aten.index, torch.ops.aten.index_put, torch.ops.aten.index_put_, torch.ops.aten._unsafe_index}
"""Take indices of the CPU."""
TO_PYTHON = {"item", "tolist", "__bool__", "__float__", "__int__", "__index__", "__complex__", "__format__", "__repr__", "__contains__"}
DATA_SIZED = {"nonzero", "argwhere", "unique", "unique_consecutive", "masked_select", "bincount", "equal", "allclose", "repeat_interleave"}
GUARDED = DATA_SIZED | {"batch_norm", "contiguous", "grid_sample", "scaled_dot_product_attention"}
"""Ask the driver, or choose a kernel by the device, before any tensor is asked: the CPU does these as a whole."""
MAKES_TENSORS = {"tensor", "as_tensor", "asarray"}
REFUSED = {"numpy", "__array__", "__dlpack__"}


class Elsewhere(Tensor):
    """A tensor of the second device; `held` is on the CPU."""

    held: Tensor

    @staticmethod
    def __new__(cls, real: Tensor) -> Elsewhere:
        out: Any = Tensor._make_wrapper_subclass(
            cls,
            real.shape,
            strides=real.stride(),
            storage_offset=real.storage_offset(),
            dtype=real.dtype,
            device=DEVICE,
            requires_grad=real.requires_grad,
        )
        out.held = real
        return out

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        name = func.overloadpacket
        given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        if name not in BETWEEN:
            strangers = [tensor for tensor in given if not isinstance(tensor, Elsewhere) and (tensor.dim() or name in INDEXING)]
            if name in INDEXING:
                strangers = [tensor for tensor in strangers if tensor is args[0] or (len(args) > 2 and tensor is args[2] and tensor.dim())]
            if strangers:
                raise RuntimeError(f"Expected all tensors to be on the same device, but {name} got cuda:0 and cpu {tuple(strangers[0].shape)}")
        if (generator := kwargs.get("generator")) is not None and generator.device != DEVICE:
            raise RuntimeError(f"Expected a 'cuda' device type for generator but found '{generator.device}'")
        asked = kwargs.get("device")
        to = DEVICE if asked is None else torch.device(asked)
        if asked is not None:
            kwargs["device"] = torch.device("cpu")
        if kwargs.pop("pin_memory", None):
            raise RuntimeError("cannot pin memory of the device")
        real_args, real_kwargs = tree_map(real_of, (args, kwargs))
        out = func(*real_args, **real_kwargs)
        if func._schema.name.endswith("_") and isinstance(args[0], Tensor):
            return args[0]
        outs = {id(real_of(tensor)): tensor for tensor in given}
        return tree_map(lambda leaf: outs.get(id(leaf), leaf if to.type == "cpu" else Elsewhere(leaf)) if isinstance(leaf, Tensor) else leaf, out)


def real_of(leaf: Any) -> Any:
    return leaf.held if isinstance(leaf, Elsewhere) else leaf


def there(out: Any) -> Any:
    """What came out on the CPU, as the second device's."""
    return tree_map(lambda leaf: Elsewhere(leaf) if isinstance(leaf, Tensor) and not isinstance(leaf, Elsewhere) else leaf, out)


def is_elsewhere(device: Any) -> bool:
    return device is not None and torch.device(device).type == DEVICE.type


class NoGrad:
    """Stands for the guard of inference mode, whose tensors a wrapper cannot hold views of."""

    def __init__(self, mode: bool) -> None:
        self.mode = mode

    def __enter__(self) -> None:
        self.before = torch.is_grad_enabled()
        torch._C._set_grad_enabled(self.before and not self.mode)

    def __exit__(self, *error: Any) -> None:
        torch._C._set_grad_enabled(self.before)


class FromInside(TorchDispatchMode):
    """What C++ makes on the second device by itself, `new_tensor` for one."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if is_elsewhere(kwargs.get("device")) and not any(isinstance(leaf, Elsewhere) for leaf in tree_leaves((args, kwargs))):
            return tree_map(
                lambda leaf: Elsewhere(leaf) if isinstance(leaf, Tensor) else leaf, func(*args, **{**kwargs, "device": torch.device("cpu")})
            )
        return func(*args, **kwargs)


class SecondDevice(TorchFunctionMode):
    """While it is entered, "cuda" is the second device, in this thread.

    Attributes:
        moved: how many tensors went or were made there.
        sent, fetched: how many of one dimension or more went there, and came back.
        asked: how many numbers Python wanted to know of tensors there, or how many; as each one fetched, that waits for all work.
    """

    def __init__(self) -> None:
        super().__init__()
        self.moved = self.sent = self.fetched = self.asked = 0
        self._patches = ExitStack()

    def __enter__(self) -> SecondDevice:
        self._patches.enter_context(mock.patch("torch.cuda.is_available", lambda: True))
        self._patches.enter_context(mock.patch("torch.cuda.device_count", lambda: 1))
        self._patches.enter_context(mock.patch("torch.cuda.get_device_name", lambda device=None: "second device"))
        self._patches.enter_context(mock.patch("torch.cuda.get_device_capability", lambda device=None: (7, 5)))
        self._patches.enter_context(mock.patch("torch.cuda.synchronize", lambda device=None: None))
        self._patches.enter_context(mock.patch("torch._C._InferenceMode", NoGrad))
        self._patches.enter_context(FromInside())
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._patches.close()

    def __torch_function__(self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        name = getattr(func, "__name__", "")
        first = args[0] if args else None
        if isinstance(first, Elsewhere):
            if name in REFUSED:
                raise TypeError(f"can't convert cuda:0 device type tensor to numpy ({name}); use Tensor.cpu() first")
            if name in TO_PYTHON:
                self.asked += 1
                return func(first.held, *tree_map(real_of, args[1:]), **kwargs)
            if name in ("double", "float64") or kwargs.get("dtype") == torch.float64:
                raise TypeError(f"{name}: the MPS framework doesn't support float64")
            if name == "cpu":
                return self._to(Tensor.to, first, ("cpu",), {})
            self.asked += name in DATA_SIZED
            self.sent += name == "new_tensor"
            if name in GUARDED:
                if any(isinstance(leaf, Tensor) and leaf.dim() and not isinstance(leaf, Elsewhere) for leaf in tree_leaves((args, kwargs))):
                    raise RuntimeError(f"Expected all tensors to be on the same device, but {name} got cuda:0 and cpu")
                out = func(*tree_map(real_of, args), **tree_map(real_of, kwargs))
                return tree_map(lambda leaf: Elsewhere(leaf) if isinstance(leaf, Tensor) else leaf, out)
            if name == "new_tensor":
                return Elsewhere(func(first.held, *args[1:], **{**kwargs, "device": "cpu"}))
        if name == "copy_":
            func(*tree_map(real_of, args), **tree_map(real_of, kwargs))
            return first
        if name in ("__getitem__", "__setitem__"):
            return self._indexed(func, *args)
        if name == "cuda" and isinstance(first, Tensor):
            return self._to(Tensor.to, first, (DEVICE,), {})
        if name == "pin_memory":
            return first
        if name == "_has_compatible_shallow_copy_type" and isinstance(first, Elsewhere) != isinstance(args[1], Elsewhere):
            return False
        if name == "to" and isinstance(first, Tensor):
            return self._to(func, first, args[1:], kwargs)
        device = kwargs.get("device", first.device if name in MAKES_TENSORS and isinstance(first, Elsewhere) else None)
        if device is not None:
            if (generator := kwargs.get("generator")) is not None and is_elsewhere(device) != is_elsewhere(generator.device):
                raise RuntimeError(f"Expected a '{torch.device(device).type}' device type for generator but found '{generator.device}'")
            if is_elsewhere(device) or isinstance(first, Elsewhere):
                out = func(*tree_map(real_of, args), **{**tree_map(real_of, kwargs), "device": "cpu"})
                self.sent += name in MAKES_TENSORS and is_elsewhere(device) and not isinstance(first, Elsewhere)
                return self._there(out) if is_elsewhere(device) else out
        return func(*args, **kwargs)

    def _indexed(self, func: Callable[..., Any], tensor: Tensor, index: Any, value: Any = None) -> Any:
        """What Python's own [] does before any kernel is asked."""
        indices = [leaf for leaf in tree_leaves(index) if isinstance(leaf, Tensor)]
        here = isinstance(tensor, Elsewhere)
        if not here and any(isinstance(leaf, Elsewhere) for leaf in indices):
            raise RuntimeError("indices should be either on cpu or on the same device as the indexed tensor (cpu)")
        if isinstance(value, Tensor) and indices and value.dim() and isinstance(value, Elsewhere) != here:
            raise RuntimeError("index_put_: Expected all tensors to be on the same device")
        out = func(real_of(tensor), tree_map(real_of, index), *([] if func is Tensor.__getitem__ else [real_of(value)]))
        return Elsewhere(out) if here and out is not None else out

    def _to(self, func: Callable[..., Any], tensor: Tensor, args: Any, kwargs: dict[str, Any]) -> Any:
        """Tensor.to: the CPU does the rest of what is asked."""
        copy = kwargs.pop("copy", False)
        if isinstance(other := args[0] if args else kwargs.pop("other", None), Tensor):
            device, dtype, memory_format = other.device, other.dtype, kwargs.get("memory_format")
        else:
            device, dtype, _, memory_format = torch._C._nn._parse_to(*args, **kwargs)
        here = isinstance(tensor, Elsewhere)
        goes = here if device is None else is_elsewhere(device)
        self.sent += goes and not here and tensor.dim() > 0
        self.fetched += here and not goes
        asked = {} if memory_format is None else {"memory_format": memory_format}
        out = func(real_of(tensor), device="cpu", dtype=dtype or tensor.dtype, copy=copy or here != goes, **asked)
        return tensor if out is real_of(tensor) else self._there(out) if goes else out

    def _there(self, out: Any) -> Any:
        self.moved += 1
        if any(isinstance(leaf, Tensor) and leaf.dtype == torch.float64 for leaf in tree_leaves(out)):
            raise TypeError("Cannot convert a MPS Tensor to float64 dtype as the MPS framework doesn't support float64")
        return there(out)
