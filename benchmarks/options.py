"""Every benchmark's knobs: default, quick variant, flag and help, declared once. Ranks get them as JSON."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

T = TypeVar("T")


def _knob(default: T, help: str, quick: T | None = None, kind: Callable[[str], Any] | None = None) -> T:
    """A field with a default, a smaller value for `--quick`, and how its flag's words are read."""
    metadata = {"help": help, "quick": default if quick is None else quick, "kind": kind or type(default)}
    value: T = dataclasses.field(default=default, metadata=metadata)
    return value


def _floats(text: str) -> tuple[float, ...]:
    return tuple(map(float, text.split(",")))


def _integers(text: str) -> tuple[int, ...]:
    return tuple(map(int, text.split(",")))


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split(","))


@dataclass(frozen=True)
class Options:
    """Base of the knobs of a benchmark."""

    timeout: float = _knob(300.0, "seconds after which the ranks of one launch are given up")


@dataclass(frozen=True)
class StragglerOptions(Options):
    """One slow rank: `adpsgd` beside `allreduce`."""

    ranks: int = _knob(16, "number of ranks", 3)
    step_ms: float = _knob(50.0, "slept compute of a full batch, milliseconds", 10.0)
    megabytes: float = _knob(1.08, "parameters, 10^6 bytes", 0.1)
    batch: int = _knob(8, "samples in a full batch")
    slowdowns: tuple[float, ...] = _knob(
        (1.0, 2.0, 10.0, 100.0, 1_000.0, 10_000.0), "factors of the slow rank's compute", (1.0, 10.0, 1000.0), _floats
    )
    steps: int = _knob(100, "batches of an epoch, for each rank of equal speed", 6)
    repetitions: int = _knob(3, "epochs of each kind; each has another slow rank", 1)
    allreduce_seconds: float = _knob(3.0, "how long allreduce's steps are measured, about", 0.2)
    longest_step: float = _knob(6.0, "allreduce steps longer than this, seconds, are extrapolated", 0.2)
    alone_steps: int = _knob(40, "batches of one worker alone, measured with each repetition", 3)


@dataclass(frozen=True)
class OverheadOptions(Options):
    """No slow rank: what a step costs beside its compute."""

    ranks: int = _knob(16, "number of ranks", 3)
    step_ms: float = _knob(50.0, "slept compute of a batch, milliseconds", 10.0)
    megabytes: float = _knob(1.08, "parameters, 10^6 bytes", 0.1)
    batch: int = _knob(8, "samples in a batch")
    algorithms: tuple[str, ...] = _knob(
        ("adpsgd", "dpsgd", "sgp", "allreduce"), "algorithms to measure", ("adpsgd", "dpsgd"), _words
    )
    steps: int = _knob(25, "measured steps of a block", 4)
    warm_up: int = _knob(5, "discarded steps before them", 2)
    repetitions: int = _knob(5, "blocks of each algorithm, interleaved with blocks of the plain optimizer", 2)


@dataclass(frozen=True)
class GpuOptions(Options):
    """What a step on a GPU costs beside its compute."""

    ranks: int = _knob(2, "number of ranks, of one machine")
    megabytes: float = _knob(67.0, "parameters, 10^6 bytes", 17.0)
    batch: int = _knob(4096, "rows in a batch", 256)
    algorithms: tuple[str, ...] = _knob(
        ("allreduce", "dpsgd", "sgp", "adpsgd"), "algorithms to measure", ("allreduce", "adpsgd"), _words
    )
    steps: int = _knob(30, "measured steps of a block", 4)
    warm_up: int = _knob(5, "discarded steps before them", 2)
    repetitions: int = _knob(5, "blocks of each algorithm, interleaved with blocks of the plain optimizer", 2)


@dataclass(frozen=True)
class CollectivesOptions(Options):
    """Our allreduce beside MPI's and gloo's."""

    ranks: tuple[int, ...] = _knob((2, 4), "numbers of ranks", (2,), _integers)
    bytes: tuple[int, ...] = _knob(
        (1 << 10, 64 << 10, 1 << 20, 4 << 20, 60 << 20), "sizes of the float32 tensor", (1 << 10, 4 << 20), _integers
    )
    seconds: float = _knob(3.0, "how long each size is measured, about, all ways together", 0.2)
    most: int = _knob(200, "repetitions of one size, at most", 4)


@dataclass(frozen=True)
class FusionOptions(Options):
    """Many small tensors at once."""

    ranks: tuple[int, ...] = _knob((2, 4), "numbers of ranks", (2,), _integers)
    tensors: tuple[int, ...] = _knob((64, 200), "numbers of tensors", (8,), _integers)
    bytes: int = _knob(4 << 10, "size of each float32 tensor")
    seconds: float = _knob(3.0, "how long each set is measured, about, all ways together", 0.2)
    most: int = _knob(200, "repetitions of one set, at most", 4)


@dataclass(frozen=True)
class OverlapOptions(Options):
    """Gradients averaged beside the backward pass."""

    ranks: tuple[int, ...] = _knob((2, 4), "numbers of ranks", (2,), _integers)
    megabytes: float = _knob(60.0, "parameters, 10^6 bytes", 1.0)
    layers: int = _knob(20, "layers that the parameters are in", 4)
    backward_ms: float = _knob(100.0, "slept backward pass, milliseconds", 10.0)
    steps: int = _knob(5, "steps of a block", 2)
    repetitions: int = _knob(8, "blocks of each kind, after the first, which is discarded", 2)


@dataclass(frozen=True)
class ParityOptions(Options):
    """PyTorch and Keras side by side."""

    frameworks: tuple[str, ...] = _knob(("torch", "tensorflow"), "frameworks to measure", None, _words)
    ranks: int = _knob(2, "number of ranks")
    megabytes: tuple[float, ...] = _knob((1.0, 60.0), "parameters, 10^6 bytes", (0.1,), _floats)
    algorithms: tuple[str, ...] = _knob(
        ("allreduce", "dpsgd", "sgp", "adpsgd"), "algorithms to measure", ("allreduce", "adpsgd"), _words
    )
    batch: int = _knob(32, "images of a step and rank")
    steps: int = _knob(20, "steps of a block", 3)
    repetitions: int = _knob(5, "blocks of each kind, after the first, which is discarded", 2)


@dataclass(frozen=True)
class KerasFitOptions(Options):
    """Gossip in a step of Keras's `fit`, with compute to hide communication behind."""

    ranks: int = _knob(2, "number of ranks")
    megabytes: tuple[float, ...] = _knob((1.0, 60.0), "parameters, 10^6 bytes", (0.1,), _floats)
    step_ms: tuple[float, ...] = _knob(
        (50.0, 500.0), "slept compute of a step, milliseconds, for each size", (10.0,), _floats
    )
    algorithms: tuple[str, ...] = _knob(
        ("allreduce", "dpsgd", "sgp", "adpsgd"), "algorithms to measure", ("allreduce", "adpsgd"), _words
    )
    batch: int = _knob(8, "samples of a step and rank")
    block_seconds: float = _knob(2.0, "slept compute of a block, about", 0.05)
    repetitions: int = _knob(3, "blocks of each kind, after the first, which is discarded", 2)

    def __post_init__(self) -> None:
        if len(self.step_ms) != len(self.megabytes):
            raise ValueError(
                f"step_ms must have a time for each of the {len(self.megabytes)} sizes, not {self.step_ms}"
            )

    def steps(self, step_ms: float) -> int:
        """Steps of a block."""
        return max(3, round(self.block_seconds / (step_ms * 1e-3)))


@dataclass(frozen=True)
class ExchangeOptions(Options):
    """A pair exchange in chunks beside one raw Sendrecv."""

    bytes: int = _knob(60_000_000, "size of the float32 parameters", 4_000_000)
    chunk_bytes: int = _knob(1 << 20, "size of a chunk, as the setting chunk_bytes")
    repetitions: int = _knob(40, "exchanges of each kind, interleaved", 4)
    warm_up: int = _knob(3, "discarded ones before them", 1)


@dataclass(frozen=True)
class MemoryOptions(Options):
    """Memory of a gossip algorithm over that of a process without it."""

    ranks: tuple[int, ...] = _knob((2, 4), "numbers of ranks", (2,), _integers)
    megabytes: float = _knob(64.0, "parameters, 10^6 bytes", 8.0)
    algorithms: tuple[str, ...] = _knob(("adpsgd", "dpsgd", "sgp"), "algorithms to measure", ("adpsgd",), _words)
    steps: int = _knob(8, "training steps before memory is read", 3)


@dataclass(frozen=True)
class IdleOptions(Options):
    """CPU time of a process that does nothing."""

    ranks: int = _knob(2, "number of ranks")
    seconds: float = _knob(2.0, "length of one observation", 0.3)
    repetitions: int = _knob(3, "observations of each kind", 2)
    step_ms: float = _knob(50.0, "slept compute of the steps before the training pauses, milliseconds", 5.0)
    megabytes: float = _knob(1.08, "parameters, 10^6 bytes", 0.1)


@dataclass(frozen=True)
class SimulatorOptions(Options):
    """What a step of a simulated worker costs, and where the time goes."""

    sizes: tuple[int, ...] = _knob((64, 1024), "numbers of workers", (8,), _integers)
    steps: int = _knob(20, "steps of each worker, measured as the difference to a run of half as many", 4)
    repetitions: int = _knob(3, "measurements of each", 1)
    long_size: int = _knob(1024, "workers of the long run", 16)
    long_steps: int = _knob(1000, "steps of each worker of the long run; 0: no long run", 20)
    long_algorithms: tuple[str, ...] = _knob(("adpsgd",), "algorithms of the long run", None, _words)


@dataclass(frozen=True)
class RingsOptions(Options):
    """The closed form of a ring allreduce beside its events."""

    sizes: tuple[int, ...] = _knob((16, 32, 64), "numbers of ranks", (4,), _integers)
    megabytes: float = _knob(102.0, "gradients, 10^6 bytes")


@dataclass(frozen=True)
class EpochsOptions(Options):
    """Predicted epochs of ResNet-50 on every network, for every registered algorithm."""

    sizes: tuple[int, ...] = _knob((16, 128, 1024), "numbers of workers", (16,), _integers)
    largest: int = _knob(4096, "workers of one more column, on the first network only; 0: none", 0)
    steps: int = _knob(6, "simulated steps of a worker, on average", 2)
    networks: tuple[str, ...] = _knob(
        ("ethernet-10g", "infiniband-100g", "hosts-of-8-10g", "hosts-of-4-100g", "wide-area"),
        "networks of hvd_gossip.transport.link_models", ("ethernet-10g",), _words,
    )  # fmt: skip


@dataclass(frozen=True)
class FaultsOptions(Options):
    """Predicted throughput with stragglers, departures and deaths."""

    size: int = _knob(128, "number of workers", 16)
    network: str = _knob("ethernet-10g", "a network of hvd_gossip.transport.link_models")
    steps: int = _knob(30, "simulated steps of a worker, on average", 6)


@dataclass(frozen=True)
class HeadlinesOptions(Options):
    """What the papers report, beside what the simulator predicts."""

    steps: int = _knob(20, "simulated steps of a worker, on average", 4)


@dataclass(frozen=True)
class CalibrationOptions(Options):
    """Predicted steps beside measured ones, on real ranks of this machine."""

    ranks: tuple[int, ...] = _knob((4, 8, 16), "numbers of ranks", (3,), _integers)
    step_ms: float = _knob(50.0, "slept compute of a batch, milliseconds", 10.0)
    megabytes: float = _knob(1.08, "parameters, 10^6 bytes", 0.1)
    batch: int = _knob(8, "samples in a batch")
    algorithms: tuple[str, ...] = _knob(
        ("adpsgd", "dpsgd", "sgp", "allreduce"), "algorithms to measure", ("adpsgd", "allreduce"), _words
    )
    steps: int = _knob(20, "measured steps of a block", 4)
    warm_up: int = _knob(5, "discarded steps before them", 2)
    repetitions: int = _knob(3, "blocks of each algorithm, interleaved with blocks of the plain optimizer", 1)
    small_bytes: int = _knob(4 << 10, "allreduce that gives the latency")
    large_bytes: int = _knob(1 << 20, "allreduce that gives the bandwidth")
    allreduces: int = _knob(20, "allreduces of each size", 6)


@dataclass(frozen=True)
class NormalizationOptions(Options):
    """Full Normalization beside other layers, at batches that are tiny or of few classes."""

    ranks: int = _knob(4, "number of ranks", 2)
    algorithm: str = _knob("allreduce", "what keeps the ranks' models together")
    cases: tuple[str, ...] = _knob(("tiny", "one-class", "skewed"), "kinds of batches", None, _words)
    layers: tuple[str, ...] = _knob(
        ("batch", "sync", "group", "full", "full-untracked", "full-over-workers"), "normalization layers", None, _words
    )
    batch: int = _knob(8, "images in a batch of one class or of a rank's own classes")
    rates: tuple[float, ...] = _knob((0.05,), "learning rates; the best one is reported", None, _floats)
    momentum: float = _knob(0.1, "weight of a batch in the running statistics")
    steps: int = _knob(150, "steps of a training", 4)
    points: int = _knob(3, "evaluations of a training, the last one at its end", 2)
    seeds: int = _knob(3, "trainings of each kind", 1)


@dataclass(frozen=True)
class SkewOptions(Options):
    """Workers whose data differ, simulated: accuracy of each algorithm."""

    workers: int = _knob(16, "number of workers", 4)
    models: tuple[str, ...] = _knob(
        ("logistic", "network"), "logistic regression, a network of one hidden layer", None, _words
    )
    skews: tuple[str, ...] = _knob(
        ("by label", "1", "0.1", "0.01"),
        "how the data are shared: by label, or alpha of a Dirichlet distribution",
        None,
        _words,
    )
    hidden: int = _knob(32, "width of the network's hidden layer", 4)
    batch: int = _knob(8, "samples of a gradient")
    rates: tuple[float, ...] = _knob((0.1, 0.5), "learning rates; the best one is reported", (0.5,), _floats)
    steps: int = _knob(100, "steps of a worker", 10)
    points: int = _knob(10, "points of a curve", 2)
    seeds: int = _knob(2, "divisions of the data", 1)


@dataclass(frozen=True)
class SpeedupOptions(Options):
    """Linear speed-up and transients, simulated."""

    workers: tuple[int, ...] = _knob((1, 2, 4, 8, 16, 32, 64), "numbers of workers", (1, 4), _integers)
    rates: tuple[float, ...] = _knob(
        (0.0025, 0.005, 0.01),
        "learning rates of one worker; n take n times as much; the fastest is reported",
        (0.01,),
        _floats,
    )
    highest_rate: float = _knob(0.32, "the learning rate at most")
    target: float = _knob(0.02, "excess loss to come to")
    noise: float = _knob(2.0, "deviation of the noise in the least squares' outputs")
    most: int = _knob(1500, "steps of a worker, at most", 900)
    transient_workers: int = _knob(16, "workers of the runs that measure transients", 4)
    transient_steps: int = _knob(1000, "steps of those", 200)
    tolerance: float = _knob(1.1, "a transient is over where the error stays below so many times allreduce's")
    seeds: int = _knob(2, "runs of each kind", 1)


@dataclass(frozen=True)
class StalenessOptions(Options):
    """One slow worker, simulated: what its old gradients do to the others' loss."""

    workers: int = _knob(16, "number of workers", 4)
    slowdowns: tuple[float, ...] = _knob(
        (1.0, 10.0, 100.0, 1_000.0, 10_000.0), "factors of the slow worker's compute", (1.0, 100.0), _floats
    )
    seconds: float = _knob(15.0, "virtual seconds of training", 1.0)
    rates: tuple[float, ...] = _knob((0.3,), "learning rates; the best one is reported", None, _floats)
    batch: int = _knob(8, "samples of a gradient")
    seeds: int = _knob(3, "runs of each kind", 1)


O = TypeVar("O", bound=Options)  # noqa: E741


def quick(kind: type[O]) -> O:
    """The variant that takes seconds: it shows that everything works, and its figures mean nothing."""
    return kind(**{field.name: field.metadata["quick"] for field in dataclasses.fields(kind)})


def add_arguments(parser: argparse.ArgumentParser, kind: type[Options]) -> None:
    """Adds a flag for every knob, `--repetitions` for `repetitions`; what is not given is not in the namespace."""
    for field in dataclasses.fields(kind):
        default = field.default
        shown = ",".join(f"{item:g}" if isinstance(item, float) else str(item) for item in _as_tuple(default))
        parser.add_argument(
            "--" + field.name.replace("_", "-"),
            type=field.metadata["kind"],
            default=argparse.SUPPRESS,
            metavar="N" if not isinstance(default, tuple) else "N,...",
            help=f"{field.metadata['help']} (default {shown})",
        )


def from_arguments(kind: type[O], namespace: argparse.Namespace) -> O:
    """The knobs of a command line: what was given, over the defaults or, with `quick`, over the quick variant."""
    base = quick(kind) if namespace.quick else kind()
    names = [field.name for field in dataclasses.fields(kind)]
    return dataclasses.replace(base, **{name: getattr(namespace, name) for name in names if name in namespace})


def from_json(kind: type[O], values: dict[str, Any]) -> O:
    """Knobs as a rank receives them: JSON has lists where they have tuples."""
    read: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
    return kind(**read)


def _as_tuple(value: Any) -> tuple[Any, ...]:
    return value if isinstance(value, tuple) else (value,)
