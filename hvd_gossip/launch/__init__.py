"""Starting ranks: `launcher.launch`, and the command line hvd-gossip-run (`cli.main`) on top of it.

hosts -> mpirun -> plan -> launcher <- supervise, reports <-> agent (one a rank). Nothing is imported here: the agent and
`python -m hvd_gossip` need little of it.
"""
