"""The embedded server: a real Redis-compatible child process on a loopback port, its files under `var/redis`, shared by
every process on the same `var`.

Decides when it starts, who may join and when it stops; knows nothing of what is stored. Three locks (flock, so that
death of a process frees them): `start.lock` serialises starting and stopping; every user holds `users.lock` shared, and
who can take it alone is the last one; the server process itself inherits `server.lock`, so "does it run?" never depends
on a process number that may have been given to another program.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from service.adapters.server_program import EmbeddedServerError, ask, find_binary, free_port, is_free, last_line, url_of

__all__ = ["EmbeddedServer", "EmbeddedServerError"]

START_SECONDS = 60.0
"""How long a server may take to read its files back before starting counts as failed."""
STOP_SECONDS = 30.0

_CONFIG = """\
bind 127.0.0.1
port {port}
requirepass {password}
dir "{folder}"
logfile "{log}"
daemonize no
appendonly yes
appendfsync always
save ""
maxmemory-policy noeviction
tcp-keepalive 60
"""


_children: list[subprocess.Popen[bytes]] = []
"""Servers that this process started: they may outlive their `EmbeddedServer`, and their ends must be collected."""


class EmbeddedServer:
    """A user's hold on the embedded server of one `var` folder.

    Args:
        var: The folder of everything the service writes; the server's files go to `var/redis`.
    """

    def __init__(self, var: Path) -> None:
        self.folder = var.absolute() / "redis"
        self.log = self.folder / "server.log"
        self._state = self.folder / "server.json"
        self._user: int | None = None

    def acquire(self) -> str:
        """Join the running server, or start it with all its data, and return its URL.

        Raises:
            EmbeddedServerError: with the reason and the log file to look into.
        """
        self._make_folder()
        with self._locked("start.lock"):
            if self._user is None:
                self._user = self._open("users.lock")
                fcntl.flock(self._user, fcntl.LOCK_SH)
            try:
                return self._join() if self.is_running() else self._start()
            except BaseException:
                self._leave()
                raise

    def ensure(self) -> str:
        """Start the server again if it died meanwhile; on the same port where that is free. Returns the URL."""
        return self.acquire()

    def release(self) -> None:
        """Leave; the last user shuts the server down and waits until its files are closed."""
        if self._user is None:
            return
        with self._locked("start.lock"):
            self._leave()
            users = self._open("users.lock")
            try:
                fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return
            else:
                self._stop()
            finally:
                os.close(users)

    def is_running(self) -> bool:
        """Say whether a server process holds the lock that it was born with."""
        descriptor = self._open("server.lock")
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        else:
            return False
        finally:
            os.close(descriptor)

    def __enter__(self) -> str:
        return self.acquire()

    def __exit__(self, *exc: object) -> None:
        self.release()

    def _join(self) -> str:
        state = self._read_state()
        if state is None:
            raise EmbeddedServerError(
                f"a server runs in {self.folder} but {self._state.name} is gone or damaged, its password is lost: "
                f"end the process that holds {self.folder / 'server.lock'} and start again"
            )
        self._await_answer(state, None)
        return url_of(state)

    def _start(self) -> str:
        _collect_ended()
        binary = find_binary()
        before = self._read_state() or {}
        password = before.get("password") or secrets.token_hex(24)
        complaint = ""
        for port in (before.get("port"), None, None):
            state = {"port": port if port and is_free(port) else free_port(), "password": password}
            try:
                return self._spawn(binary, state)
            except EmbeddedServerError as error:
                complaint = str(error)
                if "Address already in use" not in complaint:
                    break
        raise EmbeddedServerError(complaint)

    def _spawn(self, binary: str, state: dict[str, Any]) -> str:
        config = self.folder / "server.conf"
        text = _CONFIG.format(folder=self.folder, log=self.log, **state)
        lock = self._open("server.lock")
        try:
            self._write_private(config, text)
            fcntl.flock(lock, fcntl.LOCK_EX)
            with open(self.log, "ab") as log:
                process = subprocess.Popen(
                    [binary, str(config)],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    pass_fds=(lock,),
                    start_new_session=True,  # Ctrl-C of one user must not end the server of the others
                    umask=0o077,
                )
            _children.append(process)
            state["pid"] = process.pid
            self._write_private(self._state, json.dumps(state))
            self._await_answer(state, process)
        except OSError as error:
            raise EmbeddedServerError(f"the embedded server cannot start: {error}; see {self.log}") from error
        finally:
            os.close(lock)
        return url_of(state)

    def _await_answer(self, state: dict[str, Any], process: subprocess.Popen[bytes] | None) -> None:
        end = time.monotonic() + START_SECONDS
        while time.monotonic() < end:
            if ask(state, "PING") == b"PONG":
                return
            if process is not None and process.poll() is not None:
                raise EmbeddedServerError(
                    f"the embedded server ended at once (exit code {process.returncode}): {last_line(self.log)}; "
                    f"see {self.log}"
                )
            time.sleep(0.01)
        if process is not None:
            process.terminate()
        raise EmbeddedServerError(f"the embedded server did not answer within {START_SECONDS:.0f} s; see {self.log}")

    def _stop(self) -> None:
        state = self._read_state()
        if state is None or not self.is_running():
            return
        ask(state, "SHUTDOWN", "NOSAVE")  # the append-only file has every write already
        end = time.monotonic() + STOP_SECONDS
        while self.is_running():
            if time.monotonic() > end:
                raise EmbeddedServerError(
                    f"the embedded server did not stop within {STOP_SECONDS:.0f} s; see {self.log}"
                )
            time.sleep(0.01)
        _collect_ended()

    def _leave(self) -> None:
        if self._user is not None:
            os.close(self._user)
            self._user = None

    def _make_folder(self) -> None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            os.chmod(self.folder, 0o700)
        except OSError as error:
            raise EmbeddedServerError(f"{self.folder} cannot be made for the embedded server: {error}") from error

    def _open(self, name: str) -> int:
        return os.open(self.folder / name, os.O_RDWR | os.O_CREAT, 0o600)

    @contextmanager
    def _locked(self, name: str) -> Iterator[None]:
        descriptor = self._open(name)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def _read_state(self) -> dict[str, Any] | None:
        try:
            state = json.loads(self._state.read_text())
            return {"port": int(state["port"]), "password": str(state["password"]), "pid": int(state["pid"])}
        except (OSError, ValueError, KeyError, TypeError):
            return None

    @staticmethod
    def _write_private(path: Path, text: str) -> None:
        temporary = path.with_suffix(".tmp")
        temporary.unlink(missing_ok=True)
        with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)


def _collect_ended() -> None:
    _children[:] = [child for child in _children if child.poll() is None]
