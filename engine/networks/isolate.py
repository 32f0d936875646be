"""A researcher's own code, imported without its names meeting ours.

A network's file says ``import utils`` and means the ``utils.py`` beside it. If that folder were on ``sys.path``,
everyone would see its names: a ``random.py`` beside the network would break the next library that imports random, and
a second network would get the first one's ``utils``. So each network gets a private package, whose search path is the
network's folders, and an import statement *in those folders* looks there first:

* every module of the network lives in ``sys.modules`` as ``_nd_network_<id>.<its own name>``, which pickle,
  dataclasses and relative imports rely on;
* its import statements, also those that run later inside ``forward()``, go through the private package because
  Python takes ``__import__`` from the importing module's ``__builtins__``;
* ``importlib.import_module("models.x")`` and unpickling have no importing module: they fall back on the network
  loaded last, and only for names which nothing else on the machine provides.

A module which Python or torch has loaded already keeps its meaning, so ``import random`` is the standard library's
even where a ``random.py`` lies beside the network (``from . import random`` gets that one).

Two simpler ways do not do it. The folders on ``sys.path`` only while the network loads were tried: then imports inside
``forward()`` and pickles of the network fail later, and ``import ndissect`` beside a folder of that name gets ours
(five tests fail). A process for each network was not built: hooks, edits and comparisons need the modules of all
networks in this process.
"""

from __future__ import annotations

import builtins
import contextlib
import hashlib
import importlib
import importlib.util
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from importlib.util import spec_from_loader
from pathlib import Path
from types import ModuleType

BASE = "_nd_network_"
KEPT = frozenset({"torch", "torchvision", "numpy", *sys.builtin_module_names})
_scopes: dict[str, Scope] = {}


class Scope:
    """The private package of one network: ``folders`` are searched in order by the code that lies in them."""

    def __init__(self, folders: Sequence[Path]) -> None:
        stem = BASE + hashlib.sha256("\0".join(map(str, folders)).encode("utf-8", "surrogatepass")).hexdigest()[:8]
        self.package = next(p for n in range(len(_scopes) + 1) if (p := f"{stem}_{n}") not in _scopes)
        self.path = list(dict.fromkeys(str(f) for f in folders))
        self.builtins: dict[str, object] = {**vars(builtins), "__import__": self._import}
        self._usual_path: list[str] | None = None
        root = ModuleType(self.package, "The modules of one dissected network.")
        root.__path__ = self.path
        sys.modules[self.package] = root
        _scopes[self.package] = self
        _install_finders()

    def load(self, name: str) -> ModuleType:
        """The network's module ``name`` (dotted, as the network's own code would call it)."""
        return importlib.import_module(f"{self.package}.{name}")

    def load_file(self, file: Path) -> ModuleType:
        """The module of ``file``; inside a package (``__init__.py`` beside it) under its place in that package."""
        parts = [re.sub(r"\W", "_", file.stem)]
        folder = file.parent
        while (folder / "__init__.py").is_file() and folder.name.isidentifier():
            parts.insert(0, folder.name)
            folder = folder.parent
        if len(parts) > 1:
            self.path[1:1] = [str(folder)]
            self.load(".".join(parts[:-1]))
        name = ".".join([self.package, *parts])
        loader = _ScopedLoader(self, name, str(file))
        spec = importlib.util.spec_from_file_location(name, file, loader=loader)
        assert spec is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        try:
            loader.exec_module(module)
        except BaseException:
            sys.modules.pop(name, None)
            raise
        return module

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """While the network's file or factory runs: what it prints goes to stderr (stdout is for results), and the
        folders that it adds to ``sys.path`` become its own instead of everyone's."""
        for name in [n for n, m in sys.modules.items() if _is_private(m) and not n.startswith(BASE)]:
            del sys.modules[name]  # names lent to importlib for the network loaded before
        _scopes[self.package] = _scopes.pop(self.package)
        self._usual_path = list(sys.path)
        try:
            with contextlib.redirect_stdout(sys.stderr):
                yield
        finally:
            self._adopt_path()
            sys.path[:] = self._usual_path
            self._usual_path = None

    def owns(self, top: str, importer: Mapping[str, object] | None = None) -> bool:
        """Whether the top-level name ``top`` means a module in this network's folders."""
        own = f"{self.package}.{top}"
        if importer is not None and importer.get("__name__") == own and "__path__" not in importer:
            return not _elsewhere(top)  # clip.py that says `import clip` wants the installed one
        if own in sys.modules:
            return True
        if top in KEPT or (top in sys.stdlib_module_names and top in sys.modules):
            return False
        self._adopt_path()
        spec = PathFinder.find_spec(own, self.path)
        if spec is None:
            return False
        # A folder without __init__.py may hold anything, even if it is called like an installed package.
        return spec.origin is not None or not _elsewhere(top)

    def public_name(self, text: str) -> str:
        """``text`` with module names as the network's own code writes them."""
        return text.replace(self.package + ".", "")

    def _adopt_path(self) -> None:
        if self._usual_path is not None:
            known = {*self._usual_path, *self.path}
            self.path.extend(str(Path(p).resolve()) for p in sys.path if p not in known)

    def _import(
        self,
        name: str,
        globals: Mapping[str, object] | None = None,
        locals: Mapping[str, object] | None = None,
        fromlist: Sequence[str] | None = (),
        level: int = 0,
    ) -> ModuleType:
        top = name.partition(".")[0]
        if level or not self.owns(top, globals):
            return builtins.__import__(name, globals, locals, fromlist or (), level)
        module = importlib.import_module(f"{self.package}.{name}")
        if fromlist:
            return builtins.__import__(module.__name__, globals, locals, fromlist, 0)
        return sys.modules[f"{self.package}.{top}"]


class _ScopedLoader(SourceFileLoader):
    """Runs a module with the import statement of its network."""

    def __init__(self, scope: Scope, fullname: str, path: str) -> None:
        super().__init__(fullname, path)
        self._scope = scope

    def exec_module(self, module: ModuleType) -> None:
        module.__dict__["__builtins__"] = self._scope.builtins
        super().exec_module(module)


class _Alias(Loader):
    """Gives a network's module to importlib or pickle under the name that it has in the network's own folder."""

    def __init__(self, private: str) -> None:
        self._private = private

    def create_module(self, spec: ModuleSpec) -> None:
        return None

    def exec_module(self, module: ModuleType) -> None:
        sys.modules[module.__name__] = importlib.import_module(self._private)


class _PrivateFinder(MetaPathFinder):
    """Finds the modules inside private packages, before anyone else can load a second copy of them."""

    @staticmethod
    def find_spec(
        fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        head, _, tail = fullname.rpartition(".")
        if path is None or not _is_private(sys.modules.get(head)):
            return None
        spec = PathFinder.find_spec(fullname, path)
        if not head.startswith(BASE):
            return spec and spec_from_loader(fullname, _Alias(f"{sys.modules[head].__name__}.{tail}"))
        if spec is not None and type(spec.loader) is SourceFileLoader:
            scope = _scopes[fullname.partition(".")[0]]
            spec.loader = _ScopedLoader(scope, spec.loader.name, str(spec.loader.path))
        return spec


class _LentNames(MetaPathFinder):
    """The last resort for a top-level name: the network loaded last that has it."""

    @staticmethod
    def find_spec(
        fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if path is not None or fullname.startswith(BASE):
            return None
        for scope in reversed(_scopes.values()):
            if scope.owns(fullname):
                return spec_from_loader(fullname, _Alias(f"{scope.package}.{fullname}"))
        return None


_FIRST, _LAST = _PrivateFinder(), _LentNames()


def _install_finders() -> None:
    if _FIRST not in sys.meta_path:
        sys.meta_path.insert(0, _FIRST)
        sys.meta_path.append(_LAST)


def _is_private(module: ModuleType | None) -> bool:
    return str(getattr(module, "__name__", "")).startswith(BASE)


def _elsewhere(top: str) -> bool:
    known = sys.modules.get(top)
    if known is not None:
        return not _is_private(known)
    return PathFinder.find_spec(top) is not None
