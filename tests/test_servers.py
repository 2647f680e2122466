"""The servers of the tests keep what they were given, when they are stopped and when they crash."""

from __future__ import annotations

import signal

import pytest
import sqlalchemy

from tests.servers import PASSWORD, Server


@pytest.mark.parametrize("kind", ["postgres", "mariadb"])
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
@pytest.mark.slow
def test_a_server_that_is_stopped_or_killed_comes_back_with_its_databases(
    kind: str, how: signal.Signals, request: pytest.FixtureRequest
) -> None:
    server: Server = request.getfixturevalue(kind)
    engine = sqlalchemy.create_engine(url := server.database(), pool_pre_ping=True)
    assert engine.url.password == PASSWORD
    assert url != server.database()
    with engine.begin() as connection:
        connection.execute(sqlalchemy.text("CREATE TABLE kept (x INTEGER)"))
        connection.execute(sqlalchemy.text("INSERT INTO kept VALUES (7)"))
    server.stop(how)
    with pytest.raises(sqlalchemy.exc.OperationalError), engine.connect():
        pass
    server.start()
    with engine.connect() as connection:
        assert connection.execute(sqlalchemy.text("SELECT x FROM kept")).scalars().all() == [7]
    engine.dispose()
