"""Pickles read as plain data, whatever they ask for: nothing in them is imported, called or run.

Python's unpickler is a machine that calls what a file names. This one knows the same instructions (of protocols 0 to 5)
and puts data that does nothing in the place of every object: see ndissect.engine.checkpoints.values.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable, Iterator
from typing import IO, Any, cast

from ndissect.engine.checkpoints.calls import call, holds_tensors, is_harmful, numbers_of, set_item, set_state
from ndissect.engine.checkpoints.limits import OBJECT, Limit
from ndissect.engine.checkpoints.values import Global, StoredNumbers, Unread

_BROKEN = (ArithmeticError, AssertionError, AttributeError, EOFError, LookupError, TypeError, ValueError)
_LONGEST_NAME = 200


class CodeInFile(Exception):
    """The file names a function that runs programs; ``name`` says which."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


class Broken(Exception):
    """The pickle ends early, or does not do what its instructions are for."""


def read_pickle(file: IO[bytes], limit: Limit) -> tuple[object, dict[str, StoredNumbers]]:
    """The object that the pickle at the place of ``file`` holds, as plain data, and the storages that it names.

    ``file`` then stands behind the pickle. Dictionaries are dicts with names or whole numbers as keys, sets are lists,
    and bytearrays bytes. Broken where it is no pickle, CodeInFile where it asks for programs, NDError beyond ``limit``.
    """
    machine = _Machine(limit)
    try:
        for opcode, arg, _ in pickletools.genops(cast(Any, _Bounded(file, limit))):
            machine.spend(OBJECT)
            machine.do(opcode.name, arg)
        return machine.stack.pop(), machine.storages
    except _BROKEN as error:
        raise Broken(str(error)[:_LONGEST_NAME] or type(error).__name__) from error


class _Bounded:
    """A file of which no more is asked for than may be read: a pickle says itself how long its texts are."""

    def __init__(self, file: IO[bytes], limit: Limit) -> None:
        self._file, self._most = file, limit.bytes

    def read(self, size: int) -> bytes:
        """The next bytes."""
        if size > self._most:
            raise ValueError("a text that is longer than the file may be")
        return self._file.read(size)

    def readline(self) -> bytes:
        """The next line."""
        return self._file.readline(self._most)


class _Machine:
    """A stack on which a pickle's instructions work, the stacks that wait below its marks, and what it remembers."""

    def __init__(self, limit: Limit) -> None:
        self.stack: list[Any] = []
        self.storages: dict[str, StoredNumbers] = {}
        self._limit, self._spent = limit, 0
        self._below: list[list[Any]] = []
        self._memory: dict[int, Any] = {}

    def do(self, name: str, arg: Any) -> None:
        """Follow one instruction; an error of ``_BROKEN`` where that is impossible."""
        if name in _CONSTANTS:
            self.stack.append(arg)
        else:
            _INSTRUCTIONS[name](self, arg)

    def spend(self, size: int) -> None:
        """Count ``size`` bytes of memory; NDError where they have become too many."""
        self._spent += size
        if self._spent > self._limit.bytes:
            self._limit.check(self._spent, "would take in memory more than")

    def call(self, function: Any, args: Any) -> None:
        """Put on the stack what stands for a call. It may copy its arguments, and the same ones many times."""
        if not isinstance(args, tuple):
            raise ValueError("a call without arguments")
        self.spend(OBJECT * len(args))
        for arg in args:
            self.spend(_size(arg))
        self.stack.append(call(function, args))

    def above_mark(self) -> list[Any]:
        """What was put on the stack since the last mark, which is taken off."""
        items = self.stack
        self.stack = self._below.pop()
        return items

    def mark(self, arg: Any) -> None:
        self._below.append(self.stack)
        self.stack = []

    def pop(self, arg: Any) -> None:
        if self.stack:
            self.stack.pop()
        else:
            self.above_mark()

    def pop_mark(self, arg: Any) -> None:
        self.above_mark()

    def remember(self, arg: int | None) -> None:
        self._memory[len(self._memory) if arg is None else arg] = self.stack[-1]

    def recall(self, arg: int) -> None:
        self.stack.append(self._memory[arg])

    def append(self, arg: Any) -> None:
        item = self.stack.pop()
        self._extend([item])

    def appends(self, arg: Any) -> None:
        items = self.above_mark()
        self._extend(items)

    def _extend(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if isinstance(target, Unread):
            target.tensors = target.tensors or holds_tensors(items)
        elif type(target) is list:
            target.extend(items)
        else:
            raise ValueError("a part of what is no list")

    def set_one(self, arg: Any) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        set_item(self.stack[-1], key, value)

    def set_many(self, arg: Any) -> None:
        items = self.above_mark()
        for key, value in _pairs(items):
            set_item(self.stack[-1], key, value)

    def dictionary(self, arg: Any) -> None:
        made: dict[Any, Any] = {}
        for key, value in _pairs(self.above_mark()):
            set_item(made, key, value)
        self.stack.append(made)

    def tuple_of(self, count: int) -> None:
        if count > len(self.stack):
            raise ValueError("a tuple of more than there is")
        items = tuple(self.stack[len(self.stack) - count :])
        self.stack[len(self.stack) - count :] = [items]

    def name(self, module: object, name: object) -> Global:
        """What the file means by a module and a name in it; both may have dots."""
        if type(module) is not str or type(name) is not str:
            raise ValueError("a name that is no text")
        full = f"{module}.{name}"[:_LONGEST_NAME]
        if is_harmful(full):
            raise CodeInFile(full)
        return Global(full)

    def stack_global(self, arg: Any) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        self.stack.append(self.name(module, name))

    def reduce(self, arg: Any) -> None:
        args, function = self.stack.pop(), self.stack.pop()
        self.call(function, args)

    def new_with_names(self, arg: Any) -> None:
        names, args, made = self.stack.pop(), self.stack.pop(), self.stack.pop()
        self.spend(_size(names) + _size(args))
        self.call(made, (*args, *names.values()))

    def instance(self, arg: str) -> None:
        module, _, name = arg.partition(" ")
        args = self.above_mark()
        self.call(self.name(module, name), tuple(args))

    def object(self, arg: Any) -> None:
        made, *args = self.above_mark()
        self.call(made, tuple(args))

    def build(self, arg: Any) -> None:
        state = self.stack.pop()
        for part in state if isinstance(state, tuple) and len(state) == 5 else ():
            self.spend(_size(part))
        set_state(self.stack[-1], state)

    def identifier(self, arg: Any) -> None:
        numbers = numbers_of(self.stack.pop())
        if isinstance(numbers, StoredNumbers):
            known = self.storages.setdefault(numbers.key, numbers)
            if (known.dtype, known.count) != (numbers.dtype, numbers.count):
                raise ValueError("a storage of two sizes")
        self.stack.append(numbers)

    def no_identifier(self, arg: Any) -> None:
        raise ValueError("an identifier that torch does not write")


def _size(value: object) -> int:
    """The bytes that a copy of ``value`` takes, not of what it holds."""
    if isinstance(value, str | bytes):
        return len(value)
    return OBJECT * len(value) if isinstance(value, list | tuple | dict) else 0


def _pairs(items: list[Any]) -> Iterator[tuple[Any, Any]]:
    if len(items) % 2:
        raise ValueError("a key without a value")
    return zip(items[::2], items[1::2], strict=True)


def _push(make: Callable[[_Machine, Any], object]) -> Callable[[_Machine, Any], None]:
    def follow(machine: _Machine, arg: Any) -> None:
        made = make(machine, arg)  # it may change which stack is the uppermost
        machine.stack.append(made)

    return follow


def _global(machine: _Machine, arg: str) -> Global:
    module, _, name = arg.partition(" ")
    return machine.name(module, name)


# What puts its argument on the stack: pickletools decodes it. Python 2's texts are bytes; those of names are Latin-1.
_CONSTANTS = frozenset(
    {"INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT", "STRING", "BINSTRING",
     "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "UNICODE", "SHORT_BINUNICODE", "BINUNICODE",
     "BINUNICODE8", "NONE"}
)  # fmt: skip
_INSTRUCTIONS: dict[str, Callable[[_Machine, Any], None]] = {
    "BYTEARRAY8": _push(lambda machine, arg: bytes(arg)),
    "NEWTRUE": _push(lambda machine, arg: True),
    "NEWFALSE": _push(lambda machine, arg: False),
    "EMPTY_LIST": _push(lambda machine, arg: []),
    "EMPTY_SET": _push(lambda machine, arg: []),
    "EMPTY_TUPLE": _push(lambda machine, arg: ()),
    "EMPTY_DICT": _push(lambda machine, arg: {}),
    "LIST": _push(lambda machine, arg: machine.above_mark()),
    "FROZENSET": _push(lambda machine, arg: machine.above_mark()),
    "TUPLE": _push(lambda machine, arg: tuple(machine.above_mark())),
    "DUP": _push(lambda machine, arg: machine.stack[-1]),
    "NEXT_BUFFER": _push(lambda machine, arg: Unread("bytes of another file")),
    "EXT1": _push(lambda machine, arg: Global(f"copyreg.extension{arg}")),
    "EXT2": _push(lambda machine, arg: Global(f"copyreg.extension{arg}")),
    "EXT4": _push(lambda machine, arg: Global(f"copyreg.extension{arg}")),
    "GLOBAL": _push(_global),
    "TUPLE1": lambda machine, arg: machine.tuple_of(1),
    "TUPLE2": lambda machine, arg: machine.tuple_of(2),
    "TUPLE3": lambda machine, arg: machine.tuple_of(3),
    "DICT": _Machine.dictionary,
    "MARK": _Machine.mark,
    "POP": _Machine.pop,
    "POP_MARK": _Machine.pop_mark,
    "PUT": _Machine.remember,
    "BINPUT": _Machine.remember,
    "LONG_BINPUT": _Machine.remember,
    "MEMOIZE": _Machine.remember,
    "GET": _Machine.recall,
    "BINGET": _Machine.recall,
    "LONG_BINGET": _Machine.recall,
    "APPEND": _Machine.append,
    "APPENDS": _Machine.appends,
    "ADDITEMS": _Machine.appends,
    "SETITEM": _Machine.set_one,
    "SETITEMS": _Machine.set_many,
    "STACK_GLOBAL": _Machine.stack_global,
    "REDUCE": _Machine.reduce,
    "NEWOBJ": _Machine.reduce,
    "NEWOBJ_EX": _Machine.new_with_names,
    "INST": _Machine.instance,
    "OBJ": _Machine.object,
    "BUILD": _Machine.build,
    "BINPERSID": _Machine.identifier,
    "PERSID": _Machine.no_identifier,
    "READONLY_BUFFER": lambda machine, arg: None,
    "PROTO": lambda machine, arg: None,
    "FRAME": lambda machine, arg: None,
    "STOP": lambda machine, arg: None,
}
