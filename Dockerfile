# One image for the exporter and the notifier; target `demo` adds the example server.
ARG PYTHON=3.13.7-slim-bookworm

FROM python:${PYTHON} AS build
WORKDIR /source
COPY pyproject.toml README.md LICENSE ./
COPY targets targets
COPY exporter exporter
COPY alerts alerts
COPY docs/runbooks docs/runbooks
COPY dashboards dashboards
COPY monitoring monitoring
# what is downloaded is kept in a cache: after a change of the source an image is built again in seconds
RUN --mount=type=cache,target=/root/.cache/pip \
    python -m venv /opt/anvil-monitor && PATH=/opt/anvil-monitor/bin:$PATH && export PIP_DISABLE_PIP_VERSION_CHECK=1 && \
    pip wheel --quiet --no-deps --wheel-dir /wheels . && pip install --quiet "$(ls /wheels/*.whl)[stack]"

FROM build AS build-demo
RUN --mount=type=cache,target=/root/.cache/pip \
    /opt/anvil-monitor/bin/pip install --quiet --disable-pip-version-check "$(ls /wheels/*.whl)[demo]"

FROM python:${PYTHON} AS base
ENV PATH=/opt/anvil-monitor/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 HOME=/tmp
# A named volume takes owner and mode of the folder that it is mounted on. 65532: an unprivileged user of no one else.
RUN mkdir -p /var/lib/anvil-monitor /run/anvil-monitor && chown 65532:65532 /var/lib/anvil-monitor /run/anvil-monitor

FROM base AS demo
COPY --from=build-demo /opt/anvil-monitor /opt/anvil-monitor
COPY examples /srv/examples
WORKDIR /srv
USER 65532:65532
EXPOSE 8000
CMD ["uvicorn", "examples.server:app", "--workers", "2", "--host", "0.0.0.0", "--port", "8000"]

FROM base AS monitor
COPY --from=build /opt/anvil-monitor /opt/anvil-monitor
WORKDIR /var/lib/anvil-monitor
USER 65532:65532
ENTRYPOINT ["anvil-monitor"]
CMD ["--help"]
