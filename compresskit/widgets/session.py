"""A workbench on disk: every point as it comes, with its file; opened again tomorrow, or after a crash.

A session is a folder. `session.json` tells the model and the data that its points belong to, `points/` holds a small
JSON file for each, `files/` the `.tflite` files by their sha256, `models/` what was trained. Each file is written
beside its place and then moved there, so whatever ends the process leaves all of them whole. `standing.json` tells
where the controls stood, with what can be undone, and which points were compared.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from compresskit.atomic import write_atomically
from compresskit.data import Split
from compresskit.widgets.programs import check_code
from compresskit.widgets.visits import Visit, from_plain, to_plain
from compresskit.zoo import Checkpoint, load_model

_VERSION = 1


class Session:
    """The folder of a workbench's points.

    Parameters
    ----------
    folder
        Made if it is not there.
    checkpoint
        The original model.
    test
        The digits that points are scored on.
    on_error
        Called with a sentence when something could not be written, on the session's own thread.

    Attributes
    ----------
    folder : Path
        Where it is.
    damaged : tuple of str
        Names of files in `points` and `models` that could not be read; they are left where they are.

    Raises
    ------
    ValueError
        If the folder holds a session of another model, of other data or of a later version, or something else.
    """

    def __init__(
        self, folder: str | os.PathLike[str], checkpoint: Checkpoint, test: Split, on_error: Callable[[str], None]
    ) -> None:
        self.folder = Path(folder)
        self._on_error = on_error
        self.damaged: tuple[str, ...] = ()
        about = {
            "version": _VERSION,
            "model": checkpoint.name,
            "model_sha256": checkpoint.digest,
            "digits": len(test),
            "digits_sha256": test.fingerprint,
        }
        try:
            self._open(about)
        except OSError as error:
            raise ValueError(
                f"session: {self.folder} cannot be used ({error.strerror}); choose another folder"
            ) from error
        self._standing: Callable[[], Mapping[str, Any]] | None = None
        self._handing = threading.Lock()
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="compresskit-session")
        self._count = len(list((self.folder / "points").glob("*.json")))

    def _open(self, about: Mapping[str, Any]) -> None:
        """Begin, or go on with what is there if it belongs to the same."""
        path = self.folder / "session.json"
        if path.exists():
            _check(path, about)
        elif self.folder.exists() and any(self.folder.iterdir()):
            raise ValueError(f"session: {self.folder} holds other files and no session.json; choose an empty folder")
        else:
            _write(path, json.dumps(about, indent=1).encode())

    def visits(self) -> tuple[Visit, ...]:
        """Read the points, in the order in which they were first visited."""
        found, damaged = [], []
        for path in sorted((self.folder / "points").glob("*.json")):
            try:
                plain = json.loads(path.read_bytes())
                found.append((int(plain["order"]), from_plain(plain)))
            except (OSError, ValueError, KeyError, TypeError, RecursionError):
                damaged.append(path.name)
        self.damaged = tuple(dict.fromkeys((*self.damaged, *damaged)))
        return tuple(visit for _, visit in sorted(found, key=lambda pair: pair[0]))

    def models(self) -> dict[str, tuple[Checkpoint, tuple[str, ...]]]:
        """Read the models that were trained: label to checkpoint and the lines of Python that made it.

        Each file is first read and run in a process of its own, as one from elsewhere is.
        """
        found, damaged = [], []
        for path in sorted((self.folder / "models").glob("*.json")):
            try:
                about = json.loads(path.read_bytes())
                read = load_model(path.with_suffix(".tflite"))
                code = tuple(map(str, about["code"]))
                check_code(code)
                made = Checkpoint(str(about["name"]), read.tflite, read.keras)
                found.append((int(about["order"]), str(about["label"]), made, code))
            except (OSError, ValueError, KeyError, TypeError, RecursionError):
                damaged.append(path.name)
        self.damaged = tuple(dict.fromkeys((*self.damaged, *damaged)))
        return {label: (made, code) for _, label, made, code in sorted(found, key=lambda each: each[0])}

    def standing(self) -> Mapping[str, Any]:
        """Read where the controls stood; empty if that was not kept, or cannot be read."""
        try:
            plain = json.loads((self.folder / "standing.json").read_bytes())
        except (OSError, ValueError, RecursionError):
            return {}
        return plain if isinstance(plain, dict) else {}

    def file(self, digest: str) -> bytes:
        """Read a file back, and hold it against its sha256.

        Raises
        ------
        ValueError
            If it is not there, or was altered.
        """
        path = self._file(digest)
        if not path.is_file():
            raise ValueError(f"session: there is no file {path.name} in {path.parent}; make the point again")
        tflite = path.read_bytes()
        if hashlib.sha256(tflite).hexdigest() != digest:
            raise ValueError(f"session: {path} is not what it was; delete it, and make the point again")
        return tflite

    def keep(self, visit: Visit, tflite: bytes) -> None:
        """Write a point and its file, on a thread of the session's own."""
        self._writer.submit(self._keep, visit, tflite).add_done_callback(self._tell)

    def keep_words(self, visit: Visit) -> None:
        """Write a point again whose file is kept: it has another name, or another note."""
        self._writer.submit(self._keep_point, visit).add_done_callback(self._tell)

    def keep_standing(self, tell: Callable[[], Mapping[str, Any]]) -> None:
        """Write where the controls stand, which `tell` says on the session's thread; what waits is written once."""
        with self._handing:
            waiting, self._standing = self._standing is not None, tell
        if not waiting:
            self._writer.submit(self._keep_standing).add_done_callback(self._tell)

    def keep_model(self, label: str, checkpoint: Checkpoint, code: tuple[str, ...]) -> None:
        """Write a trained model, on the same thread."""
        self._writer.submit(self._keep_model, label, checkpoint, code).add_done_callback(self._tell)

    def _tell(self, written: Future[None]) -> None:
        """Say what could not be written: a full disk must not pass unseen."""
        error = written.exception()
        if error is not None:
            self._on_error(f"Not kept in {self.folder}: {error}")

    def close(self) -> None:
        """Wait until everything is written."""
        self._writer.shutdown(wait=True)

    def _keep(self, visit: Visit, tflite: bytes) -> None:
        path = self._file(visit.digest)
        if not path.is_file() or path.read_bytes() != tflite:  # somebody may have altered it
            _write(self._file(visit.digest), tflite)
        self._keep_point(visit)

    def _keep_point(self, visit: Visit) -> None:
        place = hashlib.sha256(f"{visit.setting.model}\n{visit.recipe.to_json()}".encode()).hexdigest()[:20]
        path = self.folder / "points" / f"{place}.json"
        order = self._order_of(path)
        _write(path, json.dumps({**to_plain(visit), "order": order}, indent=1).encode())

    def _keep_standing(self) -> None:
        with self._handing:
            tell, self._standing = self._standing, None
        if tell is not None:
            _write(self.folder / "standing.json", json.dumps(tell()).encode())

    def _order_of(self, path: Path) -> int:
        """Give a point the number that it has, or, where there is none to be read, the next."""
        try:
            return int(json.loads(path.read_bytes())["order"])
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            self._count += 1
            return self._count

    def _keep_model(self, label: str, checkpoint: Checkpoint, code: tuple[str, ...]) -> None:
        known = len(list((self.folder / "models").glob("*.json")))
        stem = self.folder / "models" / f"{known + 1:03d}"
        _write(stem.with_suffix(".tflite"), checkpoint.tflite)
        if checkpoint.keras is not None:
            _write(stem.with_suffix(".keras"), checkpoint.keras)
        about: Mapping[str, Any] = {"label": label, "name": checkpoint.name, "code": code, "order": known + 1}
        _write(stem.with_suffix(".json"), json.dumps(about, indent=1).encode())  # last: what it names is there

    def _file(self, digest: str) -> Path:
        return self.folder / "files" / f"{digest}.tflite"


def _write(path: Path, content: bytes) -> None:
    with write_atomically(path) as file:
        file.write(content)


def _check(path: Path, about: Mapping[str, Any]) -> None:
    """Refuse a session that belongs to something else."""
    try:
        found = json.loads(path.read_bytes())
        version = int(found["version"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"session: {path} cannot be read ({type(error).__name__}); choose another folder") from error
    if version > _VERSION:
        raise ValueError(f"session: {path} is of version {version}, newer than this program ({_VERSION}); update it")
    for what, name in (("model", "model"), ("digits", "data")):
        if found.get(f"{what}_sha256") != about[f"{what}_sha256"]:
            raise ValueError(
                f"session: {path.parent} belongs to another {name} ({found.get(what)}, here {about[what]}); choose "
                "another folder"
            )
