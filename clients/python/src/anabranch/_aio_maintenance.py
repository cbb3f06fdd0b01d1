"""The calls of AsyncClient that move whole states and keep libraries safe."""
from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
import grpc.aio

from . import _protocol as p
from . import _transfer as t
from .errors import Aborted, from_rpc_error
from .v1 import bundles_pb2, maintenance_pb2


class AsyncMaintenance:
    """Mixed into AsyncClient; _maintenance.py says what each does."""

    addr: str
    timeout: float
    _channel: Any

    async def export_state(self, state: str, path: str | os.PathLike[str], *, lineage: bool = False,
                           refs: bool = True,
                           on_progress: t.Progress | None = None) -> bundles_pb2.BundleInfo:
        request = bundles_pb2.ExportRequest(id=state, lineage=lineage, skip_refs=not refs)
        file = t.ExportFile(path, on_progress)
        file.resume(request)
        for attempt in range(t.ATTEMPTS):
            try:
                async for response in self._long("States", "Export", request,
                                                 bundles_pb2.ExportResponse, self.timeout):
                    file.write(response, request)
                return file.finish()
            except Aborted:  # the states changed
                if attempt == t.ATTEMPTS - 1:
                    raise
                file.restart(request)
        raise AssertionError("unreachable")

    async def import_bundle(self, path: str | os.PathLike[str], *, ref: str = "",
                            expected_ref: str = "", refs: bool = True,
                            on_progress: t.Progress | None = None) -> bundles_pb2.ImportResult:
        file = t.ImportFile(path)
        call = self._channel.stream_stream(
            p.method("States", "Import"),
            request_serializer=bundles_pb2.ImportRequest.SerializeToString,
            response_deserializer=bundles_pb2.ImportProgress.FromString)(timeout=self.timeout)
        try:
            await call.write(file.start(ref, expected_ref, refs))
            first = await call.read()  # says where to go on
            if first is not grpc.aio.EOF:
                for chunk in file.chunks(first.received_bytes):
                    await call.write(chunk)
                    if on_progress is not None:
                        on_progress(chunk.chunk.offset + len(chunk.chunk.data), file.size)
            await call.done_writing()
            result = None
            while (progress := await call.read()) is not grpc.aio.EOF:
                if progress.HasField("result"):
                    result = progress.result
        except grpc.RpcError as error:
            raise from_rpc_error(error, self.addr) from None
        assert result is not None  # the server always ends with it or with an error
        return result

    async def backup(self, directory: str = "", *, keep: int = 0, max_bytes_per_second: int = 0,
                     on_progress: Callable[[maintenance_pb2.BackupProgress], None] | None = None
                     ) -> maintenance_pb2.Backup:
        request = maintenance_pb2.CreateBackupRequest(directory=directory, keep=keep,
                                                      max_bytes_per_second=max_bytes_per_second)
        last = None
        async for last in self._long("Admin", "CreateBackup", request,
                                     maintenance_pb2.BackupProgress):
            if on_progress is not None:
                on_progress(last)
        assert last is not None and last.HasField("backup")
        return last.backup

    async def backups(self, directory: str = "") -> AsyncIterator[maintenance_pb2.Backup]:
        request = maintenance_pb2.ListBackupsRequest(directory=directory)
        async for page in self._pages("Admin", "ListBackups", request,
                                      maintenance_pb2.ListBackupsResponse):
            for backup in page.backups:
                yield backup

    async def verify(self, state: str = "", *, repair: bool = False, max_bytes_per_second: int = 0,
                     on_progress: Callable[[maintenance_pb2.VerifyProgress], None] | None = None
                     ) -> tuple[maintenance_pb2.ScrubStatus, list[maintenance_pb2.Finding]]:
        request = maintenance_pb2.VerifyRequest(id=state, repair=repair,
                                                max_bytes_per_second=max_bytes_per_second)
        status, findings = maintenance_pb2.ScrubStatus(), []
        async for progress in self._long("Admin", "Verify", request,
                                         maintenance_pb2.VerifyProgress):
            status = progress.status
            findings.extend(progress.findings)
            if on_progress is not None:
                on_progress(progress)
        return status, findings

    def _pages(self, service: str, name: str, request: Any,
               response_type: Any) -> AsyncIterator[Any]:
        raise NotImplementedError  # AsyncClient's

    async def _long(self, service: str, name: str, request: Any, response_type: Any,
                    timeout: float = t.MAINTENANCE_TIMEOUT) -> AsyncIterator[Any]:
        call = self._channel.unary_stream(p.method(service, name),
                                          request_serializer=type(request).SerializeToString,
                                          response_deserializer=response_type.FromString)
        try:
            async for message in call(request, timeout=timeout):
                yield message
        except grpc.RpcError as error:
            raise from_rpc_error(error, self.addr) from None
