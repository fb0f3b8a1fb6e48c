"""Scripts of TensorFlow 1, with all of TensorFlow 2's behaviour turned off."""

from __future__ import annotations

import numpy as np
import pytest

from tests.mpi import run_ranks
from tests.tensorflow_frontend.ranks import FOLDER, needs_tensorflow


@needs_tensorflow
@pytest.mark.timeout(120)
def test_a_script_of_tensorflow_1() -> None:
    done = run_ranks(2, FOLDER / "v1_main.py", timeout=100, env={"HVD_GOSSIP_WAIT_TIMEOUT": "20"})
    first, second = done.in_rank_order()
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one, other)
    assert first[2] == 19  # before the last step
    assert np.abs(first[1]).max() <= 1.0
