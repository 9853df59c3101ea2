"""A kernel is a recipe: a decorated function, its parameters and tensors, and how to judge it.

`@kernel(...)` makes a `KernelDefinition`; calling it with parameters checks them and gives a
`Kernel`; `Kernel.program(machine, cores)` runs the function once and caches the program, because
blocking, schedule and batch split depend on both.
"""

from __future__ import annotations

import inspect
import math
import re
import traceback
from collections.abc import Callable, Mapping
from functools import cached_property, wraps
from pathlib import Path
from typing import Any

import numpy as np
from attrs import define, field, frozen

from isa.errors import Ftm7004Error, KernelError, UsageError
from isa.language.builder import Builder, Parameters
from isa.language.parameters import Parameter, checked_values, parameters_of
from isa.language.tensor import Tensor
from isa.machine import Machine
from isa.program import Origin, Program

Array = np.ndarray[Any, Any]

MOST_ELEMENTS = 2**34
"""Of a tensor: as many words as an address of the chip can tell apart."""

Shapes = Callable[[Any], Mapping[str, Tensor]]


@frozen
class Work:
    """What the mathematics of a kernel asks for, from its shapes alone.

    `flops` is the nominal count (padding included), `multiply_adds` those on real data.
    """

    flops: int = 0
    multiply_adds: int = 0


@frozen
class Verdict:
    """Result of comparing one run's outputs with the reference.

    `max_error` is the largest absolute deviation; `compared` says what was compared with what, and
    names the first and the worst element if it failed.
    """

    passed: bool
    max_error: float
    compared: str


Verify = Callable[[Any, Mapping[str, Array], Mapping[str, Array]], Verdict]


@frozen(repr=False)
class KernelDefinition:
    """A kernel family; call it with parameters to get a `Kernel`."""

    name: str
    function: Callable[..., None]
    parameters: Mapping[str, Parameter]
    inputs: Shapes
    outputs: Shapes
    meaning: str
    work: Callable[[Any], Work]
    reference: Callable[[Any, Mapping[str, Array]], Mapping[str, Array]] | None
    verify: Verify | None
    random_inputs: Callable[[Any, np.random.Generator], Mapping[str, Array]] | None
    check: Callable[[Any], str | None] | None
    check_inputs: Callable[[Any, Mapping[str, Array]], str | None] | None
    check_timing_only: Callable[[Any], str | None] | None

    @property
    def origin(self) -> Origin:
        """The first line of the kernel function."""
        code = self.function.__code__
        return Origin(code.co_filename, code.co_firstlineno)

    def __repr__(self) -> str:
        return _call(self.name, {name: p.default for name, p in self.parameters.items()})

    def __call__(self, *misplaced: Any, **given: Any) -> Kernel:
        """Return the kernel with these parameters; raise UsageError for a bad one."""
        if misplaced:
            names = ", ".join(f"{name}=..." for name in self.parameters)
            raise UsageError(
                f"kernel '{self.name}' takes its parameters by name: {self.name}({names})"
            )
        params = checked_values(self.name, self.parameters, given)
        problem = self.check(Parameters(self.name, params)) if self.check else None
        if problem:
            raise UsageError(f"kernel '{self.name}': {problem}")
        return Kernel(self, params)


@define(eq=False, repr=False)
class Kernel:
    """A kernel with its parameters: a recipe for programs and the truth about their results."""

    definition: KernelDefinition
    params: dict[str, Any]
    _programs: dict[tuple[Machine, int], Program] = field(factory=dict, repr=False)

    def __repr__(self) -> str:
        return _call(self.name, self.params)

    @property
    def name(self) -> str:
        return self.definition.name

    @cached_property
    def p(self) -> Parameters:
        """The parameters as attributes."""
        return Parameters(self.name, self.params)

    @cached_property
    def inputs(self) -> Mapping[str, Tensor]:
        return _shapes(self, self.definition.inputs)

    @cached_property
    def outputs(self) -> Mapping[str, Tensor]:
        return _shapes(self, self.definition.outputs)

    @cached_property
    def work(self) -> Work:
        return self.definition.work(self.p)

    @cached_property
    def compulsory_bytes(self) -> int:
        """Bytes of every input and output once, as the chip stores them."""
        tensors = [*self.inputs.values(), *self.outputs.values()]
        return 4 * sum(tensor.words for tensor in tensors)

    def program(self, machine: Machine, cores: int = 1) -> Program:
        """Return the program for a machine and a number of cores, built once and kept."""
        if type(cores) is not int or not 1 <= cores <= machine.chip.cores:
            raise UsageError(
                f"cores must be from 1 to {machine.chip.cores} on {machine.name}, got {cores!r}"
            )
        key = (machine, cores)
        if key not in self._programs:
            self._programs[key] = self._build(machine, cores)
        return self._programs[key]

    def _build(self, machine: Machine, cores: int) -> Program:
        builder = Builder(self.name, machine, cores, self.inputs, self.outputs, self.params)
        with builder.at_home(self.definition.origin):
            builder.begin()
        try:
            self.definition.function(builder, **self.params)
        except KernelError as error:
            raise _located(error) from None
        with builder.at_home(self.definition.origin):
            return builder.finish()

    def check_inputs(self, inputs: Mapping[str, Any]) -> dict[str, Array]:
        """Return the inputs as arrays; refuse missing, extra, mis-shaped or mistyped ones.

        What the kernel's own `check_inputs` finds wrong with their values is refused as well.
        """
        tensors = self.inputs
        missing = [name for name in tensors if name not in inputs]
        extra = [name for name in inputs if name not in tensors]
        if missing or extra:
            wrong = [f"missing {', '.join(missing)}"] if missing else []
            wrong += [f"unknown {', '.join(extra)}"] if extra else []
            raise UsageError(
                f"kernel '{self.name}' takes inputs {', '.join(tensors)}: {'; '.join(wrong)}"
            )
        arrays = {name: tensor.check(name, inputs[name]) for name, tensor in tensors.items()}
        check = self.definition.check_inputs
        problem = check(self.p, arrays) if check else None
        if problem:
            raise UsageError(f"kernel '{self.name}': {problem}")
        return arrays

    def check_timing_only(self) -> None:
        """Refuse a timing-only run of a program that follows the data of its inputs."""
        check = self.definition.check_timing_only
        problem = check(self.p) if check else None
        if problem:
            raise UsageError(f"kernel '{self.name}': {problem}")

    def make_inputs(self, seed: int = 0) -> dict[str, Array]:
        """Return seeded random inputs, uniform in [-1, 1) unless the kernel says otherwise."""
        generator = np.random.default_rng(seed)
        if self.definition.random_inputs is not None:
            return dict(self.definition.random_inputs(self.p, generator))
        return {name: _random(tensor, generator) for name, tensor in self.inputs.items()}


def _call(name: str, params: Mapping[str, Any]) -> str:
    return f"{name}({', '.join(f'{key}={value!r}' for key, value in params.items())})"


def _random(tensor: Tensor, generator: np.random.Generator) -> Array:
    if tensor.dtype.kind == "f":
        return generator.uniform(-1, 1, tensor.shape).astype(tensor.dtype)
    return generator.integers(0, 100, tensor.shape).astype(tensor.dtype)


_ANSWERS: dict[str, tuple[str, Any, str]] = {
    "inputs": ("p", Mapping, "a dict of Tensor"),
    "outputs": ("p", Mapping, "a dict of Tensor"),
    "work": ("p", Work, "Work(flops=..., multiply_adds=...)"),
    "reference": ("p, inputs", Mapping, "a dict of arrays"),
    "verify": ("p, inputs, outputs", Verdict, "a Verdict"),
    "random_inputs": ("p, generator", Mapping, "a dict of arrays"),
    "check": ("p", str | None, "a text that says what is wrong, or None"),
    "check_inputs": ("p, inputs", str | None, "a text that says what is wrong, or None"),
    "check_timing_only": ("p", str | None, "a text that says what is wrong, or None"),
}
"""What the functions of a kernel take and return."""


def _checked(kernel: str, what: str, function: Any) -> Callable[..., Any]:
    """Return the function with its result checked; refuse one that takes other arguments."""
    takes, returns, wanted = _ANSWERS[what]
    subject = f"kernel '{kernel}': {what}"
    if not callable(function) or not _can_take(function, takes.split(", ")):
        raise UsageError(f"{subject} must be a function of ({takes}), got {function!r}")

    @wraps(function)
    def answer(*arguments: Any) -> Any:
        result = function(*arguments)
        if not isinstance(result, returns):
            raise UsageError(f"{subject}({takes}) must return {wanted}, got {result!r}")
        return result

    return answer


def _can_take(function: Callable[..., Any], arguments: list[str]) -> bool:
    try:
        inspect.signature(function).bind(*arguments)
    except TypeError:
        return False
    except ValueError:  # a builtin that does not tell
        return True
    return True


def _located(error: KernelError) -> KernelError:
    """Return the error with the author's line, if it comes from a value that knows none."""
    if re.match(r".*:\d+: ", str(error)):
        return error
    frames = [f for f in traceback.extract_tb(error.__traceback__) if not _is_ours(f.filename)]
    return KernelError(f"{frames[-1].filename}:{frames[-1].lineno}: {error}") if frames else error


def _is_ours(file: str) -> bool:
    return _PACKAGE in Path(file).parents or file.endswith("contextlib.py")


_PACKAGE = Path(__file__).parent.parent


def _shapes(kernel: Kernel, shapes: Shapes) -> Mapping[str, Tensor]:
    tensors = shapes(kernel.p)
    for name, tensor in tensors.items():
        problem = tensor.problem if isinstance(tensor, Tensor) else f"got {tensor!r}, no Tensor"
        if problem:
            raise UsageError(f"kernel '{kernel.name}': tensor '{name}': {problem}")
        if any(extent < 1 for extent in tensor.shape) or math.prod(tensor.shape) > MOST_ELEMENTS:
            raise UsageError(
                f"kernel '{kernel.name}': tensor '{name}' has shape {tensor.shape}; it must have "
                f"from 1 to {MOST_ELEMENTS:,} elements"
            )
    return tensors


def kernel(
    *misplaced: Any,
    inputs: Shapes | None = None,
    outputs: Shapes | None = None,
    work: Callable[[Any], Work] = lambda p: Work(),
    reference: Callable[[Any, Mapping[str, Array]], Mapping[str, Array]] | None = None,
    verify: Verify | None = None,
    random_inputs: Callable[[Any, np.random.Generator], Mapping[str, Array]] | None = None,
    check: Callable[[Any], str | None] | None = None,
    check_inputs: Callable[[Any, Mapping[str, Array]], str | None] | None = None,
    check_timing_only: Callable[[Any], str | None] | None = None,
) -> Callable[[Callable[..., None]], KernelDefinition]:
    """Make a kernel of a function `f(k: Builder, **parameters)`, each parameter with a default.

    `inputs(p)` and `outputs(p)` give the tensors for parameters `p` (attributes); `reference(p,
    inputs)` computes the outputs in numpy float64; `verify(p, inputs, outputs)` replaces the
    plain comparison; `work(p)` counts flops; `check(p)` returns what is wrong with parameters,
    `check_inputs(p, inputs)` what is wrong with values, beyond shapes and dtypes, and
    `check_timing_only(p)` why there is no run without values, where the program follows them.
    """

    if misplaced or inputs is None or outputs is None:
        raise UsageError(
            "@kernel needs the tensors of the kernel: write @kernel(inputs=..., outputs=...), "
            "functions of the parameters that return a dict of Tensor"
        )

    def decorate(function: Callable[..., None]) -> KernelDefinition:
        def checked(what: str, answer: Any) -> Any:
            return None if answer is None else _checked(function.__name__, what, answer)

        meaning = (function.__doc__ or "").strip().partition("\n")[0]
        return KernelDefinition(
            function.__name__, function, parameters_of(function),
            checked("inputs", inputs), checked("outputs", outputs), meaning,
            checked("work", work), checked("reference", reference), checked("verify", verify),
            checked("random_inputs", random_inputs), checked("check", check),
            checked("check_inputs", check_inputs),
            checked("check_timing_only", check_timing_only),
        )  # fmt: skip

    return decorate


__all__ = ["Ftm7004Error", "Kernel", "KernelDefinition", "Verdict", "Work", "kernel"]
