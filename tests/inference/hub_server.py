"""A small Hugging Face Hub on loopback, which keeps what it is sent: not a test itself."""

import base64
import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from urllib.parse import urlsplit

import yaml

TOKEN = "hf_thisIsTheTokenOfTheTest"


@dataclass
class Hub:
    """What the server was sent.

    Attributes:
        url: its address.
        private: visibility by repository.
        files: contents by repository and name.
        commits: messages of commits.
        blobs: large files by SHA-256, before they are committed.
        refuse: answer every request with this status.
    """

    url: str = ""
    private: dict[str, bool] = field(default_factory=dict)
    files: dict[str, dict[str, bytes]] = field(default_factory=dict)
    commits: list[str] = field(default_factory=list)
    blobs: dict[str, bytes] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    refuse: int | None = None


@contextmanager
def hub_server() -> Iterator[Hub]:
    hub = Hub()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_):
            pass

        def answer(self, body=None, status=200, **headers):
            data = json.dumps(body).encode() if body is not None else b""
            self.send_response(status)
            for name, value in {"Content-Type": "application/json", **headers}.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def body(self) -> bytes:
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))

        def allowed(self) -> bool:
            hub.requests.append(f"{self.command} {self.path}")
            if hub.refuse or self.headers.get("Authorization") != f"Bearer {TOKEN}":
                self.answer({"error": "Invalid credentials"}, hub.refuse or 401)
                return False
            return True

        def do_GET(self):
            if not self.allowed():
                return
            parts = urlsplit(self.path).path.split("/")  # '', api, models, owner, name, ...
            repo = "/".join(parts[3:5])
            if repo not in hub.private:
                self.answer({"error": "Repository not found"}, 404, **{"X-Error-Code": "RepoNotFound"})
            elif "tree" in parts:
                files = [{"type": "file", "path": n, "size": len(d), "oid": "0"} for n, d in hub.files[repo].items()]
                self.answer(files)
            else:
                siblings = [{"rfilename": name} for name in hub.files[repo]]
                self.answer({"id": repo, "private": hub.private[repo], "sha": "0" * 40, "siblings": siblings})

        def do_PUT(self):
            body = self.body()
            hub.blobs[self.path.rsplit("/", 1)[1]] = body
            self.answer()

        def do_POST(self):
            body = self.body()
            path = urlsplit(self.path).path
            if not self.allowed():
                return
            if path == "/api/validate-yaml":
                content = json.loads(body)["content"]
                yaml.safe_load(content.split("---")[1])
                self.answer({"errors": [], "warnings": []})
            elif path == "/api/repos/create":
                asked = json.loads(body)
                repo = f"{asked.get('organization', 'me')}/{asked['name']}"
                if repo in hub.private:
                    self.answer({"url": f"{hub.url}/{repo}", "error": "exists"}, 409)
                    return
                hub.private[repo] = (
                    asked.get("visibility", "private" if asked.get("private") else "public") == "private"
                )
                hub.files[repo] = {".gitattributes": b""}
                self.answer({"url": f"{hub.url}/{repo}", "name": repo, "id": repo})
            elif path.endswith("/objects/batch"):
                objects = json.loads(body)["objects"]
                upload = [
                    {**o, "actions": {"upload": {"href": f"{hub.url}/blobs/{o['oid']}", "header": {}}}} for o in objects
                ]
                self.answer({"transfer": "basic", "objects": upload})
            elif "/preupload/" in path:
                files = json.loads(body)["files"]
                modes = {True: "lfs", False: "regular"}
                large = (".safetensors", ".onnx")
                self.answer(
                    {
                        "files": [
                            {"path": f["path"], "uploadMode": modes[f["path"].endswith(large)], "shouldIgnore": False}
                            for f in files
                        ]
                    }
                )
            elif "/commit/" in path:
                repo = "/".join(path.split("/")[3:5])
                for line in body.splitlines():
                    step = json.loads(line)
                    value = step["value"]
                    if step["key"] == "header":
                        hub.commits.append(value["summary"])
                    elif step["key"] == "file":
                        hub.files[repo][value["path"]] = base64.b64decode(value["content"])
                    elif step["key"] == "lfsFile":
                        blob = hub.blobs[value["oid"]]
                        assert hashlib.sha256(blob).hexdigest() == value["oid"]
                        hub.files[repo][value["path"]] = blob
                    elif step["key"] == "deletedFile":
                        del hub.files[repo][value["path"]]
                self.answer({"commitUrl": f"{hub.url}/{repo}/commit/1", "commitOid": "1" * 40, "success": True})
            else:
                self.answer({"error": f"unknown {path}"}, 404)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
