"""What the benchmarks run in every MPI process, one module a benchmark; started by `benchmarks.job`."""
