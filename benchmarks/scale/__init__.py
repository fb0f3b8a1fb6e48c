"""How the algorithms scale, by the simulator that runs the very same objects: 16 to 4,096 workers on described networks."""
