"""`ftm7004 vgg16`: what it prints and writes, and what it refuses before anything is run."""

from __future__ import annotations

from collections.abc import Callable

import attrs
import numpy as np
import pytest

from simulator.cli import commands, network_progress
from simulator.cli import vgg16 as command
from simulator.cli.network_progress import NetworkBar
from simulator.network import chart, memory
from test_cli import Ended

Command = Callable[..., Ended]


@pytest.fixture
def vgg16(tmp_path, monkeypatch, capsys) -> Command:
    """Return `vgg16(*arguments)`, which runs the command in a folder of its own."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> Ended:
        with pytest.raises(SystemExit) as ended:
            commands.main(["vgg16", *arguments])
        return Ended(int(ended.value.code or 0), *capsys.readouterr())

    return run


@pytest.fixture
def document(vgg16) -> dict:
    ended = vgg16(
        "--layers", "fc8,vgg16/pool5,conv5_3", "--batch", "1", "--timing-only", "--json", "-"
    )
    assert (ended.status, ended.err) == (0, "")
    return ended.document


def test_json_has_the_reports_keys_for_every_layer_and_the_whole(document):
    names = [(layer["name"], layer["kind"]) for layer in document["layers"]]
    assert names == [
        ("conv5_3", "conv2d_forward"), ("pool5", "maxpool2d_forward"), ("fc8", "fc_forward")
    ]  # fmt: skip
    keys = {
        "kernel", "params", "machine", "cores", "engine", "cycles", "seconds", "flops_nominal",
        "gflops", "peak_gflops", "efficiency", "mac_utilization", "vmac_occupancy", "ddr_bytes",
        "ddr_efficiency", "ddr_occupancy", "stalls", "packets", "host_seconds", "verified",
        "max_error", "per_core", "bound", "bound_share", "bound_cycles",
    }  # fmt: skip
    for part in [*document["layers"], document["network"]]:
        assert keys <= set(part)
    layers, network = document["layers"], document["network"]
    flops = [2 * 512 * 14 * 14 * 512 * 9, 3 * 512 * 7 * 7, 2 * 4096 * 1000]
    assert [layer["flops_nominal"] for layer in layers] == flops
    assert network["flops_nominal"] == sum(flops)
    assert network["cycles"] == sum(layer["cycles"] for layer in layers)
    assert network["efficiency"] == pytest.approx(sum(flops) / (network["seconds"] * 512e9))
    assert network["images_per_second"] == pytest.approx(1 / network["seconds"])
    assert document["means"][0] == {
        "what": "convolution", "kernel": "conv2d_forward", "share": "efficiency", "layers": 1,
        "layers_of_network": 13, "ours": layers[0]["efficiency"], "published": 0.8662,
        "difference": None, "calibration": False,
    }  # fmt: skip
    assert document["devices"] == []  # these are for the whole network


def test_tables_are_printed(vgg16):
    ended = vgg16("--layers", "fc8", "--batch", "1", "--timing-only", "--phase", "training")
    assert (ended.status, ended.err) == (0, "")
    assert "VGG16, training, batch 1, 4 cores of ft-m7004, timing only" in ended.out
    for line in (
        "fc8 fc_forward",
        "fc8 fc_backward",
        "fc8 relu_backward",
        "all 3 kernels",
        "images/s through these layers: 1 in",
    ):
        assert line in ended.words
    assert "fully connected, backward and update 1 of 3 81.98 %" in ended.words
    assert "images/s through these layers: 1 in" in ended.words
    assert "on this host up to batch" in ended.words


def test_numbers_are_verified_and_softmax_is_the_hosts(vgg16):
    ended = vgg16("--layers", "fc8", "--batch", "2", "--cores", "1")
    assert (ended.status, ended.err) == (0, "")
    assert "fc8 fc_forward all 2,000 values against the numpy float64 reference" in ended.words
    assert "verified: 1 of 1 kernels against the numpy float64 reference" in ended.words
    assert "softmax on the host: class " in ended.words


def test_a_wrong_result_ends_with_status_1(vgg16, monkeypatch):
    run_network = command.run_network

    def spoilt(*arguments):
        run = run_network(*arguments)
        report = attrs.evolve(run.rows[0].report, verified=False, max_error=1.0)
        return attrs.evolve(run, rows=(attrs.evolve(run.rows[0], report=report),))

    monkeypatch.setattr(command, "run_network", spoilt)
    ended = vgg16("--layers", "fc8", "--batch", "1", "--cores", "1")
    assert ended.status == 1
    assert "error: 1 of 1 kernels gave a wrong result; the first: fc8, fc_forward: " in ended.err


@pytest.mark.parametrize("name", ["chart.svg", "chart.png"])
def test_a_chart_is_drawn(vgg16, tmp_path, name):
    arguments = ("--layers", "fc8,pool5", "--batch", "1", "--timing-only", "--plot", name)
    assert vgg16(*arguments).status == 0
    start = (tmp_path / name).read_bytes()[:5]
    assert start == (b"<?xml" if name.endswith("svg") else b"\x89PNG\r")


def test_state_is_used_again(vgg16, tmp_path):
    arguments = ("--layers", "fc8,pool5", "--batch", "1", "--timing-only", "--state", "kept")
    first = vgg16(*arguments)
    again = vgg16(*arguments)
    assert (first.err, again.status) == ("", 0)
    assert again.err == "note: 2 of 2 kernels were already done in 'kept'\n"
    assert again.out == first.out
    other = vgg16(*arguments, "--seed", "1")
    assert other.status == 2
    assert "folder 'kept' holds a run with seed 0, here 1; nothing was changed there" in other.err
    changed = vgg16(*arguments, "--set", "ddr.efficiency=0.5")
    assert "holds a run with another machine record;" in changed.err


def test_an_interrupt_says_what_is_kept(vgg16, monkeypatch):
    begins = NetworkBar.begins

    def interrupted(self, number, step):
        if number == 1:
            raise KeyboardInterrupt
        return begins(self, number, step)

    monkeypatch.setattr(NetworkBar, "begins", interrupted)
    arguments = ("--layers", "fc8,pool5", "--batch", "1", "--timing-only", "--state", "kept")
    ended = vgg16(*arguments)
    assert ended.status == 130
    assert ended.err.split("\n")[0] == (
        "note: 1 of 2 kernels are kept in 'kept'; the same command goes on"
    )


# Images -------------------------------------------------------------------------------------------


def test_images_come_from_a_file(tmp_path):
    images = np.random.default_rng(0).standard_normal((3, 3, 224, 224), np.float32)
    path = str(tmp_path / "images.npz")
    np.savez(path, anything=images)
    assert (command.read_images(path, None)[0] == images).all()
    taken, text = command.read_images(path, 2)
    assert (taken == images[:2]).all()
    assert text == f"2 images of '{path}'"


def test_a_photograph_is_scaled_cropped_and_normalised(tmp_path):
    from PIL import Image

    path = str(tmp_path / "photo.png")
    pixels = np.zeros((512, 1024, 3), np.uint8)
    pixels[:, 400:624, 0] = 255  # red in the middle, which alone is kept
    Image.fromarray(pixels).save(path)
    images, text = command.read_images(path, 2)
    assert (images.shape, images.dtype) == ((2, 3, 224, 224), np.float32)
    assert (images[0] == images[1]).all()
    red, green, blue = images[0][:, 112, 112]
    np.testing.assert_allclose(
        [red, green, blue], [0.515 / 0.229, -0.456 / 0.224, -0.406 / 0.225], rtol=1e-5
    )
    assert images[0, 0, 112, 0] < 0 < images[0, 0, 112, 60]  # 400 to 623 became 200 to 311
    assert text == f"photograph '{path}', 2 times"


# Bad input ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--layers", "conv9_9"], "unknown layer 'conv9_9'; vgg16 has conv1_1, conv1_2, pool1,"),
        (["--layers", ","], "--layers needs at least one name, such as conv5_3,fc8"),
        (["--timing-only", "--input", "x.npz"], "computes no tensors: leave out --input"),
        (["--layers", "fc8", "--input", "x.npz"], "--input goes into conv1_1, which --layers"),
        (["--input", "x.npz"], "input file 'x.npz' does not exist"),
        (["--input", "photo.jpg"], "input file 'photo.jpg' does not exist"),
        (["--input", "text.jpg"], "is neither an .npz file of images nor a readable picture"),
        (["--input", "text.npz"], "input file 'text.npz' is not a readable .npz file"),
        (["--input", "flat.npz"], "images must be float32 of shape (N, 3, 224, 224), not float64"),
        (["--input", "two.npz"], "it must hold one tensor, the images; it has a, b"),
        (["--input", "one.npz", "--batch", "2"], "has 1 images, --batch asks for 2"),
        (["--input", "nan.npz"], "holds values that are not finite"),
        (["--plot", "chart.gif"], "--plot writes .svg or .png, got 'chart.gif'"),
        (["--plot", "no/chart.svg"], "cannot write 'no/chart.svg'"),
        (["--json", "a.svg", "--plot", "a.svg"], "--json and --plot name the same file 'a.svg'"),
        (["--cores", "5"], "cores must be from 1 to 4 on ft-m7004, got 5"),
        (["--state", "text.npz"], "cannot use folder 'text.npz': File exists"),
        (["--set", "ddr.speed=1"], "unknown"),
        (["--batch", "2000000000"], "(2000000000, 3, 224, 224); it must have from 1 to "),
        (
            ["--timing-only", "--batch", "2000"],
            "batch 2,000 does not fit the chip: conv1_2's conv2d_forward needs 51.9 GB of DDR, "
            "ft-m7004 has 34.4 GB; use a smaller --batch",
        ),
        (
            # 390 MB of tensors, and then the columns that the chip makes of the images
            ["--layers", "conv1_1", "--batch", "29", "--set", "ddr.bytes=400000000"],
            "batch 29 does not fit the chip: ",
        ),
    ],
)  # fmt: skip
def test_a_bad_request_is_refused_before_anything_runs(vgg16, tmp_path, arguments, message):
    image = np.zeros((1, 3, 224, 224), np.float32)
    for name in ("text.jpg", "text.npz"):
        (tmp_path / name).write_text("no picture")
    np.savez(tmp_path / "flat.npz", np.zeros(5))
    np.savez(tmp_path / "two.npz", a=image, b=image)
    np.savez(tmp_path / "one.npz", image)
    np.savez(tmp_path / "nan.npz", image * np.nan)
    ended = vgg16(*arguments)
    assert (ended.status, ended.out) == (2, "")
    assert message in ended.err
    assert ended.err.startswith("error: ")


def test_a_batch_too_large_for_the_host_names_one_that_fits(vgg16, monkeypatch):
    """fc8 for one image: 4096 inputs, 1000 outputs, 4,097,000 parameters, each twice in memory."""
    fixed, image = 2 * 4 * 4_097_000, 2 * 4 * 5096
    monkeypatch.setattr(memory, "usable_bytes", lambda: fixed + 10 * image)
    ended = vgg16("--layers", "fc8", "--batch", "11")
    assert ended.status == 2
    assert "batch 11 does not fit this host: fc8's fc_forward needs 0.0 GB" in ended.err
    assert "the largest --batch that fits is 10, and --timing-only takes no tensors" in ended.err


def test_a_chart_needs_matplotlib(vgg16, monkeypatch):
    monkeypatch.setattr(chart.importlib.util, "find_spec", lambda name: None)
    ended = vgg16("--plot", "chart.svg")
    assert (ended.status, ended.out) == (2, "")
    assert ended.err == "error: --plot needs matplotlib: pip install 'ftm7004[plot]'\n"


def test_a_long_run_says_so_before(vgg16, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "run_network", interrupted)
    monkeypatch.setattr(network_progress, "LONG_RUN_SECONDS", 1)
    ended = vgg16("--batch", "2", "--phase", "training", "--layers", "fc8")
    assert ended.status == 130
    assert ended.err.startswith("note: 3 kernels, roughly ")
    assert ended.err.endswith("--timing-only takes a fraction\n\ninterrupted\n")
