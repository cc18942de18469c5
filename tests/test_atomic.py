"""Files that are whole or not there."""

import errno
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from nucleiseg.atomic import (
    atomic_path,
    create_private,
    publish_json,
    read_json,
    remove_temporaries,
    write_json,
    write_text,
)
from nucleiseg.errors import RunError

HOST = socket.gethostname()
# Above Linux' largest process number: never alive.
DEAD_PID = 2**22 + 1


class WriterError(Exception):
    """Raised by a writer in the middle of its work."""


def list_names(folder):
    return sorted(path.name for path in folder.iterdir())


class TestAtomicPath:
    def test_new_content_replaces_the_old(self, tmp_path):
        path = tmp_path / "table.csv"
        path.write_text("old")
        with atomic_path(path) as temporary:
            temporary.write_text("new")
            assert path.read_text() == "old"
        assert path.read_text() == "new"
        assert list_names(tmp_path) == ["table.csv"]

    def test_writer_that_raises_leaves_the_old(self, tmp_path):
        path = tmp_path / "table.csv"
        path.write_text("old")

        def fail():
            with atomic_path(path) as temporary:
                temporary.write_text("half of the n")
                raise WriterError

        with pytest.raises(WriterError):
            fail()
        assert path.read_text() == "old"
        assert list_names(tmp_path) == ["table.csv"]

    def test_writer_that_writes_nothing_is_told(self, tmp_path):
        with pytest.raises(FileNotFoundError), atomic_path(tmp_path / "table.csv"):
            pass
        assert list_names(tmp_path) == []

    def test_rename_that_fails_leaves_no_temporary(self, tmp_path):
        (tmp_path / "table.csv" / "inside").mkdir(parents=True)
        with (
            pytest.raises(IsADirectoryError),
            atomic_path(tmp_path / "table.csv") as temporary,
        ):
            temporary.write_text("new")
        assert list_names(tmp_path) == ["table.csv"]

    def test_temporary_is_hidden_beside_and_keeps_the_suffix(self, tmp_path):
        with atomic_path(tmp_path / "model.keras") as temporary:
            assert temporary.parent == tmp_path
            assert temporary.name.startswith(".")
            assert temporary.suffix == ".keras"
            temporary.touch()

    def test_two_writers_of_one_file_do_not_meet(self, tmp_path):
        path = tmp_path / "part.parquet"
        with atomic_path(path) as one, atomic_path(path) as other:
            assert one != other
            one.write_text("one")
            other.write_text("other")
        assert path.read_text() == "one"  # the outer one leaves last
        assert list_names(tmp_path) == ["part.parquet"]


class TestJson:
    def test_round_trip(self, tmp_path):
        path = tmp_path / "manifest.json"
        value = {"b": [1, None, True, 0.1], "a": {"ä": "text"}}
        write_json(path, value)
        assert read_json(path) == value

    def test_same_value_same_bytes(self, tmp_path):
        write_json(tmp_path / "1.json", {"a": 1, "b": 2})
        write_json(tmp_path / "2.json", {"b": 2, "a": 1})
        assert (tmp_path / "1.json").read_bytes() == (tmp_path / "2.json").read_bytes()

    def test_value_that_is_no_json_leaves_the_old(self, tmp_path):
        path = tmp_path / "manifest.json"
        write_json(path, 1)
        with pytest.raises(TypeError):
            write_json(path, {1, 2})
        assert read_json(path) == 1
        assert list_names(tmp_path) == ["manifest.json"]

    @pytest.mark.parametrize("content", [None, b"", b'{"a": 1', b"\xff\xfe"])
    def test_damage_is_named(self, tmp_path, content):
        path = tmp_path / "compute.json"
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(RunError, match=r"compute\.json is missing or damaged"):
            read_json(path)

    def test_text_is_utf8(self, tmp_path):
        write_text(tmp_path / "a.txt", "ä\n")
        assert (tmp_path / "a.txt").read_bytes() == "ä\n".encode()


class TestPublish:
    def test_first_wins(self, tmp_path):
        path = tmp_path / "compute.json"
        assert publish_json(path, {"batch": 8}) == {"batch": 8}
        assert publish_json(path, {"batch": 16}) == {"batch": 8}
        assert list_names(tmp_path) == ["compute.json"]

    @pytest.mark.parametrize("has_links", [True, False])
    def test_threads_at_once_agree(self, tmp_path, monkeypatch, has_links):
        def refuse(*_):
            raise OSError(errno.EPERM, "Operation not permitted")

        if not has_links:
            monkeypatch.setattr("nucleiseg.atomic.os.link", refuse)
        n_threads = 16
        start = threading.Barrier(n_threads)

        def publish(number):
            start.wait()
            return publish_json(tmp_path / "compute.json", {"winner": number})

        with ThreadPoolExecutor(n_threads) as pool:
            answers = list(pool.map(publish, range(n_threads)))
        assert answers == [read_json(tmp_path / "compute.json")] * n_threads
        assert answers[0]["winner"] in range(n_threads)
        assert list_names(tmp_path) == ["compute.json"]

    def test_without_links_a_killed_first_one_is_replaced(self, tmp_path, monkeypatch):
        def refuse(*_):
            raise OSError(errno.ENOTSUP, "Operation not supported")

        monkeypatch.setattr("nucleiseg.atomic.os.link", refuse)
        monkeypatch.setattr("nucleiseg.atomic._RENAME_S", 0.1)
        (tmp_path / ".compute.json.first").mkdir()
        assert publish_json(tmp_path / "compute.json", 8) == 8

    def test_processes_at_once_agree(self, tmp_path):
        program = (
            "import json, pathlib, sys\n"
            "from nucleiseg.atomic import publish_json\n"
            "print('ready', flush=True)\n"
            "sys.stdin.readline()\n"
            "print(json.dumps(publish_json(pathlib.Path(sys.argv[1]), sys.argv[2])))\n"
        )
        processes = [
            subprocess.Popen(
                [sys.executable, "-c", program, tmp_path / "compute.json", str(number)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for number in range(4)
        ]
        for process in processes:
            assert process.stdout.readline() == "ready\n"
        for process in processes:
            process.stdin.write("go\n")
            process.stdin.flush()
        answers = {json.loads(process.communicate()[0]) for process in processes}
        assert answers == {read_json(tmp_path / "compute.json")}
        assert list_names(tmp_path) == ["compute.json"]


class TestRemoveTemporaries:
    @pytest.mark.parametrize(
        ("name", "is_removed"),
        [
            (f".{HOST}-{DEAD_PID}-0123abcd.tmp.000001.parquet", True),
            (f".{HOST}-{os.getpid()}-0123abcd.tmp.000001.parquet", False),
            (f".{HOST}-1-0123abcd.tmp.000001.parquet", False),
            # Other hosts, whose names begin or end alike.
            (f".other-{DEAD_PID}-0123abcd.tmp.000001.parquet", False),
            (f".{HOST}-{DEAD_PID}-5-0123abcd.tmp.000001.parquet", False),
            (f".x-{HOST}-{DEAD_PID}-0123abcd.tmp.000001.parquet", False),
            ("000001.parquet", False),
            (f"{HOST}-{DEAD_PID}-0123abcd.tmp.000001.parquet", False),
            (".hidden", False),
        ],
        # A process's number would be another name each time.
        ids=range(9),
    )
    def test_only_of_this_host_and_of_the_dead(self, tmp_path, name, is_removed):
        (tmp_path / name).touch()
        remove_temporaries(tmp_path)
        assert (tmp_path / name).exists() is not is_removed

    def test_after_a_kill(self, tmp_path):
        program = (
            "import os, pathlib, signal, sys\n"
            "from nucleiseg.atomic import atomic_path\n"
            "with atomic_path(pathlib.Path(sys.argv[1])) as temporary:\n"
            "    temporary.write_text('half')\n"
            "    os.kill(os.getpid(), signal.SIGKILL)\n"
        )
        path = tmp_path / "000000.parquet"
        done = subprocess.run([sys.executable, "-c", program, path], check=False)
        assert done.returncode == -signal.SIGKILL
        (left,) = list_names(tmp_path)
        assert left.endswith(".tmp.000000.parquet")
        remove_temporaries(tmp_path)
        assert list_names(tmp_path) == []


class TestCreatePrivate:
    @pytest.fixture(autouse=True)
    def _open_umask(self):
        before = os.umask(0)
        yield
        os.umask(before)

    def test_only_the_owner_enters(self, tmp_path):
        folder = create_private(tmp_path / "runs" / "plate7")
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700

    def test_folder_that_is_there_is_kept(self, tmp_path):
        (tmp_path / "run").mkdir()
        (tmp_path / "run" / "plan.parquet").touch()
        assert create_private(tmp_path / "run") == tmp_path / "run"
        assert list_names(tmp_path / "run") == ["plan.parquet"]

    @pytest.mark.parametrize("name", ["run", "run/inside"])
    def test_file_in_its_place_is_refused(self, tmp_path, name):
        (tmp_path / "run").touch()
        with pytest.raises(RunError, match="run is a file, not a directory"):
            create_private(tmp_path / name)
