"""What a picture's header says is known before it is decoded."""

import io
import struct
import sys
import threading
import warnings

import pytest
from PIL import Image

from anonymization.job import room
from anonymization.job.room import room_of


def bitmap(width: int, height: int) -> bytes:
    """A header that states a size, with one pixel behind it."""
    buffer = io.BytesIO()
    Image.new("RGB", (1, 1)).save(buffer, "BMP")
    data = bytearray(buffer.getvalue())
    struct.pack_into("<ii", data, 18, width, height)
    return bytes(data)


def test_pixels_are_told_without_a_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        room._hush_pillow.cache_clear()
        assert room_of(bitmap(10_000, 10_000)) == 10**8  # of which Pillow warns
        assert room_of(bitmap(20_000, 20_000)) == sys.maxsize
        assert room_of(b"no picture") == sys.maxsize
    room._hush_pillow.cache_clear()


def test_threads_that_read_sizes_leave_other_warnings_as_they_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A filter that a thread takes back while another has one stays for all that follows."""
    opened = [threading.Event(), threading.Event()]
    first_is_done = threading.Event()
    turns = iter(zip(opened, (opened[1], first_is_done), strict=True))

    def slowly_opened(_: object, **_options: object) -> Image.Image:
        here, other = next(turns)
        here.set()
        assert other.wait(10)
        return Image.new("L", (3, 5))

    monkeypatch.setattr(Image, "open", slowly_opened)
    threads = [threading.Thread(target=room_of, args=(b"",)) for _ in opened]
    threads[0].start()
    assert opened[0].wait(10)
    threads[1].start()
    threads[0].join()
    first_is_done.set()
    threads[1].join()
    with warnings.catch_warnings(record=True) as seen:
        warnings.warn("of another", stacklevel=1)
    assert len(seen) == 1
