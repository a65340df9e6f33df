"""Archives as folders: pictures inside of zip and tar files, read in memory one by one.

Nothing is ever unpacked to disk. Names that leave the folder, links, devices, encrypted members
and members beyond a size are listed as failed, never followed.
"""

from __future__ import annotations

import stat
import tarfile
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from anonymization.errors import BlurloopError

ZIP_SUFFIXES = (".zip",)
TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
MEMBER_MAX_BYTES = 2**28
"""Largest member that is read: a 16-bit panorama of 16384x2048; what is larger is a bomb or
belongs into a file of its own."""

MEMBERS_MAX = 1_000_000


class ArchiveError(BlurloopError):
    """An archive, or a member of it, cannot be read."""


@dataclass(frozen=True)
class Member:
    """One file of an archive.

    Attributes:
        name: Its name as stored.
        path: Where it goes below the output folder; None where it is refused.
        reason: Why it is refused.
    """

    name: str
    path: PurePosixPath | None
    reason: str = ""


def is_archive(path: Path) -> bool:
    """Tell an archive by its name.

    >>> is_archive(Path("a.TAR.GZ")), is_archive(Path("a.jpg"))
    (True, False)
    """
    return path.name.lower().endswith((*ZIP_SUFFIXES, *TAR_SUFFIXES))


def _is_zip(path: Path) -> bool:
    return path.name.lower().endswith(ZIP_SUFFIXES)


def members(path: Path) -> list[Member]:
    """List the files of an archive in order, folders aside.

    Raises:
        ArchiveError: If it cannot be read to its end, or has too many members.
    """
    with _errors_told(path):
        if not stat.S_ISREG(path.stat().st_mode):
            raise ArchiveError(f"{path} is not a regular file")  # a pipe would be waited for
        if _is_zip(path):
            with zipfile.ZipFile(path) as archive:
                return [member for _, member in _zip_listed(archive, path)]
        with tarfile.open(path, "r:*") as archive:
            found = [member for _, member in _tar_listed(archive, path)]
            _check_end(archive, path)
            return found


@contextmanager
def _errors_told(path: Path, more: str = "") -> Iterator[None]:
    """Raise `ArchiveError` for whatever goes wrong with an archive.

    Args:
        path: The archive.
        more: What to say besides of one that was read before.
    """
    try:
        yield
    except ArchiveError:
        raise
    except OSError as error:
        raise ArchiveError(f"{path} cannot be read{more}: {error.strerror or error}") from error
    except (EOFError, ValueError, zipfile.BadZipFile, tarfile.TarError) as error:
        raise ArchiveError(f"{path} is no readable archive{more}: {error}") from error
    except Exception as error:  # damaged archives make both libraries raise nearly anything
        raise ArchiveError(f"{path} is damaged: {type(error).__name__}: {error}") from error


def _zip_listed(archive: zipfile.ZipFile, path: Path) -> Iterator[tuple[zipfile.ZipInfo, Member]]:
    """Yield the files of a zip and what they are taken for, in order."""
    infos = [info for info in archive.infolist() if not info.is_dir()]
    _check_count(path, len(infos))
    seen: set[str] = set()
    for info in infos:
        mode = info.external_attr >> 16
        special = stat.S_IFMT(mode) not in (0, stat.S_IFREG)
        reason = "is a link or a device" if special else ""
        reason = reason or ("is encrypted" if info.flag_bits & 1 else "")
        yield info, _checked(info.filename, info.file_size, reason, seen)


def _tar_listed(archive: tarfile.TarFile, path: Path) -> Iterator[tuple[tarfile.TarInfo, Member]]:
    """Yield the files of a tar and what they are taken for, in order, while it is read."""
    seen: set[str] = set()
    files = (info for info in archive if not info.isdir())
    for number, info in enumerate(files):
        _check_count(path, number)
        reason = "" if info.isreg() else "is a link or a device"
        yield info, _checked(info.name, info.size, reason, seen)


_BLOCK = 512
_PADDING_MAX = 2**24
"""Zeros that may follow a tar's list, in bytes: writers fill up blocks of 10 KB to some MB."""


def _check_end(archive: tarfile.TarFile, path: Path) -> None:
    """Refuse a tar whose list ends at anything but its end: tarfile takes a damaged header for it.

    A whole one ends in two blocks of zeros, and holds nothing but zeros behind them.

    Raises:
        ArchiveError: If there is more, or less.
    """
    file = archive.fileobj
    if file is None:
        raise ArchiveError(f"{path} cannot be read to its end")
    file.seek(archive.offset - archive.offset % _BLOCK)
    rest = file.read(_PADDING_MAX)
    # More than that is a bomb: a gigabyte of packed zeros takes an hour to look through.
    if len(rest) < 2 * _BLOCK or rest.count(0) != len(rest) or file.read(1):
        raise ArchiveError(
            f"{path} is damaged, cut off, or several archives in one: its list ends before it does"
        )


def _check_count(path: Path, count: int) -> None:
    if count > MEMBERS_MAX:
        raise ArchiveError(f"{path} has more than {MEMBERS_MAX} members; divide it")


def _checked(name: str, size: int, reason: str, seen: set[str]) -> Member:
    """Return what a file is taken for.

    Args:
        name: Its name as stored.
        size: Its bytes, by its header.
        reason: Why it is refused, if it is.
        seen: Paths of the files before it that are not refused; its own is added.
    """
    if reason:
        return Member(name, None, reason)
    if size > MEMBER_MAX_BYTES:
        return Member(name, None, f"has {size} bytes; at most {MEMBER_MAX_BYTES} are read")
    path = safe_path(name)
    if path is None:
        return Member(name, None, "has a name that leaves its folder")
    key = str(path).casefold()  # on some file systems A.jpg and a.jpg are one file
    if key in seen:
        return Member(name, None, "appears twice in the archive")
    seen.add(key)
    return Member(name, path)


def safe_path(name: str) -> PurePosixPath | None:
    r"""Return a member's name as a path that stays below its folder; None where it does not.

    >>> safe_path("a/./b.jpg"), safe_path("../b.jpg"), safe_path("C:\\b.jpg")
    (PurePosixPath('a/b.jpg'), None, None)
    """
    path = PurePosixPath(name.replace("\\", "/"))
    unsafe = path.is_absolute() or ".." in path.parts or not path.parts
    drive = bool(path.parts) and path.parts[0].endswith(":")
    return None if unsafe or drive or "\0" in name else path


def contents(path: Path, names: Sequence[str]) -> Iterator[tuple[str, bytes | ArchiveError]]:
    """Read members in the archive's order, which `names` must follow.

    Of several with one name, the one that `members` does not refuse: a library would take another.

    Yields:
        Name and bytes of each, or why it cannot be read.

    Raises:
        ArchiveError: If the archive cannot be read any further.
    """
    with _errors_told(path, " any more"):
        if _is_zip(path):
            yield from _zip_contents(path, names)
        else:
            yield from _tar_contents(path, names)


def _zip_contents(path: Path, names: Sequence[str]) -> Iterator[tuple[str, bytes | ArchiveError]]:
    with zipfile.ZipFile(path) as archive:
        infos = {m.name: info for info, m in _zip_listed(archive, path) if m.path is not None}
        for name in names:
            if name in infos:
                yield name, _zip_content(archive, infos[name], path)
            else:
                yield name, ArchiveError(f"{path}: {name} is refused, or gone")


def _zip_content(
    archive: zipfile.ZipFile, info: zipfile.ZipInfo, path: Path
) -> bytes | ArchiveError:
    name = info.filename
    try:
        with archive.open(info) as file:
            return _bounded(file, f"{path}: {name}")
    except ArchiveError as error:
        return error
    except Exception as error:  # noqa: BLE001 - a bad member fails alone, whatever zipfile raises
        return ArchiveError(f"{path}: {name} cannot be read: {error}")


def _tar_contents(path: Path, names: Sequence[str]) -> Iterator[tuple[str, bytes | ArchiveError]]:
    wanted = set(names)
    with tarfile.open(path, "r:*") as archive:
        for info, member in _tar_listed(archive, path):
            if member.path is None or member.name not in wanted:
                continue
            file = archive.extractfile(info)
            if file is None:
                yield info.name, ArchiveError(f"{path}: {info.name} cannot be read")
                continue
            try:
                yield info.name, _bounded(file, f"{path}: {info.name}")
            except ArchiveError as error:
                yield info.name, error


def _bounded(file: IO[bytes], what: str) -> bytes:
    # What a header says of the size may be a lie.
    data = file.read(MEMBER_MAX_BYTES + 1)
    if not data:
        raise ArchiveError(f"{what} is empty (0 bytes)")
    if len(data) > MEMBER_MAX_BYTES:
        raise ArchiveError(f"{what} has more than {MEMBER_MAX_BYTES} bytes")
    return data
