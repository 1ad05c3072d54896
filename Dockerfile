# syntax=docker/dockerfile:1
# Pin by digest in your own builds: --build-arg PYTHON_IMAGE=python:3.11-slim@sha256:...
ARG PYTHON_IMAGE=python:3.11-slim

FROM ${PYTHON_IMAGE} AS build
WORKDIR /src
RUN python -m venv /opt/canary-bot
COPY pyproject.toml README.md LICENSE ./
COPY bot ./bot
RUN python -m pip wheel --no-cache-dir --no-deps --wheel-dir /wheels . \
    && /opt/canary-bot/bin/pip install --no-cache-dir --no-compile /wheels/*.whl \
    && /opt/canary-bot/bin/python -m compileall -q /opt/canary-bot/lib \
    && /opt/canary-bot/bin/pip uninstall --yes pip

FROM ${PYTHON_IMAGE}
LABEL org.opencontainers.image.title="canary-bot" \
      org.opencontainers.image.description="A Slack bot that runs canary releases on service meshes" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /opt/canary-bot /opt/canary-bot
ENV PATH=/opt/canary-bot/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    MALLOC_ARENA_MAX=2 \
    MALLOC_MMAP_THRESHOLD_=131072 \
    MPLCONFIGDIR=/tmp
USER 10001:10001
WORKDIR /tmp
EXPOSE 8080
STOPSIGNAL SIGTERM
ENTRYPOINT ["canary-bot"]
CMD ["run"]
