#!/bin/sh
# Make what is missing, bring the database up to date, then serve on HOST:PORT (127.0.0.1:8000) and make images.
# `./start.sh web` and `./start.sh worker` run one of the two alone.
set -eu
# Nothing outside this folder is run. config.py alone reads .env; Flask would take those of the folders above, too.
unset CDPATH PYTHONPATH PYTHONHOME FLASK_APP
export FLASK_SKIP_DOTENV=1
cd -- "$(dirname -- "$0")"
# What is written here is for this user and its group, which nginx may be in; for nobody else.
umask "$(printf '%o' $(($(umask) | 027)))"

python=$(command -v python3 || command -v python) || { echo "Python 3.11 or newer is needed; none was found." >&2; exit 1; }
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
    echo "Python 3.11 or newer is needed; $python is $("$python" -V 2>&1)." >&2
    exit 1
}

# The stamp says what the environment holds, and is written last: an installation that was
# broken off, or made by another Python, is made again.
stamp=.venv/requirements.stamp
contents() { "$python" -V; cat requirements.lock; }
if ! contents | cmp -s - "$stamp"; then
    echo "Installing into .venv ..."
    "$python" -m venv .venv || {
        echo "Could not make .venv. If Python's venv module is missing, on Debian or Ubuntu: apt install python3-venv" >&2
        exit 1
    }
    .venv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock || {
        echo "Not every package of requirements.lock could be installed. A mirror must have the same files as PyPI." >&2
        exit 1
    }
    contents > "$stamp"
fi

.venv/bin/python -m flask db upgrade
# Alone, under systemd, gunicorn needs nobody to look after it; serve.py looks after web and workers together.
[ "${1:-}" = web ] && exec .venv/bin/python -m gunicorn
exec .venv/bin/python serve.py "$@"
