"""What is trained: bytes of parameters, samples, and how long one worker computes for a step, by cited figures."""

from __future__ import annotations

from dataclasses import dataclass

IMAGENET, CIFAR = 1_281_167, 50_000


@dataclass(frozen=True)
class Workload:
    """A model and its training set on one kind of worker.

    Attributes:
        nbytes: of the parameters, and of the gradients.
        samples: of an epoch.
        batch: samples of a worker's step.
        seconds: of compute a step.
        source: where `seconds` is from.
    """

    name: str
    nbytes: float
    samples: int
    batch: int
    seconds: float
    source: str

    def steps(self, size: int) -> float:
        """Steps of an epoch on each of `size` equal workers."""
        return self.samples / self.batch / size


RESNET50_P100 = Workload(
    "ResNet-50, batch 32, one P100", 102e6, IMAGENET, 32, 32 / 195,
    "195 images/s on one P100 with batch 32: tensorflow.org/performance/benchmarks (2017)",
)  # fmt: skip
RESNET50_NODE = Workload(
    "ResNet-50, batch 256, node of 8 V100", 102e6, IMAGENET, 256, 0.271,
    "271 ms an iteration of OSGP, which hides its communication, on 32 nodes of 8 GPUs at 8,192 images: "
    "Wang, Tantia, Ballas, Rabbat, SlowMo, ICLR 2020",
)  # fmt: skip
RESNET20_CIFAR = Workload(
    "ResNet-20, batch 32, one learner", 1.08e6, CIFAR, 32, 18.04 / (CIFAR / 32),
    "18.04 s an epoch of one learner: Zhang, Lian, Zhang, Liu, Decentralized Distributed Deep Learning",
)  # fmt: skip
VGG_CIFAR = Workload(
    "VGG, batch 128, one learner", 60e6, CIFAR, 128, 13.60 / (CIFAR / 128),
    "13.60 s an epoch of one learner: Zhang, Lian, Zhang, Liu, Decentralized Distributed Deep Learning",
)  # fmt: skip
