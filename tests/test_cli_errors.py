"""Errors of the command line as data: arguments, exit status, words on stderr, and no file left."""

from __future__ import annotations

import io
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest

from simulator.cli import commands as cli
from simulator.cli import run as cli_run
from user_kernels import line_of, write_kernels

FILES = {
    "syntax.py": "import isa\n\ndef broken(:\n    pass\n",
    "raises.py": "import isa\nvalue = 1 / 0\n",
    "leaves.py": "import sys\nsys.exit(3)\n",
    "missing_module.py": "import isa\nimport no_such_module_of_ours\n",
    "empty.py": "import isa\n",
    "binary.py": "\x00",
    "nodefault.py": (
        "from isa import kernel\n\n\n@kernel(inputs=lambda p: {}, outputs=lambda p: {})\n"
        "def needs(k, rows):\n    pass\n"
    ),
    "bad.toml": "extends = ft-m7004",
    "text.npz": "this is no archive",
}


class Payload:
    """An object that would be executed if a pickle were ever loaded."""

    def __reduce__(self):
        return (os.mkdir, ("executed",))


def write_inputs() -> None:
    x = np.zeros((4, 16), np.float32)
    np.savez("short.npz", x=x[:2])
    np.savez("double.npz", x=x.astype(np.float64))
    np.savez("names.npz", y=x, weight=x)
    np.savez("pickled.npz", x=np.array([Payload()], dtype=object))
    np.save("single.npy", x)
    np.savez("cut.npz", x=x)
    Path("cut.npz").write_bytes(Path("cut.npz").read_bytes()[:-40])
    np.savez("damaged.npz", x=np.ones((4, 16), np.float32))
    damaged = bytearray(Path("damaged.npz").read_bytes())
    damaged[200] ^= 1  # in the data: the archive's checksum no longer fits
    Path("damaged.npz").write_bytes(damaged)
    header = io.BytesIO()
    shape = {"descr": "<f4", "fortran_order": False, "shape": (2**40, 2**20)}
    np.lib.format.write_array_header_1_0(header, shape)
    with zipfile.ZipFile("huge.npz", "w") as archive:
        archive.writestr("x.npy", header.getvalue())
    with zipfile.ZipFile("notarray.npz", "w") as archive:
        archive.writestr("x.npy", "no header")


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_kernels(tmp_path)
    for name, text in FILES.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    write_inputs()
    (tmp_path / "sub").mkdir()
    return tmp_path


def place(text: str) -> str:
    return f"user.py:{line_of(text)}: "


DOUBLE, ENDLESS = "user.py:double", "user.py:endless"

USAGE = [
    (["fly"], "No such command 'fly'"),
    (["run", DOUBLE, "--colour"], "No such option"),
    (["run", DOUBLE, "extra"], "unexpected extra argument"),
    (["run"], "name a KERNEL, a FILE.py or a --layer"),
    (["run", "conv2d_forwrd"], "unknown kernel 'conv2d_forwrd'; did you mean conv2d_forward"),
    (["run", "nowhere.py"], "cannot read kernel file 'nowhere.py': No such file"),
    (["run", "sub.py/"], "unknown kernel 'sub.py/'"),
    (["run", "empty.py"], "no kernel in 'empty.py': decorate a function"),
    (["run", "user.py"], "has several kernels, choose one as user.py:NAME; it has double, wrong,"),
    (["run", "user.py:doubel"], "'user.py': unknown kernel 'doubel'; did you mean double"),
    (["run", "nodefault.py"], "nodefault.py:4: kernel 'needs': parameter 'rows' needs a default"),
    (["run", DOUBLE, "-p", "row=3"], "unknown parameter 'row'; did you mean rows"),
    (["run", DOUBLE, "-p", "rows"], "-p needs name=value, such as batch=16; got 'rows'"),
    (["run", DOUBLE, "-p", "rows=0"], "'rows' must be a whole number from 1 to 2147483647, got 0"),
    (["run", DOUBLE, "-p", "rows=many"], "got 'many'"),
    (["run", DOUBLE, "-p", "rows=2x3"], "got (2, 3)"),
    (["run", "user.py:unfit"], "kernel 'unfit': never fits"),
    (["run", DOUBLE, "--cores", "0"], "--cores"),
    (["run", DOUBLE, "--cores", "5"], "cores must be from 1 to 4 on ft-m7004, got 5"),
    (["run", DOUBLE, "--cores", "two"], "'two' is not a valid integer"),
    (["run", DOUBLE, "--seed", "-1"], "--seed"),
    (["run", DOUBLE, "--cycle-limit", "0"], "--cycle-limit"),
    (["run", DOUBLE, "--machine", "ft-m7005"], "unknown machine 'ft-m7005'; did you mean ft-m7004"),
    (["run", DOUBLE, "--machine", "nowhere.toml"], "cannot read machine file 'nowhere.toml'"),
    (["run", DOUBLE, "--machine", "bad.toml"], "machine file 'bad.toml' is not valid TOML"),
    (["run", DOUBLE, "--set", "ddr.speed=3"], "unknown machine key 'ddr.speed'"),
    (["run", DOUBLE, "--set", "ddr.efficiency=2"], "ddr.efficiency must not be above 1"),
    (["run", DOUBLE, "--set", "ddr.efficiency"], "--set needs key=value"),
    (["run", DOUBLE, "--engine", "warp"], "'warp' is not one of 'reference', 'compiled'"),
    (["run", DOUBLE, "--layer", "vgg16/conv9_9"], "unknown layer 'vgg16/conv9_9'"),
    (["run", DOUBLE, "--layer", "vgg16/conv3_1"], "is for conv2d_forward and its like, not for"),
    (["run", "fc_forward", "--layer", "vgg16/pool1"], "is for maxpool2d_forward and its like"),
    (["run", DOUBLE, "--input", "none.npz"], "input file 'none.npz' does not exist"),
    (["run", DOUBLE, "--input", "sub"], "input file 'sub' is not a readable .npz file"),
    (["run", DOUBLE, "--input", "text.npz"], "input file 'text.npz' is not a readable .npz file"),
    (["run", DOUBLE, "--input", "cut.npz"], "input file 'cut.npz' is not a readable .npz file"),
    (["run", DOUBLE, "--input", "damaged.npz"], "input file 'damaged.npz' is not a readable"),
    (["run", DOUBLE, "--input", "single.npy"], "input file 'single.npy' is not a readable"),
    (["run", DOUBLE, "--input", "notarray.npz"], "input file 'notarray.npz' is not a readable"),
    (["run", DOUBLE, "--input", "short.npz"], "tensor 'x' must have shape (4, 16), has (2, 16)"),
    (["run", DOUBLE, "--input", "double.npz"], "tensor 'x' must be float32, is float64"),
    (["run", DOUBLE, "--input", "pickled.npz"], "tensor 'x' must be float32, is object"),
    (["run", DOUBLE, "--input", "huge.npz"], "has (1099511627776, 1048576)"),
    (["run", DOUBLE, "--input", "names.npz"], "takes inputs x: missing x; unknown y, weight"),
    (["run", ENDLESS, "--output", "no/z.npz"], "cannot write 'no/z.npz': No such file"),
    (["run", ENDLESS, "--json", "no/r.json"], "cannot write 'no/r.json': No such file"),
    (["run", ENDLESS, "--trace", "no/t.json"], "cannot write 'no/t.json': No such file"),
    (["run", ENDLESS, "--trace", "sub"], "cannot write 'sub': it is a folder"),
    (["run", ENDLESS, "--trace", "user.py/t.json"], "'user.py/t.json': Not a directory"),
    (["run", ENDLESS, "--trace", "-"], "cannot write '-': a file name is needed"),
    (["run", ENDLESS, "--output", "-"], "cannot write '-': a file name is needed"),
    (["run", ENDLESS, "--json", "a", "--trace", "./a"], "--trace and --json name the same file"),
    (["run", DOUBLE, "--input", "short.npz", "--output", "short.npz"],
     "--input and --output name the same file 'short.npz'"),
    (["run", ENDLESS, "--json", "user.py"], "KERNEL and --json name the same file 'user.py'"),
    (["run", ENDLESS, "--trace-cycles", "1:2"], "--trace-cycles needs --trace FILE"),
    (["run", ENDLESS, "--trace", "t", "--trace-cycles", "9:2"], "'9:2' is no range A:B"),
    (["run", ENDLESS, "--trace", "t", "--trace-cycles", "9"], "'9' is no range A:B"),
    (["run", DOUBLE, "--timing-only", "--output", "z.npz"], "leave out --output"),
    (["run", DOUBLE, "--timing-only", "--input", "short.npz"], "leave out --input"),
    (["listing", DOUBLE, "--columns", "VMAC9"], "unknown issue slot 'VMAC9'"),
    (["listing", DOUBLE, "--packets", "900:"], "packet 900 does not exist"),
    (["machine", "--machine", "ft-m7005"], "unknown machine 'ft-m7005'"),
    (["machine", "--json", "no/m.json"], "cannot write 'no/m.json'"),
]  # fmt: skip

FAILURES = [
    (["run", "syntax.py"], "syntax.py:3: SyntaxError: "),
    (["run", "binary.py"], "binary.py"),
    (["run", "raises.py"], "raises.py:2: ZeroDivisionError: division by zero"),
    (["run", "leaves.py"], "leaves.py:2: SystemExit: 3"),
    (["run", "missing_module.py"], "missing_module.py:2: ModuleNotFoundError: No module named"),
    (["run", "user.py:misuse"], place('k.sadd("one", 2)') + "SADD: a must be a scalar register"),
    (["run", "user.py:stumble"], place('rows + "one"') + "TypeError: unsupported operand"),
    (["run", ENDLESS, "--cycle-limit", "1000"], "limit of 1,000 cycles"),
]


def end(arguments) -> int:
    with pytest.raises(SystemExit) as ended:
        cli.main(arguments)
    return ended.value.code


def names(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")}


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [(arguments, 2, words) for arguments, words in USAGE]
    + [(arguments, 1, words) for arguments, words in FAILURES],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_an_error_is_one_message(folder, capsys, arguments, status, words):
    before = names(folder)
    assert end(arguments) == status
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert words in err
    assert "Traceback" not in err
    assert names(folder) == before


def test_a_reference_that_fails_does_not_lose_the_run(folder, capsys):
    assert end(["run", "user.py:unsure", "--output", "z.npz"]) == 1
    out, err = capsys.readouterr()
    line = line_of("reference=lambda")
    assert err == f"error: user.py:{line}: KeyError: 'y'\n"
    assert "not verified" in out
    assert (folder / "z.npz").exists()


def test_debug_shows_the_traceback(folder, capsys):
    assert end(["run", "raises.py", "--debug"]) == 1
    first = capsys.readouterr().err
    assert end(["--debug", "run", "raises.py"]) == 1
    for err in (first, capsys.readouterr().err):
        assert "Traceback" in err
        assert err.endswith("error: raises.py:2: ZeroDivisionError: division by zero\n")


@pytest.mark.parametrize(
    ("error", "status", "words"),
    [
        (RuntimeError("lost count"), 1, "internal error: RuntimeError: lost count\n"),
        (OSError(28, "No space left on device"), 1, "error: No space left on device\n"),
        (MemoryError("no 64 GiB"), 1, "error: this host has too little memory: no 64 GiB\n"),
        (KeyboardInterrupt(), 130, "interrupted\n"),
    ],
)
def test_what_should_not_happen(folder, capsys, monkeypatch, error, status, words):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(cli_run, "simulate", fail)
    before = names(folder)
    arguments = ["run", DOUBLE, "--json", "r.json", "--trace", "t.json", "--output", "z.npz"]
    assert end(arguments) == status
    err = capsys.readouterr().err
    assert words in err
    assert "Traceback" not in err
    assert names(folder) == before


def test_an_interrupt_while_writing_leaves_the_old_file(folder, monkeypatch):
    (folder / "r.json").write_text("old")

    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", interrupt)
    assert end(["run", DOUBLE, "--json", "r.json"]) == 130
    assert (folder / "r.json").read_text() == "old"
    assert not list(folder.glob(".*partial*"))


def test_a_read_only_file_stays(folder, capsys):
    (folder / "r.json").write_text("old")
    (folder / "r.json").chmod(0o444)
    if os.access(folder / "r.json", os.W_OK):
        pytest.skip("this user may write everything")
    assert end(["run", DOUBLE, "--json", "r.json"]) == 2
    assert "cannot write 'r.json': the file is read-only" in capsys.readouterr().err


def test_a_device_is_written_and_stays_a_device(folder):
    assert end(["run", DOUBLE, "--json", os.devnull, "--trace", os.devnull]) == 0
    assert not Path(os.devnull).is_file()


def test_a_link_is_followed(folder):
    (folder / "sub" / "real.json").write_text("old")
    (folder / "link.json").symlink_to(folder / "sub" / "real.json")
    assert end(["run", DOUBLE, "--json", "link.json"]) == 0
    assert (folder / "link.json").is_symlink()
    assert (folder / "sub" / "real.json").read_text().startswith("{")


def test_no_pickle_is_ever_loaded(folder):
    end(["run", DOUBLE, "--input", "pickled.npz"])
    assert not (folder / "executed").exists()
