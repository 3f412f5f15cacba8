"""The ops and the loss network against their peers."""
