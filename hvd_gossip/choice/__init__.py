"""`--algorithm auto`: measures links and workers, predicts what a step costs under each candidate, and chooses."""
