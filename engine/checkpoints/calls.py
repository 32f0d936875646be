"""What stands for a call that a pickle asks for: plain data where the function is one of torch's, else nothing.

No function that a file names is called, looked up or imported. Those by which torch saves tensors are known by name,
and what they would make is described as ndissect.engine.checkpoints.values.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import islice

import torch

from ndissect.engine.checkpoints.arrays import NumberType, StoredArray
from ndissect.engine.checkpoints.values import (
    DTYPES,
    PLAIN,
    STORAGE_TYPES,
    Global,
    OddTensor,
    StoredNumbers,
    StoredTensor,
    Unread,
)

# No weights need these: a file that names them was made to run code.
_HARMFUL_MODULES = frozenset({"os", "posix", "nt", "sys", "subprocess", "commands", "pty", "runpy", "shutil", "socket"})
_HARMFUL_BUILTINS = frozenset({"eval", "exec", "execfile", "compile", "__import__", "open", "breakpoint", "input"})
_BUILTINS = ("builtins", "__builtin__")
_TENSOR_CLASSES = frozenset({"torch.Tensor", "torch.nn.parameter.Parameter", "torch.nn.parameter.Buffer"})
# These make an object of the class that is their first argument.
_MAKERS = frozenset(
    {"copyreg._reconstructor", "copy_reg._reconstructor", "copyreg.__newobj__", "copyreg.__newobj_ex__",
     "builtins.getattr", "__builtin__.getattr", "functools.partial"}
)  # fmt: skip
# Sizes and places beyond it are none.
_MOST, _MOST_AXES = 1 << 62, 64
# Parts of an argument that are looked at for tensors.
_LOOKED_AT = 100


def is_harmful(name: str) -> bool:
    """Whether ``name`` (``posix.system``) is of a module that runs programs or reaches files."""
    module, _, last = name.partition(".")
    return module in _HARMFUL_MODULES or (module in _BUILTINS and last in _HARMFUL_BUILTINS)


def call(function: object, args: tuple[object, ...]) -> object:
    """What a call of ``function`` with the tuple ``args`` would make, as plain data; ValueError where it is no call."""
    if isinstance(function, Unread):
        return Unread(function.name, function.tensors or holds_tensors(args))
    if not isinstance(function, Global):
        raise ValueError("a call of what is no function")
    known = _KNOWN.get(function.name)
    made = known(args) if known is not None else None
    return made if made is not None else Unread(_told(function, args), holds_tensors(args))


def set_state(target: object, state: object) -> None:
    """Give ``target`` the ``state`` that the pickle has for it: that of numpy's arrays; of others none is kept."""
    if isinstance(target, StoredArray | NumberType):
        target.build(state)
    elif isinstance(target, Unread):
        target.tensors = target.tensors or holds_tensors(state)


def set_item(target: object, key: object, value: object) -> None:
    """Put ``value`` into the dictionary ``target``, under a name or a number; other keys name no weights."""
    if isinstance(target, Unread):
        target.tensors = target.tensors or holds_tensors((value,))
        return
    if type(target) is not dict:
        raise ValueError("an entry of what is no dictionary")
    name = key.decode("latin-1") if type(key) is bytes else key
    if type(name) is str or (type(name) is int and abs(name) < 10**9):
        target[name] = value


def holds_tensors(value: object, depth: int = 0) -> bool:
    """Whether tensors are among the first parts of ``value``, a container, or of the containers in it."""
    if isinstance(value, StoredTensor | StoredNumbers | OddTensor):
        return True
    if isinstance(value, Unread):
        return value.tensors
    if depth > 2:
        return False
    parts: Iterable[object] = ()
    if type(value) in (tuple, list):
        parts = value  # type: ignore[assignment]
    elif type(value) is dict:
        parts = value.values()
    return any(holds_tensors(part, depth + 1) for part in islice(parts, _LOOKED_AT if depth == 0 else 20))


def numbers_of(saved: object) -> StoredNumbers | Global:
    """What torch's persistent identifier ``saved`` stands for; ValueError where it is none."""
    if not isinstance(saved, tuple) or not saved:
        raise ValueError("an identifier of nothing")
    kind = saved[0].decode("latin-1") if isinstance(saved[0], bytes) else saved[0]
    if kind == "module" and len(saved) > 1 and isinstance(saved[1], Global):
        return saved[1]  # the class of a whole network, beside its source
    if kind != "storage" or len(saved) not in (5, 6):
        raise ValueError("an identifier that torch does not write")
    dtype = STORAGE_TYPES.get(saved[1].name) if isinstance(saved[1], Global) else None
    key = saved[2].decode("latin-1") if isinstance(saved[2], bytes) else saved[2]
    if dtype is None or type(key) not in (str, int) or not _is_size(saved[4]):
        raise ValueError("a storage without a type")
    view = saved[5] if len(saved) == 6 else None
    if view is None:
        return StoredNumbers(str(key), dtype, saved[4])
    _, start, count = view
    if not _is_size(start) or not _is_size(count) or start + count > saved[4]:
        raise ValueError("a view beyond its storage")
    return StoredNumbers(str(key), dtype, saved[4], start)


def _is_size(value: object) -> bool:
    return type(value) is int and 0 <= value < _MOST


def _sizes(value: object) -> tuple[int, ...]:
    if not isinstance(value, tuple | list) or len(value) > _MOST_AXES or not all(_is_size(n) for n in value):
        raise ValueError("a size that is none")
    return tuple(value)


def _told(function: Global, args: tuple[object, ...]) -> str:
    """The name of the class of which a call makes an object, as far as the pickle says it."""
    if function.name in _MAKERS and args and isinstance(args[0], Global | Unread):
        return args[0].name
    return function.name


# What the known functions make, given their arguments; None where these are not as torch writes them.


def _dictionary(args: tuple[object, ...]) -> object:
    made: dict[object, object] = {}
    entries = args[0] if args else ()
    if isinstance(entries, dict):
        return dict(entries)
    if not isinstance(entries, list | tuple):
        return None
    for entry in entries:
        if not isinstance(entry, list | tuple) or len(entry) != 2:
            return None
        set_item(made, entry[0], entry[1])
    return made


def _dense(args: tuple[object, ...], dtype: object, metadata: object) -> object:
    """A tensor of (numbers, offset, size, stride, ...)."""
    if len(args) < 4:
        raise ValueError("a tensor without a size")
    numbers, offset, size, stride = args[:4]
    if isinstance(numbers, Unread):
        return Unread(numbers.name, True)
    if not isinstance(numbers, StoredNumbers) or not _is_size(offset) or not isinstance(offset, int):
        raise ValueError("a tensor without numbers")
    if dtype not in PLAIN:
        return OddTensor("a quantised tensor")
    sizes, strides = _sizes(size), _sizes(stride)
    if len(sizes) != len(strides) or not isinstance(dtype, torch.dtype):
        raise ValueError("a tensor with two sizes")
    marks = metadata if isinstance(metadata, dict) else {}
    conjugate, negative = bool(marks.get("conj") is True), bool(marks.get("neg") is True)
    return StoredTensor(numbers, dtype, offset, sizes, strides, conjugate, negative)


def _tensor(args: tuple[object, ...]) -> object:
    dtype = args[0].dtype if args and isinstance(args[0], StoredNumbers) else None
    return _dense(args, dtype, args[6] if len(args) > 6 else None)


def _tensor_of_type(args: tuple[object, ...]) -> object:
    dtype = DTYPES.get(args[6].name) if len(args) > 6 and isinstance(args[6], Global) else None
    return _dense(args, dtype, args[7] if len(args) > 7 else None)


def _first(args: tuple[object, ...]) -> object:
    """The tensor that a parameter, or a tensor of another device, was made of."""
    return args[0] if args and isinstance(args[0], StoredTensor | OddTensor) else None


def _of_class(args: tuple[object, ...]) -> object:
    """A tensor with attributes, or of a class of its own: (function, class, arguments, state)."""
    if len(args) < 3 or not isinstance(args[1], Global):
        return None
    if args[1].name not in _TENSOR_CLASSES or not isinstance(args[2], tuple):
        return Unread(args[1].name, True)
    return call(args[0], args[2])


def _array_of_bytes(args: tuple[object, ...]) -> object:
    """Numpy's array in protocol 5: (bytes, type, shape, order)."""
    array = StoredArray()
    if len(args) == 4:
        array.fill(args[1], args[2], args[3] == "F", args[0])
    return array


def _encoded(args: tuple[object, ...]) -> object:
    """Bytes, which protocol 2 writes as a text of these characters."""
    if len(args) == 2 and isinstance(args[0], str) and args[1] in ("latin1", "latin-1"):
        return args[0].encode("latin-1")
    return None


def _bytes(args: tuple[object, ...]) -> object:
    """Bytes that protocol 2 writes as a call: of nothing, or of other bytes."""
    return b"" if not args else args[0] if isinstance(args[0], bytes) else None


def _parts(args: tuple[object, ...]) -> object:
    """The parts of a set."""
    return [] if not args else args[0] if isinstance(args[0], list) else None


def _odd(kind: str) -> Callable[[tuple[object, ...]], object]:
    return lambda args: OddTensor(kind)


_KNOWN: dict[str, Callable[[tuple[object, ...]], object]] = (
    {
        "collections.OrderedDict": _dictionary,
        "torch.Size": lambda args: _sizes(args[0]) if args else (),
        "torch._utils._rebuild_tensor": _tensor,
        "torch._utils._rebuild_tensor_v2": _tensor,
        "torch._utils._rebuild_tensor_v3": _tensor_of_type,
        "torch._utils._rebuild_parameter": _first,
        "torch._utils._rebuild_parameter_with_state": _first,
        "torch._utils._rebuild_device_tensor_from_cpu_tensor": _first,
        "torch._utils._rebuild_sparse_tensor": _odd("a sparse tensor"),
        "torch._utils._rebuild_qtensor": _odd("a quantised tensor"),
        "torch._utils._rebuild_nested_tensor": _odd("a nested tensor"),
        "torch._utils._rebuild_meta_tensor_no_storage": _odd("a tensor without values (meta)"),
        "torch.nn.parameter.Parameter": _first,
        "torch._tensor._rebuild_from_type_v2": _of_class,
        "_codecs.encode": _encoded,
        "numpy.dtype": lambda args: NumberType(args[0] if args and isinstance(args[0], str) else ""),
    }
    | {
        f"{module}.{name}": made
        for module in _BUILTINS
        for name, made in (
            ("dict", _dictionary),
            ("set", _parts),
            ("frozenset", _parts),
            ("bytes", _bytes),
            ("bytearray", _bytes),
        )
    }
    | {
        f"numpy.{core}.{name}": made
        for core in ("core", "_core")
        for name, made in (
            ("multiarray._reconstruct", lambda args: StoredArray()),
            ("numeric._frombuffer", _array_of_bytes),
        )
    }
)
