"""Starting ranks: `launcher.launch(plan.make_plan(...))`; on top of it hvd-gossip-run (`cli`) and `hvd_gossip.run` (`function`).

hosts, allocation -> mpirun -> plan -> launcher <- supervise, reports <-> agent (one a rank). Nothing is imported here: the
agent, the ranks and `python -m hvd_gossip` need little of it.
"""
