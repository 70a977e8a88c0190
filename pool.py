"""Connections to the database: opened, checked, lent to one thread at a time, thrown away when broken.

Two engines, one behaviour: rows are dicts, times are UTC text, an UPDATE counts the rows it matched,
and a failure is either Duplicate, Unavailable (try again later) or a bug that goes up unchanged.
"""

import os
import queue
import select
import sqlite3
import ssl
import threading
import time
from functools import lru_cache
from struct import pack
from typing import Any, NamedTuple

import pymysql
from pymysql.constants import CLIENT, COMMAND, CR, ER, FIELD_TYPE

from config import settings
from errors import ApiError

PING_AFTER_IDLE_SECONDS = 1.0


class Unavailable(ApiError):
    """The database cannot answer now. Whether the last statement took effect is not known."""

    code = "database_unavailable"

    def __init__(self):
        super().__init__(retry_after=5)


class Duplicate(Exception):
    """A row with this unique value exists already; `key` names the index or the columns."""

    def __init__(self, message: str):
        # MySQL: Duplicate entry '...' for key 'users.email'. SQLite: UNIQUE constraint failed: users.email
        self.key = message.rpartition(" ")[2].strip("'")
        super().__init__(self.key)


class Result(NamedTuple):
    """What a statement brought: its rows, how many rows it matched, and the id an INSERT got."""

    rows: list[dict[str, Any]]
    count: int
    new_id: int | None


def result_of(description: Any, rows: Any, count: int, new_id: int | None) -> Result:
    if not description:
        return Result([], count, new_id)
    columns = [column[0] for column in description]
    found = [dict(zip(columns, row, strict=True)) for row in rows]
    return Result(found, len(found), None)


# -- MySQL and MariaDB --------------------------------------------------------------------------

# PyMySQL's own types, less its date decoders: both engines then give 'YYYY-MM-DD HH:MM:SS'.
MYSQL_TYPES = {
    key: convert
    for key, convert in pymysql.converters.conversions.items()
    if key not in (FIELD_TYPE.TIMESTAMP, FIELD_TYPE.DATETIME, FIELD_TYPE.DATE, FIELD_TYPE.TIME)
}

# Server errors that pass by themselves. 1047 is a Galera node without a quorum, 1205 and 1213 are
# lost locks, 1290 and 1836 a server that is read-only during a failover, 1927 a killed connection.
MYSQL_PASSING = {
    ER.CON_COUNT_ERROR, ER.HANDSHAKE_ERROR, ER.DBACCESS_DENIED_ERROR, ER.ACCESS_DENIED_ERROR,
    1047, ER.SERVER_SHUTDOWN, ER.DISK_FULL, ER.RECORD_FILE_FULL, ER.TOO_MANY_USER_CONNECTIONS,
    ER.LOCK_WAIT_TIMEOUT, ER.LOCK_DEADLOCK, ER.OPTION_PREVENTS_STATEMENT, ER.QUERY_INTERRUPTED, 1836, 1927,
}  # fmt: skip


@lru_cache
def mysql_tls(ca_file: str) -> ssl.SSLContext:
    # One context for all connections: PyMySQL would build one each time, which costs 40 ms.
    return ssl.create_default_context(cafile=ca_file)


class ErrorsTranslated:
    """A `with` block in which errors of PyMySQL become ours."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type | None, error: BaseException | None, traceback: Any) -> None:
        number = error.args[0] if isinstance(error, pymysql.MySQLError) and error.args else 0
        if isinstance(error, pymysql.IntegrityError) and number == ER.DUP_ENTRY:
            raise Duplicate(error.args[1]) from None
        if isinstance(
            error, pymysql.OperationalError | pymysql.InternalError | pymysql.InterfaceError
        ) and (number in MYSQL_PASSING or not number or number >= CR.CR_ERROR_FIRST):
            raise Unavailable from error


errors_translated = ErrorsTranslated()


class MySQL:
    """One PyMySQL connection, in UTC and strict mode; in autocommit until it is told otherwise."""

    def __init__(self, patient: bool = False):
        """Connect. A patient connection waits for slow statements, as a migration of a large table needs."""
        tls = (
            {"ssl": mysql_tls(settings.MYSQL_SSL_CA)}
            if settings.MYSQL_SSL_CA
            else {"ssl_disabled": True}
        )
        try:
            self.driver = pymysql.connect(
                host=settings.MYSQL_HOST,
                port=settings.MYSQL_PORT,
                user=settings.MYSQL_USER,
                password=settings.MYSQL_PASSWORD,
                database=settings.MYSQL_DB,
                charset="utf8mb4",
                autocommit=True,
                client_flag=CLIENT.FOUND_ROWS,
                conv=MYSQL_TYPES,
                init_command="SET time_zone = '+00:00', sql_mode = 'STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION'",
                connect_timeout=3,
                read_timeout=None if patient else 30,
                write_timeout=30,
                **tls,
            )
        except (pymysql.MySQLError, OSError) as error:
            raise Unavailable from error
        self.autocommit = True
        # Each statement sees what was committed before it, and no gap between rows is ever locked.
        self.run("SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED")
        # poll() has no limit on descriptor numbers, unlike select().
        self.poll = select.poll()
        self.poll.register(self.driver._sock, select.POLLIN)

    BEGIN = "BEGIN"

    def set_autocommit(self, wanted: bool) -> None:
        """Let every statement commit itself, or every first one after a COMMIT or ROLLBACK open a transaction."""
        if self.autocommit != wanted:
            self.run("SET autocommit = %s", (int(wanted),))
            self.autocommit = wanted

    def begin(self) -> None:
        """Open a transaction, for which a connection out of autocommit needs no word."""

    def run(self, sql: str, values: tuple = ()) -> Result:
        with errors_translated:
            self.driver.query(self._filled(sql, values))
            return self._result()

    def transact(self, statements: list[tuple[str, tuple]]) -> list[Result]:
        """Run statements as one transaction, in one trip: all are sent before the first result is read.

        The server runs them one by one, whatever becomes of those before: each must ask for itself, by ROW_COUNT(),
        whether to change anything. After an exception the connection must be thrown away.
        """
        texts = [
            self._filled(sql, values).encode() for sql, values in [*statements, ("COMMIT", ())]
        ]
        # Each begins with three bytes of its length and the number 0.
        packets = [pack("<IB", len(text) + 1, COMMAND.COM_QUERY) + text for text in texts]
        with errors_translated:
            self.driver._write_bytes(b"".join(packets))
            return [self._next_result() for _ in packets][:-1]

    def _filled(self, sql: str, values: tuple) -> str:
        if not values:
            return sql
        # As a cursor does it, but quicker: whole numbers, and most values are, need no escaping.
        escape, encoders = self.driver.escape, self.driver.encoders
        return sql % tuple(
            value if type(value) is int else escape(value, encoders) for value in values
        )

    def _next_result(self) -> Result:
        self.driver._next_seq_id = 1
        self.driver.next_result()
        return self._result()

    def _result(self) -> Result:
        result = self.driver._result
        return result_of(result.description, result.rows, result.affected_rows, result.insert_id)

    def is_alive(self, idle_seconds: float) -> bool:
        """Tell if the server is still there. Bytes waiting on an idle connection are its farewell."""
        if self.poll.poll(0):
            return False
        if idle_seconds < PING_AFTER_IDLE_SECONDS:
            return True
        try:
            self.driver.ping(reconnect=False)
        except (pymysql.MySQLError, OSError):
            return False
        return True

    def close(self) -> None:
        self.driver._force_close()


# -- SQLite -------------------------------------------------------------------------------------

SQLITE_PASSING = {
    sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_FULL, sqlite3.SQLITE_READONLY,
}  # fmt: skip
SQLITE_UNIQUE = {sqlite3.SQLITE_CONSTRAINT_UNIQUE, sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY}


@lru_cache
def as_sqlite(sql: str) -> str:
    """Return the statement in SQLite's words. A transaction there holds the whole file, so rows need no lock."""
    for theirs, ours in (
        ("%s", "?"),
        ("FOR UPDATE", ""),
        ("FROM DUAL", ""),
        ("ROW_COUNT()", "changes()"),
    ):
        sql = sql.replace(theirs, ours)
    return sql


class SQLite:
    """One sqlite3 connection, in autocommit and WAL mode."""

    def __init__(self, patient: bool = False):
        path = settings.instance_dir / "app.db"
        try:
            settings.instance_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.driver = sqlite3.connect(
                path, timeout=60 if patient else 5, isolation_level=None, check_same_thread=False
            )
            self.driver.execute("PRAGMA journal_mode = WAL")
            self.driver.execute("PRAGMA foreign_keys = ON")
        except (sqlite3.OperationalError, OSError) as error:
            raise Unavailable from error
        self.driver.create_function("UNIX_TIMESTAMP", 0, lambda: int(time.time()))
        self.driver.create_function("UNIX_TIMESTAMP", 1, lambda moment: moment)
        self.driver.create_function("NOW", 1, lambda digits: time.time())

    # Takes the write lock at once: a lock taken half-way can fail without waiting for its turn.
    BEGIN = "BEGIN IMMEDIATE"
    autocommit = True

    def set_autocommit(self, wanted: bool) -> None:
        pass

    def begin(self) -> None:
        self.run(self.BEGIN)

    def run(self, sql: str, values: tuple = ()) -> Result:
        try:
            cursor = self.driver.execute(as_sqlite(sql), values)
            return result_of(
                cursor.description, cursor.fetchall(), cursor.rowcount, cursor.lastrowid
            )
        except sqlite3.IntegrityError as error:
            if error.sqlite_errorcode in SQLITE_UNIQUE:
                raise Duplicate(str(error)) from None
            raise
        except sqlite3.OperationalError as error:
            # The low byte is the primary code; the rest only says more about it.
            if error.sqlite_errorcode & 0xFF in SQLITE_PASSING:
                raise Unavailable from error
            raise

    def is_alive(self, idle_seconds: float) -> bool:
        return True

    def close(self) -> None:
        self.driver.close()


def connect(patient: bool = False) -> MySQL | SQLite:
    """Open a connection to the configured database. Raises Unavailable."""
    return MySQL(patient) if settings.uses_mysql else SQLite(patient)


# -- The pool -----------------------------------------------------------------------------------


class Pool:
    """At most DB_POOL_SIZE connections of this process; of each kind, the one used last is lent first.

    Those in autocommit and those out of it are kept apart, because to change a connection costs a statement.
    """

    def __init__(self):
        self.reset()

    def reset(self) -> None:
        self.idle: dict[bool, list[tuple[MySQL | SQLite, float]]] = {True: [], False: []}
        self.places: queue.SimpleQueue | None = None
        self.lock = threading.Lock()

    def take(self, autocommit: bool = True) -> MySQL | SQLite:
        """Lend a live connection, waiting DB_POOL_WAIT_SECONDS at most for a place. Raises Unavailable."""
        if self.places is None:
            with self.lock:
                self.places = self.places or free_places(settings.DB_POOL_SIZE)
        try:
            self.places.get(timeout=settings.DB_POOL_WAIT_SECONDS)
        except queue.Empty:
            raise Unavailable from None
        try:
            connection = (
                self._newest_live(autocommit) or self._newest_live(not autocommit) or connect()
            )
            connection.set_autocommit(autocommit)
            return connection
        except BaseException:
            self.places.put(None)
            raise

    def _newest_live(self, autocommit: bool) -> MySQL | SQLite | None:
        while True:
            try:
                connection, since = self.idle[autocommit].pop()
            except IndexError:
                return None
            if connection.is_alive(time.monotonic() - since):
                return connection
            connection.close()

    def give_back(self, connection: MySQL | SQLite) -> None:
        self.idle[connection.autocommit].append((connection, time.monotonic()))
        self.places.put(None)

    def discard(self, connection: MySQL | SQLite) -> None:
        connection.close()
        self.places.put(None)

    def close(self) -> None:
        """Close the idle connections; the next take() opens new ones with the settings of that moment."""
        for idle in self.idle.values():
            while idle:
                idle.pop()[0].close()
        self.reset()


def free_places(number: int) -> queue.SimpleQueue:
    """Return what serves as a semaphore, but is written in C."""
    places = queue.SimpleQueue()
    for _ in range(number):
        places.put(None)
    return places


pool = Pool()
# A forked child must not talk on its parent's sockets.
os.register_at_fork(after_in_child=pool.reset)
