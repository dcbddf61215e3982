"""A Hugging Face Hub on loopback: a real HTTP server over folders, for the real clients.

It answers what the installed huggingface_hub, datasets, transformers and sentence-transformers ask when they read
models and data sets and push a model: repositories, trees, files with ranges, `whoami`, `create`, `preupload`, LFS and
commits. Every request is in its log. It can be told to be in a bad mood: to refuse, to fail a few times, to cut a
download, to be slow.
"""

import base64
import hashlib
import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

USER, ORG, TOKEN = "tester", "team", "hf_loopback"
_MISSING_CODES = {"repo": "RepoNotFound", "revision": "RevisionNotFound", "file": "EntryNotFound", "gate": "GatedRepo"}


@dataclass
class Commit:
    """One state of a repository: its files by path."""

    sha: str
    files: dict[str, Path]


@dataclass
class Repository:
    """A model or a data set with its commits, the newest last."""

    commits: list[Commit] = field(default_factory=list)
    private: bool = False
    gated: bool = False  # everybody may know of it, and only those who were granted access may read it

    def at(self, revision: str) -> Commit | None:
        """Return the commit that a revision names: a branch or a pull request is the newest, else by its hash."""
        if re.fullmatch("[0-9a-f]{40}", revision):
            return next((commit for commit in self.commits if commit.sha == revision), None)
        known = revision == "main" or revision.startswith("refs/")
        return self.commits[-1] if known and self.commits else None


@dataclass
class Mood:
    """What happens to the requests of one kind instead of an answer, so many times."""

    pattern: str
    answer: Callable[[Request, Callable[[], Response]], Response]
    times: int
    methods: tuple[str, ...] = ("GET", "HEAD", "POST", "PUT")


@dataclass(frozen=True)
class Seen:
    """A request and how it was answered."""

    method: str
    path: str
    status: int


class LoopbackHub:
    """The server, its repositories, moods and log.

    Args:
        folder: Where what is pushed is kept.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.repositories: dict[tuple[str, str], Repository] = {}
        self.log: list[Seen] = []
        self.moods: list[Mood] = []
        self._hashes: dict[Path, str] = {}
        folder.mkdir(parents=True, exist_ok=True)

    # The server

    def __enter__(self) -> "LoopbackHub":
        routes = [Route("/{path:path}", self._answer, methods=["GET", "HEAD", "POST", "PUT"])]
        config = uvicorn.Config(Starlette(routes=routes), host="127.0.0.1", port=0, log_level="critical")
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, daemon=True)
        self._thread.start()
        while not self._server.started:
            time.sleep(0.01)
        self.port = self._server.servers[0].sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        return self

    def __exit__(self, *error: object) -> None:
        self._server.should_exit = True
        self._thread.join(timeout=10)

    def environment(self, home: Path, token: str | None = None) -> dict[str, str]:
        """Return the variables that lead the clients here, with a cache of their own."""
        variables = {"HF_ENDPOINT": self.url, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1"}
        return variables | ({"HF_TOKEN": token} if token else {})

    # What lies on it

    def publish(self, kind: str, name: str, folder: Path) -> str:
        """Make a commit of what a folder holds and return its hash.

        Args:
            kind: "models" or "datasets".
            name: "OWNER/NAME".
            folder: Its files are served from where they are.
        """
        files = {str(path.relative_to(folder)): path for path in sorted(folder.rglob("*")) if path.is_file()}
        return self._commit(self.repositories.setdefault((kind, name), Repository()), files)

    def _commit(self, repository: Repository, files: dict[str, Path]) -> str:
        state = [len(repository.commits), *((path, self._sha256(file)) for path, file in files.items())]
        sha = hashlib.sha1(repr(state).encode()).hexdigest()
        repository.commits.append(Commit(sha, files))
        return sha

    def _sha256(self, file: Path) -> str:
        if file not in self._hashes:
            self._hashes[file] = hashlib.sha256(file.read_bytes()).hexdigest()
        return self._hashes[file]

    # Moods

    def refuse(self, pattern: str, status: int, code: str = "", times: int = 10**6, **headers: str) -> None:
        """Answer requests whose path the pattern is found in with an error."""

        def answer(request: Request, usual: Callable[[], Response]) -> Response:
            more = {"X-Error-Code": code} if code else {}
            return Response(
                f"status {status}", status, {key.replace("_", "-"): v for key, v in headers.items()} | more
            )

        self.moods.append(Mood(pattern, answer, times))

    def cut(self, pattern: str, times: int = 1) -> None:
        """Close the connection when half of a file is sent."""

        def answer(request: Request, usual: Callable[[], Response]) -> Response:
            whole = usual()
            content = bytes(whole.body)

            def half() -> Iterator[bytes]:
                yield content[: len(content) // 2]
                raise ConnectionResetError("cut on purpose")

            return StreamingResponse(half(), whole.status_code, dict(whole.headers))

        self.moods.append(Mood(pattern, answer, times, ("GET",)))

    def delay(self, pattern: str, seconds: float, times: int = 1) -> None:
        """Take so long for an answer."""

        def answer(request: Request, usual: Callable[[], Response]) -> Response:
            time.sleep(seconds)
            return usual()

        self.moods.append(Mood(pattern, answer, times))

    # Answers

    async def _answer(self, request: Request) -> Response:
        body = await request.body()
        from starlette.concurrency import run_in_threadpool

        response = await run_in_threadpool(self._mooded, request, body)
        self.log.append(Seen(request.method, unquote(request.url.path), response.status_code))
        return response

    def _mooded(self, request: Request, body: bytes) -> Response:
        def usual() -> Response:
            return self._usual(request, body)

        for mood in self.moods:
            if mood.times and request.method in mood.methods and re.search(mood.pattern, unquote(request.url.path)):
                mood.times -= 1
                return mood.answer(request, usual)
        return usual()

    def _usual(self, request: Request, body: bytes) -> Response:
        path = unquote(request.scope["raw_path"].decode().partition("?")[0])
        method = "GET" if request.method == "HEAD" else request.method
        for verb, pattern, handler in self._routes():
            if verb == method and (match := re.fullmatch(pattern, path)):
                return handler(request, body, **match.groupdict())
        return _missing("file", "no such route")

    def _routes(self) -> list[tuple[str, str, Callable[..., Response]]]:
        kind, name, revision = (
            "(?P<kind>models|datasets)",
            "(?P<name>[^/]+/[^/]+)",
            "(?P<revision>refs/[^/]+/[^/]+|[^/]+)",
        )
        return [
            ("GET", "/api/whoami-v2", self._whoami),
            ("POST", "/api/repos/create", self._create),
            ("GET", f"/api/{kind}/{name}", self._info),
            ("GET", f"/api/{kind}/{name}/revision/{revision}", self._info),
            ("GET", f"/api/{kind}/{name}/auth-check", self._auth_check),
            ("GET", f"/api/{kind}/[^/]+", lambda request, body, kind: _missing("repo", "Repository not found", 401)),
            ("GET", f"/api/{kind}/{name}/tree/{revision}(?:/(?P<folder>.+))?", self._tree),
            ("POST", f"/api/{kind}/{name}/paths-info/{revision}", self._paths_info),
            ("POST", f"/api/{kind}/{name}/preupload/{revision}", self._preupload),
            ("POST", f"/api/{kind}/{name}/branch/{revision}", self._branch),
            ("POST", f"/api/{kind}/{name}/commit/{revision}", self._new_commit),
            ("POST", f"/(?P<prefix>datasets/)?{name}\\.git/info/lfs/objects/batch", self._lfs_batch),
            ("POST", "/api/validate-yaml", lambda *_: JSONResponse({"errors": [], "warnings": []})),
            ("PUT", "/lfs/(?P<oid>[0-9a-f]{64})", self._lfs_put),
            ("GET", f"/(?P<prefix>datasets/)?{name}/resolve/{revision}/(?P<file>.+)", self._file),
        ]

    def _find(self, kind: str, name: str, revision: str = "main") -> Commit | Response:
        repository = self.repositories.get((kind, name))
        if repository is None:
            return _missing("repo", "Repository not found", 401)  # as the Hub says it, which hides what is private
        return repository.at(revision) or _missing("revision", f"Invalid rev id: {revision}")

    def _whoami(self, request: Request, body: bytes) -> Response:
        if request.headers.get("authorization") != f"Bearer {TOKEN}":
            return JSONResponse({"error": "Invalid credentials in Authorization header"}, 401)
        auth = {"type": "access_token", "accessToken": {"displayName": "test", "role": "write"}}
        return JSONResponse({"name": USER, "type": "user", "orgs": [{"name": ORG, "type": "org"}], "auth": auth})

    def _create(self, request: Request, body: bytes) -> Response:
        if request.headers.get("authorization") != f"Bearer {TOKEN}":
            return JSONResponse({"error": "Invalid credentials in Authorization header"}, 401)
        wanted = json.loads(body)
        kind = f"{wanted.get('type') or 'model'}s"
        name = f"{wanted.get('organization') or USER}/{wanted['name']}"
        url = f"{self.url}/{name}"
        if (kind, name) in self.repositories:
            return JSONResponse({"error": "You already created this model repo", "url": url}, 409)
        repository = self.repositories[kind, name] = Repository(private=wanted.get("visibility") == "private")
        self._commit(repository, {})
        return JSONResponse({"url": url, "name": name, "id": name})

    def _info(self, request: Request, body: bytes, kind: str, name: str, revision: str = "main") -> Response:
        if isinstance(commit := self._find(kind, name, revision), Response):
            return commit
        repository = self.repositories[kind, name]
        siblings = [{"rfilename": path, "size": file.stat().st_size} for path, file in commit.files.items()]
        moment = "2026-04-16T00:00:00.000Z"
        return JSONResponse(
            {"id": name, "sha": commit.sha, "private": repository.private, "siblings": siblings}
            | {"gated": "manual" if repository.gated else False, "disabled": False, "tags": []}
            | {"createdAt": moment, "lastModified": moment, "cardData": {}, "downloads": 1, "likes": 1}
        )

    def _auth_check(self, request: Request, body: bytes, kind: str, name: str) -> Response:
        gated = self.repositories[kind, name].gated
        return _missing("gate", "Access is restricted", 403) if gated else JSONResponse({})

    def _entry(self, path: str, file: Path) -> dict:
        sha = self._sha256(file)
        entry = {"type": "file", "oid": sha[:40], "size": file.stat().st_size, "path": path}
        if path.endswith((".safetensors", ".parquet")):
            entry["lfs"] = {"oid": sha, "size": entry["size"], "pointerSize": 134}
        return entry

    def _tree(
        self, request: Request, body: bytes, kind: str, name: str, revision: str, folder: str | None
    ) -> Response:
        if isinstance(commit := self._find(kind, name, revision), Response):
            return commit
        start = f"{folder}/" if folder else ""
        inside = {path: file for path, file in commit.files.items() if path.startswith(start)}
        if folder and not inside:
            return _missing("file", f"{folder} does not exist on {revision}")
        folders = {path[: match.start()] for path in inside for match in re.finditer("/", path)}
        entries = [{"type": "directory", "oid": commit.sha, "size": 0, "path": each} for each in sorted(folders)]
        entries += [self._entry(path, file) for path, file in inside.items()]
        if request.query_params.get("recursive", "").lower() not in ("true", "1"):
            entries = [entry for entry in entries if "/" not in entry["path"][len(start) :]]
        return JSONResponse([entry for entry in entries if entry["path"] != folder])

    def _paths_info(self, request: Request, body: bytes, kind: str, name: str, revision: str) -> Response:
        if isinstance(commit := self._find(kind, name, revision), Response):
            return commit
        wanted = json.loads(body)["paths"]
        entries = [self._entry(path, commit.files[path]) for path in wanted if path in commit.files]
        for path in wanted:
            if path not in commit.files and any(each.startswith(f"{path}/") for each in commit.files):
                entries.append({"type": "directory", "oid": commit.sha, "size": 0, "path": path})
        return JSONResponse(entries)

    def _file(
        self, request: Request, body: bytes, prefix: str | None, name: str, revision: str, file: str
    ) -> Response:
        if isinstance(commit := self._find("datasets" if prefix else "models", name, revision), Response):
            return commit
        if self.repositories["datasets" if prefix else "models", name].gated:
            return _missing("gate", "Access is restricted", 403)
        if file not in commit.files:
            return _missing("file", f"{file} not found", **{"X-Repo-Commit": commit.sha})
        content = commit.files[file].read_bytes()
        headers = {
            "X-Repo-Commit": commit.sha,
            "ETag": f'"{self._sha256(commit.files[file])}"',
            "Accept-Ranges": "bytes",
        }
        status = 200
        if match := re.fullmatch(r"bytes=(\d+)-(\d*)", request.headers.get("range", "")):
            start, end = int(match[1]), int(match[2] or len(content) - 1)
            headers["Content-Range"] = f"bytes {start}-{min(end, len(content) - 1)}/{len(content)}"
            content, status = content[start : end + 1], 206
        return Response(content, status, headers, "application/octet-stream")

    # Pushing

    def _preupload(self, request: Request, body: bytes, kind: str, name: str, revision: str) -> Response:
        if isinstance(commit := self._find(kind, name, revision), Response):
            return commit
        modes = [
            {
                "path": each["path"],
                "uploadMode": "lfs" if each["path"].endswith((".safetensors", ".bin")) else "regular",
                "shouldIgnore": False,
            }
            for each in json.loads(body)["files"]
        ]
        return JSONResponse({"files": modes, "commitOid": commit.sha})

    def _branch(self, request: Request, body: bytes, kind: str, name: str, revision: str) -> Response:
        return JSONResponse({}, 201)

    def _lfs_batch(self, request: Request, body: bytes, prefix: str | None, name: str) -> Response:
        objects = []
        for each in json.loads(body)["objects"]:
            upload = {"upload": {"href": f"{self.url}/lfs/{each['oid']}", "header": {}}}
            objects.append(each if self._blob(each["oid"]).exists() else each | {"actions": upload})
        return JSONResponse({"transfer": "basic", "objects": objects})

    def _blob(self, oid: str) -> Path:
        return self.folder / oid

    def _lfs_put(self, request: Request, body: bytes, oid: str) -> Response:
        assert hashlib.sha256(body).hexdigest() == oid
        self._blob(oid).write_bytes(body)
        return Response(status_code=200)

    def _new_commit(self, request: Request, body: bytes, kind: str, name: str, revision: str) -> Response:
        if request.headers.get("authorization") != f"Bearer {TOKEN}":
            return JSONResponse({"error": "Invalid credentials in Authorization header"}, 401)
        if isinstance(before := self._find(kind, name), Response):
            return before
        files = dict(before.files)
        for line in body.decode().splitlines():
            item = json.loads(line)
            value = item["value"]
            if item["key"] == "file":
                content = base64.b64decode(value["content"])
                blob = self._blob(hashlib.sha256(content).hexdigest())
                blob.write_bytes(content)
                files[value["path"]] = blob
            elif item["key"] == "lfsFile":
                files[value["path"]] = self._blob(value["oid"])
            elif item["key"] == "deletedFile":
                files.pop(value["path"], None)
        sha = self._commit(self.repositories[kind, name], files)
        url = f"{self.url}/{name}/commit/{sha}"
        return JSONResponse(
            {"success": True, "commitOid": sha, "commitUrl": url, "hookOutput": "", "pullRequestUrl": None}
        )


def _missing(what: str, message: str, status: int = 404, **headers: str) -> Response:
    return JSONResponse(
        {"error": message}, status, {"X-Error-Code": _MISSING_CODES[what], "X-Error-Message": message} | headers
    )
