"""The journal's writer: everything whose append returned is there, whatever happened to the process."""

from __future__ import annotations

import errno
import itertools
import json
import os
import random
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from mantik.delivery import framing
from mantik.delivery.journal import TORN_TAIL, Damage, Entry, JournalWriter, Position, read

from .lines import payloads_in, segment_of

if TYPE_CHECKING:
    from types import FrameType

TAG = len(framing.TAG)


def test_files_are_private(tmp_path: Path) -> None:
    """The directory is 0700 and segments are 0600, under any umask and where the directory was open before."""
    folder = tmp_path / "journal"
    folder.mkdir(mode=0o755)
    before = os.umask(0)
    try:
        JournalWriter(folder, segment_bytes=1).append(b"1")
    finally:
        os.umask(before)
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o600}


def test_an_opening_touches_no_earlier_segment(tmp_path: Path) -> None:
    """A writer starts behind what is there, a torn tail and an empty file included."""
    (tmp_path / "00000001.segment").write_bytes(segment_of([b"1"])[:-1])
    (tmp_path / "00000007.segment").write_bytes(b"")
    assert JournalWriter(tmp_path).position == Position(8, TAG)
    assert (tmp_path / "00000001.segment").read_bytes() == segment_of([b"1"])[:-1]


def test_eight_threads_append_everything_once(tmp_path: Path) -> None:
    """Interleaved appends are all there, once, each thread's in its order, at the positions they were told."""
    writer = JournalWriter(tmp_path, segment_bytes=2000)
    ends: dict[bytes, Position] = {}

    def append_many(name: int) -> None:
        for number in range(300):
            payload = b"%d %d" % (name, number)
            ends[payload] = writer.append(payload)

    threads = [threading.Thread(target=append_many, args=(name,)) for name in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    items = [item for item in read(tmp_path, tail="closed") if isinstance(item, Entry)]
    assert {item.payload: item.end for item in items} == ends
    assert len(items) == 8 * 300
    for name in range(8):
        own = [item.payload for item in items if item.payload.startswith(b"%d " % name)]
        assert own == [b"%d %d" % (name, number) for number in range(300)]


def interrupted_append(writer: JournalWriter, moment: int, payload: bytes) -> tuple[Position, bool]:
    """Append b"third" and, at the n-th moment of it, the payload, as a signal handler would.

    Python runs signal handlers where functions begin and behind calls, which is where a profile function is called.
    """
    moments = itertools.count(1)
    interrupted = False

    def profile(frame: FrameType, event: str, _: object) -> None:
        nonlocal interrupted
        if (
            event in {"call", "return", "c_return", "c_exception"}
            and frame.f_code.co_filename == JournalWriter.append.__code__.co_filename
            and next(moments) == moment
        ):
            interrupted = True
            writer.append(payload)

    before = sys.getprofile()
    sys.setprofile(profile)
    try:
        end = writer.append(b"third")
    finally:
        sys.setprofile(before)
    return end, interrupted


def test_a_signal_handler_appends_in_the_middle_of_an_append(tmp_path: Path) -> None:
    """A handler that appends at any moment of an append, or of its rollover, loses and disorders nothing."""
    descriptors = sum(1 for _ in Path("/dev/fd").iterdir())
    interrupted = True
    moment = 0
    while interrupted:
        moment += 1
        folder = tmp_path / str(moment)
        # A handler's record fills the segment up, or does not.
        for size in (1, 60):
            writer = JournalWriter(folder, segment_bytes=80)
            told = [writer.append(b"first"), writer.append(b"second, with which the segment is full....")]
            end, interrupted = interrupted_append(writer, moment, b"!" * size)
            assert writer.position == list(read(folder, tail="open"))[-1].end
            told += [end, writer.append(b"fourth"), writer.append(b"fifth")]
            items = list(read(folder, Position(told[0].segment, 0), tail="closed"))
            found = payloads_in(items)
            assert len(found) == len(items)
            appended = [b"first", b"second, with which the segment is full....", b"third", b"fourth", b"fifth"]
            assert [payload for payload in found if payload in appended] == appended
            assert found.count(b"!" * size) == len(items) - len(appended) == interrupted
            assert told == sorted(told)
            assert told[-1] == items[-1].end == writer.position
            assert set(told) <= {item.end for item in items}
            writer.close()
    assert moment > 10
    assert sum(1 for _ in Path("/dev/fd").iterdir()) == descriptors


def test_one_append_is_one_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A record reaches the operating system as a whole line."""
    writer = JournalWriter(tmp_path)
    real, writes = os.write, []
    monkeypatch.setattr(os, "write", lambda descriptor, data: writes.append(bytes(data)) or real(descriptor, data))
    writer.append(b"{}")
    assert writes == [framing.encode(b"{}")]


@pytest.mark.parametrize("can_truncate", [True, False])
@pytest.mark.parametrize("kept", [0, 1, 20, -2])
def test_a_short_write_leaves_no_half_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept: int, *, can_truncate: bool
) -> None:
    """What was written of a refused record is cut off, or stands at the end of a segment that is given up."""

    def refuse(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    writer = JournalWriter(tmp_path)
    end = writer.append(b"before")
    real = os.write
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", lambda descriptor, data: real(descriptor, data[:kept]))
        if not can_truncate:
            patch.setattr(os, "ftruncate", refuse)
        with pytest.raises(OSError, match="could be written") as caught:
            writer.append(b"0123456789")
    assert caught.value.errno == errno.ENOSPC
    assert writer.position == end
    assert writer.append(b"after").segment == (1 if can_truncate else 2)
    items = list(read(tmp_path, tail="closed"))
    assert payloads_in(items) == [b"before", b"after"]
    damages = [item for item in items if isinstance(item, Damage)]
    assert [damage.reason for damage in damages] == ([] if can_truncate or kept == 0 else [TORN_TAIL])


def test_what_somebody_else_appended_is_not_cut_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the file is longer than this writer made it, a refused record gives up the segment."""
    writer = JournalWriter(tmp_path)
    writer.append(b"before")
    with (tmp_path / "00000001.segment").open("ab") as file:
        file.write(framing.encode(b"foreign"))
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", lambda *_: 0)
        with pytest.raises(OSError, match="could be written"):
            writer.append(b"refused")
    writer.append(b"after")
    assert payloads_in(list(read(tmp_path, tail="closed"))) == [b"before", b"foreign", b"after"]


def test_a_segment_that_cannot_be_made_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An append that cannot roll over raises, leaves no file, and the next one rolls over."""
    writer = JournalWriter(tmp_path, segment_bytes=1)
    end = writer.append(b"before")
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", lambda *_: 3)
        for _ in range(2):
            with pytest.raises(OSError, match="format tag"):
                writer.append(b"refused")
    assert [path.name for path in tmp_path.iterdir()] == ["00000001.segment"]
    assert writer.position == end
    assert writer.append(b"after").segment == 2
    assert payloads_in(list(read(tmp_path, tail="closed"))) == [b"before", b"after"]


def test_a_closed_writer_appends_nothing(tmp_path: Path) -> None:
    """Closing is final, and closing again is nothing."""
    writer = JournalWriter(tmp_path)
    writer.append(b"1")
    writer.close()
    writer.close()
    with pytest.raises(ValueError, match="closed"):
        writer.append(b"2")
    assert payloads_in(list(read(tmp_path, tail="closed"))) == [b"1"]


def test_sync_reaches_every_segment_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All segments that were written since the last time are forced to the device, those that are left only once."""
    synced: list[str] = []

    def note(descriptor: int) -> None:
        synced.extend(path.name for path in tmp_path.iterdir() if path.stat().st_ino == os.fstat(descriptor).st_ino)

    monkeypatch.setattr("mantik.delivery.journal._sync_data", note)
    writer = JournalWriter(tmp_path, segment_bytes=40)
    for _ in range(3):
        writer.append(b"0123456789")
    (tmp_path / "00000002.segment").unlink()
    writer.sync()
    assert synced == ["00000001.segment", "00000003.segment"]
    writer.sync()
    assert len(synced) == 2
    end = writer.append(b"0123456789")
    writer.close()
    writer.sync()
    assert synced[2:] == ["00000003.segment", f"{end.segment:08d}.segment"]


def test_a_failed_sync_is_said_and_repeated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error of the device raises, and the next call tries again."""

    def refuse(_: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    writer = JournalWriter(tmp_path)
    writer.append(b"1")
    with monkeypatch.context() as patch:
        patch.setattr("mantik.delivery.journal._sync_data", refuse)
        for _ in range(2):
            with pytest.raises(OSError, match="Input/output"):
                writer.sync()
    writer.sync()


APPEND_UNTIL_KILLED = """
import os, sys
from pathlib import Path
from mantik.delivery.journal import JournalWriter

writer = JournalWriter(Path(sys.argv[1]), segment_bytes=300_000)
number = 0
while True:
    # Long ones now and then, so that some kills come in the middle of a write.
    writer.append(b"%d %s" % (number, b"x" * (900_000 if number % 7 == 6 else 50)))
    os.write(1, b"%d\\n" % number)
    number += 1
"""


@pytest.mark.parametrize("seed", range(8))
def test_a_killed_process_loses_nothing(tmp_path: Path, seed: int) -> None:
    """Everything whose append had returned when SIGKILL came is read back, and only what was appended."""
    enough = random.Random(seed).randrange(1, 120)  # noqa: S311 - a moment, not a secret
    command = [sys.executable, "-c", APPEND_UNTIL_KILLED, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        for _ in range(enough):
            assert child.stdout.readline()
        child.kill()
        told = enough + len(child.stdout.read().splitlines())
    items = list(read(tmp_path, tail="closed"))
    numbers = [int(payload.split()[0]) for payload in payloads_in(items)]
    assert numbers == list(range(len(numbers)))
    assert told <= len(numbers) <= told + 1
    assert [item.reason for item in items if isinstance(item, Damage)] in ([], [TORN_TAIL])


def test_a_reader_sees_a_growing_prefix(tmp_path: Path) -> None:
    """While another process writes, every reading continues the one before, and nothing looks damaged."""
    command = [sys.executable, "-c", APPEND_UNTIL_KILLED, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        position, numbers = Position(0, 0), []
        while len(numbers) < 150:
            told = int(child.stdout.readline())
            for item in read(tmp_path, position, tail="open"):
                assert isinstance(item, Entry)
                numbers.append(int(item.payload.split()[0]))
                position = item.end
            assert numbers == list(range(len(numbers)))
            assert len(numbers) > told
        child.kill()


FILL_THE_DISK = """
import json, resource, signal, sys
from pathlib import Path
from mantik.delivery.journal import JournalWriter

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
writer = JournalWriter(Path(sys.argv[1]))
_, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
appended, refused = [], 0
for limit in (5_000, 6_000, hard):
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    for size in [300] * 40 + [1] * 60:
        payload = f"{len(appended)} {'x' * size}"
        try:
            writer.append(payload.encode())
        except OSError:
            refused += 1
        else:
            appended.append(payload)
print(json.dumps([appended, refused]))
"""


def test_a_full_disk_leaves_no_half_records(tmp_path: Path) -> None:
    """Appends that do not fit raise, later ones that fit succeed, and no half record stays in between."""
    command = [sys.executable, "-c", FILL_THE_DISK, str(tmp_path)]
    answer = subprocess.run(command, capture_output=True, check=True, text=True, timeout=60)
    appended, refused = json.loads(answer.stdout)
    assert refused > 10
    items = list(read(tmp_path, tail="closed"))
    assert payloads_in(items) == [payload.encode() for payload in appended]
    assert len(items) == len(appended)
