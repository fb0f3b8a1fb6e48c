"""One rank of a simulated world: matching of messages, and what a death does to them.

This is the simulator's hot path: a step of 1,024 ranks passes here thousands of times.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from hvd_gossip.errors import PeerFailedError, TransportError
from hvd_gossip.tasks import Description, Future, Task
from hvd_gossip.transport.endpoint import CHANNELS, Array, Message
from hvd_gossip.transport.simulated_links import draw
from hvd_gossip.transport.simulated_messages import Receive, Send, Timer, check_array, copy_bytes

if TYPE_CHECKING:
    from hvd_gossip.transport.simulated import SimulatedWorld

T = TypeVar("T")


class SimulatedEndpoint:
    """Endpoint of one simulated rank. See `hvd_gossip.transport.endpoint.Endpoint`.

    Attributes:
        bytes_sent: payload bytes that have left this rank, as many as they stand for.
    """

    __slots__ = (
        "_arrived", "_dead", "_interface", "_last", "_last_limit", "_letters", "_listening", "_orphans", "_posted",
        "_routes", "_tasks", "_tasks_limit", "_unexpected", "_world", "bytes_sent", "rank", "rng", "size",
    )  # fmt: skip

    def __init__(self, world: SimulatedWorld, rank: int) -> None:
        self.rank = rank
        self.size = world.size
        self.bytes_sent = 0.0
        self.rng = np.random.default_rng((world.seed, rank))
        self._world = world
        self._dead = False
        self._routes: dict[int, tuple[float, float]] = {}
        # A key is channel * size + source.
        self._posted: dict[int, deque[Receive]] = {}
        self._unexpected: dict[int, deque[Send]] = {}
        self._last: dict[int, float] = {}
        self._last_limit = 16
        # By channel, for those that recv_any was ever called on.
        self._arrived: dict[int, deque[Send]] = {}
        self._listening: dict[int, Receive] = {}
        self._orphans: list[tuple[int, Receive]] = []
        self._letters: list[Send] = []
        self._interface = rank // world.links.ranks_per_interface
        self._tasks: list[Task[Any]] = []
        self._tasks_limit = 4

    def now(self) -> float:
        """Virtual seconds since the world began."""
        return self._world.time

    def send(self, dest: int, channel: int, payload: Array | bytes) -> Future[None]:
        """See `Endpoint.send`. Done when the last byte has arrived.

        Raises:
            ValueError: no such rank or channel, or a payload that cannot travel.
        """
        if not (0 <= dest < self.size and 0 <= channel < CHANNELS):
            raise self._unknown(dest, channel)
        world = self._world
        nbytes: float
        nbytes = len(payload) if type(payload) is bytes else check_array(payload, "send") * world.payload_scale
        send = Send(self.rank, dest, channel, payload, nbytes)
        if world.dead and self._is_in_vain(dest, send):
            return send
        if nbytes > world.eager_limit:
            send.eager = False
            nbytes = 0
        target = world.endpoints[dest]
        if world.plain:
            latency, per_byte = world.route if dest != self.rank and world.route else self._find_route(dest)
            self.bytes_sent += nbytes
            time = target.keep_order(channel * self.size + self.rank, world.time + latency + nbytes * per_byte)
            world.push(time, target.arrive, send)
        else:
            self._travel(send, nbytes, target.arrive, send, True)
        return send

    def recv(self, source: int, channel: int, into: Array) -> Future[None]:
        """See `Endpoint.recv`. A message of any other length than `into` fails it with TransportError.

        Raises:
            ValueError: no such rank or channel, or an array that cannot be received into.
            TransportError: the channel is one of `recv_any`.
        """
        if not (0 <= source < self.size and 0 <= channel < CHANNELS):
            raise self._unknown(source, channel)
        check_array(into, "receive into")
        if not into.flags.writeable:
            raise ValueError("cannot receive into a read-only array")
        if channel in self._arrived:
            raise TransportError(f"rank {self.rank}: recv on channel {channel}, which recv_any was called on before")
        key = channel * self.size + source
        receive = Receive(self, key, into, ("receiving from rank", source, "on channel", channel))
        queue = self._unexpected.get(key)
        if queue is not None:
            send = queue.popleft()
            if not queue:
                del self._unexpected[key]
            self._match(send, receive)
        elif not self._world.dead or not self._is_in_vain(source, receive):
            posted = self._posted.get(key)
            if posted is None:
                self._posted[key] = deque((receive,))
            else:
                posted.append(receive)
        return receive

    def recv_any(self, channel: int) -> Future[Message]:
        """See `Endpoint.recv_any`.

        Raises:
            ValueError: no such channel.
            TransportError: another recv_any waits on the channel, or a recv does.
        """
        if not 0 <= channel < CHANNELS:
            raise self._unknown(0, channel)
        if channel in self._listening:
            raise TransportError(f"rank {self.rank}: a second recv_any on channel {channel} while one is pending")
        arrived = self._arrived.get(channel)
        if arrived is None:
            arrived = self._arrived[channel] = self._start_listening(channel)
        receive = Receive(self, channel, None, ("receiving from any rank on channel", channel))
        if arrived:
            self._match(arrived.popleft(), receive)
        else:
            self._listening[channel] = receive
        return receive

    def sleep(self, seconds: float) -> Future[None]:
        """Done after so many virtual seconds (for 0: once no task is ready; for infinity: never)."""
        if not seconds >= 0:
            raise ValueError(f"cannot sleep {seconds} s")
        timer = Timer(self._world)
        if seconds < math.inf:
            self._world.push(self._world.time + seconds, None, timer)
        return timer

    def poll(self, ready: Callable[[], bool], what: Description) -> Future[None]:
        """See `Endpoint.poll`. The condition is looked at now and after every event."""
        future: Future[None] = Future(what)
        if ready():
            future.set_result(None)
        else:
            self._world.add_poll(ready, future)
        return future

    def shared(self, nbytes: int, name: str, ranks: Sequence[int]) -> Future[Array]:
        """See `Endpoint.shared`: all ranks are on one host."""
        future: Future[Array] = Future(("memory shared by ranks", *ranks))
        future.set_result(self._world.shared.setdefault(name, np.zeros(nbytes, np.uint8)))
        return future

    def spawn(self, coroutine: Coroutine[Any, Any, T], name: Description = "task") -> Task[T]:
        """Runs a coroutine as a task of this rank; a death of the rank cancels it."""
        task = self._world.scheduler.spawn(coroutine, ("rank", self.rank, name))
        if self._dead:
            task.cancel()
            return task
        self._tasks.append(task)
        if len(self._tasks) > self._tasks_limit:
            self._tasks = self.open_tasks()
            self._tasks_limit = 2 * len(self._tasks) + 4
        return task

    def open_tasks(self) -> list[Task[Any]]:
        """This rank's tasks that are not done."""
        return [task for task in self._tasks if not task.done()]

    def arrive(self, send: Send) -> None:
        """A message, or the announcement of a long one, is here. For the world."""
        if self._world.dead and not self._accepts(send):
            return
        channel = send.channel
        key = channel * self.size + send.source
        queue = self._posted.get(key)
        if queue is not None:
            receive = queue.popleft()
            if not queue:
                del self._posted[key]
            self._match(send, receive)
        elif channel in self._listening:
            self._match(send, self._listening.pop(channel))
        else:
            self._keep(send, key)

    def withdraw(self, receive: Receive) -> None:
        """Forgets a receive that nothing has matched. For `Receive.cancel`."""
        if receive.into is None:
            self._listening.pop(receive.key, None)
        elif receive in self._posted.get(receive.key, ()):
            self._posted[receive.key].remove(receive)
            if not self._posted[receive.key]:
                del self._posted[receive.key]

    def die(self) -> None:
        """Ends every task of this rank. For the world."""
        self._dead = True
        for task in self.open_tasks():
            task.cancel()
        for queue in (*self._unexpected.values(), *self._arrived.values()):
            self._letters.extend(queue)
            queue.clear()

    def return_letters(self) -> None:
        """Fails what the others have under way to this dead rank. For the world."""
        letters, self._letters = self._letters, []
        for send in letters:
            send.set_error(PeerFailedError(self.rank))

    def learn_death(self, dead: int) -> None:
        """Fails what waits for a message of a rank whose death is now detected. For the world."""
        for key in [key for key in self._posted if key % self.size == dead]:
            for receive in self._posted.pop(key):
                receive.set_error(PeerFailedError(dead))
        orphans, self._orphans = self._orphans, []
        for source, receive in orphans:
            self._fail_receive(receive, source)
        self._forget_messages(dead)

    def _unknown(self, peer: int, channel: int) -> ValueError:
        if not 0 <= peer < self.size:
            return ValueError(f"rank {self.rank}: peer {peer} is not in [0, {self.size})")
        return ValueError(f"rank {self.rank}: channel {channel} is not in [0, {CHANNELS})")

    def _is_in_vain(self, peer: int, future: Future[Any]) -> bool:
        """An operation of a dead rank never ends; one that names a rank known to be dead fails."""
        if peer in self._world.detected:
            future.set_error(PeerFailedError(peer))
            return True
        return self._dead

    def _travel(self, send: Send, nbytes: float, call: Callable[[Any], None], argument: Any, ordered: bool) -> None:
        """Schedules call(argument) at the receiver for when `nbytes` bytes that leave now have arrived."""
        world = self._world
        links = world.links
        latency, per_byte = self._find_route(send.dest)
        self.bytes_sent += nbytes
        duration = nbytes * per_byte
        time = world.time
        queues = duration > 0 and links.queues(self.rank, send.dest, nbytes)
        if links.serialize_send and queues:
            time = max(time, world.out_free[self._interface])
            world.out_free[self._interface] = time + duration
        time += latency
        if links.delay:
            time += draw(links.delay, world.stream)
        if not (links.serialize_receive and queues):
            time += duration
        target = world.endpoints[send.dest]
        if ordered:
            time = target.keep_order(send.channel * self.size + self.rank, time)
        if world.random_snapshot and nbytes:
            world.push(world.time + (time - world.time) * world.stream.random(), send.take_snapshot, None)
        if links.serialize_receive and queues:
            world.push(time, target.admit, (duration, call, argument))
        else:
            world.push(time, call, argument)

    def _find_route(self, peer: int) -> tuple[float, float]:
        route = self._routes.get(peer)
        if route is None:
            route = self._routes[peer] = self._world.links.route(self.rank, peer)
        return route

    def keep_order(self, key: int, time: float) -> float:
        """When a message due at `time` arrives: never before the one sent before it. For the sender."""
        last = self._last
        due = last.get(key)
        if due is not None and due > time:
            return due
        last[key] = time
        if len(last) > self._last_limit:
            now = self._world.time
            self._last = {key: due for key, due in last.items() if due > now}
            self._last_limit = 2 * len(self._last) + 16
        return time

    def admit(self, arrival: tuple[float, Callable[[Any], None], Any]) -> None:
        """The first byte is here; the rest follows when this rank's interface is free. For the sender."""
        duration, call, argument = arrival
        world, interface = self._world, self._interface
        world.in_free[interface] = free = max(world.time, world.in_free[interface]) + duration
        world.push(free, call, argument)

    def _keep(self, send: Send, key: int) -> None:
        """No receive waits for the message: a short one is buffered, and done for the sender."""
        if send.eager:
            send.take_snapshot()
            send.set_result(None)
        arrived = self._arrived.get(send.channel)
        if arrived is not None:
            arrived.append(send)
        elif key in self._unexpected:
            self._unexpected[key].append(send)
        else:
            self._unexpected[key] = deque((send,))

    def _start_listening(self, channel: int) -> deque[Send]:
        """What arrived on a channel before its first recv_any, source by source."""
        keys = range(channel * self.size, (channel + 1) * self.size)
        if any(key in self._posted for key in keys):
            raise TransportError(f"rank {self.rank}: recv_any on channel {channel} while a recv is pending there")
        return deque(send for key in keys for send in self._unexpected.pop(key, ()))

    def _match(self, send: Send, receive: Receive) -> None:
        """A message has met its receive: it is here, or its sender is asked for its bytes."""
        if send.eager:
            self._finish(send, receive)
            return
        latency, _ = self._find_route(send.source)
        self._world.push(self._world.time + latency, self._world.endpoints[send.source]._transmit, (send, receive))

    def _transmit(self, pair: tuple[Send, Receive]) -> None:
        """The receiver of a long message is ready for its bytes."""
        send, receive = pair
        target = self._world.endpoints[send.dest]
        if self._dead:
            target._fail_receive(receive, self.rank)
        else:
            self._travel(send, send.nbytes, target._deliver, pair, False)

    def _deliver(self, pair: tuple[Send, Receive]) -> None:
        """The last byte of a long message is here."""
        send, receive = pair
        if self._world.dead and not self._accepts(send):
            self._fail_receive(receive, send.source)
        else:
            self._finish(send, receive)

    def _finish(self, send: Send, receive: Receive) -> None:
        data, into = send.payload, receive.into
        if into is None:
            receive.set_result(Message(send.source, data if isinstance(data, bytes) else data.tobytes()))
        elif (length := len(data) if isinstance(data, bytes) else data.nbytes) == into.nbytes:
            copy_bytes(data, into)
            receive.set_result(None)
        else:
            receive.set_error(
                TransportError(
                    f"rank {self.rank}: a message of {length} bytes from rank {send.source} on channel "
                    f"{send.channel} met a receive of {into.nbytes} bytes"
                )
            )
        send.set_result(None)

    def _accepts(self, send: Send) -> bool:
        """Whether a message that arrives now counts, some rank being dead."""
        if not self._dead:
            return send.source not in self._world.detected and not self._world.loses(send)
        if self.rank in self._world.detected:
            send.set_error(PeerFailedError(self.rank))
        else:
            self._letters.append(send)
        return False

    def _fail_receive(self, receive: Receive, source: int) -> None:
        """The bytes will never come: the receive fails, as soon as the death is detected."""
        if source in self._world.detected:
            receive.set_error(PeerFailedError(source))
        else:
            self._orphans.append((source, receive))

    def _forget_messages(self, dead: int) -> None:
        """Drops what a dead rank sent and nobody has received, as far as it is lost."""
        for queues in (self._unexpected, self._arrived):
            for key, queue in list(queues.items()):
                kept = deque(
                    send for send in queue if send.source != dead or (send.eager and not self._world.loses(send))
                )
                if kept or queues is self._arrived:
                    queues[key] = kept
                else:
                    del queues[key]
