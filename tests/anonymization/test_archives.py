"""Archives, patterns and what they may hold against us."""

import glob
import gzip
import io
import os
import stat
import tarfile
import zipfile
import zlib
from pathlib import Path, PurePosixPath

import pytest

from anonymization.job import archives
from anonymization.job.archives import ArchiveError, contents, members, safe_path
from anonymization.job.inputs import InputError, _matches_below, make_plan

SUFFIXES = (".jpg", ".png")


def tar(path: Path, *entries: tuple[tarfile.TarInfo, bytes]) -> Path:
    with tarfile.open(path, "w:gz" if path.name.endswith("gz") else "w") as archive:
        for info, content in entries:
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def entry(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


def test_a_zip_is_worked_on_like_a_folder(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("x/one.jpg", b"1")
        archive.writestr("notes.txt", b"-")
        archive.writestr("two.png", b"2")
    plan = make_plan([tmp_path / "a.zip"], tmp_path / "out", suffixes=SUFFIXES)
    assert [task.name for task in plan.tasks] == ["x/one.jpg", "two.png"]
    assert plan.tasks[0].target == tmp_path / "out/x/one.jpg"
    assert [data for _, data in plan.loaded()] == [b"1", b"2"]
    assert len(plan.skipped) == 1


def test_members_that_leave_their_folder_are_listed_and_never_read(tmp_path: Path) -> None:
    path = tar(
        tmp_path / "a.tar.gz",
        (entry("../evil.jpg"), b"x"),
        (entry("/etc/evil.jpg"), b"x"),
        (entry("link.jpg", tarfile.SYMTYPE, "/etc/passwd"), b""),
        (entry("hard.jpg", tarfile.LNKTYPE, "good.jpg"), b""),
        (entry("pipe.jpg", tarfile.FIFOTYPE), b""),
        (entry("good.jpg"), b"good"),
    )
    plan = make_plan([path], tmp_path / "out", suffixes=SUFFIXES)
    assert [task.name for task in plan.tasks] == ["good.jpg"]
    reasons = [reason for _, reason in plan.unreadable]
    assert reasons[:2] == ["has a name that leaves its folder"] * 2
    assert reasons[2:] == ["is a link or a device"] * 3
    assert [data for _, data in plan.loaded()] == [b"good"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a/b.jpg", "a/b.jpg"),
        ("a\\b.jpg", "a/b.jpg"),
        ("a/../../b.jpg", None),
        ("C:/b.jpg", None),
        ("/b.jpg", None),
        ("a\0.jpg", None),
        ("", None),
    ],
)
def test_names_stay_below_the_output_folder(name: str, expected: str | None) -> None:
    assert safe_path(name) == (None if expected is None else PurePosixPath(expected))


def test_a_name_that_appears_twice_is_refused_the_second_time(tmp_path: Path) -> None:
    path = tar(tmp_path / "a.tar", (entry("a.jpg"), b"1"), (entry("./A.jpg"), b"2"))
    assert [member.reason for member in members(path)] == ["", "appears twice in the archive"]


GOOD, OTHER, LONG, LINK = b"good", b"bad", b"too long", b"link"
TWICE = {
    "the same name again": (GOOD, OTHER),
    "a link of that name": (GOOD, LINK),
    "a link of that name before": (LINK, GOOD),
    "one too long before": (LONG, GOOD),
}


def archive_of(path: Path, *parts: bytes) -> Path:
    """All parts under one name."""
    if path.suffix == ".tar":
        link = entry("a.jpg", tarfile.SYMTYPE, "elsewhere.jpg")
        return tar(path, *((link, b"") if p == LINK else (entry("a.jpg"), p) for p in parts))
    with zipfile.ZipFile(path, "w") as archive:
        for part in parts:
            info = zipfile.ZipInfo("a.jpg")
            info.external_attr = (stat.S_IFLNK if part == LINK else stat.S_IFREG) << 16
            archive.writestr(info, part)
    return path


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("parts", TWICE.values(), ids=TWICE)
@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_of_one_name_the_member_is_read_that_is_not_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, parts: tuple[bytes, bytes]
) -> None:
    """zipfile takes the last of a name."""
    monkeypatch.setattr(archives, "MEMBER_MAX_BYTES", 4)
    path = archive_of(tmp_path / f"a.{kind}", *parts)
    plan = make_plan([path], tmp_path / "out", suffixes=SUFFIXES)
    assert len(plan.unreadable) == 1
    assert [data for _, data in plan.loaded()] == [GOOD]


def test_a_member_beyond_the_limit_is_refused_whatever_its_header_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb.jpg", b"0" * 5000)
        archive.writestr("good.jpg", b"1")
    monkeypatch.setattr(archives, "MEMBER_MAX_BYTES", 1000)
    assert [member.path is None for member in members(tmp_path / "a.zip")] == [True, False]
    (_, bomb), (_, good) = contents(tmp_path / "a.zip", ["bomb.jpg", "good.jpg"])
    assert isinstance(bomb, ArchiveError)
    assert good == b"1"


@pytest.mark.parametrize("name", ["a.zip", "a.tar", "a.tar.gz"])
def test_a_damaged_archive_is_one_failure(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"PK\x03\x04 no archive" * 9)
    plan = make_plan([tmp_path / name], tmp_path / "out", suffixes=SUFFIXES)
    assert not plan.tasks
    assert name in plan.unreadable[0][0]


DAMAGE = {
    "a header": lambda data: data[: 2 * 1024 + 5] + b"?" + data[2 * 1024 + 6 :],
    "cut off in a header": lambda data: data[: 2 * 1024 + 100],
    "without its end": lambda data: data[: 4 * 1024],
    "two in one": lambda data: data * 2,
    "endless": lambda data: data + bytes(2**24),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_tar_whose_list_ends_too_early_is_refused(tmp_path: Path, damage: str) -> None:
    """For tarfile a damaged header is the end: the pictures behind it would be named nowhere."""
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as archive:
        for number in range(4):
            info = tarfile.TarInfo(f"{number}.jpg")
            info.size = 512
            archive.addfile(info, io.BytesIO(bytes(512)))
    assert len(members(path)) == 4
    path.write_bytes(DAMAGE[damage](path.read_bytes()))
    with pytest.raises(ArchiveError, match="its list ends before it does"):
        members(path)


def test_a_pipe_is_no_archive(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.tar")
    with pytest.raises(ArchiveError, match="is not a regular file"):
        members(tmp_path / "a.tar")


def test_an_archive_cut_off_after_it_was_listed_fails_its_members(tmp_path: Path) -> None:
    path = tar(tmp_path / "a.tar", (entry("a.jpg"), b"1" * 5000), (entry("b.jpg"), b"2"))
    plan = make_plan([path], tmp_path / "out", suffixes=SUFFIXES)
    path.write_bytes(path.read_bytes()[:2000])
    loaded = list(plan.loaded())
    assert len(loaded) == 2
    assert all(isinstance(data, ArchiveError) for _, data in loaded)


def test_packing_that_is_damaged_after_it_was_listed_fails_its_members(tmp_path: Path) -> None:
    """Its errors are of a kind of their own, and would end the run without a report."""
    whole = tar(tmp_path / "a.tar", (entry("a.jpg"), b"1" * 5000), (entry("b.jpg"), b"2"))
    data = whole.read_bytes()
    first, second = gzip.compress(data[:1024]), gzip.compress(data[1024:])
    path = tmp_path / "a.tar.gz"
    path.write_bytes(first + second)
    plan = make_plan([path], tmp_path / "out", suffixes=SUFFIXES)
    assert len(plan.tasks) == 2
    path.write_bytes(first + second[:10] + b"\xff" * 100)
    loaded = list(plan.loaded())
    assert len(loaded) == 2
    assert all(isinstance(data, ArchiveError) for _, data in loaded)


@pytest.mark.parametrize("error", [ValueError, RuntimeError, NotImplementedError, zlib.error])
def test_whatever_a_library_raises_of_an_archive_fails_its_members(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    def raises(*_: object) -> None:
        raise error("damaged")

    path = archive_of(tmp_path / "a.zip", GOOD)
    plan = make_plan([path], tmp_path / "out", suffixes=SUFFIXES)
    monkeypatch.setattr(zipfile, "ZipFile", raises)
    with pytest.raises(ArchiveError, match="damaged"):
        members(path)
    ((_, data),) = plan.loaded()
    assert isinstance(data, ArchiveError)


def test_a_pattern_is_mirrored_from_its_first_plain_folder(tmp_path: Path) -> None:
    for name in ("in/a/one.jpg", "in/b/two.jpg", "in/b/notes.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    plan = make_plan([tmp_path / "in/**/*.jpg"], tmp_path / "out", suffixes=SUFFIXES)
    assert [task.name for task in plan.tasks] == ["a/one.jpg", "b/two.jpg"]
    with pytest.raises(InputError, match="matches nothing"):
        make_plan([tmp_path / "in/*.webp"], tmp_path / "out", suffixes=SUFFIXES)


def test_a_pattern_that_only_meets_what_it_cannot_look_into_says_so(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in/again").symlink_to(tmp_path / "in")
    with pytest.raises(InputError, match=r"matches nothing \(.*again is a link to a folder that"):
        make_plan([tmp_path / "in/**/*.jpg"], tmp_path / "out", suffixes=SUFFIXES)


def test_a_pattern_follows_links_as_a_folder_does(tmp_path: Path) -> None:
    """`glob` follows a loop until the path is too long, 40 levels deep."""
    for name, other in (("a", "b"), ("b", "a")):
        folder = tmp_path / "in" / name
        folder.mkdir(parents=True)
        (folder / f"{name}.jpg").write_bytes(b"")
        (folder / other).symlink_to(f"../{other}")
    plans = [
        make_plan([tmp_path / asked], tmp_path / "out", suffixes=SUFFIXES)
        for asked in ("in", "in/**/*.jpg", "in/**", "i*/**/?.jpg")
    ]
    expected = ["a/a.jpg", "a/b/b.jpg", "b/a/a.jpg", "b/b.jpg"]
    for plan in plans[:3]:
        assert [task.name for task in plan.tasks] == expected
    assert [task.name for task in plans[3].tasks] == [f"in/{name}" for name in expected]
    for plan in plans:
        assert plan.unreadable == plans[0].unreadable
        loops = [str(tmp_path / "in" / loop) for loop in ("a/b/a", "b/a/b")]
        assert [path for path, _ in plan.unreadable] == loops


@pytest.mark.parametrize(
    "pattern",
    ["**", "**/*", "**/*.jpg", "**/a/**/*.jpg", "**/**/1.jpg", "a/**", "a/**/b/*", "**/.h/*",
     "**/.*", "**/[ab]/?.jpg", "*/**/b/**/*.jpg", "**/a", "a/b/**/2.jpg"],
)  # fmt: skip
def test_a_pattern_matches_what_it_matches_anywhere_else(tmp_path: Path, pattern: str) -> None:
    for name in ("1.jpg", "a/1.jpg", "a/b/1.jpg", "a/b/2.jpg", "a/.h/1.jpg", "b/.2.jpg", "b/a/b/3"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    matched = sorted(set(glob.glob(str(tmp_path / pattern), recursive=True)))
    files = [path for path in matched if Path(path).is_file()]
    found = _matches_below(tmp_path / pattern, leave_out=())
    assert sorted(map(str, found)) == files


def test_a_file_whose_name_looks_like_a_pattern_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "a[1].jpg").write_text("x")
    plan = make_plan([tmp_path / "a[1].jpg"], tmp_path / "out", suffixes=SUFFIXES)
    assert [task.name for task in plan.tasks] == ["a[1].jpg"]


def test_an_archive_inside_a_folder_is_named_and_left(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.zip").write_bytes(b"")
    (tmp_path / "in/b.png").write_bytes(b"")
    plan = make_plan([tmp_path / "in"], tmp_path / "out", suffixes=SUFFIXES)
    assert plan.skipped[0][1] == "is an archive; name it by itself"
