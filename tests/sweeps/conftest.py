"""The storages that a queue may lie in: a journal, and a PostgreSQL server that the tests of one process share."""

import secrets
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from dphyper.studies.postgres import Server, running_server
from dphyper.sweeps.storage import Storage, open_storage


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    with running_server() as found:
        yield found


@pytest.fixture
def database(server: Server) -> str:
    """The URL of an empty database."""
    name = f"sweeps_{secrets.token_hex(4)}"
    with psycopg.connect(server.url(), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    return server.url().removesuffix("postgres") + name


@pytest.fixture(params=["journal", "postgresql"])
def address(request: pytest.FixtureRequest) -> str:
    """Where the queue lies, as in a sweep file."""
    return "journal" if request.param == "journal" else str(request.getfixturevalue("database"))


GRACE = 4


@pytest.fixture
def storage(address: str, tmp_path: Path) -> Callable[[], Storage]:
    """The storage as one more process sees it."""
    return lambda: open_storage(address, tmp_path, GRACE)
