#!/bin/sh
# Lint, then the whole suite on SQLite and on a private MariaDB. Arguments go to pytest.
set -eu
cd "$(dirname "$0")"

python=$(command -v python3 || command -v python) || { echo "Python 3.11 or newer is needed; none was found." >&2; exit 1; }
stamp=.venv/requirements-test.stamp
contents() { "$python" -V; cat requirements.txt; }
if ! { contents; cat requirements-test.txt; } | cmp -s - "$stamp"; then
    echo "Installing into .venv ..."
    "$python" -m venv .venv
    .venv/bin/python -m pip install --quiet --disable-pip-version-check -r requirements.txt -r requirements-test.txt
    contents > .venv/requirements.stamp
    { contents; cat requirements-test.txt; } > "$stamp"
fi

# Half of the tests need a MariaDB; tests/mariadb.py starts a private one from these binaries.
if ! command -v mariadbd >/dev/null && [ ! -x /usr/sbin/mariadbd ] && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    echo "Installing mariadb-server ..."
    { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qqy mariadb-server; } >/dev/null 2>&1 ||
        echo "mariadb-server could not be installed." >&2
fi

.venv/bin/ruff check .
.venv/bin/ruff format --check .
exec .venv/bin/python -m pytest "$@"
