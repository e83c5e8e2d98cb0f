"""Training of a network: batches, losses, optimizers, schedules, callbacks and hardware.

Internal: may change without notice.
"""
