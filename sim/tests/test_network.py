"""Fault verbs on links: each does what it says, to both old and new connections, and heals."""

import asyncio

import pytest

import sim
from sim.errors import SimulationError


class Meeting:
    """Node "a" talks to a server on node "b"; what arrives is noted with its time."""

    def __init__(self, loop):
        self.loop = loop
        self.network = loop.network
        self.arrivals = []
        self.answered = []
        self.errors = []
        with loop.nodes.acting_as("b"):
            loop.create_task(self._serve())

    async def _serve(self):
        async def answer(reader, writer):
            try:
                while data := await reader.read(65536):
                    self.arrivals.append((self.loop.time() - self.start, data))
                    writer.write(b"ok")
            except OSError as error:
                self.errors.append(type(error))
            writer.close()

        await asyncio.start_server(answer, "b", 1)

    async def connect(self):
        await asyncio.sleep(0.1)
        with self.loop.nodes.acting_as("a"):
            self.reader, self.writer = await self.loop.create_task(asyncio.open_connection("b", 1))
            self.listening = self.loop.create_task(self._listen())
        await asyncio.sleep(0.1)
        self.start = self.loop.time()
        return self

    async def _listen(self):
        try:
            while data := await self.reader.read(65536):
                self.answered.append((self.loop.time() - self.start, data))
        except OSError as error:
            self.errors.append(type(error))

    def received(self):
        return b"".join(data for _, data in self.arrivals)


def meet(story, seed=0, **link):
    async def main():
        loop = asyncio.get_running_loop()
        loop.network.options = sim.LinkOptions(**link)
        meeting = await Meeting(loop).connect()
        return await story(meeting)

    return sim.run(main, seed=seed)


def test_latency_lies_within_its_distribution():
    async def story(m):
        for number in range(100):
            m.writer.write(b"%d" % (number % 10))
            sent = m.loop.time() - m.start
            await asyncio.sleep(0.05)
            assert 0.002 <= m.arrivals[-1][0] - sent <= 0.03
        return len({round(at, 9) for at, _ in m.arrivals})

    assert meet(story, latency=sim.Uniform(0.002, 0.03)) == 100


@pytest.mark.parametrize("both", [True, False])
def test_a_cut_swallows_bytes_and_healing_does_not_bring_them_back(both):
    async def story(m):
        m.network.cut("a", "b", both=both)
        m.writer.write(b"lost")
        await asyncio.sleep(10)
        assert m.arrivals == []
        m.network.heal("a", "b")
        m.writer.write(b"still silent")
        await asyncio.sleep(10)
        assert m.arrivals == []
        assert m.errors == []
        effects = m.network.effects()
        assert effects["bytes_cut"] >= len(b"lost") + len(b"still silent")
        return effects["connections_cut"]

    assert meet(story) == (2 if both else 1)


def test_a_one_way_cut_lets_the_other_way_live():
    async def story(m):
        m.network.cut("b", "a", both=False)
        m.writer.write(b"hello")
        await asyncio.sleep(10)
        return m.received(), m.answered

    assert meet(story) == (b"hello", [])


def test_new_connections_hang_in_a_cut_and_work_after_it():
    async def story(m):
        async def dial():
            _, writer = await asyncio.open_connection("b", 1)
            writer.close()

        m.network.cut("a", "b")
        with m.loop.nodes.acting_as("a"):
            hanging = m.loop.create_task(dial())
            await asyncio.sleep(60)
            assert not hanging.done()
            m.network.heal("a", "b")
            await m.loop.create_task(dial())
        started = m.loop.time()
        with pytest.raises(TimeoutError, match="no answer from b:1"):
            await hanging
        return m.loop.time() - started

    assert meet(story) == pytest.approx(127 - 60, abs=1)


def test_unanswered_bytes_end_the_connection_some_day():
    async def story(m):
        m.network.cut("a", "b")
        m.writer.write(b"lost")
        await asyncio.sleep(920)
        assert m.errors == []
        await asyncio.sleep(10)
        return m.errors

    assert meet(story) == [TimeoutError]


def test_held_bytes_arrive_in_order_when_the_hold_ends():
    async def story(m):
        m.network.hold("a", "b", both=False)
        for word in (b"one ", b"two ", b"three"):
            m.writer.write(word)
            await asyncio.sleep(1)
        assert m.arrivals == []
        assert m.network.effects()["bytes_held"] == len(b"one two three")
        m.network.heal("a", "b")
        m.writer.write(b" four")
        await asyncio.sleep(1)
        return m.received()

    assert meet(story) == b"one two three four"


def test_a_held_connection_attempt_completes_at_release():
    async def story(m):
        m.network.hold("a", "b")
        with m.loop.nodes.acting_as("a"):
            dialling = m.loop.create_task(asyncio.open_connection("b", 1))
        await asyncio.sleep(20)
        assert not dialling.done()
        m.network.heal("a", "b")
        _, writer = await dialling
        writer.close()
        return m.loop.time() - m.start

    assert meet(story) == pytest.approx(20, abs=0.1)


def test_a_delay_is_added_to_what_is_sent_after_it():
    async def story(m):
        m.writer.write(b"early")
        m.network.delay("a", "b", 3.0, both=False)
        m.writer.write(b"late")
        await asyncio.sleep(10)
        m.network.heal("a", "b")
        early, late = m.arrivals
        assert early[0] < 0.01
        assert 3.0 < late[0] < 3.01
        assert m.network.effects()["messages_delayed"] == 1
        with pytest.raises(ValueError, match="negative"):
            m.network.delay("a", "b", -1)

    meet(story)


def test_healing_a_delay_does_not_let_bytes_overtake():
    async def story(m):
        m.network.delay("a", "b", 3.0)
        m.writer.write(b"first ")
        m.network.heal("a", "b")
        m.writer.write(b"second")
        await asyncio.sleep(10)
        return m.received(), m.arrivals[0][0] > 3.0

    assert meet(story) == (b"first second", True)


def test_a_reset_is_told_to_both_ends_and_new_connections_work():
    async def story(m):
        m.network.reset("b", "a")
        await asyncio.sleep(0.1)
        assert m.errors == [ConnectionResetError, ConnectionResetError]
        assert m.network.effects()["connections_reset"] == 1
        again = await m.connect()
        again.writer.write(b"hello")
        await asyncio.sleep(0.1)
        return m.received()

    assert meet(story) == b"hello"


def test_bandwidth_makes_bytes_queue():
    async def story(m):
        m.writer.write(bytes(50_000))
        m.writer.write(bytes(50_000))
        await asyncio.sleep(10)
        return [(round(at, 1), len(data)) for at, data in m.arrivals]

    first, second = meet(story, bandwidth=50_000.0, latency=sim.Constant(0.0))
    assert (first, second) == ((1.0, 50_000), (2.0, 50_000))


def test_fragmented_writes_arrive_in_pieces_but_whole():
    async def story(m):
        sent = b""
        for number in range(200):
            word = b"message %d;" % number
            m.writer.write(word)
            sent += word
            await asyncio.sleep(0.01)
        assert m.received() == sent
        return len(m.arrivals), m.network.writes_fragmented

    pieces, fragmented = meet(story, fragmentation=0.5)
    assert 250 < pieces < 350
    assert fragmented > pieces - 200  # Answers break as well.


def test_what_is_due_at_one_instant_arrives_in_one_piece():
    async def story(m):
        m.writer.write(b"one ")
        m.writer.write(b"two")
        await asyncio.sleep(1)
        return [data for _, data in m.arrivals]

    assert meet(story, latency=sim.Constant(0.01)) == [b"one two"]


def test_configure_changes_one_link_only():
    async def story(m):
        m.network.configure("a", "b", both=False, latency=sim.Constant(1.0))
        m.writer.write(b"x")
        await asyncio.sleep(3)
        assert m.arrivals[0][0] == pytest.approx(1.0)
        return m.answered[0][0]

    assert 1.0 < meet(story) < 1.01


def test_faults_are_events_of_the_run():
    async def story(m):
        m.network.cut("a", "b")
        m.network.heal("a", "b")
        return [e.fields["verb"] for e in m.loop.trace.observations() if e.kind == "fault"]

    assert meet(story) == ["cut", "heal"]


def test_a_link_needs_two_hosts_and_probabilities_are_probabilities():
    async def story(m):
        with pytest.raises(SimulationError, match="'a' with itself"):
            m.network.cut("a", "a")

    meet(story)
    with pytest.raises(ValueError, match=r"fragmentation=1.5"):
        sim.LinkOptions(fragmentation=1.5)
    with pytest.raises(ValueError, match="bandwidth=0"):
        sim.LinkOptions(bandwidth=0)


def test_a_host_crash_is_silence_and_its_return_a_reset():
    async def story(m):
        m.loop.nodes.crash("b", host=True)
        m.writer.write(b"anybody there")
        await asyncio.sleep(100)
        assert m.errors == []
        with m.loop.nodes.acting_as("b"):
            m.loop.create_task(asyncio.sleep(1000))
        m.writer.write(b"and now")
        await asyncio.sleep(1)
        return m.errors

    assert meet(story) == [ConnectionResetError]


def test_what_was_on_the_wire_arrives_although_its_sender_died():
    async def story(m):
        m.writer.write(b"last")
        m.loop.nodes.crash("a")
        await asyncio.sleep(1)
        return m.received(), m.errors

    assert meet(story) == (b"last", [ConnectionResetError])


def test_a_paused_node_keeps_its_connections_and_answers_later():
    async def story(m):
        m.loop.nodes.pause("b")
        m.writer.write(b"one")
        await asyncio.sleep(50)
        m.writer.write(b"two")
        assert m.arrivals == []
        await asyncio.sleep(50)
        m.loop.nodes.resume("b")
        await asyncio.sleep(1)
        return m.arrivals

    assert [(round(at), data) for at, data in meet(story)] == [(100, b"onetwo")]


def test_a_paused_node_accepts_connections_at_resume():
    async def story(m):
        m.loop.nodes.pause("b")
        with m.loop.nodes.acting_as("a"):
            reader, writer = await m.loop.create_task(asyncio.open_connection("b", 1))
        writer.write(b"question")
        await asyncio.sleep(10)
        assert m.arrivals == []
        m.loop.nodes.resume("b")
        answer = await reader.read(10)
        writer.close()
        return answer

    assert meet(story) == b"ok"


def test_a_connection_made_while_one_way_is_cut_never_flows():
    """The last step of the handshake vanishes; healing must not let a torso of it arrive."""

    async def story(m):
        m.network.hold("b", "a", both=False)
        with m.loop.nodes.acting_as("a"):
            dialling = m.loop.create_task(asyncio.open_connection("b", 1))
        await asyncio.sleep(1)
        m.network.cut("a", "b", both=False)
        m.network.heal("b", "a", both=False)
        _, writer = await dialling
        writer.write(b"lost")
        await asyncio.sleep(1)
        m.network.heal("a", "b", both=False)
        writer.write(b"more")
        await asyncio.sleep(1)
        writer.close()
        return m.received(), m.errors

    assert meet(story) == (b"", [])


@pytest.mark.parametrize("paused", [False, True])
def test_a_restarted_host_resets_what_its_dead_left_undelivered(paused):
    async def story(m):
        if paused:
            m.loop.nodes.pause("b")
        m.writer.write(b"never read")
        await asyncio.sleep(1 if paused else 0.0001)
        m.loop.nodes.crash("b", host=True)
        await asyncio.sleep(1)
        with m.loop.nodes.acting_as("b"):
            m.loop.create_task(asyncio.sleep(1000))
        m.writer.write(b"anybody there")
        await asyncio.sleep(1)
        return m.errors

    assert meet(story) == [ConnectionResetError]


def test_bytes_in_flight_to_a_dying_host_end_the_connection_some_day():
    async def story(m):
        m.writer.write(b"never read")
        m.loop.nodes.crash("b", host=True)
        await asyncio.sleep(920)
        assert m.errors == []
        await asyncio.sleep(10)
        return m.errors

    assert meet(story) == [TimeoutError]
