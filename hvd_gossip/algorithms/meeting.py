"""How the workers of a synchronous algorithm meet: who takes part in which exchange.

Each worker tells each neighbour of a round that it has joined it (JOIN, with a small payload such as push-sum weights), and
only then does anything large travel: a large message is sent only to somebody who has promised to receive it. A worker that
pauses (for an exact average), rests (it has no data left, and joins the end of an epoch) or is gone says from which round on,
to everybody whom it may meet; these then drop the edges to it, and both ends of an edge drop it alike.

Rounds are counted from 0 in each phase; a phase ends at an exact average, where all live workers meet that do not rest. Who
rests misses phases; all rests end together, in a phase that is new to everybody.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence

from hvd_gossip.errors import WaitTimeoutError
from hvd_gossip.tasks import Future, Signal, first_of
from hvd_gossip.transport.endpoint import Endpoint

JOIN, AWAY, GONE, RESTING = 0, 1, 2, 3
_HEADER = struct.Struct("<bqq")


class Meeting:
    """Tokens of one algorithm on one channel. Owner: the engine's thread.

    Args:
        endpoint: access to the peers.
        neighbours: whoever this worker may meet in any round.
        channel: the channel of the tokens.
        wait_timeout: seconds that one round may wait for a neighbour.
    """

    def __init__(self, endpoint: Endpoint, neighbours: Sequence[int], channel: int, wait_timeout: float) -> None:
        self._endpoint = endpoint
        self._peers = neighbours
        self._channel = channel
        self._wait_timeout = wait_timeout
        self._joined: dict[tuple[int, int, int], bytes] = {}
        self._limits: dict[tuple[int, int], int] = {}
        self._gone: dict[int, tuple[int, int]] = {}
        self._resting: dict[int, tuple[int, int]] = {}
        self._awake_from = 0
        self._changed = Signal("a token of a neighbour")
        self._sending: list[tuple[int, Future[None]]] = []

    def start(self) -> None:
        self._listener = self._endpoint.spawn(self._listen(), "tokens of the neighbours")

    def stop(self) -> None:
        self._listener.cancel()

    async def join(self, phase: int, round_: int, payloads: dict[int, bytes]) -> dict[int, bytes]:
        """Joins a round with the given neighbours and waits until each has joined it too or is known to be absent.

        Args:
            payloads: what to tell each neighbour.

        Returns:
            What each neighbour that takes part told us.

        Raises:
            WaitTimeoutError: a neighbour neither joined nor said that it is absent.
        """
        self._sending = [(peer, sending) for peer, sending in self._sending if not sending.done()]
        for peer, payload in payloads.items():
            if not self.absent(peer, phase, round_):
                self._post(peer, _HEADER.pack(JOIN, phase, round_) + payload)
        await self._wait_for(payloads, phase, round_)
        arrived = {peer: self._joined.pop((peer, phase, round_), None) for peer in payloads}
        return {peer: payload for peer, payload in arrived.items() if payload is not None}

    async def announce(self, kind: int, phase: int, round_: int) -> None:
        """Tells all neighbours that this worker takes part in no exchange from `round_` of `phase` on (AWAY: of this phase only;
        RESTING: until `end_rests`)."""
        token = _HEADER.pack(kind, phase, round_)
        for peer in self._peers:
            if peer not in self._gone:
                self._post(peer, token)
        for peer, sending in self._sending:
            if not sending.done():
                await self._delivered(peer, sending)

    def absent(self, peer: int, phase: int, round_: int) -> bool:
        """Whether the peer is known to take no part in the round."""
        if not (self._gone or self._resting or self._limits):
            return False
        for since in (self._gone.get(peer), self._resting.get(peer)):
            if since is not None and (phase, round_) >= since:
                return True
        limit = self._limits.get((peer, phase))
        return limit is not None and round_ >= limit

    def forget_before(self, phase: int) -> None:
        """Drops what was said of earlier phases."""
        self._joined = {key: value for key, value in self._joined.items() if key[1] >= phase}
        self._limits = {key: value for key, value in self._limits.items() if key[1] >= phase}

    def end_rests(self, phase: int) -> None:
        """All workers take part again, from `phase` on. (A token of an earlier rest may still be on its way.)"""
        self._awake_from = phase
        self._resting = {peer: since for peer, since in self._resting.items() if since[0] >= phase}

    async def _wait_for(self, peers: Iterable[int], phase: int, round_: int) -> None:
        def missing() -> list[int]:
            return [p for p in peers if (p, phase, round_) not in self._joined and not self.absent(p, phase, round_)]

        late = missing()
        if not late:
            return
        timer = self._endpoint.sleep(self._wait_timeout)
        timer.add_callback(lambda _: self._changed.set())
        while late:
            change = self._changed.wait()
            change.what = ("rank", late[0], "to join exchange", round_, "(late:", *late, ")")
            await change
            late = missing()
            if late and timer.done():
                raise WaitTimeoutError(
                    f"rank {self._endpoint.rank} waited {self._wait_timeout:.0f} s for rank(s) "
                    f"{', '.join(map(str, late))} to join exchange {round_}; raise wait_timeout if they are only slow"
                )
        timer.cancel()

    def _post(self, peer: int, token: bytes) -> None:
        self._sending.append((peer, self._endpoint.send(peer, self._channel, token)))

    async def _delivered(self, peer: int, sending: Future[None]) -> None:
        """Waits for a token's end. Who is gone listens no more: a token that its GONE crossed, if MPI does not buffer it,
        is never received."""
        while not sending.done() and peer not in self._gone:
            await first_of(sending, self._changed.wait())
        if sending.done():
            sending.result()

    async def _listen(self) -> None:
        while True:
            source, data = await self._endpoint.recv_any(self._channel)
            kind, phase, round_ = _HEADER.unpack_from(data)
            if kind == JOIN:
                self._joined[source, phase, round_] = data[_HEADER.size :]
            elif kind == AWAY:
                self._limits[source, phase] = round_
            elif kind == GONE:
                self._gone[source] = (phase, round_)
            elif phase >= self._awake_from:
                self._resting[source] = (phase, round_)
            self._changed.set()
