"""The synchronous client. One Client is one connection; it may be shared by threads."""
from __future__ import annotations

import datetime
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import grpc

from . import _delegate as d
from . import _protocol as p
from . import _search
from ._maintenance import Maintenance
from .errors import AlreadyExists, NotFound, from_rpc_error
from .types import BranchDelta, BranchResult, Delegated
from .types import CheckpointPolicy, Edit, Graph, Log, Recoded, StateStats
from .types import (Append, AuxChange, Commit, Computed, Delta, Diff, Merge, Message, RefInfo,
                    Reply, Rewind, Score, Search, SessionInfo, StateInfo, Usage)
from .v1 import admin_pb2, retention_pb2, search_pb2, sessions_pb2, states_pb2


class Generation(Iterator[Delta]):
    """Iterate over it for deltas; `result` has the whole once the iteration has ended."""

    def __init__(self, call: grpc.Call, addr: str) -> None:
        self._call, self._addr = call, addr
        self._result: Reply | None = None

    def __next__(self) -> Delta:
        try:
            for event in self._call:
                if event.HasField("done"):
                    self._result = p.reply(event.done)
                else:
                    return p.delta(event.delta)
        except grpc.RpcError as error:
            raise from_rpc_error(error, self._addr) from None
        raise StopIteration

    @property
    def result(self) -> Reply:
        """Runs to the end if need be."""
        for _ in self:
            pass
        assert self._result is not None  # the server always ends with it or with an error
        return self._result

    def cancel(self) -> None:
        """Stops within one step of the engine; what was generated stays in the session."""
        self._call.cancel()


class Delegation(Iterator[BranchDelta | BranchResult]):
    """Iterate over it for deltas and results as they come; `result` has the whole."""

    def __init__(self, call: grpc.Call, addr: str) -> None:
        self._call, self._addr = call, addr
        self._collector = d.Collector()
        self._events: Iterator[BranchDelta | BranchResult] = iter(())

    def __next__(self) -> BranchDelta | BranchResult:
        while True:
            for event in self._events:
                return event
            try:
                self._events = self._collector.events(next(self._call))
            except grpc.RpcError as error:
                raise from_rpc_error(error, self._addr) from None

    @property
    def result(self) -> Delegated:
        """Runs to the end if need be."""
        for _ in self:
            pass
        assert self._collector.whole is not None  # the server always ends with it or with an error
        return self._collector.whole

    def cancel(self) -> None:
        """Stops within one step of the engine; all branches are dropped."""
        self._call.cancel()


class Session:
    """A session by its id. Making one does not contact the server."""

    def __init__(self, client: "Client", session_id: str) -> None:
        self._client, self.id = client, session_id

    def info(self) -> SessionInfo:
        return p.session_info(self._client._unary(
            "Sessions", "GetSession", sessions_pb2.GetSessionRequest(session_id=self.id),
            p.resources.Session))

    def append(self, content: p.ContentLike, *, expected_token_count: int = 0,
               no_checkpoint: bool = False,
               on_progress: Callable[[int, int], None] | None = None) -> Append:
        """Reads content. `on_progress(tokens_read, tokens_total)` is called as it goes."""
        requests = p.append_requests(self.id, content, p.new_request_id(), expected_token_count,
                                     no_checkpoint)
        return self._client._append(requests, on_progress)

    def generate(self, **options: Any) -> Generation:
        """Samples. Options: max_tokens, stop, reply, temperature, top_k, top_p, min_p,
        repetition_penalty, seed, logprobs, top_logprobs, expected_token_count, no_checkpoint,
        ignore_eos; see proto/anabranch/v1/sessions.proto."""
        return self._client._generate(p.generate_request(self.id, options))

    def ask(self, text: str, **options: Any) -> Reply:
        """Appends one user message and generates the reply."""
        self.append(Message("user", text), no_checkpoint=True)
        return self.generate(reply=True, **options).result

    def score(self, content: p.ContentLike, *, per_token: bool = False) -> Score:
        """Log-likelihood of content here, without moving the session."""
        request = sessions_pb2.ScoreRequest(session_id=self.id, content=p.content(content),
                                            per_token=per_token)
        return p.score(self._client._unary("Sessions", "Score", request, sessions_pb2.ScoreResponse))

    def commit(self, *, labels: Mapping[str, str] | None = None, expected_ref: str = "",
               mark: str = "") -> Commit:
        """Captures a state and moves the session's ref to it, or sets SESSION/marks/MARK."""
        request = sessions_pb2.CommitRequest(session_id=self.id, labels=dict(labels or {}),
                                             expected_ref_state_id=expected_ref, mark=mark,
                                             request_id=p.new_request_id())
        return p.commit(self._client._unary("Sessions", "Commit", request,
                                            sessions_pb2.CommitResponse))

    def mark(self, name: str) -> RefInfo:
        """Names this position: the ref SESSION/marks/NAME. What has a ref is never thinned."""
        commit = self.commit(mark=name)
        assert commit.ref is not None  # the server sets it
        return commit.ref

    def set_checkpoints(self, policy: CheckpointPolicy) -> SessionInfo:
        """Replaces the policy, from the next call on."""
        request = sessions_pb2.UpdateSessionRequest(session_id=self.id,
                                                    checkpoints=p.policy(policy),
                                                    request_id=p.new_request_id())
        return p.session_info(self._client._unary("Sessions", "UpdateSession", request,
                                                  p.resources.Session))

    def log(self) -> Log:
        """The positions to go back to, and what every other one costs."""
        return self._client._log(p.log_request(self.id, ""))

    def edit(self, token_count: int, content: p.ContentLike) -> Edit:
        """Another history from `token_count` on. The old line stays under a mark. After an error
        the steps before it stand."""
        end = self.info().token_count
        self.rewind(token_count, expected_token_count=end, dry_run=True)
        before = self.mark(f"before-edit-{end}")
        rewound = self.rewind(token_count, expected_token_count=end)
        return Edit(before, rewound, self.append(content, expected_token_count=token_count))

    def fork(self, count: int = 1, *, prefix: str = "", names: Sequence[str] = (),
             labels: Mapping[str, str] | None = None) -> list["Session"]:
        """Sessions that go on from here: PREFIX/1, PREFIX/2 ... or `names`. They share the state
        until they differ; this session does not change."""
        return self._client.fork(session=self.id, count=count, prefix=prefix, names=names,
                                 labels=labels)

    def delegate(self, branches: Sequence[d.BranchLike], **options: Any) -> Delegation:
        """Client.delegate from here."""
        return self._client.delegate(branches, session=self.id, **options)

    def set_aux(self, aux: p.AuxLike | None = None, *, add: p.AuxLike = (),
                drop: Sequence[str] = (), expected_token_count: int = 0) -> AuxChange:
        """Changes which auxiliary states are merged into the session's core, without reading: `aux`
        is the whole new set, or `add` and `drop` change the one there is. What the session has
        read itself stays."""
        request = p.aux_request(self.id, aux, add, drop, expected_token_count)
        return p.aux_change(self._client._unary("Sessions", "SetAux", request,
                                                sessions_pb2.SetAuxResponse))

    def rewind(self, token_count: int, *, expected_token_count: int = 0,
               dry_run: bool = False) -> Rewind:
        """Back to where the session had `token_count` tokens. `dry_run` only tells the cost."""
        request = sessions_pb2.RewindRequest(session_id=self.id, token_count=token_count,
                                             expected_token_count=expected_token_count,
                                             dry_run=dry_run, request_id=p.new_request_id())
        return p.rewind(self._client._unary("Sessions", "Rewind", request,
                                            sessions_pb2.RewindResponse))

    def text(self) -> str:
        """Everything the session has read and said."""
        request = states_pb2.GetTokensRequest(session_id=self.id, text_only=True)
        return self._client._unary("States", "GetTokens", request, states_pb2.GetTokensResponse).text

    def close(self) -> None:
        """Forgets the session; states and refs stay."""
        request = sessions_pb2.CloseSessionRequest(session_id=self.id, request_id=p.new_request_id())
        self._client._unary("Sessions", "CloseSession", request, sessions_pb2.CloseSessionResponse)


class Client(Maintenance):
    def __init__(self, addr: str = "127.0.0.1:50051", *, timeout: float = 600.0,
                 channel: grpc.Channel | None = None) -> None:
        """`timeout`: seconds for each call. `channel`: bring your own (TLS, interceptors)."""
        self.addr, self.timeout = addr, timeout
        self._channel = channel or grpc.insecure_channel(addr, options=p.CHANNEL_OPTIONS)

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._channel.close()

    # Sessions.

    def session(self, session_id: str) -> Session:
        return Session(self, session_id)

    def create_session(self, session_id: str = "", *, state: str = "", from_ref: str = "",
                       history: p.ContentLike | None = None, ref: str = "",
                       labels: Mapping[str, str] | None = None,
                       checkpoints: CheckpointPolicy | None = None,
                       aux: p.AuxLike = (), model: str = "") -> tuple[Session, Usage]:
        request = p.create_session_request(session_id, state, from_ref, history, ref, labels or {},
                                           checkpoints, aux, model)
        response = self._unary("Sessions", "CreateSession", request,
                               sessions_pb2.CreateSessionResponse)
        return Session(self, response.session.id), p.usage(response.usage)

    def open_session(self, name: str, *, model: str = "") -> Session:
        """The session `name`; created from the ref of that name, or empty, if there is none."""
        try:
            self.session(name).info()
        except NotFound:
            try:
                try:
                    self.create_session(name, from_ref=name, model=model)
                except NotFound:
                    self.create_session(name, model=model)
            except AlreadyExists:
                pass  # somebody else was faster
        return self.session(name)

    def fork(self, *, session: str = "", state: str = "", from_ref: str = "", count: int = 1,
             prefix: str = "", names: Sequence[str] = (),
             labels: Mapping[str, str] | None = None) -> list[Session]:
        """Sessions that go on from one point, all or none."""
        request = p.fork_request(session, state, from_ref, count, prefix, names, labels or {})
        response = self._unary("Sessions", "Fork", request, sessions_pb2.ForkResponse)
        return [Session(self, each.id) for each in response.sessions]

    def delegate(self, branches: Sequence[d.BranchLike], *, session: str = "", state: str = "",
                 from_ref: str = "", policy: str = "", keep_best: int = 0, prefix: str = "",
                 labels: Mapping[str, str] | None = None, **options: Any) -> Delegation:
        """Branches from one point, each with an input of its own (content, None, or a pair of it
        and options), generated all at once. The source does not change. policy: drop, keep or
        best. Options: those of generate, and time_limit_ms."""
        request = d.request(session, state, from_ref, branches, policy, keep_best, prefix,
                            labels or {}, options)
        return Delegation(self._stream("Delegate", request, sessions_pb2.DelegateResponse),
                          self.addr)

    def sessions(self, prefix: str = "") -> Iterator[SessionInfo]:
        request = sessions_pb2.ListSessionsRequest(prefix=prefix)
        for page in self._pages("Sessions", "ListSessions", request,
                                sessions_pb2.ListSessionsResponse):
            yield from map(p.session_info, page.sessions)

    # States and refs.

    def state(self, state_id: str) -> StateInfo:
        """By id or by the name of a ref."""
        return p.state_info(self._unary("States", "GetState", states_pb2.GetStateRequest(id=state_id),
                                        p.resources.State))

    def states(self, *, labels: Mapping[str, str] | None = None, model: str = "",
               descendant_of: str = "") -> Iterator[StateInfo]:
        """Oldest first. model: only those of the one with this name or fingerprint."""
        request = states_pb2.ListStatesRequest(labels=dict(labels or {}), model_fingerprint=model,
                                               descendant_of=descendant_of)
        for page in self._pages("States", "ListStates", request, states_pb2.ListStatesResponse):
            yield from map(p.state_info, page.states)

    def lineage(self, state_id: str) -> Iterator[StateInfo]:
        request = states_pb2.GetLineageRequest(id=state_id)
        for page in self._pages("States", "GetLineage", request, states_pb2.GetLineageResponse):
            yield from map(p.state_info, page.states)

    def log(self, state_id: str) -> Log:
        """Of a state or ref; of a session: session(...).log()."""
        return self._log(p.log_request("", state_id))

    def graph(self, *, session: str = "", state: str = "", ancestors_only: bool = False,
              max_states: int = 0) -> Graph:
        """States with all their parents: around a session or a state or ref, or all."""
        request = p.graph_request(session, state, ancestors_only, max_states)
        return p.graph(self._unary("States", "GetGraph", request, states_pb2.GetGraphResponse))

    def state_stats(self, state_id: str) -> StateStats:
        """How large the tensors of a state are."""
        request = states_pb2.GetStateStatsRequest(id=state_id)
        return p.state_stats(self._unary("States", "GetStateStats", request,
                                         states_pb2.StateStats))

    def update_state(self, state_id: str, *, expire: p.Expiry = p.KEEP, pinned: bool | None = None,
                     labels: Mapping[str, str] | None = None, etag: str = "") -> StateInfo:
        """Changes what may change of a state, by id. `expire`: a datetime, a timedelta from now, or
        None for never; `labels` replaces all of them. `etag`: Aborted if the state has another."""
        request = p.update_state_request(state_id, expire, pinned, labels, etag)
        return p.state_info(self._unary("States", "UpdateState", request, p.resources.State))

    def delete_state(self, state_id: str) -> None:
        request = states_pb2.DeleteStateRequest(id=state_id, request_id=p.new_request_id())
        self._unary("States", "DeleteState", request, states_pb2.DeleteStateResponse)

    def recode_state(self, state: str, codec: str) -> Recoded:
        """Keeps a state as "exact", "near", "compact" or "archive". To a more exact one its tokens are
        read again, which computed states have none for."""
        request = p.recode_request(state, codec)
        return p.recoded(self._unary("States", "RecodeState", request,
                                states_pb2.RecodeStateResponse))

    def archive_state(self, state: str) -> Recoded:
        """Gives up all of a state but its tokens; what needs more has them read again."""
        return self.recode_state(state, "archive")

    def merge(self, inputs: Sequence[str] | Mapping[str, float], *, method: str = "",
              norm: str = "", ancestor: str = "", ref: str = "", expected_ref: str = "",
              labels: Mapping[str, str] | None = None, query: str = "") -> Merge:
        """One state of several that were read separately. `inputs`: ids or refs, or a mapping of
        them to weights. method: compose, ordered, mean or select (the single best one, by `query`
        or else by weight); norm: shares or inputs; ancestor: what all go on from ("": the nearest
        known, "-": none)."""
        request = p.merge_request(inputs, method, norm, ancestor, ref, expected_ref, labels or {},
                                  query)
        return p.merge(self._unary("States", "Merge", request, states_pb2.MergeResponse))

    def span(self, state: str, begin: p.Point = 0, end: p.Point | None = None, *, ref: str = "",
             expected_ref: str = "", labels: Mapping[str, str] | None = None) -> Computed:
        """The state of what `state` read from `begin` to `end` alone (None: its end). Each is a token
        count, or a state that it goes on from."""
        request = p.span_request(state, begin, end, ref, expected_ref, labels or {})
        return p.computed(self._unary("States", "ExtractSpan", request, states_pb2.ComputedState))

    def forget(self, state: str, begin: p.Point, end: p.Point | None = None, *, ref: str = "",
               expected_ref: str = "", labels: Mapping[str, str] | None = None) -> Computed:
        """The state without what it read from `begin` to `end`. What was read after the span was read
        knowing it, so this is no guarantee that nothing of it is left."""
        request = p.span_request(state, begin, end, ref, expected_ref, labels or {})
        return p.computed(self._unary("States", "Forget", request, states_pb2.ComputedState))

    def decay(self, state: str, tokens: int, *, ref: str = "", expected_ref: str = "",
              labels: Mapping[str, str] | None = None) -> Computed:
        """The state aged as if `tokens` tokens had passed that wrote nothing."""
        request = p.decay_request(state, tokens, ref, expected_ref, labels or {})
        return p.computed(self._unary("States", "Decay", request, states_pb2.ComputedState))

    def diff(self, a: str, b: str) -> Diff:
        """How far two states lie apart, per layer and head."""
        request = states_pb2.DiffRequest(id_a=a, id_b=b)
        return p.diff(self._unary("States", "Diff", request, states_pb2.DiffResponse))

    def search(self, text: str = "", *, like: str = "", labels: Mapping[str, str] | None = None,
               model: str = "", descendant_of: str = "",
               created_after: datetime.datetime | None = None,
               created_before: datetime.datetime | None = None, limit: int = 0, method: str = "",
               rerank: int | None = None) -> Search:
        """The states that know about `text`, a question or words; or those that are `like` a state
        or ref. method: lexical, embedding or both. rerank: how many of the best candidates the model
        itself judges (None: the server chooses; 0: none)."""
        request = _search.request(text, like, labels, model, descendant_of, created_after,
                                  created_before, limit, method, rerank)
        return _search.answer(self._unary("States", "Search", request, search_pb2.SearchResponse))

    def ref(self, name: str) -> RefInfo:
        return p.ref_info(self._unary("States", "GetRef", states_pb2.GetRefRequest(name=name),
                                      p.resources.Ref))

    def refs(self, prefix: str = "") -> Iterator[RefInfo]:
        request = states_pb2.ListRefsRequest(prefix=prefix)
        for page in self._pages("States", "ListRefs", request, states_pb2.ListRefsResponse):
            yield from map(p.ref_info, page.refs)

    def set_ref(self, name: str, state_id: str, *, expected: str = "") -> RefInfo:
        request = states_pb2.SetRefRequest(name=name, state_id=state_id, expected_state_id=expected,
                                           request_id=p.new_request_id())
        return p.ref_info(self._unary("States", "SetRef", request, p.resources.Ref))

    def delete_ref(self, name: str) -> None:
        request = states_pb2.DeleteRefRequest(name=name, request_id=p.new_request_id())
        self._unary("States", "DeleteRef", request, states_pb2.DeleteRefResponse)

    def status(self) -> admin_pb2.ServerStatus:
        return self._unary("Admin", "GetStatus", admin_pb2.GetStatusRequest(), admin_pb2.ServerStatus)

    def collect_garbage(self, *, dry_run: bool = False, full: bool = False,
                        on_progress: Callable[[retention_pb2.GarbageProgress], None] | None = None
                        ) -> retention_pb2.GarbageReport:
        """Gives the disk back what deleted states took, while the server serves. Takes as long as
        it takes; `timeout` does not hold for it."""
        request = retention_pb2.CollectGarbageRequest(dry_run=dry_run, full=full)
        call = self._channel.unary_stream(
            p.method("Admin", "CollectGarbage"),
            request_serializer=retention_pb2.CollectGarbageRequest.SerializeToString,
            response_deserializer=retention_pb2.GarbageProgress.FromString)
        progress = retention_pb2.GarbageProgress()
        try:
            for progress in call(request):
                if on_progress is not None:
                    on_progress(progress)
        except grpc.RpcError as error:
            raise from_rpc_error(error, self.addr) from None
        return progress.report

    # Transport.

    def _unary(self, service: str, name: str, request: Any, response_type: Any) -> Any:
        call = self._channel.unary_unary(p.method(service, name),
                                         request_serializer=type(request).SerializeToString,
                                         response_deserializer=response_type.FromString)
        try:
            return call(request, timeout=self.timeout)
        except grpc.RpcError as error:
            raise from_rpc_error(error, self.addr) from None

    def _pages(self, service: str, name: str, request: Any, response_type: Any) -> Iterator[Any]:
        while True:
            response = self._unary(service, name, request, response_type)
            yield response
            if not response.next_page_token:
                return
            request.page_token = response.next_page_token

    def _log(self, request: states_pb2.GetLogRequest) -> Log:
        return p.log(list(self._pages("States", "GetLog", request, states_pb2.GetLogResponse)))

    def _stream(self, name: str, request: Any, response_type: Any) -> Any:
        call = self._channel.unary_stream(p.method("Sessions", name),
                                          request_serializer=type(request).SerializeToString,
                                          response_deserializer=response_type.FromString)
        return call(request, timeout=self.timeout)

    def _generate(self, request: sessions_pb2.GenerateRequest) -> Generation:
        return Generation(self._stream("Generate", request, sessions_pb2.GenerateResponse),
                          self.addr)

    def _append(self, requests: list[sessions_pb2.AppendRequest],
                on_progress: Callable[[int, int], None] | None) -> Append:
        call = self._channel.stream_stream(
            p.method("Sessions", "Append"),
            request_serializer=sessions_pb2.AppendRequest.SerializeToString,
            response_deserializer=sessions_pb2.AppendResponse.FromString)
        done = None
        try:
            for event in call(iter(requests), timeout=self.timeout):
                if event.HasField("done"):
                    done = p.append_done(event.done)
                elif on_progress is not None:
                    on_progress(event.progress.tokens_read, event.progress.tokens_total)
        except grpc.RpcError as error:
            raise from_rpc_error(error, self.addr) from None
        assert done is not None  # the server always ends with it or with an error
        return done
