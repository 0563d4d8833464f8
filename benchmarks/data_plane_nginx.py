"""What a proxy written in C costs: nginx in front of uvicorn with the same app, with as many processes as serveconf has."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from serveconf.local_ray import free_port

# as a careful administrator sets it up: connections are kept, bodies go on as they come, WebSockets pass
CONFIG = """
daemon off;
master_process off;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{ worker_connections 4096; }}
http {{
  access_log off;
  client_max_body_size 0;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  keepalive_requests 1000000000;
  map $http_upgrade $connection_upgrade {{ default upgrade; '' ''; }}
  upstream app {{ server unix:{behind}; keepalive 128; keepalive_requests 1000000000; }}
  server {{
    listen 127.0.0.1:{port};
    location / {{
      proxy_pass http://app;
      proxy_http_version 1.1;
      proxy_request_buffering off;
      proxy_set_header Host $host;
      proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
      proxy_set_header X-Forwarded-Proto $scheme;
      proxy_set_header Upgrade $http_upgrade;
      proxy_set_header Connection $connection_upgrade;
    }}
  }}
}}
"""


def is_installed() -> bool:
    """Whether nginx is."""
    return shutil.which("nginx") is not None


@contextlib.contextmanager
def in_front_of(behind: str, folder: Path) -> Iterator[tuple[str, int]]:
    """Its base URL and its process, while it runs. ``behind``: the socket of uvicorn."""
    port = free_port()
    config = folder / "nginx.conf"
    config.write_text(CONFIG.format(folder=folder, behind=behind, port=port))
    nginx = subprocess.Popen(["nginx", "-p", str(folder), "-c", str(config)], stderr=subprocess.DEVNULL)
    try:
        yield f"http://127.0.0.1:{port}", nginx.pid
    finally:
        nginx.terminate()
        nginx.wait()
