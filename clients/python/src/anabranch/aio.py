"""The asyncio client: the methods of client.py as coroutines and asynchronous iterators."""
from __future__ import annotations

import datetime
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any

import grpc
import grpc.aio

from . import _delegate as d
from . import _protocol as p
from . import _search
from ._aio_maintenance import AsyncMaintenance
from .errors import AlreadyExists, NotFound, from_rpc_error
from .types import BranchDelta, BranchResult, Delegated
from .types import CheckpointPolicy, Edit, Graph, Log, Recoded, StateStats
from .types import (Append, AuxChange, Commit, Computed, Delta, Diff, Merge, Message, RefInfo,
                    Reply, Rewind, Score, Search, SessionInfo, StateInfo, Usage)
from .v1 import admin_pb2, retention_pb2, search_pb2, sessions_pb2, states_pb2


class AsyncGeneration:
    """Iterate with `async for` over deltas; `await result()` gives the whole."""

    def __init__(self, call: Any, addr: str) -> None:
        self._call, self._addr = call, addr
        self._result: Reply | None = None

    def __aiter__(self) -> "AsyncGeneration":
        return self

    async def __anext__(self) -> Delta:
        try:
            event = await self._call.read()
        except grpc.RpcError as error:
            raise from_rpc_error(error, self._addr) from None
        if event is grpc.aio.EOF:
            raise StopAsyncIteration
        if event.HasField("done"):
            self._result = p.reply(event.done)
            return await self.__anext__()
        return p.delta(event.delta)

    async def result(self) -> Reply:
        """Runs to the end if need be."""
        async for _ in self:
            pass
        assert self._result is not None  # the server always ends with it or with an error
        return self._result

    def cancel(self) -> None:
        self._call.cancel()


class AsyncDelegation:
    """Iterate with `async for` over deltas and results; `await result()` gives the whole."""

    def __init__(self, call: Any, addr: str) -> None:
        self._call, self._addr = call, addr
        self._collector = d.Collector()

    async def __aiter__(self) -> AsyncIterator[BranchDelta | BranchResult]:
        try:
            async for message in self._call:
                for event in self._collector.events(message):
                    yield event
        except grpc.RpcError as error:
            raise from_rpc_error(error, self._addr) from None

    async def result(self) -> Delegated:
        """Runs to the end if need be."""
        if self._collector.whole is None:
            async for _ in self:
                pass
        assert self._collector.whole is not None  # the server always ends with it or with an error
        return self._collector.whole

    def cancel(self) -> None:
        self._call.cancel()


class AsyncSession:
    """A session by its id. Making one does not contact the server."""

    def __init__(self, client: "AsyncClient", session_id: str) -> None:
        self._client, self.id = client, session_id

    async def info(self) -> SessionInfo:
        request = sessions_pb2.GetSessionRequest(session_id=self.id)
        return p.session_info(await self._client._unary("Sessions", "GetSession", request,
                                                        p.resources.Session))

    async def append(self, content: p.ContentLike, *, expected_token_count: int = 0,
                     no_checkpoint: bool = False,
                     on_progress: Callable[[int, int], None] | None = None) -> Append:
        requests = p.append_requests(self.id, content, p.new_request_id(), expected_token_count,
                                     no_checkpoint)
        return await self._client._append(requests, on_progress)

    def generate(self, **options: Any) -> AsyncGeneration:
        return self._client._generate(p.generate_request(self.id, options))

    async def ask(self, text: str, **options: Any) -> Reply:
        await self.append(Message("user", text), no_checkpoint=True)
        return await self.generate(reply=True, **options).result()

    async def score(self, content: p.ContentLike, *, per_token: bool = False) -> Score:
        request = sessions_pb2.ScoreRequest(session_id=self.id, content=p.content(content),
                                            per_token=per_token)
        return p.score(await self._client._unary("Sessions", "Score", request,
                                                 sessions_pb2.ScoreResponse))

    async def commit(self, *, labels: Mapping[str, str] | None = None, expected_ref: str = "",
               mark: str = "") -> Commit:
        request = sessions_pb2.CommitRequest(session_id=self.id, labels=dict(labels or {}),
                                             expected_ref_state_id=expected_ref, mark=mark,
                                             request_id=p.new_request_id())
        return p.commit(await self._client._unary("Sessions", "Commit", request,
                                            sessions_pb2.CommitResponse))

    async def mark(self, name: str) -> RefInfo:
        commit = await self.commit(mark=name)
        assert commit.ref is not None  # the server sets it
        return commit.ref

    async def set_checkpoints(self, policy: CheckpointPolicy) -> SessionInfo:
        request = sessions_pb2.UpdateSessionRequest(session_id=self.id,
                                                    checkpoints=p.policy(policy),
                                                    request_id=p.new_request_id())
        return p.session_info(await self._client._unary("Sessions", "UpdateSession", request,
                                                  p.resources.Session))

    async def log(self) -> Log:
        return await self._client._log(p.log_request(self.id, ""))

    async def edit(self, token_count: int, content: p.ContentLike) -> Edit:
        end = (await self.info()).token_count
        await self.rewind(token_count, expected_token_count=end, dry_run=True)
        before = await self.mark(f"before-edit-{end}")
        rewound = await self.rewind(token_count, expected_token_count=end)
        return Edit(before, rewound, await self.append(content, expected_token_count=token_count))

    async def fork(self, count: int = 1, *, prefix: str = "", names: Sequence[str] = (),
                   labels: Mapping[str, str] | None = None) -> list["AsyncSession"]:
        return await self._client.fork(session=self.id, count=count, prefix=prefix, names=names,
                                       labels=labels)

    def delegate(self, branches: Sequence[d.BranchLike], **options: Any) -> AsyncDelegation:
        return self._client.delegate(branches, session=self.id, **options)

    async def set_aux(self, aux: p.AuxLike | None = None, *, add: p.AuxLike = (),
                      drop: Sequence[str] = (), expected_token_count: int = 0) -> AuxChange:
        request = p.aux_request(self.id, aux, add, drop, expected_token_count)
        return p.aux_change(await self._client._unary("Sessions", "SetAux", request,
                                                      sessions_pb2.SetAuxResponse))

    async def rewind(self, token_count: int, *, expected_token_count: int = 0,
                     dry_run: bool = False) -> Rewind:
        request = sessions_pb2.RewindRequest(session_id=self.id, token_count=token_count,
                                             expected_token_count=expected_token_count,
                                             dry_run=dry_run, request_id=p.new_request_id())
        return p.rewind(await self._client._unary("Sessions", "Rewind", request,
                                                  sessions_pb2.RewindResponse))

    async def text(self) -> str:
        request = states_pb2.GetTokensRequest(session_id=self.id, text_only=True)
        return (await self._client._unary("States", "GetTokens", request,
                                          states_pb2.GetTokensResponse)).text

    async def close(self) -> None:
        request = sessions_pb2.CloseSessionRequest(session_id=self.id, request_id=p.new_request_id())
        await self._client._unary("Sessions", "CloseSession", request,
                                  sessions_pb2.CloseSessionResponse)


class AsyncClient(AsyncMaintenance):
    def __init__(self, addr: str = "127.0.0.1:50051", *, timeout: float = 600.0,
                 channel: grpc.aio.Channel | None = None) -> None:
        self.addr, self.timeout = addr, timeout
        self._channel = channel or grpc.aio.insecure_channel(addr, options=p.CHANNEL_OPTIONS)

    async def __aenter__(self) -> "AsyncClient":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        await self._channel.close()

    def session(self, session_id: str) -> AsyncSession:
        return AsyncSession(self, session_id)

    async def create_session(self, session_id: str = "", *, state: str = "", from_ref: str = "",
                             history: p.ContentLike | None = None, ref: str = "",
                             labels: Mapping[str, str] | None = None,
                             checkpoints: CheckpointPolicy | None = None,
                             aux: p.AuxLike = (), model: str = "") -> tuple[AsyncSession, Usage]:
        request = p.create_session_request(session_id, state, from_ref, history, ref, labels or {},
                                           checkpoints, aux, model)
        response = await self._unary("Sessions", "CreateSession", request,
                                     sessions_pb2.CreateSessionResponse)
        return AsyncSession(self, response.session.id), p.usage(response.usage)

    async def fork(self, *, session: str = "", state: str = "", from_ref: str = "", count: int = 1,
                   prefix: str = "", names: Sequence[str] = (),
                   labels: Mapping[str, str] | None = None) -> list[AsyncSession]:
        request = p.fork_request(session, state, from_ref, count, prefix, names, labels or {})
        response = await self._unary("Sessions", "Fork", request, sessions_pb2.ForkResponse)
        return [AsyncSession(self, each.id) for each in response.sessions]

    async def open_session(self, name: str, *, model: str = "") -> AsyncSession:
        try:
            await self.session(name).info()
        except NotFound:
            try:
                try:
                    await self.create_session(name, from_ref=name, model=model)
                except NotFound:
                    await self.create_session(name, model=model)
            except AlreadyExists:
                pass  # somebody else was faster
        return self.session(name)

    def delegate(self, branches: Sequence[d.BranchLike], *, session: str = "", state: str = "",
                 from_ref: str = "", policy: str = "", keep_best: int = 0, prefix: str = "",
                 labels: Mapping[str, str] | None = None, **options: Any) -> AsyncDelegation:
        request = d.request(session, state, from_ref, branches, policy, keep_best, prefix,
                            labels or {}, options)
        return AsyncDelegation(self._stream("Delegate", request, sessions_pb2.DelegateResponse),
                               self.addr)

    async def sessions(self, prefix: str = "") -> AsyncIterator[SessionInfo]:
        request = sessions_pb2.ListSessionsRequest(prefix=prefix)
        async for page in self._pages("Sessions", "ListSessions", request,
                                      sessions_pb2.ListSessionsResponse):
            for session in page.sessions:
                yield p.session_info(session)

    async def state(self, state_id: str) -> StateInfo:
        return p.state_info(await self._unary("States", "GetState",
                                              states_pb2.GetStateRequest(id=state_id),
                                              p.resources.State))

    async def states(self, *, labels: Mapping[str, str] | None = None, model: str = "",
                     descendant_of: str = "") -> AsyncIterator[StateInfo]:
        request = states_pb2.ListStatesRequest(labels=dict(labels or {}), model_fingerprint=model,
                                               descendant_of=descendant_of)
        async for page in self._pages("States", "ListStates", request,
                                      states_pb2.ListStatesResponse):
            for state in page.states:
                yield p.state_info(state)

    async def lineage(self, state_id: str) -> AsyncIterator[StateInfo]:
        request = states_pb2.GetLineageRequest(id=state_id)
        async for page in self._pages("States", "GetLineage", request,
                                      states_pb2.GetLineageResponse):
            for state in page.states:
                yield p.state_info(state)

    async def log(self, state_id: str) -> Log:
        return await self._log(p.log_request("", state_id))

    async def graph(self, *, session: str = "", state: str = "", ancestors_only: bool = False,
              max_states: int = 0) -> Graph:
        request = p.graph_request(session, state, ancestors_only, max_states)
        return p.graph(await self._unary("States", "GetGraph", request, states_pb2.GetGraphResponse))

    async def state_stats(self, state_id: str) -> StateStats:
        request = states_pb2.GetStateStatsRequest(id=state_id)
        return p.state_stats(await self._unary("States", "GetStateStats", request,
                                         states_pb2.StateStats))

    async def update_state(self, state_id: str, *, expire: p.Expiry = p.KEEP,
                           pinned: bool | None = None, labels: Mapping[str, str] | None = None,
                           etag: str = "") -> StateInfo:
        request = p.update_state_request(state_id, expire, pinned, labels, etag)
        return p.state_info(await self._unary("States", "UpdateState", request, p.resources.State))

    async def delete_state(self, state_id: str) -> None:
        request = states_pb2.DeleteStateRequest(id=state_id, request_id=p.new_request_id())
        await self._unary("States", "DeleteState", request, states_pb2.DeleteStateResponse)

    async def recode_state(self, state: str, codec: str) -> Recoded:
        request = p.recode_request(state, codec)
        return p.recoded(await self._unary("States", "RecodeState", request,
                                      states_pb2.RecodeStateResponse))

    async def archive_state(self, state: str) -> Recoded:
        return await self.recode_state(state, "archive")

    async def merge(self, inputs: Sequence[str] | Mapping[str, float], *, method: str = "",
                    norm: str = "", ancestor: str = "", ref: str = "", expected_ref: str = "",
                    labels: Mapping[str, str] | None = None, query: str = "") -> Merge:
        request = p.merge_request(inputs, method, norm, ancestor, ref, expected_ref, labels or {},
                                  query)
        return p.merge(await self._unary("States", "Merge", request, states_pb2.MergeResponse))

    async def span(self, state: str, begin: p.Point = 0, end: p.Point | None = None, *, ref: str = "",
                   expected_ref: str = "", labels: Mapping[str, str] | None = None) -> Computed:
        request = p.span_request(state, begin, end, ref, expected_ref, labels or {})
        return p.computed(await self._unary("States", "ExtractSpan", request, states_pb2.ComputedState))

    async def forget(self, state: str, begin: p.Point, end: p.Point | None = None, *, ref: str = "",
                     expected_ref: str = "", labels: Mapping[str, str] | None = None) -> Computed:
        request = p.span_request(state, begin, end, ref, expected_ref, labels or {})
        return p.computed(await self._unary("States", "Forget", request, states_pb2.ComputedState))

    async def decay(self, state: str, tokens: int, *, ref: str = "", expected_ref: str = "",
                    labels: Mapping[str, str] | None = None) -> Computed:
        request = p.decay_request(state, tokens, ref, expected_ref, labels or {})
        return p.computed(await self._unary("States", "Decay", request, states_pb2.ComputedState))

    async def diff(self, a: str, b: str) -> Diff:
        request = states_pb2.DiffRequest(id_a=a, id_b=b)
        return p.diff(await self._unary("States", "Diff", request, states_pb2.DiffResponse))

    async def search(self, text: str = "", *, like: str = "",
                     labels: Mapping[str, str] | None = None, model: str = "",
                     descendant_of: str = "", created_after: datetime.datetime | None = None,
                     created_before: datetime.datetime | None = None, limit: int = 0,
                     method: str = "", rerank: int | None = None) -> Search:
        request = _search.request(text, like, labels, model, descendant_of, created_after,
                                  created_before, limit, method, rerank)
        return _search.answer(await self._unary("States", "Search", request,
                                                search_pb2.SearchResponse))

    async def ref(self, name: str) -> RefInfo:
        return p.ref_info(await self._unary("States", "GetRef", states_pb2.GetRefRequest(name=name),
                                            p.resources.Ref))

    async def refs(self, prefix: str = "") -> AsyncIterator[RefInfo]:
        request = states_pb2.ListRefsRequest(prefix=prefix)
        async for page in self._pages("States", "ListRefs", request, states_pb2.ListRefsResponse):
            for ref in page.refs:
                yield p.ref_info(ref)

    async def set_ref(self, name: str, state_id: str, *, expected: str = "") -> RefInfo:
        request = states_pb2.SetRefRequest(name=name, state_id=state_id, expected_state_id=expected,
                                           request_id=p.new_request_id())
        return p.ref_info(await self._unary("States", "SetRef", request, p.resources.Ref))

    async def delete_ref(self, name: str) -> None:
        request = states_pb2.DeleteRefRequest(name=name, request_id=p.new_request_id())
        await self._unary("States", "DeleteRef", request, states_pb2.DeleteRefResponse)

    async def status(self) -> admin_pb2.ServerStatus:
        return await self._unary("Admin", "GetStatus", admin_pb2.GetStatusRequest(),
                                 admin_pb2.ServerStatus)

    async def collect_garbage(self, *, dry_run: bool = False, full: bool = False,
                              on_progress: Callable[[retention_pb2.GarbageProgress], None] | None
                              = None) -> retention_pb2.GarbageReport:
        request = retention_pb2.CollectGarbageRequest(dry_run=dry_run, full=full)
        call = self._channel.unary_stream(
            p.method("Admin", "CollectGarbage"),
            request_serializer=retention_pb2.CollectGarbageRequest.SerializeToString,
            response_deserializer=retention_pb2.GarbageProgress.FromString)
        progress = retention_pb2.GarbageProgress()
        try:
            async for progress in call(request):
                if on_progress is not None:
                    on_progress(progress)
        except grpc.RpcError as error:
            raise from_rpc_error(error, self.addr) from None
        return progress.report

    async def _unary(self, service: str, name: str, request: Any, response_type: Any) -> Any:
        call = self._channel.unary_unary(p.method(service, name),
                                         request_serializer=type(request).SerializeToString,
                                         response_deserializer=response_type.FromString)
        try:
            return await call(request, timeout=self.timeout)
        except grpc.RpcError as error:
            raise from_rpc_error(error, self.addr) from None

    async def _pages(self, service: str, name: str, request: Any,
                     response_type: Any) -> AsyncIterator[Any]:
        while True:
            response = await self._unary(service, name, request, response_type)
            yield response
            if not response.next_page_token:
                return
            request.page_token = response.next_page_token

    async def _log(self, request: states_pb2.GetLogRequest) -> Log:
        pages = self._pages("States", "GetLog", request, states_pb2.GetLogResponse)
        return p.log([page async for page in pages])

    def _stream(self, name: str, request: Any, response_type: Any) -> Any:
        call = self._channel.unary_stream(p.method("Sessions", name),
                                          request_serializer=type(request).SerializeToString,
                                          response_deserializer=response_type.FromString)
        return call(request, timeout=self.timeout)

    def _generate(self, request: sessions_pb2.GenerateRequest) -> AsyncGeneration:
        return AsyncGeneration(self._stream("Generate", request, sessions_pb2.GenerateResponse),
                               self.addr)

    async def _append(self, requests: list[sessions_pb2.AppendRequest],
                      on_progress: Callable[[int, int], None] | None) -> Append:
        call = self._channel.stream_stream(
            p.method("Sessions", "Append"),
            request_serializer=sessions_pb2.AppendRequest.SerializeToString,
            response_deserializer=sessions_pb2.AppendResponse.FromString)
        done = None
        try:
            async for event in call(iter(requests), timeout=self.timeout):
                if event.HasField("done"):
                    done = p.append_done(event.done)
                elif on_progress is not None:
                    on_progress(event.progress.tokens_read, event.progress.tokens_total)
        except grpc.RpcError as error:
            raise from_rpc_error(error, self.addr) from None
        assert done is not None  # the server always ends with it or with an error
        return done
