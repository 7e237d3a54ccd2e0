"""Memory that does not suffice: which errors say so, and how what used it is handed back."""

import gc

import torch
from accelerate.utils.memory import clear_device_cache, should_reduce_batch_size


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory did not suffice, of a device or of the machine."""
    known = isinstance(error, torch.OutOfMemoryError | MemoryError)
    return known or (isinstance(error, Exception) and should_reduce_batch_size(error))


def release_memory() -> None:
    """Hand back what nothing uses any more; call it outside the handler, whose traceback still holds tensors."""
    gc.collect()
    clear_device_cache()
