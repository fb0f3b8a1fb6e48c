"""A simulated rank's engine on the stand-in for CuPy: its thread, and MPI, which knows no streams and takes memory as it is."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from hvd_gossip.tasks import Future, Task
from tests.standin_cupy import DeviceArray
from tests.standin_streams import Thread, acting

LOOK_EVERY = 1e-6
"""Virtual seconds from one look at the device to the next."""


class _Steps(Coroutine[Any, Any, Any]):
    """A coroutine all of whose steps are taken by one thread."""

    def __init__(self, coroutine: Coroutine[Any, Any, Any], thread: Thread) -> None:
        self._coroutine, self._thread = coroutine, thread

    def send(self, value: Any) -> Any:
        with acting(self._thread):
            return self._coroutine.send(value)

    def throw(self, *error: Any) -> Any:
        with acting(self._thread):
            return self._coroutine.throw(*error)

    def close(self) -> None:
        with acting(self._thread):
            self._coroutine.close()

    def __await__(self) -> Any:
        raise NotImplementedError("only tasks take its steps")


class DeviceEndpoint:
    """A simulated rank whose engine works on the stand-in: MPI itself knows no streams, and takes memory as it is.

    Args:
        thread: the engine's.
    """

    def __init__(self, endpoint: Any, thread: Thread | None = None) -> None:
        self._endpoint = endpoint
        self.thread = thread or Thread()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._endpoint, name)

    def spawn(self, coroutine: Coroutine[Any, Any, Any], name: Any = "task") -> Task[Any]:
        task: Task[Any] = self._endpoint.spawn(_Steps(coroutine, self.thread), name)
        return task

    def send(self, dest: int, channel: int, data: Any) -> Future[None]:
        return self._heard(self._endpoint.send(dest, channel, _memory(data)), data)

    def recv(self, source: int, channel: int, into: Any) -> Future[None]:
        return self._heard(self._endpoint.recv(source, channel, _memory(into)), into)

    def recv_any(self, channel: int) -> Future[Any]:
        return self._heard(self._endpoint.recv_any(channel))

    def sleep(self, seconds: float) -> Future[None]:
        return self._heard(self._endpoint.sleep(seconds))

    def _heard(self, future: Future[Any], data: object = None) -> Future[Any]:
        """The same, whose callbacks are called by the engine's thread. Until then it has the data, as mpi4py's requests do."""
        if future.done():
            return future
        heard: Future[Any] = Future(future.what)
        heard.on_cancel = future.cancel

        def hear(_: object, _data: object = data) -> None:
            with acting(self.thread):
                if (error := future.error()) is not None:
                    heard.set_error(error)
                else:
                    heard.set_result(future.result())

        future.add_callback(hear)
        return heard

    def poll(self, ready: Callable[[], bool], what: Any) -> Future[None]:
        polled: Future[None] = Future(what)

        def look(_: object = None) -> None:
            if not polled.done():
                if ready():
                    polled.set_result(None)
                else:
                    self.sleep(LOOK_EVERY).add_callback(look)

        look()
        return polled


def _memory(data: Any) -> Any:
    return data.memory if isinstance(data, DeviceArray) else data
