"""The codec: every message there and back, cut anywhere; garbage is a ProtocolError."""

from __future__ import annotations

import random
import struct

import pytest

from storage.errors import ProtocolError
from storage.wire import decoding, encoding
from storage.wire import messages as m
from storage.wire.codec import Connection, Limits
from storage.wire.states import Copy, Phase, Sender

FRONTEND = [
    m.Password(b"secret\0"),
    m.Query("SELECT 'ä;'"),
    m.Parse("s1", "get $1", (25, 0, 4294967295)),
    m.Bind("p1", "s1", (b"x", None, b""), (0, 1, 0), (1,)),
    m.Bind("", ""),
    m.Describe(m.Target.STATEMENT, "s1"),
    m.Describe(m.Target.PORTAL, ""),
    m.Execute("p1", 2**31 - 1),
    m.Close(m.Target.PORTAL, "p1"),
    m.Flush(),
    m.Sync(),
    m.CopyFail("no more"),
    m.CopyData(b"\0\1\2" * 1000),
    m.CopyData(b""),
    m.CopyDone(),
    m.Terminate(),
]
BACKEND = [
    m.AuthenticationOk(),
    m.AuthenticationRequest(5, b"salt"),
    m.NegotiateProtocolVersion(196608, ("_pq_.a", "_pq_.b")),
    m.ParameterStatus("TimeZone", "UTC"),
    m.BackendKeyData(-7, b"\1\2\3\4"),
    m.ReadyForQuery(m.TransactionStatus.FAILED),
    m.RowDescription((m.Column("a"), m.Column("b", 20, True), m.Column("c", 4294967295))),
    m.RowDescription(()),
    m.DataRow((b"1", None, b"")),
    m.CommandComplete("SELECT 1"),
    m.EmptyQuery(),
    m.ErrorResponse(m.Severity.FATAL, "57P01", "bye", "detail", "hint"),
    m.ErrorResponse(m.Severity.ERROR, "XX000", "plain"),
    m.NoticeResponse(m.Severity.WARNING, "01000", "careful", None, "hint"),
    m.Notification(9, "channel", "payload"),
    m.ParseComplete(),
    m.BindComplete(),
    m.CloseComplete(),
    m.NoData(),
    m.ParameterDescription((25, 23)),
    m.PortalSuspended(),
    m.CopyInResponse(),
    m.CopyOutResponse(True, 2),
    m.CopyBothResponse(),
    m.CopyData(b"\1"),
    m.CopyDone(),
]


def framed(message: m.Message) -> tuple[int, bytes]:
    raw = encoding.encode(message)
    (length,) = struct.unpack_from("!i", raw, 1)
    assert length == len(raw) - 1
    return raw[0], raw[5:]


@pytest.mark.parametrize("message", FRONTEND, ids=lambda each: type(each).__name__)
def test_client_messages_survive_the_wire(message: m.Message) -> None:
    assert decoding.decode(decoding.FRONTEND, *framed(message)) == message


@pytest.mark.parametrize("message", BACKEND, ids=lambda each: type(each).__name__)
def test_server_messages_survive_the_wire(message: m.Message) -> None:
    assert decoding.decode(decoding.BACKEND, *framed(message)) == message


def test_every_message_class_is_covered_above() -> None:
    assert set(encoding.ENCODERS) == {type(each) for each in (*FRONTEND, *BACKEND)}


def test_known_bytes_of_the_specification() -> None:
    """A codec that is wrong the same way in both directions would pass the round trips."""
    assert encoding.encode(m.Query("x")) == b"Q\0\0\0\6x\0"
    assert encoding.encode(m.Sync()) == b"S\0\0\0\4"
    assert encoding.encode(m.ReadyForQuery()) == b"Z\0\0\0\5I"
    assert encoding.encode(m.DataRow((b"ab", None))) == (
        b"D\0\0\0\x10\0\2\0\0\0\2ab\xff\xff\xff\xff"
    )
    assert encoding.encode(m.RowDescription((m.Column("n", 23),))) == (
        b"T\0\0\0\x1a\0\1n\0\0\0\0\0\0\0\0\0\0\x17\0\4\xff\xff\xff\xff\0\0"
    )
    assert encoding.encode(m.ErrorResponse(m.Severity.ERROR, "42704", "no")) == (
        b"E\0\0\0\x1eSERROR\0VERROR\0C42704\0Mno\0\0"
    )
    assert encoding.encode(m.Bind("", "s", (b"v",), (), (1,))) == (
        b"B\0\0\0\x14\0s\0\0\0\0\1\0\0\0\1v\0\1\0\1"
    )


def idle_pair() -> tuple[Connection, Connection]:
    """A client and a server after start-up."""
    client, server = Connection(Sender.CLIENT), Connection(Sender.SERVER)
    server.feed(client.encode(m.Startup({"user": "u"})))
    assert server.next_message() == m.Startup({"user": "u"})
    client.feed(server.encode(m.AuthenticationOk()) + server.encode(m.ReadyForQuery()))
    assert [client.next_message(), client.next_message()] == [
        m.AuthenticationOk(),
        m.ReadyForQuery(),
    ]
    return client, server


def copying_pair() -> tuple[Connection, Connection]:
    """A client and a server in a copy both ways."""
    client, server = idle_pair()
    server.feed(client.encode(m.Query("START_REPLICATION 0/0")))
    server.next_message()
    client.feed(server.encode(m.CopyBothResponse()))
    client.next_message()
    assert client.progress == server.progress
    assert client.progress.copy is Copy.BOTH
    return client, server


def drain_copy(connection: Connection) -> list[bytes]:
    taken = []
    while (data := connection.take_copy_data()) is not None:
        taken.append(data)
    return taken


@pytest.mark.parametrize("seed", range(20))
def test_copy_data_cut_anywhere_arrives_whole_and_in_order(seed: int) -> None:
    generator = random.Random(seed)
    client, server = copying_pair()
    sent = [generator.randbytes(generator.choice((0, 1, 5, 200, 5000))) for _ in range(200)]
    stream = b"".join(client.encode_copy_data((each,), len(each)) for each in sent)
    received: list[bytes] = []
    position = 0
    while position < len(stream):
        step = generator.choice((1, 3, 4, 5, 6, 700, 20_000))
        server.feed(stream[position : position + step])
        position += step
        if generator.random() < 0.7:
            received += drain_copy(server)
    received += drain_copy(server)
    assert received == sent
    assert server.buffered == 0


@pytest.mark.parametrize("seed", range(20))
def test_bytes_stay_in_order_however_feeding_and_taking_take_turns(seed: int) -> None:
    """Live migration, callmemaybe and cold, seed 34: a message was taken while the beginning of the
    next one waited, and the rest of that one then came to lie in front of it."""
    generator = random.Random(seed)
    client, server = copying_pair()
    sent = [generator.randbytes(generator.randrange(1, 60)) for _ in range(200)]
    stream = b"".join(client.encode_copy_data((data,), len(data)) for data in sent)
    found: list[bytes] = []
    while stream:
        cut = generator.randrange(1, 80)
        server.feed(stream[:cut])
        stream = stream[cut:]
        for _ in range(generator.randrange(3)):
            data = server.take_copy_data()
            if data is not None:
                found.append(data)
    assert found + drain_copy(server) == sent


def test_copy_data_of_several_parts_is_one_message() -> None:
    client, server = copying_pair()
    client.feed(server.encode_copy_data((b"head", b"", b"tail"), 8))
    assert client.take_copy_data() == b"headtail"
    assert client.take_copy_data() is None


def test_copy_data_in_many_small_chunks_costs_linear_time() -> None:
    """One 8 MiB message in 1 KiB chunks must not be joined again at every chunk."""
    client, server = copying_pair()
    stream = client.encode_copy_data((b"x" * (8 << 20),), 8 << 20)
    joins = 0
    gather = server._gather

    def counted() -> None:
        nonlocal joins
        joins += 1
        gather()

    server._gather = counted  # type: ignore[method-assign]
    for position in range(0, len(stream), 1024):
        server.feed(stream[position : position + 1024])
        if position + 1024 < len(stream):
            assert server.take_copy_data() is None
    data = server.take_copy_data()
    assert data is not None
    assert len(data) == 8 << 20
    assert joins == 1


def test_other_messages_are_not_taken_for_copy_data() -> None:
    client, server = copying_pair()
    server.feed(client.encode(m.CopyDone()))
    assert server.take_copy_data() is None
    assert server.has_message
    assert server.next_message() == m.CopyDone()
    assert server.progress.copy is Copy.BOTH_CLIENT_DONE


def test_copy_data_is_not_sent_outside_of_a_copy() -> None:
    client, server = idle_pair()
    with pytest.raises(ProtocolError, match="server may not send CopyData"):
        server.encode_copy_data((b"x",), 1)
    assert client.progress.phase is Phase.IDLE


STARTUPS = [
    m.Startup({"user": "u", "options": "-c a=b", "database": "ü"}),
    m.SslRequest(),
    m.GssEncRequest(),
    m.CancelRequest(77, b"\0\0\0\1"),
]


@pytest.mark.parametrize("message", STARTUPS, ids=lambda each: type(each).__name__)
@pytest.mark.parametrize("step", [1, 7, 1000])
def test_startup_packets_cut_anywhere(message: m.Message, step: int) -> None:
    raw = Connection(Sender.CLIENT).encode(message)
    server = Connection(Sender.SERVER)
    got = []
    for position in range(0, len(raw), step):
        server.feed(raw[position : position + step])
        got.append(server.next_message())
    assert got[-1] == message
    assert got[:-1] == [None] * (len(got) - 1)


def test_client_accepts_the_refusal_to_encrypt_and_nothing_else() -> None:
    client, server = Connection(Sender.CLIENT), Connection(Sender.SERVER)
    server.feed(client.encode(m.SslRequest()))
    server.next_message()
    client.feed(server.encode(m.EncryptionRefused()))
    assert client.next_message() == m.EncryptionRefused()
    other = Connection(Sender.CLIENT)
    other.encode(m.SslRequest())
    other.feed(b"S")
    with pytest.raises(ProtocolError, match="wants to encrypt"):
        other.next_message()


MALFORMED = [
    (b"Q\0\0\0\3", "length 3"),
    (b"Q\xff\xff\xff\xff", "length -1"),
    (b"@\0\0\0\4", "unknown message type b'@'"),
    (b"@\0\1\0\0", "unknown message type b'@'"),
    (b"Q\0\0\0\5x", "without its terminating zero"),
    (b"Q\0\0\0\7x\0y", "1 bytes too many"),
    (b"Q\0\0\0\6\xff\0", "not UTF-8"),
    (b"S\0\0\0\5x", "1 bytes too many"),
    (b"D\0\0\0\6Zx\0"[:8], "instead of S"),
    (b"B\0\0\0\x0a\0\0\0\0\0\1", "is too short"),
    (b"P\0\0\0\x08\0\0\xff\xff", "counts -1 items"),
    (b"B\0\0\0\x10\0\0\0\0\0\1\0\0\0\x7fabc"[:17], "127 bytes where fewer"),
    (b"S\0\0\x27\x11", "too long"),
    (b"d\x20\0\0\0", "too long"),
]


@pytest.mark.parametrize(("raw", "complaint"), MALFORMED)
def test_malformed_messages_are_refused_with_a_reason(raw: bytes, complaint: str) -> None:
    _client, server = idle_pair()
    server.feed(raw)
    with pytest.raises(ProtocolError, match=complaint):
        server.next_message()


@pytest.mark.parametrize(
    ("raw", "complaint"),
    [
        (b"\0\0\0\7", "start-up packet of 7 bytes"),
        (b"\0\0\x27\x11", "start-up packet of 10001 bytes"),
        (b"GET / HTTP/1.1\r\n", "start-up packet"),
        (b"\0\0\0\x08\0\2\0\0", "unsupported frontend protocol 2.0"),
        (b"\0\0\0\x0d\0\3\0\0user\0", "terminating zero"),
        (b"\0\0\0\x0c\0\3\0\0\0xyz", "3 bytes too many"),
    ],
)
def test_malformed_startup_packets_are_refused_with_a_reason(raw: bytes, complaint: str) -> None:
    server = Connection(Sender.SERVER)
    server.feed(raw)
    with pytest.raises(ProtocolError, match=complaint):
        server.next_message()


def test_size_limits_hold_on_both_sides_of_the_boundary() -> None:
    limits = Limits(startup=100, small=20, bulk=1000)
    _client, server = idle_pair()
    server._limits = limits
    server.feed(encoding.encode(m.Query("x" * (1000 - 5))))
    assert isinstance(server.next_message(), m.Query)
    _client, server = idle_pair()
    server._limits = limits
    server.feed(encoding.encode(m.Query("x" * (1000 - 4))))
    with pytest.raises(ProtocolError, match="of 1001 bytes is too long: at most 1000"):
        server.next_message()


@pytest.mark.parametrize("seed", range(200))
def test_random_bytes_never_do_worse_than_a_protocol_error(seed: int) -> None:
    generator = random.Random(seed)
    raws = [encoding.encode(each) for each in FRONTEND]
    stream = bytearray(b"".join(generator.choices(raws, k=20)))
    for _ in range(generator.randrange(1, 8)):
        stream[generator.randrange(len(stream))] = generator.randrange(256)
    _client, server = idle_pair() if seed % 2 else copying_pair()
    server.feed(bytes(stream))
    try:
        while server.next_message() is not None:
            pass
    except ProtocolError as error:
        assert str(error)
