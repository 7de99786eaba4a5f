# One image, several commands: serve (default), worker, agent, prepare, batch, ui. Runs as a user without rights.
FROM python:3.11-slim AS build
WORKDIR /app
COPY requirements-uv.lock requirements-image.lock ./
RUN python -m venv /app/.venv && /app/.venv/bin/pip install -q --require-hashes -r requirements-uv.lock
RUN VIRTUAL_ENV=/app/.venv /app/.venv/bin/uv pip install -q --require-hashes -r requirements-image.lock
COPY pyproject.toml README.md LICENSE ./
COPY features features
COPY service service
COPY training training
RUN /app/.venv/bin/uv pip install -q --python /app/.venv/bin/python --no-deps --no-build-isolation -e . \
    && /app/.venv/bin/python -m compileall -q -o 1 /app/.venv/lib features service training

FROM python:3.11-slim
RUN apt-get update && apt-get install -y --no-install-recommends libgomp1 && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --home /app nba && mkdir -p /app/var /app/mlruns && chown -R nba /app/var /app/mlruns
COPY --from=build /app /app
WORKDIR /app
USER nba
ENV PATH=/app/.venv/bin:$PATH PYTHONOPTIMIZE=1 PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
VOLUME ["/app/var", "/app/mlruns"]
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=2s --start-period=20s \
    CMD ["python", "-c", "import os, urllib.request as r; r.urlopen(f\"http://127.0.0.1:{os.environ.get('NBA_PORT', '8000')}/livez\", timeout=1)"]
ENTRYPOINT ["nba"]
CMD ["serve"]
