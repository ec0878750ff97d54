"""One table of token buckets for all processes of a machine: memory that they map, changed without a lock."""

import contextlib
import fcntl
import mmap
import os
import secrets
import stat
import struct
import time
import weakref
from collections.abc import Iterator
from hashlib import blake2b
from pathlib import Path
from typing import Final

from fastauth import core
from fastauth.domain.errors import FastauthError

MIN_CAPACITY: Final = 16
MAX_CAPACITY: Final = 1 << 28

_HEADER: Final = struct.Struct("=8sIIQ16s16s")  # magic, layout, -, capacity, boot, hash key
_MAGIC: Final = b"fastauth"
# The twin locks where the compiled table swaps, so the two must never meet in one file.
_LAYOUT: Final = {"cython": 1, "python": 0x101}[core.IMPLEMENTATION]
_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")


class TableRefused(FastauthError):
    """The table's file cannot be used; the text says why and what to do."""

    code = "table_refused"


class LocalBuckets(core.BucketTable):
    """Token buckets that every process with the same ``path`` shares; see ``core.BucketTable`` for what it does.

    In: ``capacity`` how many buckets may be less than full at the same time (16 to 2**28; 32 bytes each, rounded up to
    a power of two); ``path`` a file, best on a tmpfs such as /dev/shm, or None for a table that this process shares
    with the children it forks.

    The file is made when it is missing and belongs to one boot of one machine: times in it are on a clock that starts
    with the machine, so after a reboot, or on other contents, it is replaced by an empty one. Beyond the capacity the
    bucket nearest to full makes room for a new one (``evictions`` counts that).

    Raises ValueError for a capacity out of range, TableRefused for a file that cannot be made, that belongs to another
    user, or that was made with another capacity.
    """

    def __init__(self, capacity: int = 1 << 20, path: str | os.PathLike[str] | None = None) -> None:
        if type(capacity) is not int or not MIN_CAPACITY <= capacity <= MAX_CAPACITY:
            raise ValueError(f"capacity must be an int from {MIN_CAPACITY} to {MAX_CAPACITY}")
        self.capacity = 1 << (capacity - 1).bit_length()
        self._size = self.size_of(capacity)
        self.path = None if path is None else Path(path)
        descriptor = self._memory_file() if self.path is None else self._open(self.path)
        weakref.finalize(self, os.close, descriptor)
        self._mapped = mmap.mmap(descriptor, self._size)
        hash_key = _HEADER.unpack_from(self._mapped)[5]
        super().__init__(self._mapped, descriptor, hash_key)
        # Tells the machines of a fleet apart; says nothing about the hash key.
        self.id: Final = blake2b(hash_key, digest_size=8, person=b"fastauth-node").hexdigest()

    def trim(self) -> None:
        """Give the memory of empty parts back, for the time in which nobody uses the table; what is in use stays."""
        now_us = time.monotonic_ns() // 1000
        for start in range(core.TABLE_HEADER_BYTES, self._size - mmap.PAGESIZE + 1, mmap.PAGESIZE):
            times = memoryview(self._mapped)[start : start + mmap.PAGESIZE].cast("q")[1::2]
            if max(times) <= now_us:
                with contextlib.suppress(OSError):  # a file system that cannot
                    self._mapped.madvise(mmap.MADV_REMOVE, start, mmap.PAGESIZE)

    @staticmethod
    def size_of(capacity: int) -> int:
        """How many bytes a table takes."""
        return core.TABLE_HEADER_BYTES + 2 * (1 << (capacity - 1).bit_length()) * core.TABLE_SLOT_BYTES

    def _new_header(self) -> bytes:
        return _HEADER.pack(_MAGIC, _LAYOUT, 0, self.capacity, _boot_id(), secrets.token_bytes(16))

    def _memory_file(self) -> int:
        descriptor = os.memfd_create("fastauth-buckets", os.MFD_CLOEXEC)
        os.ftruncate(descriptor, self._size)
        os.pwrite(descriptor, self._new_header(), 0)
        return descriptor

    def _open(self, path: Path) -> int:
        try:
            while True:
                descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
                try:
                    with _locked(descriptor):
                        if _is_at(descriptor, path) and self._is_ours(descriptor, path):
                            return descriptor
                        if _is_at(descriptor, path):
                            self._replace(path)
                except BaseException:
                    os.close(descriptor)
                    raise
                os.close(descriptor)  # a newer one is at the path now
        except OSError as error:
            raise TableRefused(f"{path}: {error.strerror}") from None

    def _is_ours(self, descriptor: int, path: Path) -> bool:
        """Whether the file holds a table that can be joined; False for one to be replaced. Raises TableRefused."""
        state = os.fstat(descriptor)
        if not stat.S_ISREG(state.st_mode) or state.st_uid != os.geteuid() or state.st_mode & 0o077:
            raise TableRefused(f"{path}: not a file of this user alone; remove it, or name another path")
        header = os.pread(descriptor, _HEADER.size, 0)
        if len(header) < _HEADER.size:
            return False
        magic, layout, _, capacity, boot, _ = _HEADER.unpack(header)
        if (magic, layout, boot) != (_MAGIC, _LAYOUT, _boot_id()):
            return False
        if capacity != self.capacity:
            raise TableRefused(
                f"{path}: made for {capacity} buckets, not {self.capacity}; all its users must say the same, "
                "and the file may be removed when it has none"
            )
        if state.st_size != self._size:
            return False
        os.posix_fallocate(descriptor, 0, self._size)  # what ``trim`` gave back
        return True

    def _replace(self, path: Path) -> None:
        """Put an empty table at the path, whole or not at all; who mapped the old one keeps it."""
        scratch = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
        descriptor = os.open(scratch, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(descriptor, 0, self._size)  # or a full tmpfs would kill a process at its first touch
            os.pwrite(descriptor, self._new_header(), 0)
            scratch.replace(path)
        except BaseException:
            scratch.unlink(missing_ok=True)
            raise
        finally:
            os.close(descriptor)


@contextlib.contextmanager
def _locked(descriptor: int) -> Iterator[None]:
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    try:
        yield
    finally:
        fcntl.flock(descriptor, fcntl.LOCK_UN)


def _is_at(descriptor: int, path: Path) -> bool:
    """Whether the path still leads to the opened file."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.lstat(path))
    except FileNotFoundError:
        return False


def _boot_id() -> bytes:
    return bytes.fromhex(_BOOT_ID.read_text().strip().replace("-", ""))
