"""A PostgreSQL server of one's own, in a folder that goes away with it: for tests and for `dphyper.studies.chaos`.

It trusts everybody who reaches its port, and is for nothing else. PostgreSQL does not run as root; a root process runs
it as the user ``postgres``, whom Debian's package makes.
"""

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from dphyper.core.errors import UserError

_DEBIAN = "/usr/lib/postgresql"


@dataclass(frozen=True, kw_only=True)
class Server:
    """A running server.

    Attributes:
        folder: Its data.
        binaries: Where ``pg_ctl`` is.
        port: On every address of this host.
    """

    folder: Path
    binaries: Path
    port: int

    def url(self, host: str = "127.0.0.1") -> str:
        """Of its database, as ``storage`` in a sweep file takes it."""
        return f"postgresql://postgres@{host}:{self.port}/postgres"

    def control(self, *arguments: str) -> None:
        """Call ``pg_ctl``, such as with ``restart``."""
        options = f"-p {self.port} -k {self.folder} -c fsync=off -c listen_addresses=*"
        _run(self.binaries / "pg_ctl", "-D", self.folder, "-w", "-o", options, "-l", self.folder / "log", *arguments)


@contextmanager
def running_server() -> Iterator[Server]:
    """A fresh server.

    Raises:
        UserError: PostgreSQL is not installed.
    """
    binaries = find_binaries()
    if binaries is None:
        raise UserError("PostgreSQL is not installed: expected its server, as in  apt-get install postgresql")
    folder = Path(tempfile.mkdtemp(prefix="dphyper-postgres-"))
    try:
        if os.geteuid() == 0:
            shutil.chown(folder, "postgres", "postgres")
        _run(binaries / "initdb", "-D", folder / "data", "-U", "postgres", "--auth=trust", "--no-sync")
        with (folder / "data" / "pg_hba.conf").open("a") as file:
            file.write("host all all 0.0.0.0/0 trust\n")
        server = Server(folder=folder / "data", binaries=binaries, port=_free_port())
        server.control("start")
        try:
            yield server
        finally:
            server.control("stop", "-m", "immediate")
    finally:
        shutil.rmtree(folder)


def find_binaries() -> Path | None:
    """The folder of ``initdb`` and ``pg_ctl``; None where PostgreSQL is not installed."""
    found = shutil.which("initdb", path=os.pathsep.join(map(str, sorted(Path(_DEBIAN).glob("*/bin")))) or None)
    found = found or shutil.which("initdb")
    return Path(found).parent if found else None


def _run(*command: str | Path) -> None:
    user = "postgres" if os.geteuid() == 0 else None
    # Its output into a file: a server that goes on would keep a pipe open.
    with tempfile.TemporaryFile() as output:
        done = subprocess.run(
            [*map(str, command)], cwd="/", stdout=output, stderr=output, check=False, user=user, group=user
        )
        if done.returncode:
            output.seek(0)
            raise UserError(f"{command[0]} failed: {' '.join(output.read().decode().split())}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
