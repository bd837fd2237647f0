"""What the system refuses in places that expect no refusal -> a sentence with a way out; anything else is a bug, and traced."""

import errno

_REFUSALS = {
    getattr(errno, name)
    for name in ("EACCES", "EPERM", "EROFS", "ENOSPC", "EDQUOT", "EIO", "EMFILE", "ENFILE", "ENOMEM", "ESTALE")
    if hasattr(errno, name)
}
_MEMORY = ("can't allocate memory", "out of memory", "Cannot allocate memory")  # torch's words, in RuntimeErrors
_SHARED = "shared memory"  # likewise, of batches that a worker process hands over


def refused(error: Exception) -> str | None:
    """A sentence where an exception tells of the machine's limits; None where it does not."""
    told = str(error)
    if isinstance(error, RuntimeError) and _SHARED in told:
        return (
            "Shared memory (/dev/shm) cannot be had or is full, by which processes that load rows hand them over. Give it more "
            "room (--shm-size of a container), or load rows in this process: --set data.workers=0."
        )
    if isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and any(one in told for one in _MEMORY)):
        return (
            "Memory ran out. Take smaller batches (train.batch_size) or shorter texts (data.max_length), or let this process "
            "have more; what was finished before is kept."
        )
    if not isinstance(error, OSError) or error.errno not in _REFUSALS:
        return None
    reason = error.strerror or str(error)
    if error.errno in (errno.EMFILE, errno.ENFILE):
        return f"No more files can be opened ({reason}). Raise the limit: `ulimit -n 4096`."
    if error.errno == errno.ENOMEM:
        return f"Memory ran out ({reason}). Let this process have more; what was finished before is kept."
    place = f"{error.filename} cannot be used" if error.filename else "A file cannot be used"
    return f"{place}: {reason}. See that this account may read and write there, and that the disk has room."
