"""The command line as a user meets it: what is printed, where, and the exit status."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest

from nucleiseg import __version__
from nucleiseg.cli import main
from nucleiseg.cli.parser import make_parser
from nucleiseg.config import Config, load_config
from nucleiseg.errors import NucleisegError
from tests.conftest import run_nucleiseg

COMMANDS = (
    "demo",
    "sample",
    "inspect",
    "train",
    "tune",
    "count",
    "segment",
    "status",
    "cancel",
    "retry",
    "merge",
    "evaluate",
    "doctor",
)


@pytest.fixture
def call(capsys, monkeypatch):
    """Run a command in this process: exit status, output, complaints."""
    monkeypatch.delenv("NUCLEISEG_DEBUG", raising=False)

    def run(*arguments):
        try:
            status = main([str(argument) for argument in arguments])
        except SystemExit as leaving:
            status = leaving.code
        out, err = capsys.readouterr()
        return status, out, err

    return run


@pytest.fixture
def refused(call):
    """Run a command that must not start, and return its one line."""

    def run(*arguments):
        status, out, err = call(*arguments)
        assert (status, out) == (2, "")
        assert err.startswith("nucleiseg: ")
        assert err.endswith("\n")
        assert err.count("\n") == 1, err
        return err

    return run


@pytest.fixture
def archive(tmp_path):
    """Three images of 32x32."""
    path = tmp_path / "good.npz"
    np.savez(path, X=np.arange(3 * 32 * 32, dtype="uint16").reshape(3, 32, 32))
    return path


@pytest.fixture
def count(archive, make_bundle, tmp_path):
    """Arguments of a count that could start, but for what is added or changed."""

    def arguments(*more, archives=(archive,), model=None):
        model = model or make_bundle().paths.root
        return ["count", *archives, "--model", model, "--run", tmp_path / "run", *more]

    return arguments


# Help


def test_help_lists_every_command_and_the_exit_status(call):
    status, out, err = call("--help")
    assert (status, err) == (0, "")
    for command in COMMANDS:
        assert f"\n    {command} " in out
    for number in (0, 1, 2):
        assert f"\n  {number}  " in out


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_a_command(call, command):
    status, out, err = call(command, "--help")
    assert (status, err) == (0, "")
    assert out.startswith(f"usage: nucleiseg {command} ")


def test_every_command_and_argument_says_what_it_is():
    (commands,) = (a for a in make_parser()._actions if a.choices)
    assert tuple(commands.choices) == COMMANDS
    for command, parser in commands.choices.items():
        silent = [action.dest for action in parser._actions if not action.help]
        assert silent == [], command


def test_version(call):
    assert call("--version") == (0, f"{__version__}\n", "")


# What cannot be parsed


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "the following arguments are required: COMMAND; see nucleiseg --help"),
        (["cuont"], "invalid choice: 'cuont'"),
        (["tune", "b"], "required: --images, --labels; see nucleiseg tune --help"),
        (["train", "c.yaml", "--epochs", "3"], "unrecognized arguments: --epochs 3"),
        (["count", "a.npz", "--model", "m", "--workers", "-1"], "'-1' is not a whole"),
        (["count", "a.npz", "--model", "m", "--format", "xlsx"], "'csv', 'parquet'"),
        (["count", "a.npz", "--model", "m", "--pictures", "x"], "'x' is not a whole"),
        (["sample", "d", "--seed", "-1"], "--seed: '-1' is not a whole number"),
        (["inspect", "a.npz", "--index", "1.5"], "'1.5' is not a whole number"),
        (["evaluate", "a", "b", "--min-true-area-px", "-5"], "'-5' is not a whole"),
        (["inspect"], "see nucleiseg inspect --help"),
    ],
)
def test_a_command_line_that_cannot_be_read_is_one_line(refused, arguments, words):
    assert words in refused(*arguments)


# What goes wrong in a command


@pytest.fixture
def failing(call, monkeypatch, tmp_path):
    """Run a command in whose middle an exception rises."""

    def run(error):
        def fail(*_, **__):
            raise error

        monkeypatch.setattr("nucleiseg.cli.sample.write_sample", fail)
        return call("sample", tmp_path / "s")

    return run


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (
            OSError(28, "No space left on device", "runs/x"),
            "runs/x: No space left on device; make room, then run the same command "
            "again: what is done is kept",
        ),
        (
            PermissionError(13, "Permission denied", "runs/x"),
            "runs/x: Permission denied; choose a place that you may use",
        ),
        (
            OSError(5, "Input/output error", "x"),
            "x: Input/output error; check the path",
        ),
        (OSError(5, "I/O error"), "I/O error"),
        (OSError("told in\nwords"), "told in words"),
        (TimeoutError(), "TimeoutError"),
        (
            MemoryError("Unable to allocate 9 TiB"),
            "not enough memory (Unable to allocate 9 TiB); ask for less, or use a "
            "machine with more",
        ),
    ],
)
def test_what_the_system_refuses_is_one_line(failing, error, line):
    assert failing(error) == (2, "", f"nucleiseg: {line}\n")


def test_an_interruption_says_how_to_go_on(failing):
    status, _, err = failing(KeyboardInterrupt())
    assert status == 130
    assert err == "nucleiseg: interrupted; the same command goes on where it stopped\n"


def test_a_fault_of_ours_is_not_hidden(failing):
    with pytest.raises(ZeroDivisionError):
        failing(ZeroDivisionError())


@pytest.mark.parametrize("error", [OSError(28, "No space left"), MemoryError()])
def test_debug_shows_the_trace(failing, monkeypatch, error):
    monkeypatch.setenv("NUCLEISEG_DEBUG", "1")
    with pytest.raises(type(error)):
        failing(error)


def test_debug_shows_the_trace_of_a_refusal(call, monkeypatch, tmp_path):
    assert call("evaluate", tmp_path, tmp_path)[0] == 2
    monkeypatch.setenv("NUCLEISEG_DEBUG", "1")
    with pytest.raises(NucleisegError, match="a folder, expected a table"):
        call("evaluate", tmp_path, tmp_path)


def test_a_reader_that_has_seen_enough_is_no_failure(archive):
    process = subprocess.Popen(
        [sys.executable, "-m", "nucleiseg", "inspect", archive, "--no-pictures"],
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait(60) == 0


def test_closed_streams_and_no_home_are_no_failure(training_archive, tmp_path):
    config = tmp_path / "c.yaml"
    config.write_text(f"data: {{archive: {training_archive}}}\n")
    command = [sys.executable, "-m", "nucleiseg", "train", config, "--dry-run"]
    answer = subprocess.run(
        ["bash", "-c", f"{shlex.join(map(str, command))} <&- >&- 2>&-"],
        env={key: value for key, value in os.environ.items() if key != "HOME"},
        check=False,
    )
    assert answer.returncode == 0


def test_a_terminal_without_unicode_gets_escapes(tmp_path):
    table = tmp_path / "t.csv"
    table.write_text("index,count\n0,3\n1,5\n")
    answer = subprocess.run(
        [sys.executable, "-m", "nucleiseg", "evaluate", table, table],
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (answer.returncode, answer.stderr) == (0, "")
    assert r"count error \u03a3|e|/\u03a3true" in answer.stdout


# sample


def test_sample_writes_what_it_says(call, tmp_path):
    folder = tmp_path / "new" / "it's"
    status, out, err = call(
        *("sample", folder, "--train-images", 3, "--test-images", 2, "--size", 40)
    )
    assert (status, err) == (0, "")
    written = sorted(path.name for path in folder.iterdir())
    written.remove("README.txt")
    assert len(written) == 5
    for name in written:
        assert str(folder / name) in out
    with np.load(folder / "train.npz") as train:
        assert train["X"].shape == train["y"].shape == (3, 40, 40)
    with np.load(folder / "test_labels.npz") as labels:
        counts = labels["y"].max(axis=(1, 2))
    truth = pd.read_csv(folder / "test_counts.csv")
    assert list(truth["index"]) == [0, 1]
    assert list(truth["count"]) == list(counts)


def test_sample_replaces_its_own_archives_only(call, tmp_path):
    small = ("--train-images", 1, "--test-images", 1, "--size", 32)
    assert call("sample", tmp_path / "ours", *small)[0] == 0
    assert call("sample", tmp_path / "ours", *small)[0] == 0
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "train.npz").write_bytes(b"years of work")
    status, _, err = call("sample", tmp_path / "theirs", *small)
    assert status == 2
    assert "holds train.npz, not written by nucleiseg sample" in err
    assert (tmp_path / "theirs" / "train.npz").read_bytes() == b"years of work"


def test_sample_follows_its_seed(call, tmp_path):
    content = {}
    for name, seed in {"a": 1, "b": 1, "c": 2}.items():
        small = ("--train-images", 1, "--test-images", 1, "--size", 32)
        assert call("sample", tmp_path / name, *small, "--seed", seed)[0] == 0
        content[name] = (tmp_path / name / "train.npz").read_bytes()
    assert content["a"] == content["b"] != content["c"]


@pytest.mark.parametrize("option", ["--train-images", "--test-images", "--size"])
def test_sample_needs_at_least_one(refused, tmp_path, option):
    assert f"{option} is 0; expected at least 1" in refused(
        "sample", tmp_path, option, 0
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("inside", ["", "deeper"])
def test_a_file_in_the_place_of_a_folder_is_named(refused, archive, inside):
    assert f"{archive}" in refused("sample", archive / inside, "--size", 32)


# inspect


def test_inspect_prints_figures_and_saves_pictures(call, tmp_path, monkeypatch):
    images = np.arange(2 * 16 * 24, dtype="float32").reshape(2, 16, 24)
    np.savez_compressed(tmp_path / "plate.npz", X=images, y=(images > 9).astype("int8"))
    monkeypatch.chdir(tmp_path)
    status, out, err = call("inspect", "plate.npz", "--index", 1)
    assert (status, err) == (0, "")
    lines = [line.split() for line in out.splitlines()]
    assert ["key", "type", "dtype", "shape", "minimum", "maximum", "storage"] in lines
    assert ["X", "stack", "float32", "2x16x24", "0", "767", "deflated"] in lines
    pictures = [f"inspect-plate/X-000001_{k}.png" for k in ("image", "mask", "overlay")]
    assert [line[1] for line in lines if line[0] == "picture"] == pictures
    for picture in pictures:
        assert Path(picture).read_bytes().startswith(b"\x89PNG")


def test_inspect_without_pictures_writes_nothing(call, archive, tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    status, out, _ = call("inspect", archive, "--no-pictures")
    assert (status, "  picture" in out) == (0, False)
    assert list(Path().iterdir()) == []


def test_inspect_lists_the_others_beside_bad_archives(call, archive, tmp_path):
    (tmp_path / "text.npz").write_text("hello")
    status, out, err = call(
        *("inspect", tmp_path / "none.npz", archive, tmp_path / "text.npz"),
        *("--pictures", tmp_path / "p"),
    )
    assert status == 1
    assert f"{archive}\n" in out
    first, second = err.splitlines()
    assert first.startswith(f"nucleiseg: {tmp_path / 'none.npz'}: not found")
    assert "neither npz nor HDF5" in second


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("missing.npz", "not found"),
        ("good.npz:x", "the nearest is X"),
        ("", "is a directory"),
        ("empty.h5", "is empty"),
    ],
)
def test_inspect_refuses_a_bad_archive_in_one_line(
    refused, archive, tmp_path, name, words
):
    (tmp_path / "empty.h5").touch()
    assert words in refused("inspect", f"{archive.parent}/{name}", "--no-pictures")


def test_inspect_reports_a_damaged_dataset(call, tmp_path):
    images = np.random.default_rng(0).integers(0, 255, (9, 32, 32), "uint8")
    np.savez_compressed(tmp_path / "a.npz", A=images, B=images)
    content = bytearray((tmp_path / "a.npz").read_bytes())
    content[len(content) // 4] ^= 0xFF
    (tmp_path / "a.npz").write_bytes(content)
    status, out, _ = call("inspect", tmp_path / "a.npz", "--no-pictures")
    assert status == 1
    assert re.search(r"\n  A: .* cannot be read .*damaged", out)
    assert re.search(r"\n  B +stack +uint8 +9x32x32 +0 +254 ", out)


def test_inspect_keeps_pictures_of_namesakes_apart(call, archive, tmp_path):
    names = []
    for plate in ("p1", "p2"):
        (tmp_path / plate).mkdir()
        names.append(tmp_path / plate / "good.npz")
        names[-1].write_bytes(archive.read_bytes())
    status, out, _ = call("inspect", *names, "--pictures", tmp_path / "out")
    assert status == 0
    drawn = re.findall(r"picture  (.*)", out)
    assert len(set(drawn)) == 2
    assert all(Path(name).exists() for name in drawn)


def test_inspect_keeps_pictures_apart_whatever_archives_are_called(
    call, archive, tmp_path
):
    names = [tmp_path / name for name in ("p1/x.npz", "p2/x.npz", "p1_x.npz")]
    for name in names:
        name.parent.mkdir(exist_ok=True)
        name.write_bytes(archive.read_bytes())
    status, out, _ = call("inspect", *names, "--pictures", tmp_path / "out")
    assert status == 0
    assert len(set(re.findall(r"picture  (.*)", out))) == 3


def test_inspect_goes_on_behind_an_index_too_high(call, archive, tmp_path):
    np.savez(tmp_path / "one.npz", X=np.zeros((16, 16), "uint8"))
    status, out, err = call(
        *("inspect", tmp_path / "one.npz", archive),
        *("--index", 2, "--pictures", tmp_path / "p"),
    )
    assert status == 1
    assert "one.npz holds images 0 to 0" in err
    assert "X-000002_image.png" in out


# train


def test_a_dry_run_of_train_writes_nothing(call, training_archive, tmp_path):
    config = tmp_path / "c.yaml"
    config.write_text("model: {base_filters: 2}\ntraining: {epochs: 7}\n")
    status, out, err = call(
        *("train", config, "--run", tmp_path / "run", "--dry-run"),
        *("--set", f"data.archive={training_archive}"),
    )
    assert (status, err) == (0, "")
    assert re.search(r"\nnetwork +33,\d{3} parameters\n", out)
    assert re.search(r"\nsplit +48/16 images", out)
    assert re.search(r"\ntraining +7 epochs in batches of 16, adam", out)
    assert out.splitlines()[0].split() == ["layer", "kind", "output", "parameters"]
    assert out.count("Conv2D") == 23
    assert list(tmp_path.iterdir()) == [config]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("trainin: {epochs: 3}", "unknown section trainin"),
        ("training: {epoch: 3}", "did you mean 'epochs'?"),
        ("training: {epochs: many}", "training.epochs = 'many' is not allowed"),
        ("epochs: 3", "did you mean 'training.epochs'?"),
        ("training: [", "is not YAML"),
        ("", "data.archive is not set"),
        ("data: {archive: none.npz}", "none.npz: not found"),
    ],
)
def test_train_refuses_a_wrong_configuration(refused, tmp_path, text, words):
    config = tmp_path / "c.yaml"
    config.write_text(text)
    assert words in refused("train", config, "--run", tmp_path / "run", "--dry-run")
    assert words in refused("train", config, "--run", tmp_path / "x" / "run")


def test_train_refuses_a_missing_configuration(refused, tmp_path):
    (tmp_path / "small.yaml").touch()
    line = refused("train", tmp_path / "smal.yaml", "--run", tmp_path / "run")
    assert "not found; did you mean 'small.yaml'?" in line


def test_train_needs_a_run_directory(refused, training_archive, tmp_path):
    config = tmp_path / "c.yaml"
    config.write_text(f"data: {{archive: {training_archive}}}")
    assert "train needs --run DIR" in refused("train", config)
    assert "is a file, not a directory" in refused("train", config, "--run", config)


def test_a_test_archive_is_looked_for_before_the_training(
    refused, training_archive, tmp_path
):
    config = tmp_path / "c.yaml"
    config.write_text(
        f"data: {{archive: {training_archive}, test_archive: none.npz:X}}"
    )
    line = refused("train", config, "--run", tmp_path / "run")
    assert f"{training_archive.parent / 'none.npz'}: not found" in line
    assert "data.test_archive" in line
    assert not (tmp_path / "run").exists()


# count


def test_a_dry_run_of_count_names_model_settings_and_shards(call, count, archive):
    status, out, err = call(
        *count("--dry-run", "--set", "shards.images=2"),
        *("--set", "instances.threshold=0.25"),
    )
    assert (status, err) == (0, "")
    assert re.search(r"\ncounting +watershed above 0.25, at least 0 px\n", out)
    assert re.search(r"\ndataset +good.npz:X +3 images of 32x32, 2 shards\n", out)
    assert out.endswith("in all     3 images, 2 shards\n")


def test_a_watershed_that_nothing_seeds_is_refused_before_any_work(
    refused, make_bundle, archive, training_archive, tmp_path
):
    mask = make_bundle(Config.model_validate({"model": {"head": "mask"}}))
    asked = ["--set", "instances.method=watershed", "--run", tmp_path / "run"]
    for command in ("count", "segment"):
        line = refused(command, archive, "--model", mask.paths.root, *asked)
        assert "instances.method is watershed, and the network gives no marker" in line
    assert not (tmp_path / "run").exists()
    config = tmp_path / "c.yaml"
    config.write_text(f"data: {{archive: {training_archive}}}\nmodel: {{head: mask}}")
    assert "set instances.method=auto" in refused("train", config, *asked)
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["logs"]


def test_a_dataset_named_twice_is_counted_once(call, count, archive):
    status, out, err = call(
        *count("--dry-run", archives=[archive, f"{archive}:X", f"{archive}:*"])
    )
    assert status == 0
    assert "in all     3 images" in out
    assert err.count("is named twice; it is counted once") == 2


def test_namesakes_are_told_apart_by_their_folders(call, count, archive, tmp_path):
    names = []
    for plate in ("p1", "p2"):
        (tmp_path / plate).mkdir()
        names.append(tmp_path / plate / "good.npz")
        names[-1].write_bytes(archive.read_bytes())
    _, out, _ = call(*count("--dry-run", archives=names))
    assert "p1/good.npz:X" in out
    assert "p2/good.npz:X" in out


@pytest.mark.parametrize(
    "name", ["with space.npz", "it's.npz", 'a"b.npz', "a:b.npz", "ünï-核.npz", "%s.npz"]
)
def test_odd_file_names(call, count, archive, name):
    odd = archive.rename(archive.with_name(name))
    for text in (odd, f"{odd}:X"):
        status, out, err = call(*count("--dry-run", archives=[text]))
        assert (status, err) == (0, "")
        assert f"{name}:X  3 images" in out


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (["--set", "shards.image=3"], "did you mean 'images'?"),
        (["--set", "shard.images=3"], "did you mean 'shards'?"),
        (["--set", "shards.images"], "expected section.key=value"),
        (["--set", "shards.images=0"], "shards.images = 0 is not allowed"),
        (["--config", "none.yaml"], "none.yaml not found"),
        (["--set", "preprocess.normalisation=none"], "was trained with 'percentile'"),
    ],
)
def test_count_refuses_wrong_settings(refused, count, tmp_path, settings, words):
    assert words in refused(*count(*settings))
    assert not (tmp_path / "run").exists()


def test_a_notebook_table_holds_one_dataset(refused, count, archive, tmp_path):
    np.savez(tmp_path / "two.npz", X=np.zeros((16, 16), "uint8"))
    line = refused(
        *count("--format", "notebook", archives=[archive, tmp_path / "two.npz"])
    )
    assert "this run has 2 datasets" in line
    assert "use --format csv" in line


def test_count_needs_a_run_directory(refused, count, archive):
    assert "count needs --run DIR" in refused(*count()[:4])
    line = refused(*count("--run", archive))
    assert f"{archive} is a file, not a directory" in line


def break_bundle(root, how):
    if how == "no weights":
        (root / "model.keras").unlink()
    elif how == "no description":
        (root / "bundle.json").unlink()
    elif how == "damaged weights":
        (root / "model.keras").write_bytes(b"weight5")
    elif how == "damaged description":
        (root / "bundle.json").write_text("{")
    elif how == "another format":
        info = json.loads((root / "bundle.json").read_text())
        (root / "bundle.json").write_text(json.dumps({**info, "format": 99}))


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("no weights", "has no model.keras (its weights); copy the whole folder again"),
        ("no description", "has no bundle.json (its description)"),
        ("damaged weights", "is damaged: SHA-256"),
        ("damaged description", "bundle.json is damaged"),
        ("another format", "has format 99, this version reads 1"),
    ],
)
def test_a_bundle_that_cannot_be_used(
    refused, count, make_bundle, tmp_path, how, words
):
    root = make_bundle().paths.root
    break_bundle(root, how)
    line = refused(*count(model=root))
    assert words in line
    assert str(root) in line
    assert not (tmp_path / "run").exists()


def test_a_run_directory_in_place_of_its_model(refused, count, make_bundle, tmp_path):
    make_bundle(name="training/model")
    line = refused(*count(model=tmp_path / "training"))
    assert f"use --model {tmp_path / 'training' / 'model'}" in line
    line = refused(*count(model=tmp_path / "nowhere"))
    assert f"model bundle {tmp_path / 'nowhere'} not found" in line


def make_bad_archive(folder, kind):
    """Make an archive that cannot be counted; its name, and what must be said."""
    images = np.random.default_rng(0).integers(0, 255, (9, 32, 32), "uint8")
    path = folder / f"{kind}.npz"
    if kind == "truncated":
        np.savez_compressed(path, X=images)
        path.write_bytes(path.read_bytes()[:-99])
        return path, "it is truncated or still being written"
    if kind == "objects":
        np.savez(path, X=np.array([images[0], "x"], dtype=object))
        return path, "never unpickled: save numbers instead"
    if kind == "no image":
        with h5py.File(folder / "positions.h5", "w") as file:
            file["positions"] = np.zeros((5, 2))
        return folder / "positions.h5", "holds no image dataset; /positions"
    if kind == "missing":
        return path, "not found; check the path"
    if kind == "folder":
        return folder, "is a directory; name one file in it"
    if kind == "colour":
        np.savez(path, X=np.stack([images] * 3, axis=-1))
        return path, "which is colour: convert it to grey"
    if kind == "int64":
        np.savez(path, X=images.astype("int64"))
        return path, 'convert with .astype("uint16")'
    if kind == "array":
        np.save(folder / "array.npy", images)
        return folder / "array.npy", "np.savez_compressed"
    np.savez(path, images=images)
    return f"{path}:image", "the nearest is images"


BAD_ARCHIVES = (
    *("truncated", "objects", "no image", "missing", "folder", "colour", "int64"),
    *("array", "wrong key"),
)


@pytest.mark.parametrize("kind", BAD_ARCHIVES)
def test_an_archive_that_cannot_be_counted(call, count, tmp_path, kind):
    (tmp_path / "bad").mkdir()
    name, words = make_bad_archive(tmp_path / "bad", kind)
    status, out, err = call(*count(archives=[name]))
    assert (status, out) == (2, "")
    assert "Traceback" not in err
    line = err.splitlines()[-1]
    assert line.startswith("nucleiseg: nothing to count: ")
    assert Path(str(name).removesuffix(":image")).name in line
    assert words in line
    assert not (tmp_path / "run").exists()


def test_an_archive_that_cannot_be_counted_is_one_line(refused, count, tmp_path):
    name, _ = make_bad_archive(tmp_path, "missing")
    refused(*count(archives=[name]))


@pytest.mark.parametrize("kind", BAD_ARCHIVES)
def test_a_bad_archive_is_named_beside_a_good_one(call, count, archive, tmp_path, kind):
    (tmp_path / "bad").mkdir()
    name, words = make_bad_archive(tmp_path / "bad", kind)
    status, out, err = call(*count("--dry-run", archives=[name, archive]))
    assert status == 0
    assert "in all     3 images" in out
    assert len(err.splitlines()) == 1
    assert words in err
    assert re.search(rf"\nunreadable .*{re.escape(words)}", out)


# evaluate


@pytest.fixture
def tables(tmp_path):
    predicted, truth = tmp_path / "predicted.csv", tmp_path / "truth.csv"
    predicted.write_text("index,count\n0,3\n1,5\n2,\n")
    truth.write_text("index,count\n0,4\n1,5\n2,6\n")
    return predicted, truth


def test_evaluate_prints_a_table(call, tables):
    status, out, err = call("evaluate", *tables)
    assert (status, err) == (0, "")
    assert "compared   2 of 3 images: 9 true, 8 predicted nuclei" in out
    assert re.search(r"\nMAE +0\.500 ", out)
    assert re.search(r"\ncount error .*true +11\.11 %", out)
    assert re.search(r"\nexact +50\.00 %", out)


def test_evaluate_prints_json_and_nothing_else(call, tables):
    status, out, err = call("evaluate", *tables, "--json")
    assert (status, err) == (0, "")
    scores = json.loads(out)
    assert (scores["n_images"], scores["n_failed"]) == (2, 1)
    assert scores["counts"]["mae"]["value"] == 0.5
    assert scores["instances"] is None


def test_evaluate_scores_instances_of_label_images(call, tmp_path):
    labels = np.zeros((2, 32, 32), "uint16")
    labels[:, 2:12, 2:12], labels[:, 20:30, 20:30] = 1, 2
    np.savez(tmp_path / "truth.npz", y=labels)
    labels[1, 20:30, 20:30] = 0
    np.savez(tmp_path / "predicted.npz", y=labels)
    names = (f"{tmp_path / 'predicted.npz'}:y", f"{tmp_path / 'truth.npz'}:y")
    _, out, _ = call("evaluate", *names, "--json")
    instances = json.loads(out)["instances"]
    assert instances["thresholds"][0] == 0.5
    assert instances["thresholds"][-1] == 0.95
    assert instances["ap_pooled"][0]["value"] == 0.75
    status, out, _ = call("evaluate", *names)
    assert status == 0
    assert re.search(r"\n0\.95 +0\.750 +0\.857 ", out)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("index,count\n0,4\n", "no row for index 1, 2"),
        ("index,count\n0,4\n0,4\n1,4\n2,4\n", "more than one row for index 0"),
        ("index,number\n0,4\n", "no column count"),
        ("", "cannot be read as a table"),
    ],
)
def test_evaluate_refuses_a_table_in_one_line(refused, tables, content, words):
    predicted, truth = tables
    truth.write_text(content)
    for options in ((), ("--json",)):
        line = refused("evaluate", predicted, truth, *options)
        assert words in line
        assert str(truth) in line


# The whole path


@pytest.mark.slow
@pytest.mark.beside
def test_demo(tmp_path):
    folder = tmp_path / "it's a demo"
    answer = run_nucleiseg("demo", folder, timeout_s=900)
    assert answer.returncode == 0, answer.stderr
    assert "Traceback" not in answer.stderr
    printed = [
        shlex.split(line.removeprefix("$ nucleiseg "))
        for line in answer.stdout.splitlines()
        if line.startswith("$ nucleiseg ")
    ]
    commands = ["sample", "inspect", "train", "count", "evaluate"]
    assert [words[0] for words in printed] == commands
    # As the user would type it: each line can be typed again, and says what is there.
    assert run_nucleiseg(*printed[-1]).stdout in answer.stdout
    assert printed[3][printed[3].index("--workers") + 1] == "2"

    table = folder / "count" / "counts.csv"
    head = table.read_text().splitlines()[:6]
    assert "\n".join(f"  {line}" for line in head) in answer.stdout
    counts = pd.read_csv(table)
    truth = pd.read_csv(folder / "sample" / "test_counts.csv")
    assert len(counts) == len(truth) == 100
    assert (counts["status"] == "ok").all()
    error = (counts["count"] - truth["count"]).abs().sum() / truth["count"].sum()
    assert error < 0.35
    assert f"{100 * error:.2f} %" in answer.stdout

    summary = answer.stdout.partition("What there is to look at:")[2]
    named = re.findall(rf"{re.escape(str(folder))}\S*", summary)
    assert len(named) == 5
    for name in named:
        path = Path(name)
        assert path.stat().st_size > 0
        assert path.is_file() or any(path.iterdir())
    assert len(list((folder / "count" / "pictures").glob("*.png"))) >= 6
    # Typed again, as after an interruption, it goes on with what is there.
    before = table.read_bytes()
    again = run_nucleiseg("demo", folder, timeout_s=300)
    assert again.returncode == 0, again.stderr
    assert "finished" in again.stdout
    assert table.read_bytes() == before
    assert load_config(folder / "demo.yaml").data.archive == str(
        folder / "sample" / "train_labels.npz"
    )
