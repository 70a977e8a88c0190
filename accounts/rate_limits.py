"""SQL of `rate_limits`: counters with an end, shared by all processes and machines.

A counter whose end is further away than its window was written while the database's clock was
wrong: it counts as one that has run out. What is left is noted for the answer of the request.
"""

import hashlib
import ipaddress
import re
from contextvars import ContextVar
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address
from typing import NamedTuple

import db
from config import settings
from errors import ApiError

HOUR_SECONDS = 3600
# How long a network from which somebody logged in is known.
KNOWN_SECONDS = 30 * 86400
# The longest window that the settings allow.
MAX_WINDOW_SECONDS = 86400


class Available(NamedTuple):
    """What a client may learn of a limit: `most` in a window, and what is left for some seconds."""

    most: int
    window_seconds: int
    left: int
    seconds_left: int


# By name of the limit, in the order of first use; None outside of a request.
noted: ContextVar[dict[str, Available] | None] = ContextVar("noted", default=None)


def note(name: str, most: int, window_seconds: int, left: int, seconds_left: int) -> None:
    """Note what is left of a limit, for the headers of the answer."""
    limits = noted.get()
    if limits is not None:
        limits[name] = Available(most, window_seconds, max(0, left), seconds_left)


def note_refusal(name: str, most: int, window_seconds: int, retry_after: int) -> None:
    """Note that nothing is left; what others have left does not matter then."""
    limits = noted.get()
    if limits is not None:
        limits.clear()
        note(name, most, window_seconds, 0, retry_after)


class RateLimit(NamedTuple):
    """At most so many hits of each counter in a window; `code` is the error of one more.

    Of the counters, `everywhere` is that of all networks together, and `here` that of one. It is
    refund() that makes this network known, and whoever comes from a known one is not refused
    because of `everywhere`.

    Answers show the first counter alone, by the beginning of its name: the others may tell what
    other people do.
    """

    counters: dict[str, int]
    window_seconds: int
    code: str
    here: str = ""
    everywhere: str = ""

    def check(self) -> None:
        """Raise ApiError if a counter has no hit left; costs one read."""
        sql, values = self._select()
        rows = db.all(sql, **values)
        self._note(rows)
        self._refuse(rows, spare=1)

    def hit(self) -> dict[str, int]:
        """Count one hit of each counter, and return all hits of each.

        Raises ApiError if that is one too many.
        """
        _, found = db.run_transaction(self._upsert(), self._select())
        self._note(found.rows)
        self._refuse(found.rows, spare=0)
        return {row["name"]: row["hits"] for row in found.rows}

    def refund(self) -> None:
        """Take a hit of each counter back, after an attempt that turned out to be a good one.

        Its network is known from then on.
        """
        db.execute(
            f"""
            UPDATE rate_limits
               SET hits = hits - 1,
                   known_until = CASE name WHEN %(here)s THEN UNIX_TIMESTAMP() + %(known)s
                                         ELSE known_until END
             WHERE name IN ({self._names()}) AND hits > 0
            """,
            here=self.here,
            known=KNOWN_SECONDS,
            **self._values(),
        )
        if shown := (noted.get() or {}).get(self.name):
            note(self.name, *shown._replace(left=shown.left + 1))

    @property
    def name(self) -> str:
        return self._first.partition(":")[0]

    @property
    def _first(self) -> str:
        return next(iter(self.counters))

    def _note(self, rows: list[db.Row]) -> None:
        """Note what is left of the first counter, which need not be there or may have run out."""
        most = self.counters[self._first]
        left, seconds_left = most, self.window_seconds
        for row in rows:
            if row["name"] == self._first and self._runs(row):
                left, seconds_left = most - row["hits"], row["seconds_left"]
        note(self.name, most, self.window_seconds, left, seconds_left)

    def _runs(self, row: db.Row) -> bool:
        return 0 < row["seconds_left"] <= self.window_seconds

    def _names(self) -> str:
        return ", ".join(f"%(name{number})s" for number in range(len(self.counters)))

    def _values(self) -> db.Row:
        # In the order of the index, in which refund() locks them: otherwise two could deadlock.
        return {f"name{number}": name for number, name in enumerate(sorted(self.counters))}

    def _select(self) -> tuple[str, db.Row]:
        sql = f"""
            SELECT name, hits, expires_at - UNIX_TIMESTAMP() AS seconds_left,
                   CASE WHEN known_until > UNIX_TIMESTAMP() THEN 1 ELSE 0 END AS is_known
              FROM rate_limits
             WHERE name IN ({self._names()})
        """
        return sql, self._values()

    def _upsert(self) -> tuple[str, db.Row]:
        """Return the statement that adds one to each counter; one that has run out starts anew."""
        new = "1, UNIX_TIMESTAMP() + %(seconds)s"
        rows = ", ".join(f"(%(name{number})s, {new})" for number in range(len(self.counters)))
        runs = "expires_at > UNIX_TIMESTAMP() AND expires_at <= UNIX_TIMESTAMP() + %(seconds)s"
        sql = f"""
            INSERT INTO rate_limits (name, hits, expires_at)
            VALUES {rows}
                ON DUPLICATE KEY UPDATE
                   hits = CASE WHEN {runs} THEN hits + 1 ELSE 1 END,
                   expires_at = CASE WHEN {runs} THEN expires_at
                                     ELSE UNIX_TIMESTAMP() + %(seconds)s END
        """
        return sql, {**self._values(), "seconds": self.window_seconds}

    def _refuse(self, rows: list[db.Row], spare: int) -> None:
        is_known = any(row["is_known"] for row in rows)
        for row in rows:
            is_exempt = is_known and row["name"] == self.everywhere
            is_spent = row["hits"] + spare > self.counters[row["name"]]
            if is_spent and self._runs(row) and not is_exempt:
                most, seconds = self.counters[self._first], row["seconds_left"]
                note_refusal(self.name, most, self.window_seconds, seconds)
                raise ApiError(self.code, retry_after=seconds)


def uploads(owner: str, most: int) -> RateLimit:
    """Count pictures that an account, or an address without one, has decoded here."""
    return RateLimit({f"upload:{owner}": most}, HOUR_SECONDS, "too_many_uploads")


def uploads_from(address: str) -> RateLimit:
    return uploads(network(address), settings.UPLOADS_PER_ADDRESS)


def uploads_of(user_id: int) -> RateLimit:
    return uploads(f"user {user_id}:", settings.UPLOADS_PER_ACCOUNT)


def is_known(name: str) -> bool:
    """Tell if the counter of a network was refunded lately, see RateLimit."""
    sql = "SELECT 1 AS found FROM rate_limits WHERE name = %s AND known_until > UNIX_TIMESTAMP()"
    return db.one(sql, name) is not None


def delete_expired() -> int:
    """Delete the counters that have run out; a new hit starts from nothing either way."""
    deleted = db.execute(
        """
        DELETE FROM rate_limits
         WHERE known_until < UNIX_TIMESTAMP()
           AND (expires_at < UNIX_TIMESTAMP() OR expires_at > UNIX_TIMESTAMP() + %s)
        """,
        MAX_WINDOW_SECONDS,
    )
    return deleted.count


def clear_named(start: str) -> None:
    """Let the counters whose names begin so start anew; networks that are known stay known."""
    db.execute("UPDATE rate_limits SET hits = 0 WHERE name LIKE %s", f"{start}%")


def delete_named(start: str) -> None:
    """Delete the counters whose names begin so."""
    db.execute("DELETE FROM rate_limits WHERE name LIKE %s", f"{start}%")


def network(address: str) -> str:
    """Return what counts as one address: an IPv4 address, or the /64 network of an IPv6 one."""
    parsed = parse_address(address)
    if not parsed:
        return address[:64]
    if parsed.version == 4:
        return str(parsed)
    return str(ipaddress.ip_network((parsed, 64), strict=False))


def network_hash(address: str) -> str:
    """Return what stands for the network of an address where several counters have one each."""
    return hashlib.sha256(network(address).encode()).hexdigest()[:32]


@lru_cache(maxsize=1024)
def parse_address(text: str) -> IPv4Address | IPv6Address | None:
    """Return the address in a text, where proxies write a port, too; None if there is none.

    An IPv4 client of a server that listens on `::` comes from `::ffff:192.0.2.1`: it is an IPv4
    address all the same.
    """
    if found := re.fullmatch(r"\[(.*)\](?::\d*)?|([^:]*):\d*", text.strip()):
        text = found[1] or found[2] or ""
    try:
        address = ipaddress.ip_address(text.strip().partition("%")[0])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address
