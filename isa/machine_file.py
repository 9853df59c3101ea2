"""Machine files: from TOML and `--set` to a checked `Machine`.

A complete file gives every field as value, unit, source and confidence; a file with `extends`
states only what differs. Everything wrong is a UsageError that names the key.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from functools import cache
from importlib import resources
from itertools import pairwise
from pathlib import Path
from typing import Any

import attrs

import isa.instructions  # noqa: F401  (fills the registry, which names the latency classes)
from isa.errors import UsageError, unknown
from isa.instruction import REGISTRY, Unit
from isa.machine import SECTIONS, Machine, Note

DEFAULT = "ft-m7004"
MAY_BE_ZERO = frozenset({"dma.launch_cycles", "barrier.cycles"})
CONFIDENCES = ("silicon", "sibling", "inferred", "user")


def load(name: str, overrides: Iterable[str] = ()) -> Machine:
    """Return the machine of a built-in name or a TOML file, with `section.field=value` changes."""
    changes = list(overrides)
    if name == DEFAULT and not changes:
        return _default()
    values, notes, title = _read(name)
    for text in changes:
        key, value = _parse_override(text)
        _set(values, notes, key, value, "--set")
    return _record(title, values, notes)


@cache
def _default() -> Machine:
    """Return the machine that runs ask for again and again."""
    values, notes, title = _read(DEFAULT)
    return _record(title, values, notes)


def _read(name: str) -> tuple[dict[str, Any], dict[str, Note], str]:
    """Return values, notes and name of a machine file, on top of the one it extends."""
    document = _parse(name)
    values: dict[str, Any] = {}
    notes: dict[str, Note] = {}
    parent = document.pop("extends", None)
    title = document.pop("name", Path(name).stem)
    if not isinstance(title, str):
        raise UsageError(f"machine '{name}': name must be text, is {title!r}")
    if parent is not None:
        if not isinstance(parent, str) or parent not in built_in_names():
            known = ", ".join(built_in_names())
            raise UsageError(f"machine '{name}': extends must be one of {known}, is {parent!r}")
        values, notes, _ = _read(parent)
    for key, entry in _flatten(document, name):
        if parent is None:
            _add(values, notes, key, entry)
        else:
            _set(values, notes, key, entry, name)
    return values, notes, title


def built_in_names() -> list[str]:
    """Return the machines that come with the project."""
    folder = resources.files("isa") / "machines"
    return sorted(f.name[:-5] for f in folder.iterdir() if f.name.endswith(".toml"))


def _parse(name: str) -> dict[str, Any]:
    if name in built_in_names():
        text = (resources.files("isa") / "machines" / f"{name}.toml").read_text("utf-8")
        return tomllib.loads(text)
    if not name.endswith(".toml"):
        raise UsageError(unknown("machine", name, built_in_names()) + "; or give a .toml file")
    try:
        return tomllib.loads(Path(name).read_text("utf-8"))
    except OSError as error:
        raise UsageError(f"cannot read machine file '{name}': {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"machine file '{name}' is not valid TOML: {error}") from error


def _flatten(document: dict[str, Any], name: str) -> list[tuple[str, Any]]:
    entries = []
    for section, fields in document.items():
        if not isinstance(fields, dict):
            raise UsageError(f"machine '{name}': '{section}' must be a section such as [ddr]")
        entries += [(f"{section}.{key}", value) for key, value in fields.items()]
    return entries


def _add(values: dict[str, Any], notes: dict[str, Note], key: str, entry: Any) -> None:
    """Take a field of a complete machine: it must state unit, source and confidence."""
    if not isinstance(entry, dict) or set(entry) != {"value", "unit", "source", "confidence"}:
        raise UsageError(f"machine field '{key}' must give value, unit, source and confidence")
    values[key] = entry["value"]
    notes[key] = Note(str(entry["unit"]), str(entry["source"]), str(entry["confidence"]))


def _set(values: dict[str, Any], notes: dict[str, Note], key: str, entry: Any, origin: str) -> None:
    """Change a field of an existing machine; unit and note may be given, or are filled in."""
    if key not in values:
        raise UsageError(_unknown_key(key, values))
    given = entry if isinstance(entry, dict) else {"value": entry}
    extra = set(given) - {"value", "unit", "source", "confidence"}
    if extra or "value" not in given:
        raise UsageError(f"machine key '{key}': a field gives value, unit, source and confidence")
    values[key] = given["value"]
    notes[key] = Note(
        unit=str(given.get("unit", notes[key].unit)),
        source=str(given.get("source", f"set by {origin}")),
        confidence=str(given.get("confidence", "user")),
    )


def _unknown_key(key: str, known: Iterable[str]) -> str:
    """Say that a key is unknown, with those of its section where it names one."""
    section = key.partition(".")[0] + "."
    same = [name for name in known if name.startswith(section)]
    return unknown("machine key", key, same or {name.partition(".")[0] + ".*" for name in known})


def _parse_override(text: str) -> tuple[str, Any]:
    key, equals, value = text.partition("=")
    if not equals:
        raise UsageError(f"--set needs key=value, such as ddr.bytes_per_cycle=25.6; got '{text}'")
    try:
        return key.strip(), tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"--set {key}: '{value}' is not a number, true, false or list") from error


def _record(name: str, values: dict[str, Any], notes: dict[str, Note]) -> Machine:
    sections = {}
    for section, kind in SECTIONS.items():
        fields = {}
        for attribute in attrs.fields(kind):
            key = f"{section}.{attribute.name}"
            if key not in values:
                raise UsageError(f"machine '{name}': key '{key}' is missing")
            fields[attribute.name] = _checked(key, attribute.type, values[key])
        sections[section] = kind(**fields)
    for name_of_class in _latency_classes():
        if f"latency.{name_of_class}" not in values:
            raise UsageError(f"machine '{name}': key 'latency.{name_of_class}' is missing")
    latency = {
        key[8:]: _checked(key, "int", value)
        for key, value in values.items()
        if key.startswith("latency.")
    }
    _refuse_unknown(values, notes)
    machine = Machine(name=name, latency=latency, notes=notes, **sections)
    _check_together(machine)
    return machine


def _latency_classes() -> set[str]:
    """Return every class that an instruction or an address update names."""
    named = {c for e in REGISTRY.values() for c in (e.latency_class, e.scalar_latency_class)}
    return (named | {"address_update"}) - {""}


def _refuse_unknown(values: dict[str, Any], notes: dict[str, Note]) -> None:
    known = {f"{s}.{a.name}" for s, kind in SECTIONS.items() for a in attrs.fields(kind)}
    known |= {f"latency.{name}" for name in _latency_classes()}
    for key in values:
        if key not in known:
            raise UsageError(_unknown_key(key, known))
        if notes[key].confidence not in CONFIDENCES:
            raise UsageError(f"machine key '{key}': confidence must be one of {CONFIDENCES}")


def _checked(key: str, kind: Any, value: Any) -> Any:
    """Return the value in its field's type, or say what the field wants."""
    if kind == "bool":
        return _expect(key, value, isinstance(value, bool), "true or false")
    if kind == "tuple[str, ...]":
        units = Unit.__members__
        right = (
            isinstance(value, list)
            and value
            and all(isinstance(s, str) and s.rstrip("0123456789") in units for s in value)
        )
        return tuple(_expect(key, value, right, f"a list of slots of {', '.join(units)}"))
    number = isinstance(value, int) and not isinstance(value, bool)
    if kind == "float":
        right = (number or isinstance(value, float)) and 0 < value < 2**31
        return float(_expect(key, value, right, "a number above 0 and below 2**31"))
    least = 0 if key in MAY_BE_ZERO else 1
    return _expect(
        key, value, number and least <= value < 2**37, f"a whole number of at least {least}"
    )


def _expect(key: str, value: Any, right: object, wanted: str) -> Any:
    if not right:
        raise UsageError(f"machine key '{key}' must be {wanted}, is {value!r}")
    return value


def _check_together(machine: Machine) -> None:
    """Refuse values that are fine alone and make no machine together."""
    slots = machine.issue.slots
    memories = (machine.am, machine.sm, machine.ddr)
    ranges = sorted((memory.base, memory.base + memory.bytes) for memory in memories)
    overlap = any(end > base for (_, end), (base, _) in pairwise(ranges))
    problems = [
        (len(set(slots)) < len(slots), "issue.slots", "names a slot twice"),
        (bool(set(Unit.__members__) - {s.rstrip("0123456789") for s in slots}), "issue.slots",
         "leaves a unit without a slot"),
        (machine.issue.scalar_predicates > 64, "issue.scalar_predicates", "must not be above 64"),
        (machine.issue.lane_predicates > 64, "issue.lane_predicates", "must not be above 64"),
        (machine.vpu.lanes not in (4, 8, 16), "vpu.lanes", "must be 4, 8 or 16"),
        (machine.ddr.efficiency > 1, "ddr.efficiency", "must not be above 1"),
        (machine.ddr.burst_bytes % 4 != 0, "ddr.burst_bytes", "must be a multiple of 4"),
        (machine.am.bank_row_bytes % 4 != 0, "am.bank_row_bytes", "must be a multiple of 4"),
        (machine.am.base % 4 != 0, "am.base", "must be a multiple of 4"),
        (machine.sm.base % 4 != 0, "sm.base", "must be a multiple of 4"),
        (machine.ddr.base % 4 != 0, "ddr.base", "must be a multiple of 4"),
        (machine.am.bytes % 8 != 0, "am.bytes", "must be a multiple of 8"),
        (machine.sm.bytes % 8 != 0, "sm.bytes", "must be a multiple of 8"),
        (machine.dma.channels > 16, "dma.channels", "must not be above 16"),
        (machine.chip.cores > 16, "chip.cores", "must not be above 16"),
        (max(machine.latency.values()) > 255, "latency", "must not be above 255 cycles"),
        (overlap, "am.base, sm.base, ddr.base", "memories overlap"),
        (machine.ddr.base + machine.ddr.bytes > 2**36, "ddr.bytes", "passes 36-bit addresses"),
    ]  # fmt: skip
    for wrong, key, problem in problems:
        if wrong:
            raise UsageError(f"machine '{machine.name}': {key} {problem}")
