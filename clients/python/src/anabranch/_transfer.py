"""Bundles as files: what the synchronous and the asynchronous client share."""
from __future__ import annotations

import os
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

from .errors import DataLoss
from .v1 import bundles_pb2 as bundles

CHUNK = 1 << 20
HASH = 32
ATTEMPTS = 3
# Of calls that read or copy a whole library, in seconds.
MAINTENANCE_TIMEOUT = 240 * 3600.0
Progress = Callable[[int, int], None]


class ExportFile:
    """Writes PATH.part and at last PATH. A PATH.part of the same bundle is continued."""

    def __init__(self, path: str | os.PathLike[str], progress: Progress | None) -> None:
        self._path, self._progress = Path(path), progress
        self._part = Path(f"{os.fspath(path)}.part")
        self._id = Path(f"{os.fspath(path)}.part.id")
        self.bundle = bundles.BundleInfo()

    def resume(self, request: bundles.ExportRequest) -> None:
        """Sets where to go on."""
        if self._id.exists() and self._part.exists() and self._part.stat().st_size:
            request.bundle_id = self._id.read_text().strip()
            request.offset = self._part.stat().st_size
        else:
            self.restart(request)

    def restart(self, request: bundles.ExportRequest) -> None:
        self._part.unlink(missing_ok=True)
        self._id.unlink(missing_ok=True)
        request.ClearField("offset")
        request.ClearField("bundle_id")

    def write(self, response: bundles.ExportResponse, request: bundles.ExportRequest) -> None:
        """Moves the request on, so that a repeat goes on behind this chunk."""
        if response.HasField("bundle"):
            self.bundle.CopyFrom(response.bundle)
            self._id.write_text(response.bundle.bundle_id + "\n")
        chunk = response.chunk
        if chunk.offset != request.offset or zlib.crc32(chunk.data) != chunk.crc32:
            raise DataLoss("DATA_LOSS", f"the chunk at byte {request.offset} was damaged on its way: "
                           "export again, it goes on there")
        with self._part.open("ab") as file:
            file.write(chunk.data)
        request.offset += len(chunk.data)
        request.bundle_id = self.bundle.bundle_id
        if self._progress is not None:
            self._progress(request.offset, self.bundle.size_bytes)

    def finish(self) -> bundles.BundleInfo:
        with self._part.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(self._part, self._path)
        self._id.unlink(missing_ok=True)
        return self.bundle


class ImportFile:
    """Reads a bundle for an import."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = Path(path)
        self.size = self._path.stat().st_size
        if self.size < HASH:
            raise ValueError(f"{path} is no bundle")

    def start(self, ref: str, expected_ref: str, refs: bool) -> bundles.ImportRequest:
        with self._path.open("rb") as file:
            file.seek(-HASH, os.SEEK_END)
            transfer = file.read().hex()
        return bundles.ImportRequest(start=bundles.ImportStart(
            transfer_id=transfer, size_bytes=self.size, ref=ref,
            expected_ref_state_id=expected_ref, skip_refs=not refs))

    def chunks(self, offset: int) -> Iterator[bundles.ImportRequest]:
        with self._path.open("rb") as file:
            file.seek(offset)
            while data := file.read(CHUNK):
                yield bundles.ImportRequest(chunk=bundles.BundleChunk(
                    offset=offset, data=data, crc32=zlib.crc32(data)))
                offset += len(data)
