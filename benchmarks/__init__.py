"""Speed and memory, measured against their targets: `python -m benchmarks.run`, or one module alone (docs/benchmarks.md).

    run -> straggler, overhead, collectives, exchange, memory, idle -> job -> ranks/ (what the MPI processes run)
                                                     -> report, plots

Nothing is imported here: the ranks need little of it.
"""
