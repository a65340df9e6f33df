"""Pictures in an object store reach browsers by signed addresses alone, through a real server."""

from __future__ import annotations

import re
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import pytest

from annotation.serving import ServingError
from data.layout import PICTURES

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("label_studio")]

LISTED = (
    '<?xml version="1.0"?><ListBucketResult><Name>street</Name><KeyCount>1</KeyCount>'
    "<Contents><Key>pictures/a.png</Key></Contents></ListBucketResult>"
)


@pytest.fixture
def store() -> Iterator[str]:
    """An S3 store with one bucket, `street`: lists it, and serves signed requests for its files."""

    class Store(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            place = urlsplit(self.path)
            query = parse_qs(place.query)
            if "list-type" in query:
                return self._say(200, LISTED.encode())
            signed = {"Signature", "X-Amz-Signature"} & query.keys()
            if not signed:
                return self._say(403, b"")
            return self._say(200, (PICTURES / place.path.rpartition("/")[2]).read_bytes())

        def do_HEAD(self) -> None:
            self._say(200, b"")

        def _say(self, status: int, content: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Store)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def storage(desk, store: str) -> int:
    """Add a storage that does not sign, as somebody may in the project's settings."""
    about = {"title": "street", "bucket": "street", "prefix": "pictures", "presign": False}
    keys = {"aws_access_key_id": "id", "aws_secret_access_key": "secret"}
    place = {"s3_endpoint": store, "region_name": "eu-west-1", "project": desk.project}
    made = desk.post("api/storages/s3", {**about, **keys, **place, "use_blob_urls": True})
    return int(made["id"])


def test_pictures_of_an_object_store_are_shown_by_addresses_that_it_signs(desk, store):
    (sha256,) = desk.collect(1)
    desk.config = replace(desk.config, pictures="s3://street/pictures")
    with pytest.raises(ServingError, match=r"no storage that signs addresses of s3://street"):
        desk.sync()
    number = storage(desk, store)  # the server would pass the bytes on by itself
    with pytest.raises(ServingError, match="add one under Settings, Cloud Storage"):
        desk.sync()
    desk.post(f"api/storages/s3/{number}", {"presign": True}, method="PATCH")
    desk.sync()
    (row,) = desk.tasks()
    shown = desk.server._raw("GET", f"api/tasks/{row.id}/")["data"]["image"]
    url = shown if shown.startswith("http") else desk.config.url + shown
    key = {"Authorization": f"Token {desk.running.account.token}"}
    with urllib.request.urlopen(urllib.request.Request(url, headers=key)) as answer:
        assert answer.read() == (PICTURES / f"{sha256}.png").read_bytes()
        assert re.match(
            rf"{store}/street/pictures/{sha256}\.png\?.*(Expires|X-Amz-Expires)=", answer.url
        )
    with pytest.raises(urllib.error.HTTPError, match=r"401|403"):
        urllib.request.urlopen(url)
