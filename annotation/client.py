"""The edge to a Label Studio server: what the loop asks of it, and what goes wrong in words.

Uses label-studio-sdk, which refreshes personal access tokens by itself and takes legacy tokens.
The key comes from LABEL_STUDIO_API_KEY, or for the server of `make label-studio` from the file
that it leaves; it is sent to the server and goes nowhere else.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from annotation.account import ACCOUNT, Account
from annotation.backend import AnnotationError

KEY_VARIABLE = "LABEL_STUDIO_API_KEY"
SWITCH = (
    "set annotation.sync: false in conf/annotation/label_studio.yaml to go on with the last "
    "snapshot"
)
TIMEOUT_S = 120.0
LIST_PAGE = 500
EXPORT_PAGE = 100
"""Tasks per request; an export holds every region of each."""

T = TypeVar("T")


class ServerAwayError(AnnotationError):
    """The server does not answer."""


class KeyRefusedError(AnnotationError):
    """There is no key, or the server does not take it."""


class ProjectGoneError(AnnotationError):
    """The project is not on the server."""


class ServerRefusedError(AnnotationError):
    """The server refused what it was asked."""


@dataclass(frozen=True)
class TaskRow:
    """What the list of a project's tasks says of one.

    Attributes:
        id: Number on the server.
        data: Its fields.
        annotated: Number of submitted annotations.
        cancelled: Number of annotations that skip it.
    """

    id: int
    data: dict[str, Any]
    annotated: int
    cancelled: int

    @property
    def sha256(self) -> str | None:
        """Identity of its picture, or None for a task that the loop did not make."""
        value = self.data.get("sha256")
        return value if isinstance(value, str) and len(value) == 64 else None


def api_key(url: str, account: Path = ACCOUNT) -> str:
    """Return the key for a server.

    Raises:
        KeyRefusedError: If there is none.
    """
    key = os.environ.get(KEY_VARIABLE, "").strip()
    if key:
        return key
    known = Account.read(account)
    if known is not None and known.url == url.rstrip("/"):
        return known.token
    raise KeyRefusedError(
        f"no key for {url}: set {KEY_VARIABLE} to the token that Label Studio shows under Account "
        f"& Settings, or start a server of your own (make label-studio), or {SWITCH}"
    )


class Server:
    """A Label Studio server, spoken to in whole sentences."""

    def __init__(self, url: str, key: str) -> None:
        self.url = url.rstrip("/")
        self._key = key
        self._client = self.asked("sign in", self._open)

    def _open(self) -> Any:
        from label_studio_sdk.client import LabelStudio

        client: Any = LabelStudio
        return client(base_url=self.url, api_key=self._key, timeout=TIMEOUT_S)

    def asked(self, what: str, call: Callable[[], T]) -> T:
        """Call the SDK; say in words what went wrong.

        Raises:
            ServerAwayError: If nobody answers.
            KeyRefusedError: If the key is wrong, expired or may not do this.
            ProjectGoneError: If what was asked for does not exist.
            ServerRefusedError: For every other answer that is not a success.
        """
        import httpx
        from label_studio_sdk.core.api_error import ApiError

        try:
            return call()
        except httpx.HTTPError as error:
            raise ServerAwayError(
                f"Label Studio at {self.url} does not answer ({type(error).__name__} while asked "
                f"to {what}). Start it (make label-studio), or {SWITCH}"
            ) from error
        except ApiError as error:
            raise self._in_words(what, error.status_code or 0, self._said(error.body)) from None

    def _said(self, body: Any) -> str:
        text = body.get("detail") if isinstance(body, dict) and body.get("detail") else body
        return " ".join(str(text).split()).replace(self._key, "***")[:300]

    def _in_words(self, what: str, status: int, said: str) -> AnnotationError:
        if status in (401, 403):
            return KeyRefusedError(
                f"Label Studio at {self.url} refuses the key when asked to {what} ({status}: "
                f"{said}). It is wrong, expired or of another server: put a valid one into "
                f"{KEY_VARIABLE} (Account & Settings in Label Studio), or {SWITCH}"
            )
        if status in (502, 503, 504):
            return ServerAwayError(
                f"Label Studio at {self.url} is not ready ({status}) when asked to {what}. "
                f"Try again, or {SWITCH}"
            )
        if status == 404:
            return ProjectGoneError(
                f"Label Studio at {self.url} does not have what was asked for ({what}: {said})"
            )
        return ServerRefusedError(
            f"Label Studio at {self.url} answered {status} when asked to {what}: {said}"
        )

    def projects(self, title: str) -> list[int]:
        """Return the ids of the projects with this title, oldest first."""

        def listed() -> list[int]:
            return sorted(
                project.id
                for project in self._client.projects.list(title=title, page_size=100)
                if project.title == title
            )

        return self.asked(f"list projects called {title!r}", listed)

    def project(self, project: int) -> dict[str, Any]:
        """Return a project's settings."""
        found = self.asked(f"show project {project}", lambda: self._client.projects.get(project))
        return dict(json.loads(found.json()))

    def create_project(self, title: str, **settings: Any) -> int:
        """Make a project."""
        made = self.asked(
            f"create project {title!r}",
            lambda: self._client.projects.create(title=title, **settings),
        )
        return int(made.id)

    def update_project(self, project: int, **settings: Any) -> None:
        """Change a project's settings."""
        self.asked(
            f"change project {project}",
            lambda: self._client.projects.update(project, **settings),
        )

    def draft_labels(self, project: int) -> dict[str, dict[str, int]]:
        """Return how often drafts use each label, per tool."""
        path = f"api/projects/{project}/summary/"
        return dict(self._raw("GET", path).get("created_labels_drafts") or {})

    def storages(self, project: int, kind: str) -> list[dict[str, Any]]:
        """Return the import storages of one kind (`localfiles`, `s3`, `gcs`, `azure`)."""
        found = self._raw("GET", f"api/storages/{kind}", params={"project": project})
        return list(found if isinstance(found, list) else found.get("results", []))

    def add_local_files(self, project: int, path: Path, title: str) -> None:
        """Let the project's members see the pictures of a folder."""
        self.asked(
            f"add the local files of {path}",
            lambda: self._client.import_storage.local.create(
                project=project, path=str(path), title=title, use_blob_urls=True
            ),
        )

    def add_view(self, project: int, title: str, filters: Sequence[dict[str, Any]]) -> None:
        """Add a tab to the project's list of tasks, where it has none of this title."""
        views = self._raw("GET", "api/dm/views/", params={"project": project})
        if any((view.get("data") or {}).get("title") == title for view in views):
            return
        if not views:
            # Label Studio opens the first tab, and makes one by itself only where there is none.
            everything = {"project": project, "data": {"title": "All tasks"}}
            self._raw("POST", "api/dm/views/", json=everything)
        data = {"title": title, "filters": {"conjunction": "and", "items": list(filters)}}
        self._raw("POST", "api/dm/views/", json={"project": project, "data": data})

    def tasks(self, project: int) -> Iterator[TaskRow]:
        """Yield the tasks of a project, page by page, oldest first."""
        page, seen, total = 1, 0, 1
        while seen < total:
            params = {
                "project": project,
                "page": page,
                "page_size": LIST_PAGE,
                "fields": "task_only",
                "query": json.dumps({"ordering": ["tasks:id"]}),
            }
            found = self._raw("GET", "api/tasks/", params=params)
            total, rows = int(found["total"]), found["tasks"]
            if not rows:
                return
            for row in rows:
                yield TaskRow(
                    int(row["id"]),
                    dict(row.get("data") or {}),
                    int(row.get("total_annotations") or 0),
                    int(row.get("cancelled_annotations") or 0),
                )
            page, seen = page + 1, seen + len(rows)

    def annotations(self, project: int, tasks: Sequence[int]) -> Iterator[dict[str, Any]]:
        """Yield tasks with all their annotations, in bounded memory, in the given order."""
        for start in range(0, len(tasks), EXPORT_PAGE):
            ids = list(tasks[start : start + EXPORT_PAGE])
            params = {"exportType": "JSON", "download_all_tasks": "true", "ids[]": ids}
            found = self._raw("GET", f"api/projects/{project}/export", params=params)
            by_id = {int(task["id"]): task for task in found}
            del found
            for task in ids:
                # A task that was deleted since it was listed is not there any more.
                if task in by_id:
                    yield by_id.pop(task)

    def add_tasks(self, project: int, tasks: Sequence[dict[str, Any]]) -> None:
        """Add tasks with their predictions, in the given order; all of them or none."""
        self._raw(
            "POST",
            f"api/projects/{project}/import",
            params={"commit_to_project": "true", "return_task_ids": "true"},
            json=list(tasks),
        )

    def update_task(self, task: int, **fields: Any) -> None:
        """Change a task."""
        self._raw("PATCH", f"api/tasks/{task}/", json=fields)

    def has_drafts(self, task: int) -> bool:
        """Return whether somebody has begun to draw on a task; its drafts go with it."""
        return bool(self._raw("GET", f"api/tasks/{task}/drafts"))

    def delete_task(self, task: int) -> None:
        """Delete a task."""
        self.asked(f"delete task {task}", lambda: self._client.tasks.delete(str(task)))

    def _raw(self, method: str, path: str, **arguments: Any) -> Any:
        """Ask what the SDK's typed calls do not offer or get wrong (2.1.2).

        Its export cannot select tasks (it sends `ids`, the server reads `ids[]`), its list of
        tasks spends most of its time in checking types, and its import tries again after an
        error of the server, which would add tasks twice.
        """
        from label_studio_sdk.core.api_error import ApiError

        def call() -> Any:
            http = self._client._client_wrapper.httpx_client
            options = {"max_retries": 0} if method != "GET" else None
            response = http.request(path, method=method, request_options=options, **arguments)
            # A response and its stream hold each other: pages would stay until the collector comes.
            response.stream = None
            if response.status_code >= 400:
                raise ApiError(status_code=response.status_code, body=response.text)
            return response.json()

        return self.asked(f"{method} {path}", call)
