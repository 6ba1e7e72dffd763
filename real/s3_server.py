"""moto's S3 server as a process of its own: ``python -m real.s3_server`` (see ``real/servers.py``).

Two things are added to moto. Requests run one at a time: moto checks a put's condition and stores
the object in two steps while it serves many threads, so two ``If-None-Match`` puts could both win.
And requests must be signed with the one access key and secret key that the server was given, as
AWS demands (Signature Version 4); moto would let anybody in.
"""

from __future__ import annotations

import argparse
import hashlib
import hmac
import io
import json
import logging
import os
import re
import sys
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from real import process

Environ = dict[str, Any]
Application = Callable[[Environ, Callable[..., Any]], Iterable[bytes]]
SECRET_VARIABLE = "SEAWALL_S3_SERVER_SECRET"
"""The secret key comes in the environment: a command line is public."""

_OBJECT, _UNFINISHED = "%object", "%unfinished"
"""No quoted name ends like this: a percent sign is followed by two hexadecimal digits."""

_AUTHORIZATION = re.compile(
    r"AWS4-HMAC-SHA256 Credential=(?P<key>[^/,]+)/(?P<scope>[^,]+), ?"
    r"SignedHeaders=(?P<headers>[^,]+), ?Signature=(?P<signature>[0-9a-f]{64})\Z"
)


@dataclass(frozen=True, slots=True)
class Credentials:
    """The only key pair the server takes."""

    access_key: str
    secret_key: str


class SignatureCheck:
    """Lets only requests through that are signed with the right key pair."""

    def __init__(self, application: Application, credentials: Credentials) -> None:
        self._application = application
        self._credentials = credentials

    def __call__(self, environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
        """Answer one request (WSGI, PEP 3333)."""
        refusal = self.refusal(environ)
        if refusal is None:
            return self._application(environ, start_response)
        body = f"<?xml version='1.0'?><Error><Code>{refusal}</Code></Error>".encode()
        if environ["REQUEST_METHOD"] == "HEAD":
            body = b""
        headers = [("Content-Type", "application/xml"), ("Content-Length", str(len(body)))]
        start_response("403 Forbidden", headers)
        return [body]

    def refusal(self, environ: Environ) -> str | None:
        """S3's error code for a request that is not to be served, else ``None``."""
        match = _AUTHORIZATION.match(environ.get("HTTP_AUTHORIZATION", ""))
        if match is None:
            return "AccessDenied"
        if match["key"] != self._credentials.access_key:
            return "InvalidAccessKeyId"
        expected = signature(environ, match["headers"], match["scope"], self._credentials)
        return (
            None if hmac.compare_digest(expected, match["signature"]) else "SignatureDoesNotMatch"
        )


def signature(environ: Environ, headers: str, scope: str, credentials: Credentials) -> str:
    """Signature Version 4 of a request, in hex.

    ``headers`` are the signed names joined by ``;``, ``scope`` is ``date/region/s3/aws4_request``.
    Source: AWS, "Create a signed AWS API request".
    """
    path, _, query = environ["RAW_URI"].partition("?")
    pairs = sorted(pair if "=" in pair else pair + "=" for pair in query.split("&") if pair)
    signed = "".join(f"{name}:{_header(environ, name)}\n" for name in headers.split(";"))
    payload_hash = environ.get("HTTP_X_AMZ_CONTENT_SHA256", "UNSIGNED-PAYLOAD")
    request = "\n".join(
        (environ["REQUEST_METHOD"], path, "&".join(pairs), signed, headers, payload_hash)
    )
    digest = hashlib.sha256(request.encode()).hexdigest()
    text = "\n".join(("AWS4-HMAC-SHA256", environ.get("HTTP_X_AMZ_DATE", ""), scope, digest))
    key = b"AWS4" + credentials.secret_key.encode()
    for part in (*scope.split("/"), text):
        key = hmac.digest(key, part.encode(), "sha256")
    return key.hex()


def _header(environ: Environ, name: str) -> str:
    variable = name.upper().replace("-", "_")
    if variable not in ("CONTENT_TYPE", "CONTENT_LENGTH"):
        variable = f"HTTP_{variable}"
    return " ".join(str(environ.get(variable, "")).split())


class Keeping:
    """Writes every object that was stored through to a directory, and reads them back at the start.

    For clusters that outlive a server. It knows what our clients send: whole objects and single
    deletions; anything else that changes a bucket is refused rather than forgotten.
    """

    def __init__(self, application: Application, objects: KeptObjects) -> None:
        self._application = application
        self._objects = objects

    def __call__(self, environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
        """Answer one request; what it changed is on the disk before the answer leaves."""
        method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
        if method in ("GET", "HEAD"):
            return self._application(environ, start_response)
        if method not in ("PUT", "DELETE") or environ.get("QUERY_STRING"):
            start_response("501 Not Implemented", [("Content-Length", "0")])
            return [b""]
        body = environ["wsgi.input"].read()
        environ["wsgi.input"] = io.BytesIO(body)
        statuses: list[str] = []

        def note(status: str, *rest: Any) -> Any:
            statuses.append(status)
            return start_response(status, *rest)

        answer = b"".join(self._application(environ, note))
        if statuses[0].startswith("2"):
            self._objects.store(path, body if method == "PUT" else None)
        return [answer]


class KeptObjects:
    """Objects as files below directories named like their paths; each is whole or not there."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        for left in directory.rglob("*" + _UNFINISHED):
            left.unlink()

    def store(self, path: str, data: bytes | None) -> None:
        """Keep an object, or with ``None`` forget it."""
        *parents, name = (quote(part, safe="") for part in path.split("/")[1:])
        file = self._directory.joinpath(*parents, name + _OBJECT)
        if data is None:
            file.unlink(missing_ok=True)
            return
        file.parent.mkdir(parents=True, exist_ok=True)
        unfinished = file.with_name(file.name + _UNFINISHED)
        unfinished.write_bytes(data)
        unfinished.replace(file)

    def load(self, put: Callable[[str, bytes], object]) -> None:
        """``put`` every object (path without the bucket, content) into a bucket."""
        for file in sorted(self._directory.rglob("*" + _OBJECT)):
            path = file.relative_to(self._directory).as_posix().removesuffix(_OBJECT)
            _, _, key = unquote(path).partition("/")
            put(key, file.read_bytes())


class OneAtATime:
    """Serves requests strictly one after the other, each read whole before it takes its turn."""

    def __init__(self, application: Application) -> None:
        self._application = application
        self._turn = threading.Lock()

    def __call__(self, environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
        """Answer one request (WSGI, PEP 3333)."""
        length = int(environ.get("CONTENT_LENGTH") or 0)
        environ["wsgi.input"] = io.BytesIO(environ["wsgi.input"].read(length))
        with self._turn:
            return [b"".join(self._application(environ, start_response))]


def main() -> int:
    """Serve until killed; the first line on stdout is ``{"port": …}`` once connections succeed."""
    arguments = _arguments()
    process.die_with_parent(arguments.parent)
    # moto's imports take a quarter of a second: not before the process is bound to its parent.
    from moto.moto_server.werkzeug_app import MotoRequestHandler, create_backend_app
    from moto.s3.models import s3_backends
    from werkzeug.serving import make_server

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    backend = s3_backends["123456789012"]["aws"]
    backend.create_bucket(arguments.bucket, arguments.region)
    credentials = Credentials(arguments.access_key, os.environ[SECRET_VARIABLE])
    served: Application = create_backend_app("s3")
    if arguments.keep:
        kept = KeptObjects(Path(arguments.keep))
        kept.load(lambda key, data: backend.put_object(arguments.bucket, key, data))
        served = Keeping(served, kept)
    application = SignatureCheck(OneAtATime(served), credentials)
    try:
        server = make_server(
            "127.0.0.1",
            arguments.port,
            application,
            threaded=True,
            request_handler=MotoRequestHandler,
        )
    except (OSError, SystemExit) as error:
        print(f"cannot listen on 127.0.0.1:{arguments.port}: {error}", file=sys.stderr)
        return 1
    print(json.dumps({"port": server.server_port}), flush=True)
    server.serve_forever()
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m real.s3_server", description=__doc__)
    parser.add_argument("--parent", type=int, required=True, help="pid to die with")
    parser.add_argument("--port", type=int, default=0, help="0: any free port")
    parser.add_argument("--bucket", required=True)
    parser.add_argument("--region", default="us-east-1")
    parser.add_argument("--access-key", required=True)
    parser.add_argument("--keep", default="", help="directory that the objects outlive us in")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
