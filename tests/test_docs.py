"""The documents are executed: Python blocks, `ftm7004` commands, and the outputs printed there.

In README.md and docs/*.md a block is marked by its first line. A block that begins with a comment
`# file: NAME` is saved under that name. Else ```python is executed, one namespace a document;
```console holds commands behind `$ `, and their output where it is of interest; ```text directly
below a Python block is what that prints. A line `...` stands for lines left out, ` ...` at the end
of a line for the rest of it; `time on the host` is not compared.
`pytest tests/test_docs.py --update-golden` writes the outputs anew where nothing is left out.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from attrs import frozen

ROOT = Path(__file__).parent.parent
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
WRITTEN = [path for path in DOCUMENTS if path.name != "isa.md"]
"""isa.md is generated and has a test of its own."""
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")
FILE_NAME = re.compile(
    r"`((?:isa|kernels|simulator|tests|examples|docs)/(?:[a-z0-9_*/-]+(?:\.[a-z]+)?)?)`"
)
"""A file or folder of the project in backquotes, perhaps with a star."""
SHOWN_ONLY = ("pip ", "pytest", "git ", "python -m", "python examples/", ".ci/run")
"""Commands of a shell that are shown and not run here; examples have tests of their own."""
KINDS = {"python", "console", "text", "toml"}
LEFT_OUT = "..."
WIDTH = "100"


@frozen
class Block:
    """A fenced block: its kind, its text, and where the text stands in the document."""

    kind: str
    text: str
    start: int
    line: int
    """Line of the document before the block's first one."""

    @property
    def file(self) -> str:
        """The name to save it under, or nothing."""
        match = re.match(r"# file: (\S+)\n", self.text)
        return match[1] if match else ""


@frozen
class Command:
    """One command of a console block with the output below it, and where that output stands."""

    text: str
    output: str
    start: int


def blocks(document: str) -> list[Block]:
    return [
        Block(match[1], match[2], match.start(2), document.count("\n", 0, match.start(2)))
        for match in FENCE.finditer(document)
    ]


def commands(block: Block) -> list[Command]:
    prompts = [*re.finditer(r"^\$ (.*)\n", block.text, re.MULTILINE)]
    ends = [*(prompt.start() for prompt in prompts[1:]), len(block.text)]
    return [
        Command(prompt[1], block.text[prompt.end() : end], block.start + prompt.end())
        for prompt, end in zip(prompts, ends, strict=True)
    ]


def lines_of(output: str) -> list[str]:
    """Return the lines to compare: without the host's time, spaces at ends and empty ends."""
    lines = [line.rstrip() for line in output.strip("\n").splitlines()]
    return [line for line in lines if not line.startswith("time on the host")]


def matches(shown: str, produced: str) -> bool:
    """Tell whether an output is the shown one; `...` stands for any lines, or the rest of one."""
    pattern = ""
    for line in lines_of(shown):
        if line == LEFT_OUT:
            pattern += r"(?:.*\n)*?"
        elif line.endswith(f" {LEFT_OUT}"):
            pattern += re.escape(line.removesuffix(LEFT_OUT)) + ".*\n"
        else:
            pattern += re.escape(line) + "\n"
    return re.fullmatch(pattern, "".join(line + "\n" for line in lines_of(produced))) is not None


def run(command: str, folder: Path) -> tuple[int, str]:
    """Run an `ftm7004` command; return its exit status and what it printed."""
    words = [sys.executable, "-m", "simulator.cli", *command.split()[1:]]
    done = subprocess.run(
        words,
        cwd=folder,
        env={**os.environ, "COLUMNS": WIDTH},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout


def printed(block: Block, path: Path, namespace: dict[str, Any]) -> str:
    """Execute a Python block and return what it printed; its lines count from 1."""
    stream = io.StringIO()
    try:
        code = compile(block.text, f"{path.stem}.py", "exec")
        with contextlib.redirect_stdout(stream):
            exec(code, namespace)
    except Exception as error:
        error.add_note(f"in the block of {path.name} from line {block.line + 1} on")
        raise
    return stream.getvalue()


class Outputs:
    """Compares outputs with a document, or collects what to write into it."""

    def __init__(self, path: Path, update: bool) -> None:
        self.path, self.update = path, update
        self.document = path.read_text(encoding="utf-8")
        self._changes: list[tuple[int, str, str]] = []

    def compare(self, what: str, shown: str, start: int, produced: str) -> None:
        if matches(shown, produced):
            return
        if self.update and LEFT_OUT not in shown:
            lines = [line.rstrip() for line in produced.strip("\n").splitlines()]
            self._changes.append((start, shown, "\n".join(lines) + "\n"))
            return
        pytest.fail(f"{self.path.name}: {what} prints\n{produced}\nand the document shows\n{shown}")

    def save(self) -> None:
        for start, shown, produced in sorted(self._changes, reverse=True):
            tail = self.document[start + len(shown) :]
            self.document = self.document[:start] + produced + tail
        self.path.write_text(self.document, encoding="utf-8")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder to run in, with the project's examples."""
    place = tmp_path_factory.mktemp("documents")
    (place / "examples").symlink_to(ROOT / "examples")
    return place


@pytest.mark.parametrize("path", WRITTEN, ids=lambda path: path.name)
def test_a_document_tells_the_truth(
    path: Path, folder: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    outputs = Outputs(path, request.config.getoption("--update-golden"))
    found, namespace = blocks(outputs.document), {"__name__": path.stem}
    assert {block.kind for block in found} <= KINDS
    for block, below in zip(found, [*found[1:], None], strict=True):
        if block.file:
            (folder / block.file).write_text(block.text, encoding="utf-8")
        elif block.kind == "python":
            produced = printed(block, path, namespace)
            if below is not None and below.kind == "text":
                gap = outputs.document[block.start + len(block.text) : below.start]
                assert gap.count("\n") <= 3, f"{path.name}:{below.line}: text below no code"
                outputs.compare(f"the code at line {block.line}", below.text, below.start, produced)
        elif block.kind == "console":
            for command in commands(block):
                compare_command(outputs, command, folder)
    if outputs.update:
        outputs.save()


def compare_command(outputs: Outputs, command: Command, folder: Path) -> None:
    """Run the `ftm7004` parts of a command line; the output belongs to the last one."""
    *before, last = command.text.split(" && ")
    assert all(part.startswith(SHOWN_ONLY) for part in before), command.text
    if not last.startswith("ftm7004"):
        assert last.startswith(SHOWN_ONLY), f"{outputs.path.name}: nobody runs '{last}'"
        return
    status, produced = run(last, folder)
    assert (status == 0) == (not command.output.startswith("error:")), produced
    if command.output:
        outputs.compare(last, command.output, command.start, produced)


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(path: Path) -> None:
    targets = LINK.findall(path.read_text(encoding="utf-8"))
    local = [target for target in targets if "://" not in target]
    assert [target for target in local if not (path.parent / target).exists()] == []


@pytest.mark.parametrize("path", WRITTEN, ids=lambda path: path.name)
def test_files_that_are_named_exist(path: Path) -> None:
    named = set(FILE_NAME.findall(path.read_text(encoding="utf-8")))
    assert [name for name in named if not [*ROOT.glob(name)]] == []


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_no_path_of_one_machine(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert re.findall(r"(?<![\w.:/])/(?:home|tmp|root|work|Users|usr)/\S*", text) == []


def test_blocks_and_commands_are_found() -> None:
    document = "a\n```python\nx = 1\n```\n```console\n$ one\n$ two\nout\n```\n"
    python, console = blocks(document)
    assert (python.kind, python.text, python.line) == ("python", "x = 1\n", 2)
    assert [(c.text, c.output) for c in commands(console)] == [("one", ""), ("two", "out\n")]
    assert document[commands(console)[1].start :].startswith("out\n")


@pytest.mark.parametrize(
    ("shown", "produced", "equal"),
    [
        ("a\nb\n", "a  \nb\n\n", True),
        ("a\nb\n", "a\nc\n", False),
        ("a\n...\nd\n", "a\nb\nc\nd\n", True),
        ("a\n...\nd\n", "a\nb\nc\n", False),
        ("a\nb ...\n", "a\nb 12\n", True),
        ("a\nb ...\n", "a\nc 12\n", False),
        ("a\ntime on the host  1 s\n", "a\ntime on the host  2 s\n", True),
        ("", "a\n", False),
    ],
)
def test_outputs_are_compared(shown: str, produced: str, equal: bool) -> None:
    assert matches(shown, produced) is equal
