"""The schema: numbered SQL files beside this one, and the runner that applies them.

The runner may be started on several machines at once and may be killed at any moment: one process
works at a time, every statement can be repeated, and a file counts as applied only after its last
statement. Processes of the release before may go on meanwhile: what they use is dropped only by a
later release.
"""

import os
import secrets
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pymysql
from pymysql.constants import ER

from accounts import users
from config import settings
from files import storage
from images import history, quota, trash, usage
from pool import Connection, Duplicate, connect

FOLDER = Path(__file__).parent

# Processes of the release before one of these migrations do not keep its counters, or its texts for
# searches. While there may still be some, on machines that are upgraded one by one, every start
# counts anew, and fills in what they left out.
COUNTER_MIGRATION = "0016_collection"
SEARCH_MIGRATION = "0009_search"
UPGRADE_DAYS = 7

# A lock older than this belonged to a process that was killed. Should its owner only be slow, two
# processes run the same statements for a while, which their being repeatable makes harmless.
LOCK_SECONDS = 10

# MySQL's collation that compares bytes, as far as the last that is no blank.
BYTES = "utf8mb4_bin"

MYSQL_WORDS = {
    "{MYSQL}": "",
    "{SQLITE}": "--",
    "{ID}": "INT AUTO_INCREMENT PRIMARY KEY",
    "{KEY}": "VARCHAR(255) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NULL",
    "{BYTES}": "CHARACTER SET utf8mb4 COLLATE utf8mb4_bin",
    "{TABLE}": "ENGINE=InnoDB DEFAULT CHARSET=utf8mb4",
    "{ON_UPDATE_NOW}": "ON UPDATE CURRENT_TIMESTAMP",
}
SQLITE_WORDS = {
    "{MYSQL}": "--",
    "{SQLITE}": "",
    "{ID}": "INTEGER PRIMARY KEY AUTOINCREMENT",
    "{KEY}": "VARCHAR(255)",
    "{BYTES}": "",
    "{TABLE}": "",
    "{ON_UPDATE_NOW}": "",
}

# MySQL ends a transaction at each DDL statement, so a killed file is half done: what it did already
# answers with one of these, and is passed over. SQLite rolls the whole file back.
ALREADY_DONE = {ER.TABLE_EXISTS_ERROR, ER.DUP_FIELDNAME, ER.DUP_KEYNAME, ER.CANT_DROP_FIELD_OR_KEY}


def upgrade() -> list[str]:
    """Bring the database to this version of the code and return the names of the files applied.

    Raises Unavailable if there is no database to speak to.
    """
    connection = connect(long_timeouts=True)
    try:
        applied = []
        if pending(connection):
            with lock(connection):
                modernize_tables(connection)
                for path in pending(connection):
                    apply(connection, path)
                    applied.append(path.stem)
        is_upgrading = days_since(connection, COUNTER_MIGRATION) < UPGRADE_DAYS
        is_filling = days_since(connection, SEARCH_MIGRATION) < UPGRADE_DAYS
    finally:
        connection.close()
    users.fill_keys()
    if is_upgrading:
        quota.recount_images()
        users.delete_orphans()
        trash.delete_orphans()
    if is_filling:
        history.fill_search_texts()
    return applied


def fill_sizes() -> None:
    """Give images of the release before their bytes, which takes minutes for hundreds of thousands.

    So workers do it beside their work. May be stopped: the next start goes on.
    """
    connection = connect()
    try:
        is_upgrading = days_since(connection, COUNTER_MIGRATION) < UPGRADE_DAYS
    finally:
        connection.close()
    if is_upgrading:
        with suppress(storage.Unavailable):
            usage.fill_sizes()


def status() -> list[tuple[str, str | None]]:
    """List every migration with the time it was applied, or None. Raises Unavailable."""
    connection = connect()
    try:
        times = applied_at(connection)
    finally:
        connection.close()
    return [(path.stem, times.get(path.stem)) for path in files()]


def files() -> list[Path]:
    return sorted(FOLDER.glob("[0-9]*.sql"))


def applied_at(connection: Connection) -> dict[str, str]:
    try:
        found = connection.run("SELECT version, applied_at FROM schema_migrations").rows
    except (pymysql.ProgrammingError, sqlite3.OperationalError):  # no such table
        create_own_tables(connection)
        return {}
    return {row["version"]: row["applied_at"] for row in found}


def days_since(connection: Connection, version: str) -> float:
    """Return how many days ago a migration was applied, more than there are if it was not."""
    rows = connection.run(
        """
        SELECT UNIX_TIMESTAMP() - UNIX_TIMESTAMP(applied_at) AS seconds
          FROM schema_migrations
         WHERE version = %s
        """,
        (version,),
    ).rows
    return rows[0]["seconds"] / 86400 if rows else float("inf")


def create_own_tables(connection: Connection) -> None:
    """Create what the runner needs, where it is missing: a start may have no right to create."""
    connection.run(
        """
        CREATE TABLE IF NOT EXISTS schema_lock (
            id INT NOT NULL PRIMARY KEY,
            owner VARCHAR(100) NOT NULL,
            taken BIGINT NOT NULL
        )
        """
    )
    connection.run(
        """
        CREATE TABLE IF NOT EXISTS schema_migrations (
            version VARCHAR(100) NOT NULL PRIMARY KEY,
            applied_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP
        )
        """
    )


def pending(connection: Connection) -> list[Path]:
    done = applied_at(connection)
    return [path for path in files() if path.stem not in done]


@contextmanager
def lock(connection: Connection) -> Iterator[None]:
    """Hold the schema lock. It is a row, as GET_LOCK does not reach other nodes of a cluster."""
    owner = f"{os.getpid()}-{secrets.token_hex(4)}"
    while not take_lock(connection, owner):
        time.sleep(0.1)
    try:
        yield
    finally:
        connection.run("DELETE FROM schema_lock WHERE owner = %s", (owner,))


def take_lock(connection: Connection, owner: str) -> bool:
    with suppress(Duplicate):
        connection.run(
            "INSERT INTO schema_lock (id, owner, taken) VALUES (1, %s, UNIX_TIMESTAMP())",
            (owner,),
        )
        return True
    taken_over = connection.run(
        """
        UPDATE schema_lock
           SET owner = %s, taken = UNIX_TIMESTAMP()
         WHERE taken < UNIX_TIMESTAMP() - %s OR taken > UNIX_TIMESTAMP() + %s
        """,
        (owner, LOCK_SECONDS, LOCK_SECONDS),
    )
    return taken_over.count == 1


def modernize_tables(connection: Connection) -> None:
    """Give tables made by hand on an old MySQL today's character set, engine and row format.

    In its three-byte utf8 there is no room for an emoji, in its row formats for long keys, and its
    engine has no transactions.
    """
    if not settings.uses_mysql:
        return
    outdated = connection.run(
        """
        SELECT DISTINCT TABLE_NAME AS name
          FROM information_schema.TABLES
          JOIN information_schema.COLUMNS USING (TABLE_SCHEMA, TABLE_NAME)
         WHERE TABLE_SCHEMA = DATABASE()
           AND TABLE_NAME IN ('users', 'image_generations')
           AND (CHARACTER_SET_NAME <> 'utf8mb4' OR ENGINE <> 'InnoDB'
                OR ROW_FORMAT IN ('Compact', 'Redundant'))
        """
    ).rows
    for table in outdated:
        collation = BYTES if table["name"] == "users" else "utf8mb4_general_ci"
        run_again(
            connection,
            f"""
            ALTER TABLE {table["name"]}
                CONVERT TO CHARACTER SET utf8mb4 COLLATE {collation},
                ENGINE = InnoDB, ROW_FORMAT = DYNAMIC
            """,
        )


def apply(connection: Connection, path: Path) -> None:
    connection.run(connection.BEGIN)
    for statement in statements(path):
        try:
            run_again(connection, statement)
        except (pymysql.OperationalError, pymysql.InternalError, pymysql.ProgrammingError) as error:
            if error.args[0] not in ALREADY_DONE:
                raise
    with suppress(Duplicate):
        connection.run("INSERT INTO schema_migrations (version) VALUES (%s)", (path.stem,))
    connection.run("COMMIT")


def run_again(connection: Connection, statement: str) -> None:
    """Run a statement that may have been run before: a row that it adds may be there already."""
    try:
        connection.run(statement)
    except Duplicate:
        if BYTES in statement:
            # There are old names that only blanks at their ends tell apart: it passes over these.
            connection.run(statement.replace(BYTES, bytes_and_blanks(connection)))


def bytes_and_blanks(connection: Connection) -> str:
    """Return the name of the collation that does not."""
    [server] = connection.run("SELECT VERSION() AS version").rows
    return "utf8mb4_nopad_bin" if "MariaDB" in server["version"] else "utf8mb4_0900_bin"


def statements(path: Path) -> list[str]:
    """Split a migration into its statements, written for the configured engine."""
    text = path.read_text(encoding="utf-8")
    for word, meaning in (MYSQL_WORDS if settings.uses_mysql else SQLITE_WORDS).items():
        text = text.replace(word, meaning)
    lines = [line for line in text.splitlines() if not line.startswith("--")]
    parts = "\n".join([*lines, ""]).split(";\n")
    return [part.strip() for part in parts if part.strip()]
