# syntax=docker/dockerfile:1
# Made by treadle dockerfile VERSION, to be built from "."
FROM python:3.11-slim

RUN python -m pip install --no-cache-dir uv
RUN uv pip install --no-cache --system treadle==VERSION

COPY [".", "/app"]

WORKDIR /app
RUN mkdir -p /data && chown 10001:10001 /data
ENV HOST=0.0.0.0 PORT=2024 HOME=/data DATABASE_URI=sqlite:////data/treadle.db
VOLUME /data
USER 10001:10001
EXPOSE 2024
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=15s --timeout=6s --start-period=60s CMD ["python", "-c", "import os, urllib.request as r; r.urlopen('http://127.0.0.1:' + os.environ['PORT'] + '/ok', timeout=5)"]
CMD ["treadle", "serve", "--config", "/app/langgraph.json"]
