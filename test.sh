#!/bin/sh
# Lint, then the whole suite on SQLite and on a private MariaDB, once more on the MySQL server that TEST_MYSQL
# names, if it does, then the container. Arguments go to pytest.
set -eu
# Nothing outside this folder is run: Flask would also take .env and .flaskenv of the folders above.
unset CDPATH PYTHONPATH PYTHONHOME FLASK_APP
export FLASK_SKIP_DOTENV=1
cd -- "$(dirname -- "$0")"

python=$(command -v python3 || command -v python) || { echo "Python 3.11 or newer is needed; none was found." >&2; exit 1; }
stamp=.venv/requirements-test.stamp
contents() { "$python" -V; cat requirements.lock; }
if ! { contents; cat requirements-test.lock; } | cmp -s - "$stamp"; then
    echo "Installing into .venv ..."
    "$python" -m venv .venv
    .venv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-test.lock
    contents > .venv/requirements.stamp
    { contents; cat requirements-test.lock; } > "$stamp"
fi

# What the tests drive beside Python: a private MariaDB and a Galera cluster, RabbitMQ and Redis, nginx with the
# site file of deploy/, a client in TypeScript, the documentation page in a browser, and a container.
PATH=$PATH:/usr/sbin
missing=
for pair in mariadbd:mariadb-server rsync:rsync nginx:nginx openssl:openssl node:nodejs npm:npm chromium:chromium \
    rabbitmqctl:rabbitmq-server redis-server:redis-server buildah:buildah debootstrap:debootstrap; do
    command -v "${pair%:*}" >/dev/null || missing="$missing ${pair#*:}"
done
[ -e /usr/lib/galera/libgalera_smm.so ] || missing="$missing galera-4"
if [ -n "$missing" ] && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    echo "Installing$missing ..."
    # shellcheck disable=SC2086
    { apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y $missing; } >/dev/null 2>&1 ||
        echo "They could not be installed; the tests that need them are left out." >&2
fi

.venv/bin/ruff check .
.venv/bin/ruff format --check .
given=${TEST_MYSQL:-}
unset TEST_MYSQL
.venv/bin/python -m pytest "$@"
# A server of the tests' own, such as mysql://root:password@127.0.0.1:3307.
[ -z "$given" ] || TEST_MYSQL=$given .venv/bin/python -m pytest -k mariadb "$@"
[ $# -gt 0 ] || exec tests/container.sh
