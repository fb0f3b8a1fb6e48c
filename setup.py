"""Where the packages lie; everything else is in pyproject.toml.

A framework's folder lies outside hvd_gossip/ and is installed inside it: frameworks/torch is hvd_gossip.torch.
"""

from setuptools import find_packages, setup

FRAMEWORKS = ("torch", "tensorflow")

packages = find_packages(include=["hvd_gossip", "hvd_gossip.*"])
for framework in FRAMEWORKS:
    inside = find_packages(f"frameworks/{framework}")
    packages += [f"hvd_gossip.{framework}", *(f"hvd_gossip.{framework}.{name}" for name in inside)]

setup(
    packages=packages,
    package_dir={f"hvd_gossip.{framework}": f"frameworks/{framework}" for framework in FRAMEWORKS},
)
