"""The process-wide runtime: world, engine, configuration, services; `init()` and `shutdown()`.

Owner: the thread that calls `init` (the training thread). One runtime at a time; `init` after `shutdown` starts a new one.
"""

from __future__ import annotations

import functools
import logging
import threading
from collections.abc import Callable, Sequence
from typing import Any

from hvd_gossip import exits, joining
from hvd_gossip import topology as topologies
from hvd_gossip.algorithms.base import Context
from hvd_gossip.algorithms.lanes import fitting_chunk_bytes
from hvd_gossip.algorithms.registry import AUTO, find_algorithm, make_algorithm
from hvd_gossip.attachments import Attachments
from hvd_gossip.buffers.cuda import device_space, is_cuda_aware, space_of
from hvd_gossip.buffers.replica import Replica
from hvd_gossip.choice.chooser import Chooser, describe, meanwhile
from hvd_gossip.choice.probe import probe
from hvd_gossip.collectives import Collectives, Request, Result, Sum
from hvd_gossip.config import Config, load, mixing_settings, slow_factors, wait_limits
from hvd_gossip.engine import Engine, Handle
from hvd_gossip.errors import ConfigError, NotInitializedError
from hvd_gossip.leaving import Departures, leave_after_failure
from hvd_gossip.observe.counters import Counters
from hvd_gossip.observe.logs import configure_logging
from hvd_gossip.observe.metrics import MetricsWriter, NullMetrics
from hvd_gossip.observe.report import data_path, print_report, report_line
from hvd_gossip.observe.timeline import Recorder
from hvd_gossip.observe.traced import TracedEndpoint
from hvd_gossip.placement import Placement
from hvd_gossip.sharing import WorkSharing
from hvd_gossip.stepper import TRAINING, Stepper, Steppers
from hvd_gossip.tasks import Scheduler
from hvd_gossip.topology.base import Topology
from hvd_gossip.topology.placed import Placed
from hvd_gossip.transport.endpoint import Array
from hvd_gossip.transport.mpi import MpiEndpoint, load_mpi, thread_level_name
from hvd_gossip.worker import Worker
from hvd_gossip.world import World, discover, refuse_gloo
from hvd_gossip.world.world import Comm, find_communicator, library_name, number_hosts

log = logging.getLogger("hvd_gossip")


class Runtime:
    """Everything that one process has between `init` and `shutdown`.

    Attributes:
        config: the settings in force; while `chooser` is not None, those until the choice is made.
        chooser: what `--algorithm auto` has measured; None otherwise, and once it is decided.
        world: ranks and hosts.
        engine: the progress thread.
        collectives, sharing: services on it.
        comm: MPI's communicator of all ranks.
        cuda_aware: whether MPI takes device memory.
        counters: totals of all algorithms of this process.
        timeline, metrics: where events and steps are recorded.
    """

    def __init__(self, config: Config, comm: Comm = None) -> None:
        self.config = meanwhile(config)
        self.chooser: Chooser | None = None
        self.counters = Counters()
        self.workers: list[Worker] = []
        self._attachments = Attachments(self.submit)
        self._comm = comm
        self.engine = Engine(
            self._connect,
            spin=config.spin_us * 1e-6,
            backoff_max=config.backoff_max_us * 1e-6,
            limits=wait_limits(config),
        )
        self._departures = Departures(self.engine, config.shutdown_timeout)
        self.world: World
        self.mpi: Any
        self.comm: Any
        self.engine.start()
        configure_logging(config.log_level, self.world.rank)
        self.timeline = Recorder(config.timeline, self.world.rank, config.timeline_mark_cycles)
        if self.timeline.enabled:
            self.engine.on_wait = self._trace_wait
        self.metrics = self._open_metrics()
        slowdown = slow_factors(config.inject).get(self.world.rank, 1.0)
        make = functools.partial(
            Stepper, self.engine, counters=self.counters, slowdown=slowdown, span=self.timeline.span
        )
        self._steppers = Steppers(make, self.metrics)
        self.engine.call(self._start_services, "starting the services")
        if config.algorithm == AUTO:
            links = self.engine.call(lambda: probe(self.engine.endpoint, config.wait_timeout), "measuring the links")
            self.chooser = Chooser(config, self.world.rank, self.world.size, *links)
        self._report(self.config)

    def choose(self, nbytes: int) -> None:
        """`--algorithm auto`, between two steps: once enough of them are measured, decides. Then it is a collective.

        Args:
            nbytes: of the trainable parameters.

        Raises:
            HorovodInternalError: the collectives failed.
        """
        chooser = self.chooser
        if chooser is None or not chooser.ready:
            return
        matrix = chooser.measured(nbytes)
        self.submit(Request("auto.measurements", "allreduce", matrix, Sum, output=matrix)).wait()
        decision = chooser.decide(matrix)
        self.chooser = None
        self.config = self.config.override(chooser.settings(decision))
        print_report(describe(decision, matrix), self.world.rank, self.config.report)
        self.metrics.event("choice", {**chooser.settings(decision), "reason": decision.reason})
        if find_algorithm(self.config.algorithm).averages != "gradients":
            self._steppers.hand_over()  # to what mixes from here on
        self._report(self.config)

    def submit(self, request: Request) -> Handle[Result]:
        """Starts a named collective operation; the handle gives its result. Every live rank submits the same name."""
        return self.engine.submit(lambda: self.collectives.submit(request), f"{request.kind} of {request.name!r}")

    def attach(
        self,
        flats: Sequence[Array],
        *,
        training_stream: Callable[[], int] | None = None,
        process_set: int = 0,
        **overrides: object,
    ) -> Worker:
        """Puts flat parameter buffers under an algorithm. A collective: every rank attaches the same, in the same order.

        Args:
            flats: 1-D contiguous floating arrays that the framework's tensors are views of.
            training_stream: for CuPy's arrays: gives the raw cudaStream_t that the framework works on.
            process_set: number of the process set whose ranks attach, and mix among themselves; 0 is all ranks.
            overrides: settings that differ from the runtime's, such as `algorithm`, `topology`, `mixing_period`.

        Raises:
            ConfigError: a setting is unknown or has no meaning under the algorithm, or the ranks disagree.
            TopologyError: the topology does not meet a condition of the algorithm.
            ValueError: there is no such process set, or this rank is not in it.
            HorovodInternalError: a rank has joined, or departed, and so does not attach.
        """
        config = self.config.override(overrides)
        kind, settings = find_algorithm(config.algorithm), mixing_settings(config)
        kind.validate(settings)
        topology = self.make_topology(config, process_set)
        what = f"{config.algorithm} over {topology.name}, {settings}, parameters " + ", ".join(
            f"{flat.size} x {flat.dtype}" for flat in flats
        )
        if kind.one_host:
            self._require_one_host(config.algorithm, topology.ranks)
        channel = self._attachments.agree(what, topology.ranks, self.world.rank, process_set)
        # Of all ranks, not this one's: all must cut their parameters into the same chunks.
        neighbours = topology.largest_degree() * kind.rounds_under_way(settings)
        chunk_bytes = fitting_chunk_bytes(config.chunk_bytes, neighbours)
        replica = Replica(flats, chunk_bytes, space_of(flats, self.cuda_aware, training_stream))
        context = Context(
            endpoint=TracedEndpoint(self.engine.endpoint, self.timeline.span)
            if self.timeline.enabled
            else self.engine.endpoint,
            replica=replica,
            topology=topology,
            settings=settings,
            channel=channel,
            post=self.engine.post,
            exact_average=functools.partial(self.collectives.exact_average, process_set=process_set),
            counters=self.counters,
        )
        algorithm = make_algorithm(kind, context)
        worker = Worker(self.engine, algorithm, self.stepper())
        self.workers.append(worker)
        worker.start()
        if process_set or any(name in overrides for name in ("algorithm", "topology")):
            self._report(config, process_set)
        return worker

    def _require_one_host(self, algorithm: str, ranks: Sequence[int]) -> None:
        """Raises: ConfigError: the ranks are on several hosts."""
        hosts: dict[int, list[int]] = {}
        for rank in ranks:
            hosts.setdefault(self.world.hosts[rank], []).append(rank)
        if len(hosts) > 1:
            where = "; ".join(f"host {host}: ranks {', '.join(map(str, there))}" for host, there in hosts.items())
            raise ConfigError(
                f"algorithm {algorithm!r} shares its workers' memory, but they are on {len(hosts)} hosts ({where}); use 'asgd' "
                "or 'adpsgd', or a process set of one host's ranks"
            )

    def join(self) -> int:
        """Rests until all ranks have joined, then training goes on: for ranks with different numbers of batches.

        A rank that has joined is not waited for by its neighbours, and adds zeros to allreduces. A collective.

        Returns:
            The rank that joined last.

        Raises:
            HorovodInternalError: the collectives failed.
        """
        return self.join_all().last_joined

    def join_all(self) -> Result:
        """As `join`; the result says also which ranks have joined: those that had not departed."""
        algorithms = [worker.algorithm for worker in self.workers]
        result = self.engine.call(lambda: joining.join(self.engine.endpoint, self.collectives, algorithms), "join")
        for algorithm in algorithms:
            algorithm.settle()
        return result

    def detach(self, worker: Worker) -> None:
        """Ends `attach`: waits until no peer counts on the worker, whose flat buffers keep all that was exchanged."""
        departure = self.abandon(worker)
        if departure is not None:
            departure.wait()
            worker.algorithm.settle()

    def abandon(self, worker: Worker) -> Handle[None] | None:
        """Announces that a worker takes no further step, and waits for nothing. Its peers go on without it.

        Returns:
            The handle to wait by; None if there is nothing to announce: it was done before, or the engine has failed.
        """
        if worker not in self.workers:
            return None
        self.workers.remove(worker)
        running = self.engine.alive() and self.engine.failure is None
        return self._departures.begin(worker.algorithm) if running else None

    def make_topology(self, config: Config, process_set: int = 0) -> Topology:
        """The topology that a configuration asks for, as its algorithm needs it, among the ranks of a process set.

        Raises:
            TopologyError: see `attach`. ValueError: there is no such process set, or this rank is not in it.
        """
        kind, ranks = find_algorithm(config.algorithm), self.collectives.ranks_of(process_set)
        if self.world.rank not in ranks:
            raise ValueError(f"rank {self.world.rank} is not in process set {process_set} of ranks {list(ranks)}")
        spec = kind.default_topology if config.topology == "auto" else config.topology
        topology = topologies.make_topology(
            spec,
            len(ranks),
            seed=config.seed,
            weights=config.mixing_weights,
            laziness=config.laziness,
            hosts=number_hosts([self.world.hosts[rank] for rank in ranks]),
        )
        fitting = topologies.fit_topology(topology, kind.needs)
        return fitting if process_set == 0 else Placed(fitting, ranks)

    def stepper(self) -> Stepper:
        """A new accountant of steps, for an optimizer whose gradients the collectives average. The first one's steps are
        recorded; after a choice of gossip those of the next one."""
        return self._steppers.make(None if self.chooser is None else self.chooser.record)

    def shutdown(self) -> None:
        """Departs from every service and stops the engine. Peers that do not answer in time are named in a warning."""
        try:
            if self.engine.alive():
                self._leave()
                self.engine.stop()
        finally:
            self.workers.clear()
            self.metrics.close(self.counters)
            self.timeline.stop()

    def _leave(self) -> None:
        services = {"work sharing": self.sharing.depart, "collectives": self.collectives.depart}
        if self.engine.failure is None:
            for worker in list(self.workers):
                self.abandon(worker)
            self._departures.finish(services)
        else:
            departures = [worker.algorithm.depart for worker in self.workers]
            leave_after_failure(self.engine, [*departures, *services.values()], self.config.shutdown_timeout)

    def abort(self, code: int) -> None:
        """Ends the whole job at once: the way out after an uncaught exception."""
        if self.world.size > 1 and self.engine.alive():
            self.engine.post(lambda: self.mpi.COMM_WORLD.Abort(code))
            self.engine.join()

    def _connect(self, scheduler: Scheduler) -> MpiEndpoint:
        """On the engine's thread: the process's first MPI call may be here."""
        refuse_gloo()
        self.mpi = load_mpi(self.config.mpi_thread_level)
        self.cuda_aware = is_cuda_aware(self.config.cuda_aware, self.mpi)
        self.comm = comm = find_communicator(self.mpi, self._comm)
        self.world = discover(comm, self.mpi)
        self.engine.placement = Placement(self.world.local_rank, self.world.local_size)
        return MpiEndpoint(comm.Clone(), scheduler, self.config.seed)

    async def _start_services(self) -> None:
        config = self.config
        self.collectives = Collectives(
            self.engine.endpoint,
            fusion_threshold=config.fusion_threshold,
            cycle_time=config.cycle_time,
            cache_capacity=config.cache_capacity,
            stall_check_time=config.stall_check_time,
            stall_shutdown_time=config.stall_shutdown_time,
            stall_check_disable=config.stall_check_disable,
            on_stall=log.warning,
            trace=self.timeline.trace if self.timeline.enabled else None,
            wait_timeout=config.wait_timeout,
            space_of=lambda arrays: device_space(arrays[0].device.id, self.cuda_aware),
        )
        self.sharing = WorkSharing(self.engine.endpoint, self.engine.post, wait_timeout=config.wait_timeout)
        self.collectives.start()
        self.sharing.start()

    def _trace_wait(self, what: str, start: float, end: float) -> None:
        thread = threading.current_thread()
        track = "" if thread is threading.main_thread() else thread.name
        self.timeline.span(TRAINING, f"WAIT: {what}", start, end, track=track)

    def _report(self, config: Config, process_set: int = 0) -> None:
        ranks = self.collectives.ranks_of(process_set)
        if not config.report or self.world.rank != ranks[0]:
            return
        topology = None if find_algorithm(config.algorithm).needs == "none" else self.make_topology(config, process_set)
        line = report_line(
            algorithm=config.algorithm,
            ranks=len(ranks),
            hosts=len({self.world.hosts[rank] for rank in ranks}),
            transport=library_name(self.mpi),
            thread_level=thread_level_name(self.mpi).lower(),
            data_path=data_path(self.cuda_aware),
            topology=topology.name if topology else None,
            spectral_gap=topology.spectral_gap() if topology else None,
            wire_dtype=config.wire_dtype,
        )
        print_report(line, rank=0)

    def _open_metrics(self) -> MetricsWriter | NullMetrics:
        if not self.config.metrics_dir:
            return NullMetrics()
        run = {"algorithm": self.config.algorithm, "topology": str(self.config.topology), "size": self.world.size}
        return MetricsWriter(self.config.metrics_dir, self.world.rank, run)


_current: Runtime | None = None


def init(comm: Comm = None, **settings: object) -> Runtime:
    """Starts the runtime, or returns the one that runs (further arguments are then ignored, as Horovod does).

    Args:
        comm: None for all ranks, a list of ranks of COMM_WORLD, or an mpi4py communicator.
        settings: overrides of the configuration, by name.

    Raises:
        ConfigError: an unknown setting or a bad value; before MPI starts where that can be known.
    """
    global _current
    if _current is None:
        config = load(settings)
        find_algorithm(meanwhile(config).algorithm).validate(mixing_settings(config))
        _current = Runtime(config, comm)
        exits.install(shutdown, _abort)
    return _current


def shutdown() -> None:
    """Departs and stops. Does nothing if the runtime does not run."""
    global _current
    runtime, _current = _current, None
    if runtime is not None:
        runtime.shutdown()


def restart() -> Runtime:
    """Shuts down and starts a new runtime with the same communicator and settings. Every rank calls it."""
    global _current
    old = current()
    shutdown()
    _current = Runtime(old.config if old.chooser is None else old.chooser.asked, old.comm)
    return _current


def is_initialized() -> bool:
    """Whether `init` was called and `shutdown` not since."""
    return _current is not None


def current() -> Runtime:
    """The runtime.

    Raises:
        NotInitializedError: it does not run.
    """
    if _current is None:
        raise NotInitializedError
    return _current


def _abort(code: int) -> None:
    if _current is not None:
        _current.abort(code)
