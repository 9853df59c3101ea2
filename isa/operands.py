"""What an instruction can name: registers, register pairs, addresses, immediates, labels.

Registers are values (`R3` is a `Register`); kinds are the classes that instruction signatures use
as annotations (`a: VR`). A kind refuses what it cannot hold, in words, so that a wrong operand is
reported at the author's line. Text forms are FT-Matrix assembly (`VR1:VR0`, `*AR0++[16]`).
"""

from __future__ import annotations

import struct
from enum import Enum
from typing import Any, ClassVar

from attrs import field, frozen

from isa.errors import KernelError


class File(Enum):
    """A register file of one core; the value is its assembly prefix."""

    SCALAR = "R"
    VECTOR = "VR"
    ADDRESS = "AR"
    OFFSET = "OR"
    EXCHANGE = "SVR"
    LANE_MASK = "VLR"


FILE_LENGTH = {
    File.SCALAR: 64,
    File.VECTOR: 64,
    File.ADDRESS: 16,
    File.OFFSET: 16,
    File.EXCHANGE: 16,
    File.LANE_MASK: 1,
}
"""Number of registers in each file (FT-M7002 and MT-3000 manuals and code agree)."""

VECTOR_HALF = 8
"""AR and OR numbers below this serve vector accesses, the others scalar accesses."""


@frozen(order=True)
class Register:
    """One register, or the whole exchange register when `index` is -1."""

    file: File = field(order=lambda file: file.value)
    index: int = 0
    lease: int = field(default=0, eq=False, order=False, repr=False)
    """Which handing out by the builder this is, counted from 1; 0: taken by name."""

    def __bool__(self) -> bool:
        raise KernelError(
            f"{self}: a register has no value while the program is built; use "
            "`with k.when(register)` or a device loop"
        )

    __index__ = __bool__

    def __str__(self) -> str:
        if self.file is File.LANE_MASK or self.index < 0:
            return self.file.value
        return f"{self.file.value}{self.index}"

    @property
    def is_vector_half(self) -> bool:
        """Tell whether an AR or OR serves vector accesses (0-7) rather than scalar ones (8-15)."""
        return self.index < VECTOR_HALF

    def __add__(self, offset: int | Register) -> Address:
        """Address `*+AR[offset]`, counted in units of the access; the register stays as it is."""
        return _address(self, Update.NONE, offset)

    def __sub__(self, offset: int | Register) -> Address:
        """Address `*-AR[offset]`."""
        return _address(self, Update.NONE, offset, negative=offset != 0)

    def post(self, step: int | Register = 1, *, negative: bool = False) -> Address:
        """Address `*AR++[step]`: access at AR, then move AR by `step` units (negative: `--`)."""
        return _address(self, Update.POST, step, negative)

    def pre(self, step: int | Register = 1, *, negative: bool = False) -> Address:
        """Address `*++AR[step]`: move AR by `step` units, then access there (negative: `--`)."""
        return _address(self, Update.PRE, step, negative)


class Update(Enum):
    """When an address operand moves its address register."""

    NONE = "none"
    PRE = "pre"
    POST = "post"


@frozen
class Address:
    """A memory operand: an address register, an offset in units of the access, and its update."""

    base: Register
    update: Update = Update.NONE
    offset: int | Register = 0
    negative: bool = False

    def __str__(self) -> str:
        step = "--" if self.negative else "++"
        sign = "-" if self.negative else "+"
        if self.update is Update.POST:
            return f"*{self.base}{step}[{self.offset}]"
        if self.update is Update.PRE:
            return f"*{step}{self.base}[{self.offset}]"
        return f"*{self.base}" if self.offset == 0 else f"*{sign}{self.base}[{self.offset}]"


def _address(
    base: Register, update: Update, offset: int | Register, negative: bool = False
) -> Address:
    if base.file is not File.ADDRESS:
        words = "k.vadd / k.vsub" if base.file is File.VECTOR else "k.sadd / k.ssub"
        raise KernelError(f"{base} is no address register: use {words}")
    if not isinstance(offset, int | Register):
        raise KernelError(f"{base}: an offset is a whole number or a register, got {offset!r}")
    if isinstance(offset, int) and offset < 0:
        return Address(base, update, -offset, not negative)
    return Address(base, update, offset, negative)


@frozen
class Label:
    """A place in the program, named once and branched to by name."""

    name: str

    def __str__(self) -> str:
        return self.name


@frozen
class Predicate:
    """`[R0]` or `[!R0]` (whole instruction), `[VR0]` or `[!VR0]` (lane by lane)."""

    register: Register
    negated: bool = False

    @property
    def is_lane_predicate(self) -> bool:
        return self.register.file is File.VECTOR

    def __str__(self) -> str:
        return f"[{'!' if self.negated else ''}{self.register}]"


Operand = Register | Address | Label | int


class Kind:
    """What one operand position of an instruction accepts."""

    wanted: ClassVar[str]

    @classmethod
    def accepts(cls, value: Any) -> bool:
        """Tell whether `value` can stand in this position."""
        raise NotImplementedError

    @classmethod
    def encode(cls, value: Any) -> Operand:
        """Return the operand as a program keeps it (a float immediate becomes its bits)."""
        operand: Operand = value
        return operand

    @classmethod
    def registers(cls, operand: Operand) -> tuple[Register, ...]:
        """Return the registers that the operand itself is (an address names its own)."""
        return (operand,) if isinstance(operand, Register) else ()

    @classmethod
    def text(cls, operand: Operand) -> str:
        """Return the assembly text of the operand."""
        return str(operand)


class _OneRegister(Kind):
    file: ClassVar[File]

    @classmethod
    def accepts(cls, value: Any) -> bool:
        return isinstance(value, Register) and value.file is cls.file and value.index >= 0


class R(_OneRegister):
    """A scalar register, 64 bits."""

    wanted, file = "a scalar register R0-R63", File.SCALAR


class VR(_OneRegister):
    """A vector register, one 32-bit word a lane."""

    wanted, file = "a vector register VR0-VR63", File.VECTOR


class AR(_OneRegister):
    """An address register."""

    wanted, file = "an address register AR0-AR15", File.ADDRESS


class AROR(Kind):
    """An address register or an offset register."""

    wanted = "an address or offset register, AR0-AR15 or OR0-OR15"

    @classmethod
    def accepts(cls, value: Any) -> bool:
        return isinstance(value, Register) and value.file in (File.ADDRESS, File.OFFSET)


class SVRi(_OneRegister):
    """One entry of the scalar/vector exchange register."""

    wanted, file = "an exchange entry SVR0-SVR15", File.EXCHANGE


class SVR(Kind):
    """The whole exchange register: entry i faces lane i."""

    wanted = "the whole exchange register SVR"

    @classmethod
    def accepts(cls, value: Any) -> bool:
        return isinstance(value, Register) and value.file is File.EXCHANGE and value.index < 0

    @classmethod
    def registers(cls, operand: Operand) -> tuple[Register, ...]:
        return tuple(Register(File.EXCHANGE, i) for i in range(FILE_LENGTH[File.EXCHANGE]))


class VLR(_OneRegister):
    """The lane mask register: bit i enables lane i."""

    wanted, file = "the lane mask register VLR", File.LANE_MASK


class _Pair(Kind):
    file: ClassVar[File]

    @classmethod
    def accepts(cls, value: Any) -> bool:
        return isinstance(value, Register) and value.file is cls.file and value.index % 2 == 0

    @classmethod
    def registers(cls, operand: Operand) -> tuple[Register, ...]:
        assert isinstance(operand, Register)
        return (operand, Register(operand.file, operand.index + 1))

    @classmethod
    def text(cls, operand: Operand) -> str:
        even, odd = cls.registers(operand)
        return f"{odd}:{even}"


class RPair(_Pair):
    """An even/odd pair of scalar registers, named by its even one."""

    wanted, file = "the even register of a scalar pair", File.SCALAR


class VRPair(_Pair):
    """An even/odd pair of vector registers, named by its even one."""

    wanted, file = "the even register of a vector pair", File.VECTOR


class _Immediate(Kind):
    low: ClassVar[int]
    high: ClassVar[int]

    @classmethod
    def accepts(cls, value: Any) -> bool:
        return (
            isinstance(value, int)
            and not isinstance(value, bool)
            and (cls.low <= value <= cls.high)
        )


class Imm32(_Immediate):
    """A 32-bit immediate: an integer, a float for its binary32 pattern, a label for its packet."""

    wanted, low, high = "a 32-bit immediate, a float or a label", -(2**31), 2**32 - 1

    @classmethod
    def accepts(cls, value: Any) -> bool:
        return isinstance(value, float | Label) or super().accepts(value)

    @classmethod
    def encode(cls, value: Any) -> Operand:
        if isinstance(value, Label):
            return value
        if isinstance(value, float):
            return int(struct.unpack("<i", struct.pack("<f", value))[0])
        return ((int(value) + 2**31) & 0xFFFFFFFF) - 2**31


class SnopCount(_Immediate):
    """How many cycles stay empty."""

    wanted, low, high = "a count from 1 to 65535", 1, 65535


class _OrImmediate(_OneRegister):
    low: ClassVar[int] = -(2**15)
    high: ClassVar[int] = 2**15 - 1

    @classmethod
    def accepts(cls, value: Any) -> bool:
        if isinstance(value, int) and not isinstance(value, bool):
            return cls.low <= value <= cls.high
        return super().accepts(value)


class RI(_OrImmediate, R):
    """A scalar register or a signed 16-bit immediate."""

    wanted = "a scalar register or an immediate from -32768 to 32767"


class VRI(_OrImmediate, VR):
    """A vector register or a signed 16-bit immediate for all lanes."""

    wanted = "a vector register or an immediate from -32768 to 32767"


class Target(Kind):
    """Where a branch goes: a label, or a scalar register that holds a packet number."""

    wanted = "a label or a scalar register"

    @classmethod
    def accepts(cls, value: Any) -> bool:
        return isinstance(value, Label) or R.accepts(value)


class AddressKind(Kind):
    """A memory operand; `unit_bytes` scales its offsets, `span_words` is what one lane moves."""

    unit_bytes: ClassVar[int]
    vector: ClassVar[bool]
    largest_offset: ClassVar[int] = 65535

    @classmethod
    def accepts(cls, value: Any) -> bool:
        return isinstance(value, Address) and not cls.problem(value)

    @classmethod
    def problem(cls, address: Address) -> str:
        """Return what is wrong with an address in this position, or an empty string."""
        if address.base.file is not File.ADDRESS or address.base.is_vector_half != cls.vector:
            return f"base must be {'AR0-AR7' if cls.vector else 'AR8-AR15'}, is {address.base}"
        if isinstance(address.offset, int):
            fits = address.offset <= cls.largest_offset
            return "" if fits else f"offset {address.offset} is over {cls.largest_offset}"
        if address.offset.file is not File.OFFSET or address.offset.is_vector_half != cls.vector:
            return f"offset must be {'OR0-OR7' if cls.vector else 'OR8-OR15'}"
        return ""

    @classmethod
    def registers(cls, operand: Operand) -> tuple[Register, ...]:
        assert isinstance(operand, Address)
        if isinstance(operand.offset, Register):
            return (operand.base, operand.offset)
        return (operand.base,)


class ScalarWord(AddressKind):
    """Scalar memory, one 32-bit word."""

    wanted, unit_bytes, vector = "a scalar address such as *AR8++[1]", 4, False


class ScalarDoubleWord(AddressKind):
    """Scalar memory, two consecutive 32-bit words."""

    wanted, unit_bytes, vector = "a scalar address such as *AR8++[1]", 8, False


class VectorWord(AddressKind):
    """Array memory, one 32-bit word a lane."""

    wanted, unit_bytes, vector = "a vector address such as *AR0++[16]", 4, True


class VectorDoubleWord(AddressKind):
    """Array memory, two consecutive 32-bit words a lane."""

    wanted, unit_bytes, vector = "a vector address such as *AR0++[16]", 8, True
