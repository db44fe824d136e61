# syntax=docker/dockerfile:1
# Made by treadle dockerfile VERSION, to be built from "../.."
FROM ghcr.io/me/base:1

RUN python -m pip install --no-cache-dir uv
RUN uv pip install --no-cache --system treadle==VERSION

COPY ["apps/agent", "/app/apps/agent"]
COPY ["shared", "/app/shared"]
RUN uv pip install --no-cache --system -e /app/shared

WORKDIR /app/apps/agent
RUN mkdir -p /data && chown 10001:10001 /data
ENV HOST=0.0.0.0 PORT=2024 HOME=/data DATABASE_URI=sqlite:////data/treadle.db
VOLUME /data
USER 10001:10001
EXPOSE 2024
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=15s --timeout=6s --start-period=60s CMD ["python", "-c", "import os, urllib.request as r; r.urlopen('http://127.0.0.1:' + os.environ['PORT'] + '/ok', timeout=5)"]
CMD ["treadle", "serve", "--config", "/app/apps/agent/langgraph.json"]
