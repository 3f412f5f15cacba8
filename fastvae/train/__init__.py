"""Training: the step, the loop around it, what a run reads, and what it leaves."""
