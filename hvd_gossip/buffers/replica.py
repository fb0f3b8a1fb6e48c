"""One worker's parameters as flat buffers, their correction, and the locks between the training thread and the engine."""
