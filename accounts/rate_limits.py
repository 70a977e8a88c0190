"""SQL of `rate_limits`: counters with an end, shared by all processes and machines.

A counter whose end is further away than its window was written while the database's clock was
wrong: it counts as one that has run out.
"""

import ipaddress
import re
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address
from typing import NamedTuple

import db
from errors import ApiError

# How long a network from which somebody logged in is known.
KNOWN_SECONDS = 30 * 86400
# The longest window that the settings allow.
MAX_WINDOW_SECONDS = 86400


class RateLimit(NamedTuple):
    """At most so many hits of each counter in a window; `code` is the error of one more.

    Of the counters, `everywhere` is that of all networks together, and `here` that of one. It is
    refund() that makes this network known, and whoever comes from a known one is not refused
    because of `everywhere`.
    """

    counters: dict[str, int]
    window_seconds: int
    code: str
    here: str = ""
    everywhere: str = ""

    def check(self) -> None:
        """Raise ApiError if a counter has no hit left; costs one read."""
        sql, values = self._select()
        self._refuse(db.all(sql, **values), spare=1)

    def hit(self) -> dict[str, int]:
        """Count one hit of each counter, and return all hits of each.

        Raises ApiError if that is one too many.
        """
        _, found = db.run_transaction(self._upsert(), self._select())
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
            runs = 0 < row["seconds_left"] <= self.window_seconds
            is_exempt = is_known and row["name"] == self.everywhere
            if runs and not is_exempt and row["hits"] + spare > self.counters[row["name"]]:
                raise ApiError(self.code, retry_after=row["seconds_left"])


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
