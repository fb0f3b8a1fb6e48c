"""What the launcher starts once a rank: it runs the rank's command and tells the launcher how that ended.

MPI launchers report failures each in their own words, and not always truly: MPICH's may name a rank that it killed
itself, and leaves the others waiting for one that failed before MPI_Init. An agent is the parent: it knows.

The folder is run by its path, so that it starts in milliseconds: `python -I -S .../launch/agent COMMAND...`. Its modules
therefore use the standard library only, and none of each other but through `__main__`.
"""
