# syntax=docker/dockerfile:1

# hls.js for the page's player: from npm, and only with the hash that is pinned there.
FROM node:22.22.2-bookworm-slim AS player
WORKDIR /build
COPY scripts/player scripts/log.sh scripts/npm.sh scripts/
RUN mkdir -p src/cefmp4/web/assets && scripts/player --must

FROM python:3.11.14-slim-bookworm AS build
WORKDIR /build
COPY locks/build.txt locks/runtime.txt locks/
RUN pip install --no-cache-dir --no-deps --require-hashes --only-binary :all: -r locks/build.txt \
    && pip wheel --no-cache-dir --no-deps --require-hashes --only-binary :all: \
        --wheel-dir /wheels -r locks/runtime.txt
COPY . .
COPY --from=player /build/src/cefmp4/web/assets/ src/cefmp4/web/assets/
RUN pip wheel --no-cache-dir --no-index --no-deps --no-build-isolation --wheel-dir /wheels .

FROM python:3.11.14-slim-bookworm
# ffprobe describes recordings; setpriv, which ends it together with us, is in the base image.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends ffmpeg \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 1001 --user-group --no-create-home --home-dir /nonexistent cefmp4
RUN --mount=type=bind,from=build,source=/wheels,target=/wheels \
    pip install --no-cache-dir --no-index --no-deps /wheels/*.whl

# Nothing is written into the image while it runs: it works with a read-only root and a small /tmp.
ENV PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    APP_ENV=production \
    WATCH_DIR=/watch
USER 1001:1001
EXPOSE 8000

# http.client, because urllib would go through a proxy that the environment may name.
HEALTHCHECK --interval=15s --timeout=6s --start-period=60s --retries=3 \
    CMD ["python", "-I", "-c", "import http.client, os, sys; c = http.client.HTTPConnection('127.0.0.1', int(os.environ.get('PROM_PORT') or 8000), timeout=5); c.request('GET', '/healthz'); sys.exit(c.getresponse().status != 200)"]

# Handles SIGTERM as process 1 and reaps the children it starts: no init is needed.
ENTRYPOINT ["cefmp4"]
CMD ["ingest"]
