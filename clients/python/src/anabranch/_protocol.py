"""Requests from arguments, dataclasses from responses. Shared by the sync and asyncio clients."""
from __future__ import annotations

import datetime
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from .types import Graph, Recoded, StateStats, TensorStats
from .types import (Append, AuxChange, Auxiliary, CheckpointPolicy, Commit, Computed, Delta, Diff,
                    Distance, Log, LogEntry, Merge, Message, RefInfo, Reply, Rewind, Score,
                    SessionInfo, StateInfo,
                    TensorDistance, Token, Usage)
from .v1 import resources_pb2 as resources
from .v1 import sessions_pb2 as sessions
from .v1 import states_pb2 as states

# Text; one message or several; or token ids.
ContentLike = str | Message | Sequence[Message] | Sequence[int]

# Auxiliary states: their ids or refs, maybe with weights.
AuxLike = Sequence[str] | Mapping[str, float]

# A piece of an append is kept well below the message limit of 4 MiB.
MAX_TEXT_BYTES = 3 << 20

CHANNEL_OPTIONS = [("grpc.keepalive_time_ms", 60_000), ("grpc.keepalive_timeout_ms", 20_000)]

_FINISH = {sessions.FINISH_REASON_END: "end", sessions.FINISH_REASON_STOP_STRING: "stop_string",
           sessions.FINISH_REASON_MAX_TOKENS: "max_tokens",
           sessions.FINISH_REASON_CONTEXT_LIMIT: "context_limit"}


def finish_reason(value: int) -> str:
    return _FINISH.get(value, "")


def method(service: str, name: str) -> str:
    return f"/anabranch.v1.{service}/{name}"


def new_request_id() -> str:
    return str(uuid.uuid4())


def content(value: ContentLike) -> resources.Content:
    if isinstance(value, str):
        return resources.Content(text=value)
    if isinstance(value, Message):
        value = [value]
    items = list(value)
    if items and all(isinstance(item, Message) for item in items):
        messages = [resources.Message(role=m.role, text=m.text) for m in items]
        return resources.Content(messages=resources.Messages(messages=messages))
    return resources.Content(tokens=resources.Tokens(ids=items))


def append_requests(session_id: str, value: ContentLike, request_id: str,
                    expected_token_count: int, no_checkpoint: bool) -> list[sessions.AppendRequest]:
    if isinstance(value, str) and len(value.encode()) > MAX_TEXT_BYTES:
        raise ValueError(f"text of {len(value.encode())} bytes: at most {MAX_TEXT_BYTES} a call; "
                         "append it in parts, split at line ends")
    return [sessions.AppendRequest(session_id=session_id, content=content(value),
                                   request_id=request_id, no_checkpoint=no_checkpoint,
                                   expected_token_count=expected_token_count)]


def create_session_request(session_id: str, state: str, ref_name: str, history: ContentLike | None,
                           ref: str, labels: Mapping[str, str],
                           checkpoints: CheckpointPolicy | None = None, aux: AuxLike = (),
                           model: str = "") -> sessions.CreateSessionRequest:
    if sum((bool(state), bool(ref_name), history is not None)) > 1:
        raise ValueError("give at most one of state, from_ref and history")
    request = sessions.CreateSessionRequest(session_id=session_id, ref=ref, labels=dict(labels),
                                            request_id=new_request_id(), aux=auxiliaries(aux),
                                            model=model)
    if checkpoints is not None:
        request.checkpoints.CopyFrom(policy(checkpoints))
    if state:
        request.state_id = state
    elif ref_name:
        request.ref_name = ref_name
    elif history is not None:
        request.history.CopyFrom(content(history))
    return request


def auxiliaries(aux: AuxLike) -> list[resources.Auxiliary]:
    if isinstance(aux, str):
        raise ValueError(f"aux must be several names, such as [{aux!r}]")
    weights = aux if isinstance(aux, Mapping) else {}
    if any(weight <= 0 for weight in weights.values()):
        raise ValueError("weights must be above 0")
    return [resources.Auxiliary(id=each, weight=weights.get(each, 1.0)) for each in aux]


def aux_request(session_id: str, aux: AuxLike | None, add: AuxLike, drop: Sequence[str],
                expected_token_count: int) -> sessions.SetAuxRequest:
    if aux is not None and (add or drop):
        raise ValueError("give either aux, which is the whole set, or add and drop")
    return sessions.SetAuxRequest(
        session_id=session_id, replace=aux is not None, drop=drop,
        add=auxiliaries(add if aux is None else aux),
        expected_token_count=expected_token_count, request_id=new_request_id())


def policy(value: CheckpointPolicy) -> resources.CheckpointPolicy:
    return resources.CheckpointPolicy(
        skip_turn_ends=not value.turn_ends, every=value.every,
        thinning=enum(resources.Thinning, "THINNING_", value.thinning),
        thin_turn_ends=value.thin_turn_ends, max_states=value.max_states,
        max_bytes=value.max_bytes, codec=enum(resources.StateCodec, "STATE_CODEC_", value.codec))


def log_request(session_id: str, state: str) -> states.GetLogRequest:
    if session_id:
        return states.GetLogRequest(session_id=session_id, page_size=1000)
    return states.GetLogRequest(state_id=state, page_size=1000)


def generate_request(session_id: str, options: Mapping[str, Any]) -> sessions.GenerateRequest:
    sampling = {name: options[name] for name in sessions.Sampling.DESCRIPTOR.fields_by_name
                if name in options}
    rest = {name: value for name, value in options.items() if name not in sampling}
    rest.setdefault("request_id", new_request_id())
    return sessions.GenerateRequest(session_id=session_id, sampling=sessions.Sampling(**sampling),
                                    **rest)


def set_source(request: Any, session_id: str, state: str, from_ref: str) -> None:
    if sum((bool(session_id), bool(state), bool(from_ref))) != 1:
        raise ValueError("give one of session, state and from_ref")
    if session_id:
        request.session_id = session_id
    elif state:
        request.state_id = state
    else:
        request.ref_name = from_ref


def fork_request(session_id: str, state: str, from_ref: str, count: int, prefix: str,
                 names: Sequence[str], labels: Mapping[str, str]) -> sessions.ForkRequest:
    request = sessions.ForkRequest(count=0 if names else count, prefix=prefix, session_ids=names,
                                   labels=dict(labels), request_id=new_request_id())
    set_source(request, session_id, state, from_ref)
    return request


def merge_request(inputs: Sequence[str] | Mapping[str, float], method: str, norm: str,
                  ancestor: str, ref: str, expected_ref: str, labels: Mapping[str, str],
                  query: str) -> states.MergeRequest:
    weights = inputs if isinstance(inputs, Mapping) else {}
    return states.MergeRequest(
        inputs=[states.MergeInput(id=each, weight=weights.get(each, 1.0)) for each in inputs],
        method=enum(states.MergeMethod, "MERGE_METHOD_", method),
        norm=enum(states.MergeNorm, "MERGE_NORM_", norm), ancestor_id=ancestor, ref=ref,
        expected_ref_state_id=expected_ref, labels=dict(labels), request_id=new_request_id(),
        query=query)


# One end of a span: a token count, or a state that the other goes on from (by id or ref).
Point = int | str


def span_request(state: str, begin: Point, end: Point | None, ref: str, expected_ref: str,
                 labels: Mapping[str, str]) -> states.SpanRequest:
    span = states.TokenSpan()
    if isinstance(begin, str):
        span.begin_id = begin
    else:
        span.begin = begin
    if isinstance(end, str):
        span.end_id = end
    elif end is not None:
        span.end = end
    return states.SpanRequest(id=state, span=span, ref=ref, expected_ref_state_id=expected_ref,
                              labels=dict(labels), request_id=new_request_id())


def decay_request(state: str, tokens: int, ref: str, expected_ref: str,
                  labels: Mapping[str, str]) -> states.DecayRequest:
    return states.DecayRequest(id=state, tokens=tokens, ref=ref, expected_ref_state_id=expected_ref,
                               labels=dict(labels), request_id=new_request_id())


def enum(kind: Any, prefix: str, name: str) -> int:
    names = {each.removeprefix(prefix).lower(): value for each, value in kind.items()}
    names[""] = names.pop("unspecified")
    if name not in names:
        raise ValueError(f"{name!r} is none of {', '.join(sorted(filter(None, names)))}")
    return names[name]


def codec(value: int) -> str:
    name = resources.StateCodec.Name(value).removeprefix("STATE_CODEC_").lower()
    return "" if name == "unspecified" else name


def recode_request(state: str, name: str) -> states.RecodeStateRequest:
    return states.RecodeStateRequest(id=state, codec=enum(resources.StateCodec, "STATE_CODEC_", name),
                                     request_id=new_request_id())


def recoded(m: states.RecodeStateResponse) -> Recoded:
    return Recoded(state_info(m.state), usage(m.usage))


def usage(m: resources.Usage) -> Usage:
    return Usage(**{name: getattr(m, name) for name in Usage.__dataclass_fields__})


def session_info(m: resources.Session) -> SessionInfo:
    fields = {name: getattr(m, name) for name in SessionInfo.__dataclass_fields__}
    fields["labels"] = dict(m.labels)
    c = m.checkpoints
    fields["checkpoints"] = CheckpointPolicy(
        not c.skip_turn_ends, c.every, "none" if c.thinning == resources.THINNING_NONE
        else "logarithmic", c.thin_turn_ends, c.max_states, c.max_bytes, codec(c.codec))
    fields["aux"] = tuple(Auxiliary(a.id, a.weight, a.state_id) for a in m.aux)
    return SessionInfo(**fields)


def state_info(m: resources.State) -> StateInfo:
    fields = {name: getattr(m, name) for name in StateInfo.__dataclass_fields__}
    fields["labels"] = dict(m.labels)
    fields["parent_ids"] = tuple(m.parent_ids)
    fields["codec"] = codec(m.codec)
    for name in ("create_time", "expire_time"):
        fields[name] = getattr(m, name).ToDatetime() if m.HasField(name) else None
    return StateInfo(**fields)


class _Keep:
    """Stands for an argument that was not given, where None says something."""

    def __repr__(self) -> str:
        return "KEEP"


KEEP = _Keep()
Expiry = datetime.datetime | datetime.timedelta | None | _Keep


def update_state_request(state_id: str, expire: Expiry, pinned: bool | None,
                         labels: Mapping[str, str] | None, etag: str) -> states.UpdateStateRequest:
    request = states.UpdateStateRequest(id=state_id, etag=etag, request_id=new_request_id())
    if not isinstance(expire, _Keep):
        request.update_mask.paths.append("expire_time")
        if isinstance(expire, datetime.timedelta):
            expire = datetime.datetime.now(datetime.timezone.utc) + expire
        if expire is not None:
            request.expire_time.FromDatetime(expire)
    if pinned is not None:
        request.update_mask.paths.append("pinned")
        request.pinned = pinned
    if labels is not None:
        request.update_mask.paths.append("labels")
        request.labels.update(labels)
    if not request.update_mask.paths:
        raise ValueError("give at least one of expire, pinned and labels")
    return request


def ref_info(m: resources.Ref) -> RefInfo:
    return RefInfo(m.name, m.state_id, m.etag)


def token(m: sessions.TokenInfo) -> Token:
    return Token(m.id, m.text, m.logprob, tuple(token(t) for t in m.top))


def delta(m: sessions.GenerateDelta) -> Delta:
    return Delta(m.text, tuple(token(t) for t in m.tokens), m.token_count, m.durable_token_count)


def reply(m: sessions.GenerateDone) -> Reply:
    return Reply(m.text, finish_reason(m.finish_reason), session_info(m.session), usage(m.usage))


def append_done(m: sessions.AppendDone) -> Append:
    return Append(session_info(m.session), usage(m.usage))


def score(m: sessions.ScoreResponse) -> Score:
    return Score(m.logprob, m.token_count, tuple(token(t) for t in m.tokens), usage(m.usage))


def commit(m: sessions.CommitResponse) -> Commit:
    return Commit(state_info(m.state), ref_info(m.ref) if m.HasField("ref") else None,
                  session_info(m.session), usage(m.usage))


def aux_change(m: sessions.SetAuxResponse) -> AuxChange:
    return AuxChange(session_info(m.session), state_info(m.state) if m.HasField("state") else None,
                     usage(m.usage))


def rewind(m: sessions.RewindResponse) -> Rewind:
    return Rewind(session_info(m.session), m.base_state_id, m.tokens_to_replay, m.tokens_dropped)


def merge(m: states.MergeResponse) -> Merge:
    return Merge(state_info(m.state), ref_info(m.ref) if m.HasField("ref") else None, m.ancestor_id,
                 usage(m.usage), tuple((s.logprob, s.entropy) for s in m.query_scores))


def log_entry(m: states.LogEntry) -> LogEntry:
    return LogEntry(state_info(m.state), tuple(m.ref_names), tuple(m.session_ids), m.child_count,
                    m.next_token_count, tuple(m.base_ids))


def log(pages: Sequence[states.GetLogResponse]) -> Log:
    return Log(tuple(log_entry(e) for page in pages for e in page.entries), pages[0].token_count,
               pages[-1].first_token_count)


def graph_request(session: str, state: str, ancestors_only: bool,
                  max_states: int) -> states.GetGraphRequest:
    if session and state:
        raise ValueError("give at most one of session and state")
    request = states.GetGraphRequest(ancestors_only=ancestors_only, max_states=max_states)
    if session:
        request.session_id = session
    elif state:
        request.state_id = state
    return request


def graph(m: states.GetGraphResponse) -> Graph:
    return Graph(tuple(log_entry(e) for e in m.entries), m.truncated)


def state_stats(m: states.StateStats) -> StateStats:
    return StateStats(m.state_id, m.token_count, tuple(
        TensorStats(t.layer, t.kind, tuple(t.shape), tuple(t.norms), t.max_abs, t.nonfinite_count,
                    t.checksum) for t in m.tensors))


def computed(m: states.ComputedState) -> Computed:
    return Computed(state_info(m.state), ref_info(m.ref) if m.HasField("ref") else None, m.begin,
                    m.end, usage(m.usage))


def _tensor_distance(m: states.TensorDistance) -> TensorDistance:
    w = m.whole
    parts = zip(m.relative_l2, m.cosine, m.norm_a, m.norm_b, strict=True)
    return TensorDistance(m.layer, m.kind, Distance(w.relative_l2, w.cosine, w.norm_a, w.norm_b),
                          tuple(Distance(*part) for part in parts), m.heads_per_part)


def diff(m: states.DiffResponse) -> Diff:
    return Diff(state_info(m.a), state_info(m.b), m.ancestor_id,
                tuple(map(_tensor_distance, m.tensors)), usage(m.usage))
