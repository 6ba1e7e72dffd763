"""Which events are one fault, and from when to when it lasted."""

from reports.evidence import TraceEvent
from reports.fault_spans import fault_spans
from reports.tests.runs_made_up import fault


def test_faults_last_until_every_direction_is_healed():
    (span,) = fault_spans(
        [fault(1.0, "cut"), fault(2.0, "heal", both=False), fault(3.0, "heal", "main", "sk0")], 9.0
    )

    assert (span.start_s, span.end_s, span.healed) == (1.0, 3.0, True)
    assert span.label == "cut sk0 ⇄ main"


def test_faults_of_other_links_and_unhealed_ones_last_to_the_end():
    spans = fault_spans(
        [fault(1.0, "delay", both=False, seconds=0.2), fault(2.0, "heal", "sk1", "main")], 9.0
    )

    assert [(one.end_s, one.healed, one.label) for one in spans] == [
        (9.0, False, "delay sk0 → main seconds=0.2")
    ]


def test_cuts_that_isolate_a_node_are_one_span_and_an_outage_ends_with_restore():
    peers = ["main", "sk1"]
    service = {"source": "", "target": "s3"}
    outage = fault(3.0, "outage")
    restore = fault(4.0, "restore")
    for event in (outage, restore):
        event.fields.clear()
        event.fields.update({"verb": "outage" if event is outage else "restore", **service})
        del event.fields["source"]
    events = [fault(1.0, "cut", "sk0", peer) for peer in peers]
    events += [fault(2.0, "heal", "sk0", peer) for peer in peers]
    spans = fault_spans([*events, fault(2.5, "reset"), outage, restore], 9.0)

    assert [(one.label, one.start_s, one.end_s) for one in spans] == [
        ("cut sk0 ⇄ main, sk1", 1.0, 2.0),
        ("reset sk0 ⇄ main", 2.5, 2.5),
        ("outage s3", 3.0, 4.0),
    ]


def told(at_s, **fields):
    return TraceEvent(at_s, "harness", "fault", fields)


def test_an_end_ends_the_fault_it_names_and_no_other():
    spans = fault_spans(
        [
            told(1.0, verb="stall", what="syncs", target="sk0"),
            told(1.5, verb="stall", what="every call", target="sk1"),
            told(2.0, verb="end", fault="stall", target="sk0"),
            told(3.0, verb="end", fault="fill", target="sk1"),
        ],
        9.0,
    )

    assert [(one.label, one.start_s, one.end_s) for one in spans] == [
        ("stall sk0 what=syncs", 1.0, 2.0),
        ("stall sk1 what=every call", 1.5, 1.5),
    ]


def test_of_a_plan_its_steps_are_shown_with_their_effects():
    spans = fault_spans(
        [
            told(1.0, verb="isolate", step=0, target="sk0 sk1 main"),
            fault(1.0, "cut", "sk0", "sk1"),
            told(1.2, verb="isolate", step=1, target="sk0 sk1 main"),
            told(2.0, verb="end", fault="isolate", step=0, target="sk0 sk1 main", effect=7),
            fault(2.0, "heal", "sk0", "sk1"),
        ],
        9.0,
    )

    assert [(one.label, one.start_s, one.end_s) for one in spans] == [
        ("isolate sk0 sk1 main, effect 7", 1.0, 2.0),
        ("isolate sk0 sk1 main", 1.2, 1.2),
    ]
    assert spans[0].nodes == ("sk0", "sk1", "main")
