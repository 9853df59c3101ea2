"""What a network runs, in order: one step for every kernel of every layer.

Called by `ftm7004 vgg16` with the library's kernels and layers; nothing here knows either. A tensor
is named by its layer: `conv1_1.z` is the output of conv1_1, `conv1_1.dz` the gradient that arrives
there, behind ReLU's mask. `images` are the network's input.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from attrs import define, field, frozen

from isa.language.kernel import Kernel, KernelDefinition

INFERENCE, TRAINING = "inference", "training"
PHASES = (INFERENCE, TRAINING)

IMAGES = "images"
RATE = 0.01
"""Learning rate of the updates."""


class Layer(Protocol):
    """A layer as the kernels' catalogue has it: forward kernel and shape, without a batch."""

    @property
    def name(self) -> str:
        """Full name, such as `vgg16/conv1_1`."""

    @property
    def kernel(self) -> str:
        """Name of the forward kernel."""

    @property
    def params(self) -> Mapping[str, int]:
        """That kernel's shape parameters."""


@frozen
class Step:
    """One kernel of one layer, and the tensors it reads and writes.

    Several names behind one input lie one after the other in it.
    """

    layer: str
    kernel: Kernel
    reads: Mapping[str, tuple[str, ...]]
    writes: Mapping[str, str]
    """Outputs that somebody wants, by the name of the kernel's output."""

    @property
    def names(self) -> set[str]:
        """Every tensor it reads."""
        return {name for names in self.reads.values() for name in names}


@frozen
class Plan:
    """The steps of a phase, for the layers that were chosen."""

    phase: str
    batch: int
    steps: tuple[Step, ...]
    logits: str
    """The network's output, on which the host's softmax works."""
    slopes: str
    """The gradient of the loss that arrives there."""

    def alive_before(self, number: int) -> set[str]:
        """Return the tensors that earlier steps made and this or a later one reads."""
        made = {name for step in self.steps[:number] for name in step.writes.values()}
        if self.logits in made:
            made.add(self.slopes)
        wanted = {name for step in self.steps[number:] for name in step.names}
        return made & wanted

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shape of every tensor that some step reads by itself."""
        return {
            names[0]: step.kernel.inputs[tensor].shape
            for step in self.steps
            for tensor, names in step.reads.items()
            if len(names) == 1
        }


def make_plan(
    phase: str,
    batch: int,
    network: Sequence[Layer],
    chosen: Sequence[str],
    library: Mapping[str, KernelDefinition],
) -> Plan:
    """Return the steps for the chosen layers of a network, named without it.

    Inference runs every layer forward. A step of training runs them all forward, then the gradients
    and updates from the last layer to the first.
    """
    kernels = _Kernels(library, batch)
    places = [_Place.of(network, number) for number in range(len(network))]
    wanted = [place for place in places if place.name in chosen]
    steps = [_forward(place, kernels) for place in wanted]
    if phase == TRAINING:
        for place in reversed(wanted):
            steps += _BACKWARD[place.kernel](place, kernels)
    last = places[-1].name
    return Plan(phase, batch, tuple(steps), f"{last}.z", f"{last}.dz")


@define
class _Kernels:
    """Makes kernels of a batch; equal ones are one, so that its program is built once."""

    library: Mapping[str, KernelDefinition]
    batch: int
    _made: dict[Any, Kernel] = field(factory=dict)

    def make(self, name: str, **params: Any) -> Kernel:
        key = (name, *sorted(params.items()))
        if key not in self._made:
            self._made[key] = self.library[name](**params)
        return self._made[key]

    def of_batch(self, name: str, **params: Any) -> Kernel:
        return self.make(name, batch=self.batch, **params)


@frozen
class _Place:
    """A layer in its network: what comes before it, and whether anything comes behind."""

    name: str
    kernel: str
    params: Mapping[str, int]
    before: str
    """The layer before; empty for the first."""
    last: bool

    @staticmethod
    def of(network: Sequence[Layer], number: int) -> _Place:
        name = short_name(network[number])
        before = short_name(network[number - 1]) if number else ""
        layer = network[number]
        return _Place(name, layer.kernel, layer.params, before, number + 1 == len(network))

    def own(self, tensor: str) -> tuple[str, ...]:
        return (f"{self.name}.{tensor}",)

    @property
    def input(self) -> tuple[str, ...]:
        return (f"{self.before}.z" if self.before else IMAGES,)

    @property
    def parameters(self) -> dict[str, tuple[str, ...]]:
        return {"weight": self.own("weight"), "bias": self.own("bias")}

    @property
    def gradient_before(self) -> str:
        return f"{self.before}.dz"


def short_name(layer: Layer) -> str:
    """Return a layer's name without its network."""
    return layer.name.rpartition("/")[2]


def _forward(place: _Place, kernels: _Kernels) -> Step:
    """Return a layer's forward step; ReLU is part of all but poolings and the last layer."""
    options: dict[str, Any] = {}
    if place.kernel != "maxpool2d_forward":
        options["relu"] = not place.last
    if place.kernel == "conv2d_forward" and not place.before:
        options["layout"] = "nchw"
    kernel = kernels.of_batch(place.kernel, **place.params, **options)
    reads = {"x": place.input} | (place.parameters if "weight" in kernel.inputs else {})
    return Step(
        place.name, kernel, reads, {name: f"{place.name}.{name}" for name in kernel.outputs}
    )


def _convolution_backward(place: _Place, kernels: _Kernels) -> list[Step]:
    dz, steps = place.own("dz"), []
    if place.before:
        kernel = kernels.of_batch("conv2d_backward_data", **place.params, relu=True)
        reads = {"dz": dz, "weight": place.own("weight"), "x": place.input}
        steps.append(Step(place.name, kernel, reads, {"dx": place.gradient_before}))
    kernel = kernels.of_batch("conv2d_backward_weight", **place.params)
    gradients = {name: f"{place.name}.{name}" for name in kernel.outputs}
    steps.append(Step(place.name, kernel, {"x": place.input, "dz": dz}, gradients))
    size = sum(tensor.words for tensor in kernel.outputs.values())
    update = kernels.make("sgd_update", size=size, lr=RATE)
    reads = {
        "weight": place.own("weight") + place.own("bias"),
        "dweight": tuple(gradients.values()),
    }
    return [*steps, Step(place.name, update, reads, {})]


def _pooling_backward(place: _Place, kernels: _Kernels) -> list[Step]:
    kernel = kernels.of_batch("maxpool2d_backward", **place.params)
    reads = {"dz": place.own("dz"), "index": place.own("index")}
    return [Step(place.name, kernel, reads, {"dx": place.gradient_before})]


def _connected_backward(place: _Place, kernels: _Kernels) -> list[Step]:
    """Return gradients with the update, and ReLU's mask on the gradient that goes on."""
    kernel = kernels.of_batch("fc_backward", **place.params, lr=RATE)
    reads = {"x": place.input, "dz": place.own("dz"), **place.parameters}
    mask = kernels.of_batch("relu_backward", features=place.params["in_features"])
    masked = {"x": place.input, "dz": place.own("dx")}
    return [
        Step(place.name, kernel, reads, {"dx": f"{place.name}.dx"}),
        Step(place.name, mask, masked, {"dx": place.gradient_before}),
    ]


_BACKWARD = {
    "conv2d_forward": _convolution_backward,
    "maxpool2d_forward": _pooling_backward,
    "fc_forward": _connected_backward,
}
