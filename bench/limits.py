"""What the service is compared with: the least code that answers the same, under the same gunicorn.

The bare WSGI callables verify the token, run one statement on the thread's own connection, and
answer JSON. `submit` also parses its body, and queues a generation for the model `bare`, which no
worker serves. `flask_app` is the smallest Flask service with the same drivers, for its memory.
"""

import json
import threading
from collections.abc import Callable, Iterable
from typing import Any

import jwt
import pymysql
from flask import Flask, request

from config import settings
from images.history import COLUMNS
from pool import MYSQL_TYPES

USER_SQL = "SELECT id, username, email, avatar_url, created_at FROM users WHERE id = %s"
RECORD_SQL = f"SELECT {COLUMNS} FROM image_generations AS g WHERE g.user_id = %s AND g.id = %s"
# What history.list_generations() asks for the first page, its total included.
HISTORY_SQL = f"""
      SELECT {COLUMNS},
             (SELECT image_count FROM users WHERE id = %s) AS total
        FROM (SELECT id, created_at
                FROM image_generations
               WHERE user_id = %s
            ORDER BY created_at DESC, id DESC
               LIMIT 10) AS page
        JOIN image_generations AS g ON g.id = page.id
    ORDER BY page.created_at DESC, page.id DESC
"""
INSERT_SQL = """
    INSERT INTO image_generations
           (user_id, prompt_text, status, model, width, height, generation_params_json)
    VALUES (%s, %s, 'pending', 'bare', 512, 512, %s)
"""

thread = threading.local()


def connection() -> pymysql.Connection:
    if not hasattr(thread, "connection"):
        thread.connection = pymysql.connect(
            host=settings.MYSQL_HOST,
            port=settings.MYSQL_PORT,
            user=settings.MYSQL_USER,
            password=settings.MYSQL_PASSWORD,
            database=settings.MYSQL_DB,
            charset="utf8mb4",
            autocommit=True,
            ssl_disabled=True,
            conv=MYSQL_TYPES,
        )
    return thread.connection


def select(sql: str, *values: Any) -> tuple:
    cursor = connection().cursor()
    cursor.execute(sql, values)
    return cursor.fetchall()


def caller(authorization: str) -> int:
    token = authorization.removeprefix("Bearer ")
    claims = jwt.decode(token, settings.SECRET_KEY, algorithms=["HS256"])
    return int(claims["sub"])


def profile_of(authorization: str) -> dict:
    user_id, username, email, avatar_url, created_at = select(USER_SQL, caller(authorization))[0]
    data = {
        "id": user_id,
        "username": username,
        "email": email,
        "avatarUrl": avatar_url,
        "created_at": created_at,
    }
    return {"status": "success", "data": data}


def history_of(authorization: str) -> dict:
    user_id = caller(authorization)
    return {"status": "success", "data": {"records": select(HISTORY_SQL, user_id, user_id)}}


def record_of(authorization: str) -> dict:
    return {"status": "success", "data": select(RECORD_SQL, caller(authorization), 1)[0]}


def submit_of(authorization: str, body: bytes) -> dict:
    user_id, wanted = caller(authorization), json.loads(body)
    params = {"seed": wanted["seed"], "steps": wanted["steps"]}
    cursor = connection().cursor()
    cursor.execute(INSERT_SQL, (user_id, wanted["prompt"], json.dumps(params)))
    data = {
        "id": cursor.lastrowid,
        "prompt": wanted["prompt"],
        "status": "pending",
        "params": params,
    }
    return {"status": "success", "data": data}


# -- Bare WSGI ----------------------------------------------------------------------------------


def profile(environ: dict, start_response: Callable) -> Iterable[bytes]:
    return answer(profile_of, environ, start_response)


def history(environ: dict, start_response: Callable) -> Iterable[bytes]:
    return answer(history_of, environ, start_response)


def record(environ: dict, start_response: Callable) -> Iterable[bytes]:
    return answer(record_of, environ, start_response)


def submit(environ: dict, start_response: Callable) -> Iterable[bytes]:
    body = environ["wsgi.input"].read()
    return answer(lambda authorization: submit_of(authorization, body), environ, start_response)


def answer(
    question: Callable[[str], dict], environ: dict, start_response: Callable
) -> Iterable[bytes]:
    authorization = environ.get("HTTP_AUTHORIZATION")
    answered = question(authorization) if authorization else {}
    body = json.dumps(answered, ensure_ascii=False).encode()
    headers = [("Content-Type", "application/json"), ("Content-Length", str(len(body)))]
    start_response("200 OK", headers)
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
