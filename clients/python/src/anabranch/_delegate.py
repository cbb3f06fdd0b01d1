"""Delegate in terms of dataclasses; the sync and asyncio clients share it."""
from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from . import _protocol as p
from .types import BranchDelta, BranchError, BranchResult, Delegated, KeptBranch
from .v1 import sessions_pb2 as sessions

# What one branch reads; a pair adds options of its own.
BranchLike = p.ContentLike | None | tuple[p.ContentLike | None, Mapping[str, Any]]


def _options(values: Mapping[str, Any]) -> sessions.BranchOptions:
    sampling = {name: value for name, value in values.items()
                if name in sessions.Sampling.DESCRIPTOR.fields_by_name}
    rest = {name: value for name, value in values.items() if name not in sampling}
    options = sessions.BranchOptions(**rest)
    if sampling:
        options.sampling.CopyFrom(sessions.Sampling(**sampling))
    return options


def _branch(value: BranchLike) -> sessions.DelegateBranch:
    own: Mapping[str, Any] = {}
    if isinstance(value, tuple) and len(value) == 2 and isinstance(value[1], Mapping):
        value, own = value
    branch = sessions.DelegateBranch(options=_options(own))
    if value is not None:
        branch.input.CopyFrom(p.content(value))
    return branch


def request(session: str, state: str, from_ref: str, branches: Sequence[BranchLike], policy: str,
            keep_best: int, prefix: str, labels: Mapping[str, str],
            options: Mapping[str, Any]) -> sessions.DelegateRequest:
    message = sessions.DelegateRequest(
        branches=[_branch(each) for each in branches], options=_options(options),
        policy=p.enum(sessions.DelegatePolicy, "DELEGATE_POLICY_", policy),
        keep_best=keep_best, prefix=prefix, labels=dict(labels), request_id=p.new_request_id())
    p.set_source(message, session, state, from_ref)
    return message


def _result(m: sessions.BranchResult) -> BranchResult:
    error = None
    if m.HasField("error"):
        error = BranchError(m.error.code, m.error.reason, m.error.message)
    return BranchResult(m.branch, m.text, tuple(m.tokens), p.finish_reason(m.finish_reason),
                        m.score, m.token_count, p.usage(m.usage), error)


class Collector:
    """Turns the stream's messages into events, and keeps what the whole is made of."""

    def __init__(self) -> None:
        self._results: dict[int, BranchResult] = {}
        self.whole: Delegated | None = None

    def events(self, m: sessions.DelegateResponse) -> Iterator[BranchDelta | BranchResult]:
        for delta in m.deltas:
            yield BranchDelta(delta.branch, delta.text, tuple(delta.tokens))
        for each in m.results:
            result = self._results[each.branch] = _result(each)
            yield result
        if m.HasField("done"):
            kept = tuple(KeptBranch(k.branch, p.session_info(k.session)) for k in m.done.kept)
            self.whole = Delegated(tuple(self._results[i] for i in sorted(self._results)), kept,
                                   p.usage(m.done.usage))
