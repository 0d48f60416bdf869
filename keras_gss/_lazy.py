"""Packages that import a module only when one of its names is asked for: importing stays quick."""

import importlib
import sys
from collections.abc import Mapping
from types import ModuleType
from typing import Any


def show_lazily(package: str, names: Mapping[str, str]) -> None:
    """Lets a package show names, and all its submodules, that are imported when asked for.

    A name may be that of its own module, as `keras_gss.count` is. What the module defines is shown
    then, never the module, which `from keras_gss.count import ...` reaches all the same.

    Args:
        package: the package's `__name__`.
        names: `{name: submodule that defines it}`.

    Example:
    >>> import sys, types
    >>> from keras_gss._lazy import show_lazily
    >>> lazy = sys.modules["lazy"] = types.ModuleType("lazy")
    >>> show_lazily("lazy", {"answer": "deep"})
    >>> sys.modules["lazy.deep"] = types.ModuleType("lazy.deep")
    >>> sys.modules["lazy.deep"].answer = 42
    >>> lazy.answer
    42
    """

    class Package(ModuleType):
        def __getattr__(self, name: str) -> Any:
            module = _submodule(package, names.get(name, name))
            if module is None:
                raise AttributeError(f"module {package!r} has no attribute {name!r}")
            value = getattr(module, name) if name in names else module
            super().__setattr__(name, value)
            return value

        def __setattr__(self, name: str, value: Any) -> None:
            # What the import of a submodule does to its package.
            if name not in names or not isinstance(value, ModuleType):
                super().__setattr__(name, value)

        def __dir__(self) -> list[str]:
            return sorted({*super().__dir__(), *names})

    sys.modules[package].__class__ = Package


def _submodule(package: str, name: str) -> ModuleType | None:
    path = f"{package}.{name}"
    if name.startswith("__"):  # Python asks packages for these
        return None
    try:
        return importlib.import_module(path)
    except ModuleNotFoundError as error:
        if error.name != path:
            raise
        return None
