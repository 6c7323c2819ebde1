# One image for all parts; docker-compose.yml says which command each of them runs, and how each is seen to be healthy.
#   docker build --tag tidemill:0.1.0 .
FROM python:3.12-slim-bookworm AS build

# As in the Makefile: the one tool that is fetched by pip; it installs the rest from the lock, by hash.
ARG UV_VERSION=0.13.9
WORKDIR /tidemill
RUN python -m venv .venv \
    && .venv/bin/python -m pip install --quiet --no-cache-dir --disable-pip-version-check "uv==${UV_VERSION}"
COPY requirements.lock ./
# Bytecode is compiled here because the parts run as a user that cannot write it.
RUN .venv/bin/uv pip install --quiet --no-cache --compile-bytecode --python .venv/bin/python \
    --require-hashes -r requirements.lock
COPY . .
RUN .venv/bin/uv pip install --quiet --no-cache --python .venv/bin/python --no-deps --editable . \
    && .venv/bin/python -m compileall -q dags ingest_service orchestration quality retail sensors tidemill web

FROM python:3.12-slim-bookworm

RUN useradd --system --uid 10001 --create-home --shell /usr/sbin/nologin tidemill \
    && install --directory --owner=tidemill --group=tidemill --mode=0750 /data
COPY --from=build /tidemill /tidemill
WORKDIR /tidemill
ENV PATH=/tidemill/.venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    TIDEMILL_DATA=/data \
    TIDEMILL_PROJECT=/tidemill
USER tidemill
EXPOSE 7433
# No part is the image's own, so a bare `docker run` starts none: above all none that listens to everybody.
CMD ["tidemill", "--help"]
