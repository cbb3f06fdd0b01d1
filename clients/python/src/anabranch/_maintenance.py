"""The calls of Client that move whole states and keep libraries safe."""
from __future__ import annotations

import os
import queue
from collections.abc import Callable, Iterator
from typing import Any

import grpc

from . import _protocol as p
from . import _transfer as t
from .errors import Aborted, from_rpc_error
from .v1 import bundles_pb2, maintenance_pb2


class Maintenance:
    """Mixed into Client."""

    addr: str
    timeout: float
    _channel: grpc.Channel

    def export_state(self, state: str, path: str | os.PathLike[str], *, lineage: bool = False,
                     refs: bool = True,
                     on_progress: t.Progress | None = None) -> bundles_pb2.BundleInfo:
        """Writes a state (by id or ref) to a file, with `lineage` all its ancestors with their
        contents. Goes on where an earlier attempt broke off. `on_progress(bytes, total)`."""
        request = bundles_pb2.ExportRequest(id=state, lineage=lineage, skip_refs=not refs)
        file = t.ExportFile(path, on_progress)
        file.resume(request)
        for attempt in range(t.ATTEMPTS):
            try:
                for response in self._long("States", "Export", request,
                                           bundles_pb2.ExportResponse, self.timeout):
                    file.write(response, request)
                return file.finish()
            except Aborted:  # the states changed
                if attempt == t.ATTEMPTS - 1:
                    raise
                file.restart(request)
        raise AssertionError("unreachable")

    def import_bundle(self, path: str | os.PathLike[str], *, ref: str = "", expected_ref: str = "",
                      refs: bool = True,
                      on_progress: t.Progress | None = None) -> bundles_pb2.ImportResult:
        """Takes in what export_state has written. Called again after an error, it goes on where it
        was. `ref` is set to the bundle's state."""
        file = t.ImportFile(path)
        call = self._channel.stream_stream(
            p.method("States", "Import"),
            request_serializer=bundles_pb2.ImportRequest.SerializeToString,
            response_deserializer=bundles_pb2.ImportProgress.FromString)
        offset: queue.Queue[int | None] = queue.Queue()

        def requests() -> Iterator[bundles_pb2.ImportRequest]:
            yield file.start(ref, expected_ref, refs)
            begin = offset.get()  # the server says where to go on
            if begin is not None:
                yield from file.chunks(begin)

        result = None
        try:
            for progress in call(requests(), timeout=self.timeout):
                offset.put(progress.received_bytes)
                if on_progress is not None:
                    on_progress(progress.received_bytes, file.size)
                if progress.HasField("result"):
                    result = progress.result
        except grpc.RpcError as error:
            raise from_rpc_error(error, self.addr) from None
        finally:
            offset.put(None)
        assert result is not None  # the server always ends with it or with an error
        return result

    def backup(self, directory: str = "", *, keep: int = 0, max_bytes_per_second: int = 0,
               on_progress: Callable[[maintenance_pb2.BackupProgress], None] | None = None
               ) -> maintenance_pb2.Backup:
        """Copies the library into a folder below the server's --backup-root, and reads it back."""
        request = maintenance_pb2.CreateBackupRequest(directory=directory, keep=keep,
                                                      max_bytes_per_second=max_bytes_per_second)
        last = None
        for last in self._long("Admin", "CreateBackup", request, maintenance_pb2.BackupProgress):
            if on_progress is not None:
                on_progress(last)
        assert last is not None and last.HasField("backup")
        return last.backup

    def backups(self, directory: str = "") -> Iterator[maintenance_pb2.Backup]:
        """The newest first, also those that are not complete."""
        request = maintenance_pb2.ListBackupsRequest(directory=directory)
        for page in self._pages("Admin", "ListBackups", request,
                                maintenance_pb2.ListBackupsResponse):
            yield from page.backups

    def verify(self, state: str = "", *, repair: bool = False, max_bytes_per_second: int = 0,
               on_progress: Callable[[maintenance_pb2.VerifyProgress], None] | None = None
               ) -> tuple[maintenance_pb2.ScrubStatus, list[maintenance_pb2.Finding]]:
        """Reads all that the library holds, or one state, and gives what is damaged."""
        request = maintenance_pb2.VerifyRequest(id=state, repair=repair,
                                                max_bytes_per_second=max_bytes_per_second)
        status, findings = maintenance_pb2.ScrubStatus(), []
        for progress in self._long("Admin", "Verify", request, maintenance_pb2.VerifyProgress):
            status = progress.status
            findings.extend(progress.findings)
            if on_progress is not None:
                on_progress(progress)
        return status, findings

    def _pages(self, service: str, name: str, request: Any, response_type: Any) -> Iterator[Any]:
        raise NotImplementedError  # Client's

    def _long(self, service: str, name: str, request: Any, response_type: Any,
              timeout: float = t.MAINTENANCE_TIMEOUT) -> Iterator[Any]:
        call = self._channel.unary_stream(p.method(service, name),
                                          request_serializer=type(request).SerializeToString,
                                          response_deserializer=response_type.FromString)
        try:
            yield from call(request, timeout=timeout)
        except grpc.RpcError as error:
            raise from_rpc_error(error, self.addr) from None
