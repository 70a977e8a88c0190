# The whole service: web server, workers, the built-in engine and the page. docs/container.md says how to run it.
ARG PYTHON_IMAGE=docker.io/library/python:3.11-slim-bookworm

FROM ${PYTHON_IMAGE} AS build
# A mirror of PyPI, if it has to be one.
ARG PIP_INDEX_URL
# What else to install, such as "oidc fleet": the packages of requirements-oidc.txt and requirements-fleet.txt.
ARG EXTRAS=""
WORKDIR /app
COPY requirements*.txt requirements.lock ./
# The stamp tells start.sh that nothing is missing. pip itself is not needed any more.
RUN python3 -m venv .venv \
    && .venv/bin/python -m pip install --no-cache-dir --require-hashes -r requirements.lock \
    && for extra in $EXTRAS; do \
        .venv/bin/python -m pip install --no-cache-dir -r "requirements-$extra.txt" || exit 1; \
    done \
    && .venv/bin/python -m pip uninstall --yes --quiet pip setuptools \
    && { python3 -V; cat requirements.lock; } > .venv/requirements.stamp
COPY . .
# Whatever the umask of the checkout was, the user of the container reads all and changes nothing.
RUN chmod -R go=u,go-w . \
    && python3 -m compileall -q ./*.py accounts commands engines files images migrations web

FROM ${PYTHON_IMAGE}
RUN groupadd --gid 10001 app \
    && useradd --uid 10001 --gid app --home-dir /data --no-create-home --shell /usr/sbin/nologin app \
    && install --directory --owner app --group app --mode 750 /data
COPY --from=build /app /app
WORKDIR /app
# Nothing but /data and /tmp is written to, so the root file system may be read-only.
ENV PATH=/app/.venv/bin:$PATH \
    DATA_DIR=/data \
    HOST=0.0.0.0 \
    FLASK_SKIP_DOTENV=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
VOLUME /data
USER 10001:10001
EXPOSE 8000
STOPSIGNAL SIGTERM
# Python asks, since there is no curl. A container with workers alone needs none: --no-healthcheck.
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s CMD ["python", "-c", "import http.client, os; \
    service = http.client.HTTPConnection('127.0.0.1', os.environ.get('PORT') or 8000, timeout=4); \
    service.request('GET', '/api/health'); raise SystemExit(service.getresponse().status != 200)"]
# `web` or `worker` behind it runs one of the two alone.
ENTRYPOINT ["./start.sh"]
