"""The progress line: in place on a terminal, plain lines elsewhere."""

import io
import os
import subprocess
import sys
import threading

import pytest

from kvideo.progress import Progress, format_duration


class Terminal(io.StringIO):
    """A stream that says it is a terminal; `screen` is what one would see on it."""

    def isatty(self):
        return True

    @property
    def screen(self):
        lines = []
        for line in self.getvalue().split("\n"):
            shown = ""
            for part in line.split("\r"):
                shown = part + shown[len(part) :]
            lines.append(shown.rstrip())
        return lines


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def columns(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")

    def set_columns(number):
        monkeypatch.setenv("COLUMNS", str(number))

    set_columns(100)
    return set_columns


def test_a_log_gets_a_line_now_and_then_and_one_at_the_end(clock):
    stream = io.StringIO()
    with Progress(8, "checking", stream, plain_every=10, clock=clock) as progress:
        for _ in range(7):
            clock.now += 4
            progress.update(failed=1)
        assert stream.getvalue().splitlines() == [
            "checking: 3/8 (37%), 0:20 left, 4.00 s each, failed 1",
            "checking: 6/8 (75%), 0:08 left, 4.00 s each, failed 1",
        ]
        clock.now += 4
        progress.update()
    assert stream.getvalue().splitlines()[2:] == [
        "checking: 8/8 (100%), in 0:32, 4.00 s each, failed 1"
    ]


def test_a_terminal_shows_one_line_in_place(clock, columns):
    stream = Terminal()
    with Progress(100, "epoch 1/3", stream, unit="step", clock=clock) as progress:
        columns(120)
        assert stream.screen == ["epoch 1/3 " + "╌" * 30 + "  0/100"]
        for _ in range(50):
            clock.now += 0.5
            progress.update(loss=1.23456, data_wait="3%")
        assert stream.screen == [
            "epoch 1/3 " + "━" * 15 + "╌" * 15 + "  50/100  0:25 left  2.00 steps/s  loss 1.235"
            "  data wait 3%"
        ]
        progress.update(50, clips_per_s=28.34, data_wait=None)
    # With clips/s given, the rate of the steps makes room for it.
    assert stream.screen == [
        "epoch 1/3 " + "━" * 30 + "  100/100  in 0:25  loss 1.235  28.3 clips/s",
        "",
    ]


def test_a_narrow_terminal_loses_the_bar_then_figures_from_the_last(clock, columns):
    def line(width):
        columns(width)
        stream = Terminal()
        progress = Progress(100, "epoch 1/3", stream, clock=clock)
        clock.now += 10
        progress.update(10, loss=1.0, accuracy=0.5)
        return stream.screen[-1]

    assert line(97) == "epoch 1/3 ━━━" + "╌" * 27 + (
        "  10/100  1:30 left  1.00/s  loss 1.000  accuracy 0.500"
    )
    assert line(76) == "epoch 1/3 ━" + "╌" * 9 + (
        "  10/100  1:30 left  1.00/s  loss 1.000  accuracy 0.500"
    )
    assert line(70) == "epoch 1/3  10/100  1:30 left  1.00/s  loss 1.000  accuracy 0.500"
    assert line(60) == "epoch 1/3  10/100  1:30 left  1.00/s  loss 1.000"
    assert line(12) == "epoch 1/3"
    for width in range(5, 120):
        assert len(line(width)) < width


def test_wide_letters_count_twice(clock, columns):
    columns(20)
    stream = Terminal()
    Progress(10, "動画の評価の進み具合", stream, clock=clock)
    assert stream.screen == ["動画の評価の進み具"]


def test_drawings_are_rare(clock, columns):
    stream = Terminal()
    progress = Progress(None, "reading", stream, unit="frame", clock=clock)
    for _ in range(10_000):
        clock.now += 0.001
        progress.update()
    assert 90 <= stream.getvalue().count("\r") <= 102
    progress.close()
    assert stream.screen[0] == "reading  10000 frames  in 0:10  1000 frames/s"


def test_the_rate_forgets_a_slow_first_step(clock):
    stream = io.StringIO()
    progress = Progress(1000, "epoch", stream, plain_every=0, clock=clock)
    clock.now += 60
    progress.update()
    for _ in range(99):
        clock.now += 1
        progress.update()
    assert "100/1000 (10%), 15:00 left, 1.00/s" in stream.getvalue().splitlines()[-1]


def test_a_resumed_count_does_not_inflate_the_rate(clock):
    stream = io.StringIO()
    with Progress(100, "epoch", stream, initial=90, clock=clock) as progress:
        clock.now += 5
        progress.update(10)
    assert stream.getvalue() == "epoch: 100/100 (100%), in 0:05, 2.00/s\n"


def test_threads_lose_no_count():
    stream = io.StringIO()
    progress = Progress(8000, "check", stream)

    def work():
        for _ in range(1000):
            progress.update()

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    progress.close()
    assert progress.done == 8000
    assert stream.getvalue().startswith("check: 8000/8000 (100%), in ")


def test_a_message_goes_above_the_line(clock, columns):
    stream = Terminal()
    with Progress(2, "check", stream, clock=clock) as progress:
        progress.write("a.mp4: no frame")
        progress.update(2)
    assert stream.screen == [
        "a.mp4: no frame",
        "check " + "━" * 30 + "  2/2  in 0:00",
        "",
    ]


def test_odd_totals(clock):
    for total, end in [(0, "0/0"), (None, "0")]:
        stream = io.StringIO()
        with Progress(total, "x", stream, clock=clock):
            pass
        assert stream.getvalue() == f"x: {end}, in 0:00\n"
    stream = io.StringIO()
    with Progress(3, "x", stream, clock=clock) as progress:
        progress.update(5)
    assert stream.getvalue() == "x: 5/3 (166%), in 0:00\n"


def test_control_characters_do_not_reach_the_terminal(clock):
    stream = io.StringIO()
    with Progress(1, "a\x1b[2J\nb", stream, clock=clock) as progress:
        progress.update(file="evil\r\x07.mp4")
    assert stream.getvalue() == "a?[2J?b: 1/1 (100%), in 0:00, file evil??.mp4\n"


def test_an_ascii_terminal_gets_an_ascii_bar(clock, columns):
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii")
    stream.isatty = lambda: True
    with Progress(2, "größe", stream, clock=clock) as progress:
        clock.now += 1
        progress.update()
        clock.now += 1
    assert b"gr??e " + b"#" * 15 + b"-" * 15 in raw.getvalue()


def test_a_broken_or_closed_stream_never_stops_the_work(clock):
    stream = io.StringIO()
    progress = Progress(2, "x", stream, plain_every=0, clock=clock)
    stream.close()
    progress.update()
    progress.close()
    with Progress(2, "x", stream, clock=clock) as late:
        late.update(2)
    assert progress.done == 1 and late.done == 2
    code = (
        "import sys; from kvideo.progress import Progress\n"
        "with Progress(9, 'x', plain_every=0) as p:\n"
        "    for _ in range(9): p.update()\n"
        "print(p.done)\n"
    )
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=write, text=True
    )
    os.close(write)
    assert done.stdout == "9\n"


def test_quiet_and_errors_on_the_way(clock, columns, capsys):
    with Progress(2, "x", quiet=True, clock=clock) as progress:
        progress.update(2)
        progress.write("no")
    assert capsys.readouterr().err == "" and progress.done == 2
    stream = Terminal()
    with pytest.raises(KeyboardInterrupt), Progress(2, "x", stream, clock=clock) as progress:
        progress.update()
        raise KeyboardInterrupt
    # What the program says next begins on a line of its own.
    assert stream.getvalue().endswith("\n")


@pytest.mark.parametrize(("done", "shown"), [(0, ""), (1, "x: 3/5 (60%)")])
def test_work_that_fails_before_its_first_unit_shows_nothing(clock, columns, done, shown):
    terminal, log = Terminal(), io.StringIO()
    for stream in (terminal, log):
        with pytest.raises(ValueError), Progress(5, "x", stream, initial=2, clock=clock) as bar:
            bar.update(done)
            raise ValueError
    assert log.getvalue().startswith(shown) and bool(log.getvalue()) == bool(shown)
    if not done:
        last = terminal.getvalue().split("\r")[-2:]
        assert last[0].strip() == last[1] == ""


def test_standard_error_is_the_default(capsys):
    with Progress(1, "x") as progress:
        progress.update()
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.startswith("x: 1/1 (100%)")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0:00"), (7, "0:07"), (723, "12:03"), (11_560, "3:12:40"), (184_360, "2 d 3:12:40")],
)
def test_durations(seconds, text):
    assert format_duration(seconds) == text


def test_a_log_has_one_last_line() -> None:
    """Figures that come after the last unit, those of a validation say, are in it."""
    stream, times = io.StringIO(), iter(range(0, 1000, 40))
    with Progress(2, "epoch", stream, clock=lambda: next(times)) as progress:
        progress.update(2, loss=0.5)
        progress.update(0, val_loss=0.25)
    (line,) = stream.getvalue().splitlines()
    assert line.startswith("epoch: 2/2 (100%), in ") and "val loss 0.250" in line
