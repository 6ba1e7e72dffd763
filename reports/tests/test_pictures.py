"""What pictures show of events: windows, darts, lives, faults, LSNs, and the excerpt of a log."""

import re
import xml.etree.ElementTree as ElementTree

import pytest

from reports.evidence import HEAD_LINES, TAIL_LINES, read_evidence
from reports.lifelines import Segment, State, segments, teardown_s
from reports.lsn_picture import lsn_pictures
from reports.lsn_series import BINS, falls_of, lsn_text, round_ticks, thinned, timelines_of
from reports.messages import LATENCY_PX, MESSAGES_MAX, WINDOW_PX_MAX, WINDOWS_MAX
from reports.spacetime import diagrams, left_out
from reports.story import tell
from reports.svg import Cast
from reports.tests.runs_made_up import fault, life, lsn, message, process, record, write_evidence


def only_diagram(story):
    (one,) = diagrams(story)
    return one


def dart_ends(picture):
    """Tail x and head x of each dart: its outline begins at the tail, point four is the tip."""
    paths = re.findall(r'class="dart[^"]*" d="M([^Z]+)Z"', picture)
    points = [[tuple(map(float, point.split())) for point in path.split("L")] for path in paths]
    return [((one[0][0] + one[-1][0]) / 2, one[3][0]) for one in points]


def test_pictures_are_well_formed_and_escape_names():
    strange = [process(0.0, "<sk&0>", "started"), message(0.5, source="<sk&0>"), lsn(0.6, 9, "<x>")]
    story = tell(sorted([*strange, fault(0.3, "cut", "<sk&0>")], key=lambda one: one.at_s))

    for one in diagrams(story):
        ElementTree.fromstring(one.picture)
        ElementTree.fromstring(one.names)
    for one in lsn_pictures(story):
        ElementTree.fromstring(one.picture)


def test_no_events_no_pictures():
    story = tell([])

    assert diagrams(story) == []
    assert lsn_pictures(story) == []


def test_median_latency_is_a_dozen_pixels_and_more():
    one = only_diagram(tell(life(messages=40)))

    slants = sorted(head - tail for tail, head in dart_ends(one.picture))
    assert len(slants) == 40
    assert slants[20] == pytest.approx(LATENCY_PX, rel=0.35)


def test_messages_without_send_time_do_not_slant_and_it_is_said():
    story = tell(life(messages=40, latency_s=None))

    assert all(
        tail == pytest.approx(head, abs=0.2)
        for tail, head in dart_ends(only_diagram(story).picture)
    )
    assert "does not slant" in left_out(story)
    assert "does not slant" not in left_out(tell(life(messages=40)))


def test_window_is_around_the_first_fault_and_bounded():
    many = life(fault(2.0, "cut"), messages=4000)

    story = tell(many)
    (window,) = story.windows
    one = only_diagram(story)
    width = int(re.search(r'width="(\d+)', one.picture)[1])
    assert window.start_s < 2.0 < window.end_s
    assert width <= WINDOW_PX_MAX
    assert len(window.messages) <= MESSAGES_MAX
    assert all(each.received_s >= window.start_s for each in window.messages)
    assert 0 < one.focus_px < width
    assert left_out(story).startswith(f"{len(window.messages)} of 4000 messages")


def test_of_many_faults_the_first_the_last_and_one_between_have_windows():
    times = [1.0, 1.001, 2.0, 3.0, 3.5, 3.9]
    story = tell(life(*[fault(at_s, "reset") for at_s in times], messages=4000))

    shown = [window.moment.at_s for window in story.windows]
    assert len(shown) == WINDOWS_MAX
    assert shown[0] == 1.0
    assert shown[-1] == 3.9


def test_windows_of_close_faults_do_not_overlap():
    span_s = 0.0005 * WINDOW_PX_MAX / LATENCY_PX
    one, other = tell(
        life(fault(1.0, "reset"), fault(1.0 + 0.8 * span_s, "reset"), messages=4000)
    ).windows

    assert one.start_s < 1.0 < one.end_s
    assert one.end_s <= other.start_s < 1.0 + 0.8 * span_s < other.end_s


def test_dense_messages_make_windows_shorter_and_are_bounded_over_all_windows():
    faults = [fault(at_s, "reset") for at_s in (0.5, 1.0, 1.5)]
    story = tell(life(*faults, messages=20_000, gap_s=0.0001))

    assert len(story.windows) == 3
    assert sum(len(window.messages) for window in story.windows) <= MESSAGES_MAX
    for window in story.windows:
        assert window.start_s < window.moment.at_s < window.end_s
        assert window.end_s - window.start_s < 0.05


@pytest.mark.parametrize(
    ("events", "what"),
    [
        ([], "the beginning"),
        ([process(1.0, "sk1", "started"), process(2.0, "sk1", "started")], "sk1 started"),
        ([process(2.0, "sk1", "started"), process(3.0, "sk1", "killed")], "sk1 killed"),
        ([process(1.0, "sk1", "killed"), fault(0.5, "heal")], "sk1 killed"),
        ([process(3.9, "sk0", "stopping"), process(3.95, "sk0", "stopped")], "the beginning"),
    ],
)
def test_window_is_chosen_for_the_most_telling_moment(events, what):
    assert tell(life(*events, messages=4000)).windows[0].moment.what == what


def test_a_moment_that_the_verdict_names_gets_a_window():
    story = tell(life(messages=4000), "CheckFailed: at 2.658672 s on sk2: lost")

    assert [window.moment.at_s for window in story.windows] == [2.658672]


def test_a_failure_without_a_time_gets_a_window_where_the_run_gives_up():
    ends = [process(4.2, node, "killed") for node in ("sk0", "main")]
    story = tell(life(fault(1.0, "cut"), *ends, messages=4000), "AssertionError: 1 == 2")

    assert [(window.moment.at_s, window.moment.what) for window in story.windows] == [
        (1.0, "cut sk0 ⇄ main"),
        (4.2, "the run gives up"),
    ]


def test_messages_under_way_at_a_windows_edges_belong_to_it():
    held = message(2.5, latency_s=1.5)
    (window,) = tell(life(fault(2.0, "hold"), held, messages=4000)).windows

    assert window.start_s < 2.0 < window.end_s < 2.5
    assert any(each.received_s == 2.5 for each in window.messages)


def test_lost_messages_end_on_their_way():
    picture = only_diagram(tell([message(0.1), message(0.2, lost=True)])).picture

    assert picture.count("✕") == 1
    assert picture.count("dart k5 lost") == 1


def test_lives_are_segments_and_the_dead_have_none():
    states = ["started", "ready", "paused", "resumed", "killed", "started", "ready"]
    events = [process(float(at_s), "sk0", state) for at_s, state in enumerate(states)]

    assert segments(events, 9.0) == [
        Segment("sk0", State.STARTING, 0.0, 1.0),
        Segment("sk0", State.RUNNING, 1.0, 2.0),
        Segment("sk0", State.PAUSED, 2.0, 3.0),
        Segment("sk0", State.RUNNING, 3.0, 4.0),
        Segment("sk0", State.STARTING, 5.0, 6.0),
        Segment("sk0", State.RUNNING, 6.0, 9.0),
    ]


def test_a_death_before_the_end_is_no_teardown():
    assert teardown_s([process(1.0, "sk0", "killed"), process(2.0, "sk1", "stopped")]) == 2.0
    assert teardown_s([process(1.0, "sk0", "killed"), process(1.0, "sk1", "killed")]) == 1.0


def test_teardown_begins_with_the_stops_that_nothing_follows():
    events = [
        process(1.0, "ps0", "stopping"),
        process(1.1, "ps0", "stopped"),
        process(2.0, "main", "ready"),
        process(3.0, "main", "stopping"),
        process(3.1, "main", "stopped"),
    ]

    assert teardown_s(events) == 3.0


def test_fault_spans_marks_and_pauses_are_drawn():
    events = [
        fault(0.01, "cut"),
        fault(0.02, "heal"),
        process(0.03, "sk0", "paused"),
        process(0.035, "sk0", "resumed"),
        process(0.04, "sk0", "killed"),
    ]
    story = tell(life(*events, messages=50))
    pictures = [only_diagram(story).picture, lsn_pictures(story)[0].picture]

    for picture in pictures:
        assert "cut sk0 ⇄ main, 0.010000 s to 0.020000 s" in picture
        assert picture.count("fault-shade") == 1
        assert 'class="life paused' in picture
        assert "✖" in picture


def test_thinned_series_keep_ends_extremes_and_falls():
    points = [(index / 100_000, 1000 + index) for index in range(100_000)]
    points[54_321] = (0.54321, 7)
    thin = thinned(points, 1.0)

    assert len(thin) <= 4 * (BINS + 1)
    assert thin[0] == points[0]
    assert thin[-1] == points[-1]
    assert points[54_321] in thin
    assert max(thin, key=lambda point: point[1]) == points[-1]
    assert thin == sorted(thin)
    assert len(falls_of(thin)) == len(falls_of(points)) == 1


def test_short_series_are_not_thinned():
    points = [(float(index), index) for index in range(4 * BINS)]

    assert thinned(points, 600.0) == points


def test_lsn_picture_says_what_it_thinned_and_marks_falls():
    events = [lsn(index / 10_000, 0x100000 + index) for index in range(10_000)]
    events += [lsn(1.0001, 0x100010)]
    (one,) = lsn_pictures(tell(events))

    assert one.caption.startswith("10001 reports of 1 LSNs, ")
    assert one.caption.endswith("1 went back (▼)")
    assert one.picture.count('class="fall') == 1
    assert len(one.picture) < 40_000


def test_positions_at_the_cursor_are_exact():
    values = [0x100000, 0x1_0000_0010, 0x100008]
    (one,) = lsn_pictures(tell([lsn(0.5 + index, value) for index, value in enumerate(values)]))
    times = [int(each) for each in re.search(r'data-us="([^"]*)"', one.picture)[1].split()]
    steps = [int(each) for each in re.search(r'data-lsn="([^"]*)"', one.picture)[1].split()]

    assert [sum(times[: index + 1]) for index in range(3)] == [500_000, 1_500_000, 2_500_000]
    assert [sum(steps[: index + 1]) for index in range(3)] == values
    assert one.legend[0][1][0].last == "0/100008"


def test_a_line_ends_where_its_node_dies():
    alive = [process(0.0, "sk0", "started"), lsn(1.0, 100), lsn(8.0, 200)]
    whole = re.search(r' d="([^"]*)"', lsn_pictures(tell(alive))[0].picture)[1]
    dead = [*alive[:2], process(2.0, "sk0", "killed"), alive[2]]
    broken = re.search(r' d="([^"]*)"', lsn_pictures(tell(dead))[0].picture)[1]

    assert whole.count("M") == 1
    assert broken.count("M") == 2


def test_timelines_are_apart_and_the_busiest_is_first():
    events = [lsn(0.1, 5, timeline="one"), lsn(0.2, 6, timeline="two"), lsn(0.3, 7, timeline="two")]

    assert list(timelines_of(events, 1.0)) == ["two", "one"]
    assert [one.timeline for one in lsn_pictures(tell(events))] == ["two", "one"]


@pytest.mark.parametrize(
    ("low", "high"), [(0x100000, 0x102A28), (0, 7), (0xFFFF_FFF0, 0x1_0000_4000)]
)
def test_ticks_are_round_in_hexadecimal(low, high):
    ticks = round_ticks(low, high, 8)
    step = ticks[1] - ticks[0]

    assert 2 <= len(ticks) <= 9
    assert step & (step - 1) == 0
    assert all(low <= tick <= high and tick % step == 0 for tick in ticks)


def test_lsns_are_written_as_postgres_does():
    assert lsn_text(0x1_016B_3740) == "1/16B3740"


def test_nodes_of_a_usual_cluster_have_colours_of_their_own():
    names = ["harness", "main", "main-wp", "sk0", "sk1", "sk2", "ps0", "ps1", "s3", "broker"]
    cast = Cast(reversed(names))

    assert cast.names == (
        "harness",
        "main",
        "main-wp",
        "sk0",
        "sk1",
        "sk2",
        "ps0",
        "ps1",
        "broker",
        "s3",
    )
    assert len({cast.color(name) for name in names}) == len(names)


def test_long_logs_keep_both_ends_and_the_alarms_between(tmp_path):
    rows = [f"    {n}.0  sk0        INFO     line {n}" for n in range(100_000)]
    rows[50_000] = "    50000.0  sk1        ERROR    lost"
    rows[50_001] = "              | Traceback"
    write_evidence(tmp_path, record(), log=rows)
    log = read_evidence(tmp_path / "run-sim-0").log
    lines = log.text.splitlines()

    assert log.lines == 100_000
    assert log.left_out == 100_000 - HEAD_LINES - TAIL_LINES - 2
    assert lines[0].endswith("line 0")
    assert lines[-1].endswith("line 99999")
    assert lines[HEAD_LINES] == f"… {50_000 - HEAD_LINES} lines left out …"
    assert lines[HEAD_LINES + 1 : HEAD_LINES + 3] == rows[50_000:50_002]


def test_short_logs_are_whole_but_for_endless_lines(tmp_path):
    rows = ["    0.1  sk0        INFO     a", "    0.2  sk0        INFO     " + "x" * 5000]
    write_evidence(tmp_path, record(), log=rows)
    log = read_evidence(tmp_path / "run-sim-0").log

    assert (log.lines, log.left_out) == (2, 0)
    assert log.text.startswith(rows[0] + "\n")
    assert re.search(r"x … 38\d\d more characters$", log.text)


def test_missing_and_broken_evidence_is_less_not_an_error(tmp_path):
    write_evidence(tmp_path, record())
    events = tmp_path / "run-sim-0" / "events.jsonl"
    whole = len(read_evidence(tmp_path / "run-sim-0").events)
    events.write_text(events.read_text() + '{"at_s": 0.1, "no')

    assert len(read_evidence(tmp_path / "run-sim-0").events) == whole
    assert read_evidence(tmp_path / "nowhere").events == []
    assert read_evidence(tmp_path / "nowhere").log.lines == 0
