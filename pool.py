"""Connections to the database: opened, checked, lent to one thread at a time, closed when broken.

Two engines, one behaviour: rows are dicts, times are UTC text, an UPDATE counts the rows it
matched, and a failure is either Duplicate, Unavailable (try again later) or a bug that goes up
unchanged.
"""

import os
import re
import selectors
import socket
import sqlite3
import ssl
import threading
import time
from calendar import timegm
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from functools import lru_cache
from typing import Any, NamedTuple, NoReturn

import pymysql
from pymysql.constants import CLIENT, ER, FIELD_TYPE

from config import settings
from errors import ApiError

CONNECT_SECONDS = 3
# How long a statement waits for what another transaction has locked.
LOCK_SECONDS = 5
OUTDATED = "Is the database up to date? Run: flask db upgrade"
PING_AFTER_IDLE_SECONDS = 1.0

# In the order of %s, or by the names of %(name)s.
Values = Sequence[Any] | Mapping[str, Any]


class Unavailable(ApiError):
    """The database cannot answer now. Whether the last statement took effect is not known."""

    code = "database_unavailable"

    def __init__(self):
        super().__init__(retry_after=5)


class TooSlow(Unavailable):
    """A statement took longer than it may, and was stopped."""

    code = "query_too_slow"


class Conflict(Unavailable):
    """The transaction was in another one's way, and all of it was taken back; or its lock was."""


class Duplicate(Exception):
    """A row with this unique value exists already; `key` names the index or the columns."""

    def __init__(self, message: str):
        # MySQL: Duplicate entry '...' for key 'users.email'.
        # SQLite: UNIQUE constraint failed: users.email
        self.key = message.rpartition(" ")[2].strip("'")
        super().__init__(self.key)


def repeat(change: Callable, error: type[Exception], seconds: float, pause: float) -> Any:
    """Return what a function does, which is called again whenever it raises this, for a while."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return change()
        except error:
            if time.monotonic() > deadline:
                raise
            time.sleep(pause)


class Result(NamedTuple):
    """What a statement gave: its rows, how many rows it matched, and the id of the row it added.

    An UPDATE gives as `new_id` what it handed to LAST_INSERT_ID(…), or nothing.
    """

    rows: list[dict[str, Any]]
    count: int
    new_id: int | None


def result_of(cursor: pymysql.cursors.Cursor | sqlite3.Cursor) -> Result:
    if not cursor.description:
        return Result([], cursor.rowcount, cursor.lastrowid)
    names = [column[0] for column in cursor.description]
    rows = [dict(zip(names, row)) for row in cursor.fetchall()]
    return Result(rows, len(rows), None)


# -- MySQL and MariaDB --------------------------------------------------------------------------

# PyMySQL's own types, less its date decoders: both engines then give 'YYYY-MM-DD HH:MM:SS'.
DATE_TYPES = {FIELD_TYPE.TIMESTAMP, FIELD_TYPE.DATETIME, FIELD_TYPE.DATE, FIELD_TYPE.TIME}
MYSQL_TYPES = {
    key: convert for key, convert in pymysql.converters.conversions.items() if key not in DATE_TYPES
}

UTC_AND_STRICT = """
    SET time_zone = '+00:00',
        sql_mode = 'STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION'
"""
SHORT_WAITS = f", innodb_lock_wait_timeout = {LOCK_SECONDS}, lock_wait_timeout = {LOCK_SECONDS}"
# Each statement sees what was committed before it, and no gap between rows is ever locked.
READ_COMMITTED = "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED"

# A node of a Galera cluster that has lost most of the others.
NODE_NOT_READY = 1047
# Server errors that pass by themselves.
MYSQL_PASSING = {
    ER.CHECKREAD,
    ER.DISK_FULL,
    ER.CANT_OPEN_FILE,
    ER.ERROR_ON_WRITE,
    ER.FILSORT_ABORT,  # a statement that was killed while it sorted
    ER.GET_ERRNO,  # of the storage engine
    ER.KEY_NOT_FOUND,  # a row that another statement has just deleted
    ER.NOT_KEYFILE,  # a temporary table that a full disk cut off
    ER.OPEN_AS_READONLY,
    ER.OUTOFMEMORY,
    ER.OUT_OF_SORTMEMORY,
    ER.CON_COUNT_ERROR,
    ER.OUT_OF_RESOURCES,
    ER.HANDSHAKE_ERROR,
    ER.DBACCESS_DENIED_ERROR,
    ER.ACCESS_DENIED_ERROR,
    NODE_NOT_READY,
    ER.SERVER_SHUTDOWN,
    ER.RECORD_FILE_FULL,
    ER.CANT_CREATE_THREAD,
    ER.ABORTING_CONNECTION,
    ER.NET_READ_ERROR,
    ER.NET_READ_INTERRUPTED,
    ER.NET_ERROR_ON_WRITE,
    ER.NET_WRITE_INTERRUPTED,
    ER.ERROR_DURING_COMMIT,
    ER.NEW_ABORTING_CONNECTION,
    ER.TOO_MANY_USER_CONNECTIONS,
    ER.LOCK_TABLE_FULL,
    ER.CANT_UPDATE_WITH_READLOCK,
    ER.USER_LIMIT_REACHED,
    ER.OPTION_PREVENTS_STATEMENT,  # read-only during a failover
    ER.GET_ERRMSG,  # of the storage engine
    ER.GET_TEMPORARY_ERRMSG,
    ER.QUERY_INTERRUPTED,
    ER.TABLE_DEF_CHANGED,  # by a migration
    1637,  # too many transactions at a time
    1689,  # a lock that a migration wants
    1792,  # a read-only transaction
    1836,  # read-only mode
    1874,  # read-only mode of InnoDB
    1878,  # a full disk of temporary tables
    1927,  # the connection was killed
    3032,  # offline mode
    3100,  # replication refuses the commit
    3101,  # replication took the transaction back
    3168,  # the server is not available
    3169,  # the session was killed
    4031,  # the connection was idle for too long
}
# The database has taken back the whole transaction, or the statement: a deadlock, which a node of a
# Galera cluster also says when another one was faster; a lock that took too long.
MYSQL_CONFLICTS = {ER.LOCK_DEADLOCK, ER.LOCK_WAIT_TIMEOUT}
# What a statement that took too long ends with, on MariaDB and on MySQL.
MYSQL_TOO_SLOW = {1969, 3024}
# Unlike select(), poll() has no limit on descriptor numbers; Windows lacks it.
Selector = getattr(selectors, "PollSelector", selectors.SelectSelector)
OUTAGES = (pymysql.OperationalError, pymysql.InternalError, pymysql.InterfaceError)


@lru_cache
def mysql_tls(ca_file: str) -> ssl.SSLContext:
    # One context for all connections: PyMySQL would build one each time, which costs 40 ms.
    return ssl.create_default_context(cafile=ca_file)


def raise_ours(error: pymysql.MySQLError) -> NoReturn:
    """Raise Duplicate or Unavailable if the error means that, else the error itself."""
    number = number_of(error)
    if number == ER.DUP_ENTRY:
        raise Duplicate(error.args[1]) from None
    if number in MYSQL_TOO_SLOW:
        raise TooSlow from error
    if number in MYSQL_CONFLICTS:
        raise Conflict from error
    # Below 1000 the server speaks of its files and memory, from 2000 on the client of the network.
    is_passing = number // 1000 in (0, 2) or number in MYSQL_PASSING
    if is_passing and isinstance(error, OUTAGES):
        raise Unavailable from error
    if number in (ER.NO_SUCH_TABLE, ER.BAD_FIELD_ERROR):
        error.add_note(OUTDATED)
    raise error


def number_of(error: pymysql.MySQLError) -> int:
    """Return the number of an error; 0 for one of PyMySQL's own, which may be a text alone."""
    number = error.args[0] if error.args else 0
    return number if isinstance(number, int) else 0


class MySQL:
    """One PyMySQL connection.

    A transactional one opens a transaction by its first statement, and takes several statements at
    once. All others commit each statement, and refuse a second one in the same query.
    """

    BEGIN = "BEGIN"
    # The server that was last found to answer; the next connection is opened to it, too.
    preferred: tuple[str, int] | None = None

    def __init__(self, transactional: bool = False, long_timeouts: bool = False):
        """Connect. Long timeouts are for a migration, which may take minutes on a large table."""
        self.transactional = transactional
        self.is_lost = False
        options = {
            "client_flag": CLIENT.FOUND_ROWS | (CLIENT.MULTI_STATEMENTS if transactional else 0),
            "autocommit": not transactional,
            "init_command": UTC_AND_STRICT + ("" if long_timeouts else SHORT_WAITS),
            "read_timeout": None if long_timeouts else 30,
        }
        addresses = settings.mysql_addresses
        for address in sorted(addresses, key=lambda one: one != MySQL.preferred):
            try:
                self._connect(address, options)
                if len(addresses) > 1:
                    self._join_cluster()
            except (pymysql.MySQLError, OSError) as error:
                failure = error
            else:
                MySQL.preferred = address
                break
        else:
            raise Unavailable from failure
        self.cursor = self.driver.cursor()
        self.run(READ_COMMITTED)

    def _connect(self, address: tuple[str, int], options: dict[str, Any]) -> None:
        """Connect by a socket of ours, which is_alive() can look at without a round trip."""
        tls = {"ssl_disabled": True}
        if settings.MYSQL_SSL_CA:
            tls = {"ssl": mysql_tls(settings.MYSQL_SSL_CA)}
        host, port = address
        self.driver = pymysql.connect(
            defer_connect=True,
            host=host,
            port=port,
            user=settings.MYSQL_USER,
            password=settings.MYSQL_PASSWORD,
            database=settings.MYSQL_DB,
            charset="utf8mb4",
            conv=MYSQL_TYPES,
            write_timeout=30,
            **options,
            **tls,
        )
        connection = socket.create_connection(address, CONNECT_SECONDS)
        try:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            self.selector = Selector()
            self.selector.register(connection, selectors.EVENT_READ)
            self.driver.connect(connection)
        except BaseException:
            connection.close()
            raise

    def _join_cluster(self) -> None:
        """Refuse a node of a Galera cluster that has lost the others, and see what they commit.

        A request may come to one machine just after another one changed something on another node:
        each statement first waits until its node has applied what the cluster has committed.
        """
        with self.driver.cursor() as cursor:
            cursor.execute("SHOW VARIABLES LIKE 'wsrep_on'")
            if dict(cursor.fetchall()).get("wsrep_on") != "ON":
                return
            cursor.execute("SHOW STATUS LIKE 'wsrep_ready'")
            if dict(cursor.fetchall()).get("wsrep_ready") != "ON":
                self.driver.close()
                raise pymysql.OperationalError(NODE_NOT_READY, "this node has lost the others")
            cursor.execute("SET SESSION wsrep_sync_wait = 7")

    def begin(self) -> None:
        """Open a transaction; a transactional connection needs no statement for that."""

    def run(self, sql: str, values: Values = (), seconds: int = 0) -> Result:
        """Run one statement; a SELECT may be given so many seconds at most. Raises TooSlow then."""
        if seconds:
            sql = self._limited(sql, seconds)
        try:
            self.cursor.execute(sql, values or None)
            return result_of(self.cursor)
        except pymysql.MySQLError as error:
            if seconds and number_of(error) in MYSQL_TOO_SLOW:
                raise TooSlow from error
            self._fail(error)

    def _fail(self, error: pymysql.MySQLError) -> NoReturn:
        if number_of(error) == NODE_NOT_READY:
            self.is_lost = True
        raise_ours(error)

    def _limited(self, select: str, seconds: int) -> str:
        if "MariaDB" in self.driver.get_server_info():
            return f"SET STATEMENT max_statement_time = {seconds} FOR {select}"
        hint = f"SELECT /*+ MAX_EXECUTION_TIME({seconds * 1000}) */"
        return select.replace("SELECT", hint, 1)

    def run_all(self, statements: Iterable[tuple[str, Values]]) -> list[Result]:
        """Run statements in one round trip; the server stops at the first that fails.

        After an exception the connection must be closed, which rolls back.
        """
        cursor = self.cursor
        texts = [cursor.mogrify(sql, values or None) for sql, values in statements]
        try:
            cursor.execute(";".join(texts))
            results = [result_of(cursor)]
            while cursor.nextset():
                results.append(result_of(cursor))
            return results
        except pymysql.MySQLError as error:
            self._fail(error)

    def is_alive(self, idle_seconds: float) -> bool:
        """Tell if the server is still there."""
        if self.selector.select(0):  # it sends to an idle connection only what ends it
            return False
        if idle_seconds < PING_AFTER_IDLE_SECONDS:
            return True
        try:
            self.driver.ping(reconnect=False)
        except (pymysql.MySQLError, OSError):
            return False
        return True

    def close(self) -> None:
        with suppress(pymysql.MySQLError, OSError):
            self.driver.close()


# -- SQLite -------------------------------------------------------------------------------------

SQLITE_PASSING = {
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_PROTOCOL,  # others were faster, too often
}
# Rows of other programs may hold bytes that are no UTF-8. Only a connection that has met some has
# all texts decoded by a function of ours, which costs a history page 30 us.
NOT_UTF8 = "Could not decode to UTF-8"
# Steps of its machine between two looks at the clock, about a millisecond.
CHECK_STEPS = 10_000
SQLITE_UNIQUE = {sqlite3.SQLITE_CONSTRAINT_UNIQUE, sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY}

# What MySQL says, and what SQLite says instead.
SQLITE_WORDS = {
    "UNIX_TIMESTAMP(NOW(6))": "PRECISE_TIME()",
    # A transaction there holds the whole file, so rows need no lock.
    "FOR UPDATE SKIP LOCKED": "",
    "FOR UPDATE": "",
    "FOUND_ROWS()": "1",
    "FROM DUAL": "",
    "ROW_COUNT()": "changes()",
    "LAST_INSERT_ID()": "last_insert_rowid()",
    "ON DUPLICATE KEY UPDATE": "ON CONFLICT DO UPDATE SET",
    " DIV ": " / ",
    "%s": "?",
}


@lru_cache
def as_sqlite(sql: str) -> str:
    """Return a statement that is written for MySQL in SQLite's words."""
    for theirs, ours in SQLITE_WORDS.items():
        sql = sql.replace(theirs, ours)
    sql = re.sub(r"\bVALUES\((\w+)\)", r"excluded.\1", sql)  # the new value of a duplicate
    return re.sub(r"%\((\w+)\)s", r":\1", sql)


def unix_timestamp(moment: str | None = None) -> int | None:
    """MySQL's function of that name, for SQLite: seconds since 1970, of now or of a UTC time."""
    if moment is None:
        return int(time.time())
    try:
        return timegm(datetime.fromisoformat(moment).timetuple())
    except (ValueError, TypeError):  # not a time, in a row of another program
        return None


def decode_leniently(data: bytes) -> str:
    return data.decode(errors="replace")


class SQLite:
    """One sqlite3 connection, in WAL mode; each statement commits itself until begin()."""

    # Takes the write lock at once: a lock taken half-way can fail without waiting for its turn.
    BEGIN = "BEGIN IMMEDIATE"
    transactional = False
    is_lost = False

    def __init__(self, transactional: bool = False, long_timeouts: bool = False):
        path = settings.instance_dir / "app.db"
        try:
            settings.instance_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.driver = sqlite3.connect(
                path,
                timeout=60 if long_timeouts else LOCK_SECONDS,
                isolation_level=None,
                check_same_thread=False,
            )
            self.driver.execute("PRAGMA journal_mode = WAL")
            self.driver.execute("PRAGMA foreign_keys = ON")
            self.driver.execute("PRAGMA secure_delete = ON")  # what is deleted is overwritten
        except (sqlite3.OperationalError, OSError) as error:
            raise Unavailable from error
        self.driver.create_function("UNIX_TIMESTAMP", -1, unix_timestamp)
        self.driver.create_function("PRECISE_TIME", 0, time.time)
        self.driver.create_function("LAST_INSERT_ID", 1, self.remember)
        self.remembered: int | None = None

    def remember(self, number: int) -> int:
        """MySQL's LAST_INSERT_ID(number): its result is also the `new_id` of the statement."""
        self.remembered = number
        return number

    def begin(self) -> None:
        self.run(self.BEGIN)

    def run(self, sql: str, values: Values = (), seconds: int = 0) -> Result:
        """Run one statement, for so many seconds at most if there are any. Raises TooSlow then."""
        if seconds:
            deadline = time.monotonic() + seconds
            self.driver.set_progress_handler(lambda: time.monotonic() > deadline, CHECK_STEPS)
        self.remembered = None
        try:
            result = result_of(self.driver.execute(as_sqlite(sql), values))
            return Result([], result.count, self.remembered) if self.remembered else result
        except sqlite3.IntegrityError as error:
            if error.sqlite_errorcode in SQLITE_UNIQUE:
                raise Duplicate(str(error)) from None
            raise
        except sqlite3.OperationalError as error:
            if self.driver.text_factory is str and NOT_UTF8 in str(error):
                self.driver.text_factory = decode_leniently
                return self.run(sql, values, seconds)
            if error.sqlite_errorcode == sqlite3.SQLITE_INTERRUPT:
                raise TooSlow from error
            # The low byte is the primary code; the rest only says more about it.
            if error.sqlite_errorcode & 0xFF in SQLITE_PASSING:
                raise Unavailable from error
            if re.search("no such (table|column)|has no column", str(error)):
                error.add_note(OUTDATED)
            raise
        finally:
            if seconds:
                self.driver.set_progress_handler(None, 0)

    def run_all(self, statements: Iterable[tuple[str, Values]]) -> list[Result]:
        return [self.run(sql, values) for sql, values in statements]

    def is_alive(self, idle_seconds: float) -> bool:
        return True

    def close(self) -> None:
        self.driver.close()


Connection = MySQL | SQLite


def connect(transactional: bool = False, long_timeouts: bool = False) -> Connection:
    """Open a connection to the configured database. Raises Unavailable."""
    engine = MySQL if settings.uses_mysql else SQLite
    return engine(transactional, long_timeouts)


# -- The pool -----------------------------------------------------------------------------------


class Pool:
    """At most DB_POOL_SIZE open connections of this process, transactional ones and others.

    Of each kind, the connection used last is lent first.
    """

    def __init__(self):
        self.reset()

    def reset(self) -> None:
        self.lock = threading.Lock()
        self.slots: threading.Semaphore | None = None  # one for each connection that may be lent
        self.number_open = 0
        self.idle: dict[bool, deque[tuple[Connection, float]]] = {True: deque(), False: deque()}

    def take(self, transactional: bool = False) -> Connection:
        """Lend a live connection. Raises Unavailable if none is free for DB_POOL_WAIT_SECONDS."""
        transactional = transactional and settings.uses_mysql  # SQLite has one kind
        if self.slots is None:
            with self.lock:
                self.slots = self.slots or threading.Semaphore(settings.DB_POOL_SIZE)
        if not self.slots.acquire(timeout=settings.DB_POOL_WAIT_SECONDS):
            raise Unavailable
        try:
            return self._newest_live(transactional) or self._open(transactional)
        except BaseException:
            self.slots.release()
            raise

    def _newest_live(self, transactional: bool) -> Connection | None:
        idle = self.idle[transactional]
        while True:
            try:
                connection, since = idle.pop()
            except IndexError:
                return None
            if connection.is_alive(time.monotonic() - since):
                return connection
            self._close(connection)

    def _open(self, transactional: bool) -> Connection:
        others = self.idle[not transactional]
        with self.lock:
            is_full = self.number_open >= settings.DB_POOL_SIZE
            self.number_open += 1
        try:
            if is_full and others:
                self._close(others.popleft()[0])
            return connect(transactional)
        except BaseException:
            with self.lock:
                self.number_open -= 1
            raise

    def _close(self, connection: Connection) -> None:
        with self.lock:
            self.number_open -= 1
        connection.close()

    def give_back(self, connection: Connection) -> None:
        if connection.is_lost:
            self.discard(connection)
            return
        self.idle[connection.transactional].append((connection, time.monotonic()))
        self.slots.release()

    def discard(self, connection: Connection) -> None:
        self._close(connection)
        if connection.is_lost:
            self._close_idle()
        self.slots.release()

    def close(self) -> None:
        """Close the idle connections; the next take() opens new ones, with the settings of then."""
        self._close_idle()
        self.reset()

    def _close_idle(self) -> None:
        for idle in self.idle.values():
            with suppress(IndexError):  # another thread may take the last one
                while True:
                    self._close(idle.pop()[0])


pool = Pool()
if hasattr(os, "register_at_fork"):  # Windows forks no processes
    # A forked child must not talk on its parent's sockets.
    os.register_at_fork(after_in_child=pool.reset)
