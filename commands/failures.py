"""How commands fail: in one line, with what a client would be told."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

import click
import pymysql

import db
from errors import ApiError, error_text
from messages import field_text


def fail(error: ApiError) -> NoReturn:
    """End the command with what a client would be told, in English."""
    sentences = []
    for name, (kind, values) in error.fields.items():
        sentences.append(field_text(name, kind, values, "en"))
    raise click.ClickException("; ".join(sentences) or error_text(error.code, "en"))


@contextmanager
def plain_errors() -> Iterator[None]:
    """End the command with one line if the database is unavailable, or something is refused."""
    try:
        yield
    except db.Unavailable as error:
        raise click.ClickException(f"the database is away: {error.__cause__}") from None
    except ApiError as error:
        fail(error)
    except UnicodeEncodeError:  # bytes of the command line that are no UTF-8
        raise click.ClickException("the command line is not valid Unicode") from None
    except pymysql.MySQLError as error:
        raise click.ClickException(f"the database refuses: {error.args[-1]}") from None
