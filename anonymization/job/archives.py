"""Archives as folders: pictures inside of zip and tar files, read in memory one by one.

Nothing is ever unpacked to disk. Names that leave the folder, links, devices, encrypted members
and members beyond a size are listed as failed, never followed.
"""

from __future__ import annotations

import stat
import tarfile
import zipfile
from collections.abc import Iterator, Sequence
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
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise ArchiveError(f"{path} is not a regular file")  # a pipe would be waited for
        listed = _zip_members(path) if _is_zip(path) else _tar_members(path)
    except ArchiveError:
        raise
    except OSError as error:
        raise ArchiveError(f"{path} cannot be read: {error.strerror or error}") from error
    except (EOFError, ValueError, zipfile.BadZipFile, tarfile.TarError) as error:
        raise ArchiveError(f"{path} is no readable archive: {error}") from error
    except Exception as error:  # damaged archives make both libraries raise nearly anything
        raise ArchiveError(f"{path} is damaged: {type(error).__name__}: {error}") from error
    seen: set[str] = set()
    checked = []
    for member in listed:
        key = "" if member.path is None else str(member.path).casefold()
        if key and key in seen:
            member = Member(member.name, None, "appears twice in the archive")
        seen.add(key)
        checked.append(member)
    return checked


def _zip_members(path: Path) -> list[Member]:
    with zipfile.ZipFile(path) as archive:
        infos = [info for info in archive.infolist() if not info.is_dir()]
        _check_count(path, len(infos))
        found: list[Member] = []
        for info in infos:
            mode = info.external_attr >> 16
            special = stat.S_IFMT(mode) not in (0, stat.S_IFREG)
            reason = "is a link or a device" if special else ""
            reason = reason or ("is encrypted" if info.flag_bits & 1 else "")
            found.append(_checked(info.filename, info.file_size, reason))
        return found


def _tar_members(path: Path) -> list[Member]:
    found: list[Member] = []
    with tarfile.open(path, "r:*") as archive:
        for info in archive:
            if info.isdir():
                continue
            _check_count(path, len(found))
            reason = "" if info.isreg() else "is a link or a device"
            found.append(_checked(info.name, info.size, reason))
        _check_end(archive, path)
    return found


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


def _checked(name: str, size: int, reason: str) -> Member:
    if reason:
        return Member(name, None, reason)
    if size > MEMBER_MAX_BYTES:
        return Member(name, None, f"has {size} bytes; at most {MEMBER_MAX_BYTES} are read")
    path = safe_path(name)
    return Member(name, path, "" if path else "has a name that leaves its folder")


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

    Yields:
        Name and bytes of each, or why it cannot be read.
    """
    try:
        if _is_zip(path):
            with zipfile.ZipFile(path) as archive:
                for name in names:
                    yield name, _zip_content(archive, name, path)
        else:
            yield from _tar_contents(path, names)
    except OSError as error:
        raise ArchiveError(f"{path} cannot be read any more: {error.strerror or error}") from error
    except (EOFError, zipfile.BadZipFile, tarfile.TarError) as error:
        raise ArchiveError(f"{path} cannot be read any more: {error}") from error


def _zip_content(archive: zipfile.ZipFile, name: str, path: Path) -> bytes | ArchiveError:
    try:
        with archive.open(name) as file:
            return _bounded(file, f"{path}: {name}")
    except ArchiveError as error:
        return error
    except Exception as error:  # noqa: BLE001 - a bad member fails alone, whatever zipfile raises
        return ArchiveError(f"{path}: {name} cannot be read: {error}")


def _tar_contents(path: Path, names: Sequence[str]) -> Iterator[tuple[str, bytes | ArchiveError]]:
    wanted = set(names)
    with tarfile.open(path, "r:*") as archive:
        for info in archive:
            if not info.isreg() or info.name not in wanted:
                continue
            wanted.discard(info.name)
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
