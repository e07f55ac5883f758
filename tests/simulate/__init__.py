"""Storms on the virtual clock: the goals hold in the model, for the shipped storms and for others."""
