"""`hvd_gossip.tensorflow`: planned as PyTorch's equal, not there yet."""

raise ImportError(
    "hvd_gossip.tensorflow does not exist yet: this version of hvd-gossip supports PyTorch only "
    "(import hvd_gossip.torch as hvd)."
)
