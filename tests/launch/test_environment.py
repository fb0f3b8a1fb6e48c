"""The ranks' environment: settings, threads, what is exported to other hosts and what stays."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from hvd_gossip.compat import SHADOW
from hvd_gossip.errors import ConfigError
from hvd_gossip.launch.environment import THREAD_VARIABLES, exported_names, rank_environment


def test_settings_become_variables_and_replace_them() -> None:
    environ = {"HVD_GOSSIP_ALGORITHM": "allreduce", "HOROVOD_CYCLE_TIME": "2", "OWN": "kept"}
    environment = rank_environment({"algorithm": "adpsgd", "fusion_threshold": 1 << 20}, 1, environ)
    assert environment["HVD_GOSSIP_ALGORITHM"] == "adpsgd"
    assert environment["HOROVOD_FUSION_THRESHOLD"] == str(1 << 20)
    assert (environment["HOROVOD_CYCLE_TIME"], environment["OWN"]) == ("2", "kept")
    assert environ["HVD_GOSSIP_ALGORITHM"] == "allreduce"


def test_a_bad_setting_is_refused() -> None:
    with pytest.raises(ConfigError, match="Valid: auto, allreduce"):
        rank_environment({"algorithm": "horovod"}, 1, {})


@pytest.mark.parametrize("inherited", [None, "", "/lib/a:/lib/b", f"/lib/a:{SHADOW}:/lib/b"])
def test_the_shadow_comes_first_on_pythonpath_and_once(inherited: str | None) -> None:
    environ = {} if inherited is None else {"PYTHONPATH": inherited}
    entries = rank_environment({}, 1, environ)["PYTHONPATH"].split(os.pathsep)
    assert entries == [SHADOW, *(["/lib/a", "/lib/b"] if inherited else [])]


def test_this_python_s_folder_is_on_path_without_changing_the_order_of_others() -> None:
    own = str(Path(sys.executable).parent)
    assert rank_environment({}, 1, {"PATH": "/usr/bin"})["PATH"] == f"{own}:/usr/bin"
    assert rank_environment({}, 1, {"PATH": f"/usr/bin:{own}"})["PATH"] == f"/usr/bin:{own}"


def test_threads_are_set_unless_the_user_did() -> None:
    assert {rank_environment({}, 3, {})[name] for name in THREAD_VARIABLES} == {"3"}
    own = rank_environment({}, 3, {"OMP_NUM_THREADS": "8"})
    assert {own[name] for name in THREAD_VARIABLES} == {"8"}  # MKL and the rest follow OpenMP's unless told otherwise
    mkl = rank_environment({}, 3, {"MKL_NUM_THREADS": "2"})
    assert (mkl["MKL_NUM_THREADS"], mkl["OMP_NUM_THREADS"]) == ("2", "3")


def test_a_flag_for_threads_wins_over_variables() -> None:
    environment = rank_environment({"threads_per_rank": 5}, 3, {"OMP_NUM_THREADS": "8", "MKL_NUM_THREADS": "2"})
    assert {environment[name] for name in THREAD_VARIABLES} == {"5"}
    assert rank_environment({"threads_per_rank": 0}, 3, {})["OMP_NUM_THREADS"] == "3"


def test_output_is_not_buffered_unless_the_user_says_so() -> None:
    assert rank_environment({}, 1, {})["PYTHONUNBUFFERED"] == "1"
    assert rank_environment({}, 1, {"PYTHONUNBUFFERED": ""})["PYTHONUNBUFFERED"] == ""


def test_a_rank_s_own_mpi_variables_do_not_reach_ranks_of_another_job() -> None:
    mpi = {"PMIX_RANK": "1", "PMIX_NAMESPACE": "x", "OMPI_COMM_WORLD_SIZE": "4", "PMI_FD": "9", "HYDI_CONTROL_FD": "7"}
    mpi |= {"MPI_LOCALRANKID": "0", "PRTE_LAUNCHED": "1", "OMPI_MCA_initial_wdir": "/"}
    kept = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "MPICH_ASYNC_PROGRESS": "0", "MPI4PY_RC_THREADS": "1"}
    environment = rank_environment({}, 1, mpi | kept)
    assert not mpi.keys() & environment.keys()
    assert kept.items() <= environment.items()


def test_outside_of_mpi_the_user_s_choices_for_it_stay() -> None:
    own = {"OMPI_MCA_btl": "self,sm", "PRTE_MCA_plm_ssh_agent": "rsh", "PMIX_MCA_gds": "hash"}
    assert own.items() <= rank_environment({}, 1, own).items()


def test_all_but_what_describes_one_machine_is_exported() -> None:
    wanted = ["HVD_GOSSIP_SEED", "HOROVOD_TIMELINE", "PATH", "PYTHONPATH", "LD_LIBRARY_PATH", "OMP_NUM_THREADS"]
    wanted += ["VIRTUAL_ENV", "CUDA_VISIBLE_DEVICES", "NCCL_DEBUG", "WANDB_API_KEY", "OMPI_MCA_btl", "_PRIVATE"]
    local = ["HOSTNAME", "HOME", "PWD", "TMPDIR", "SSH_AUTH_SOCK", "SLURM_JOB_ID", "_", "TERM", "OMPI_COMM_WORLD_RANK"]
    functions = ["BASH_FUNC_module%%", "with space"]
    assert exported_names(dict.fromkeys(wanted + local + functions, "x")) == tuple(sorted(wanted))
