"""Finding what a run needs on the host: kernels by name or file, layers, tensors in .npz files.

Called by the command line and by users' scripts. The library is looked up by name, as the
simulator imports no kernel; a user's file is executed, and its mistakes are reported in one line.
"""

from __future__ import annotations

import importlib
import re
import sys
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from isa.errors import Ftm7004Error, KernelError, UsageError, unknown
from isa.language.kernel import KernelDefinition

FILE_ARGUMENT = re.compile(r"(?P<file>.+\.py)(?::(?P<name>[^/\\:]*))?", re.DOTALL)


def library() -> Mapping[str, KernelDefinition]:
    """Return the kernels that come with the project, by name."""
    found: Mapping[str, KernelDefinition] = importlib.import_module("kernels").LIBRARY
    return found


def layer_names() -> list[str]:
    """Return the names that `--layer` knows."""
    return list(importlib.import_module("kernels.layers").LAYERS)


def layer_parameters(name: str) -> tuple[str, dict[str, int]]:
    """Return the forward kernel and the shape parameters of a layer such as `vgg16/conv3_1`."""
    layer = importlib.import_module("kernels.layers").layer(name)
    return layer.kernel, dict(layer.params)


def network_layers(network: str) -> list[Any]:
    """Return the layers of a network in its order, each with `name`, `kernel` and `params`."""
    layers: Mapping[str, Any] = importlib.import_module("kernels.layers").LAYERS
    return [layer for name, layer in layers.items() if name.startswith(f"{network}/")]


def find_kernel(argument: str) -> KernelDefinition:
    """Return the kernel of a library name, a `FILE.py`, or a `FILE.py:NAME`.

    Raise UsageError where there is none or the file leaves a choice, KernelError where executing
    the file fails.
    """
    match = FILE_ARGUMENT.fullmatch(argument)
    if match is not None:
        return _choose(match["file"], match["name"])
    if argument not in library():
        raise UsageError(unknown("kernel", argument, library()) + "; or give a FILE.py")
    return library()[argument]


@contextmanager
def author_errors(kernel: KernelDefinition) -> Iterator[None]:
    """Report a Python error of a user's kernel, wherever it is called, as a KernelError.

    Errors of the library's own kernels pass: they are bugs of ours.
    """
    try:
        yield
    except Ftm7004Error:
        raise
    except (Exception, SystemExit) as error:
        file = _file_of(kernel)
        own = library().get(kernel.name) is kernel
        if own or not _author_place(error, file):
            raise
        raise KernelError(_failure(error, file)) from error


def _choose(file: str, name: str | None) -> KernelDefinition:
    """Return the named kernel of a file, or its only one."""
    known = _kernels_of(_execute(file), file)
    if name is not None:
        if name not in known:
            raise UsageError(f"'{file}': " + unknown("kernel", name, known))
        return known[name]
    own = {id(kernel): kernel for kernel in known.values() if _file_of(kernel) == file}
    if len(own) == 1:
        return next(iter(own.values()))
    if not own:
        raise UsageError(f"no kernel in '{file}': decorate a function with isa's @kernel(...)")
    names = ", ".join(kernel.name for kernel in own.values())
    raise UsageError(f"'{file}' has several kernels, choose one as {file}:NAME; it has {names}")


def _kernels_of(module: ModuleType, file: str) -> dict[str, KernelDefinition]:
    """Return the kernels of a module by their own name and by every name the file gives them."""
    values = vars(module)
    named = {n: value for n, value in values.items() if isinstance(value, KernelDefinition)}
    own = {k.name: k for k in named.values() if _file_of(k) == file}
    return {**own, **named}


def _execute(file: str) -> ModuleType:
    """Execute a file as a module; nothing is written beside it."""
    try:
        source = Path(file).read_bytes()
    except OSError as error:
        raise UsageError(f"cannot read kernel file '{file}': {error.strerror}") from error
    module = ModuleType(f"kernel_file_{Path(file).stem}")
    module.__file__ = file
    sys.modules[module.__name__] = module  # type annotations and dataclasses are resolved there
    try:
        exec(compile(source, file, "exec"), vars(module))
    except SyntaxError as error:
        place = f"{error.filename or file}:{error.lineno or 1}"
        raise KernelError(f"{place}: {type(error).__name__}: {error.msg}") from error
    except Ftm7004Error as error:
        raise type(error)(f"{_author_place(error, file)}: {error}") from error
    except (Exception, SystemExit) as error:
        raise KernelError(_failure(error, file)) from error
    return module


def _failure(error: BaseException, file: str) -> str:
    """Return one line on a Python error in an author's file: place, type, message."""
    detail = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    return f"{_author_place(error, file) or file}: {detail}"


def _author_place(error: BaseException, file: str) -> str:
    """Return `file:line` of the deepest line of a file that an error passed; empty if none."""
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if frame.filename == file]
    return f"{file}:{lines[-1]}" if lines else ""


def _file_of(kernel: KernelDefinition) -> str:
    """Return the file that holds a kernel's function."""
    return kernel.function.__code__.co_filename
