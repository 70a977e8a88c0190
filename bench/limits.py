"""What the service is compared with: the least code that answers the same question, under the same gunicorn.

`profile` and `history` are bare WSGI callables: verify the token, make one SELECT on the thread's own
connection, answer JSON. `flask_app` is the smallest Flask service with the same drivers, for its memory.
"""

import json
import threading
from collections.abc import Callable, Iterable
from typing import Any

import jwt
import pymysql
from flask import Flask, request

from config import settings
from pool import MYSQL_TYPES

USER_SQL = "SELECT id, username, email, avatar_url, created_at FROM users WHERE id = %s"
HISTORY_SQL = """
      SELECT id, prompt_text, image_url, thumbnail_url, status, created_at, updated_at,
             generation_params_json, error_message
        FROM image_generations
       WHERE user_id = %s
    ORDER BY created_at DESC, id DESC
       LIMIT 10
"""
HISTORY_NAMES = ("id", "prompt", "imageUrl", "thumbnailUrl", "status", "createdAt", "updatedAt", "params",
                 "errorMessage")  # fmt: skip

thread = threading.local()


def select(sql: str, *values: Any) -> tuple:
    if not hasattr(thread, "connection"):
        thread.connection = pymysql.connect(
            host=settings.MYSQL_HOST, port=settings.MYSQL_PORT, user=settings.MYSQL_USER,
            password=settings.MYSQL_PASSWORD, database=settings.MYSQL_DB, charset="utf8mb4",
            autocommit=True, ssl_disabled=True, conv=MYSQL_TYPES,
        )  # fmt: skip
    cursor = thread.connection.cursor()
    cursor.execute(sql, values)
    return cursor.fetchall()


def caller(authorization: str) -> int:
    claims = jwt.decode(authorization.removeprefix("Bearer "), settings.SECRET_KEY, algorithms=["HS256"])
    return int(claims["sub"])


def profile_of(authorization: str) -> dict:
    user_id, username, email, avatar_url, created_at = select(USER_SQL, caller(authorization))[0]
    data = {"id": user_id, "username": username, "email": email, "avatarUrl": avatar_url, "created_at": created_at}
    return {"status": "success", "data": data}


def history_of(authorization: str) -> dict:
    records = [dict(zip(HISTORY_NAMES, row)) for row in select(HISTORY_SQL, caller(authorization))]
    return {"status": "success", "data": {"records": records}}


# -- Bare WSGI ----------------------------------------------------------------------------------


def profile(environ: dict, start_response: Callable) -> Iterable[bytes]:
    return answer(profile_of, environ, start_response)


def history(environ: dict, start_response: Callable) -> Iterable[bytes]:
    return answer(history_of, environ, start_response)


def answer(question: Callable[[str], dict], environ: dict, start_response: Callable) -> Iterable[bytes]:
    authorization = environ.get("HTTP_AUTHORIZATION")
    body = json.dumps(question(authorization) if authorization else {}, ensure_ascii=False).encode()
    start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
    return [body]


# -- Bare Flask ---------------------------------------------------------------------------------

flask_app = Flask(__name__, static_folder=None)


@flask_app.get("/api/health")
def flask_health() -> dict:
    return {"status": "success"}


@flask_app.get("/api/auth/profile")
def flask_profile() -> dict:
    return profile_of(request.headers["Authorization"])


@flask_app.get("/api/v1/images/history")
def flask_history() -> dict:
    return history_of(request.headers["Authorization"])
