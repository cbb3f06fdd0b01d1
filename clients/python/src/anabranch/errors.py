"""Errors: one class for each status code, with the server's message and stable reason."""
from __future__ import annotations

import grpc
from google.rpc import error_details_pb2, status_pb2


class AnabranchError(Exception):
    """A call failed. `code` is the gRPC status name, `reason` the stable reason ("" if none)."""

    def __init__(self, code: str, message: str, reason: str = "",
                 metadata: dict[str, str] | None = None) -> None:
        super().__init__(f"{code}: {message}" + (f" ({reason})" if reason else ""))
        self.code = code
        self.message = message
        self.reason = reason
        self.metadata = metadata or {}


class InvalidArgument(AnabranchError):
    """A field is wrong; the message names it and what is allowed."""


class NotFound(AnabranchError):
    """It does not exist, or belongs to another tenant."""


class AlreadyExists(AnabranchError):
    """The name is taken."""


class FailedPrecondition(AnabranchError):
    """Not possible in this state: another model's state, no chat format, still needed, ..."""


class Aborted(AnabranchError):
    """Somebody else was first: busy session, moved ref, other etag. Read again, then retry."""


class ResourceExhausted(AnabranchError):
    """A limit or quota; the message says which."""


class DataLoss(AnabranchError):
    """Stored data failed its checks; the message names the state and the part."""


class DeadlineExceeded(AnabranchError):
    """The call ran into its timeout."""


class Cancelled(AnabranchError):
    """The call was cancelled."""


class Unavailable(AnabranchError):
    """The server cannot be reached, or is draining."""


_BY_CODE = {
    grpc.StatusCode.INVALID_ARGUMENT: InvalidArgument,
    grpc.StatusCode.NOT_FOUND: NotFound,
    grpc.StatusCode.ALREADY_EXISTS: AlreadyExists,
    grpc.StatusCode.FAILED_PRECONDITION: FailedPrecondition,
    grpc.StatusCode.ABORTED: Aborted,
    grpc.StatusCode.RESOURCE_EXHAUSTED: ResourceExhausted,
    grpc.StatusCode.DATA_LOSS: DataLoss,
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineExceeded,
    grpc.StatusCode.CANCELLED: Cancelled,
    grpc.StatusCode.UNAVAILABLE: Unavailable,
}


def from_rpc_error(error: grpc.RpcError, addr: str) -> AnabranchError:
    code, message = error.code(), error.details() or ""
    if code is grpc.StatusCode.UNAVAILABLE and "DRAINING" not in message:
        message = f"{addr}: {message}"
    reason, metadata = "", {}
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin":
            for detail in status_pb2.Status.FromString(value).details:
                info = error_details_pb2.ErrorInfo()
                if detail.Unpack(info):
                    reason, metadata = info.reason, dict(info.metadata)
    return _BY_CODE.get(code, AnabranchError)(code.name, message, reason, metadata)
