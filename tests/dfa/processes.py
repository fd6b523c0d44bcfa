"""What tests with several processes share."""

import os

from torch import distributed


def leave_group() -> None:
    """Leave the process group and end this process at once.

    PyTorch sometimes aborts a process of a gloo group that DistributedDataParallel has used while its interpreter shuts
    down ("terminate called without an active exception"), with or without a rule; by then the work is saved.
    """
    distributed.barrier()
    distributed.destroy_process_group()
    os._exit(0)
