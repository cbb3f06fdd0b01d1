"""What calls return: plain dataclasses, named as in the protocol (proto/anabranch/v1)."""
from __future__ import annotations

import datetime
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Message:
    """One turn, for models with a chat format. The text is plain: special tokens have no effect."""
    role: str
    text: str


@dataclass(frozen=True)
class Usage:
    """What a call cost. Billing only new tokens needs tokens_read and tokens_generated alone."""
    tokens_reused: int = 0
    tokens_replayed: int = 0
    tokens_read: int = 0
    tokens_generated: int = 0
    state_bytes_loaded: int = 0
    state_bytes_stored: int = 0
    queue_ms: float = 0.0
    restore_ms: float = 0.0
    compute_ms: float = 0.0
    miss_reason: str = ""
    branch_token_count: int = 0  # captured here, where a history parts from one read before; 0: no
    lossy_restores: int = 0  # how often its past went through a lossy codec; 0: exact


@dataclass(frozen=True)
class SessionInfo:
    id: str
    ref: str
    head_state_id: str
    token_count: int
    head_token_count: int
    model_fingerprint: str
    labels: dict[str, str] = field(default_factory=dict)
    loaded: bool = False
    busy: bool = False
    checkpoints: "CheckpointPolicy | None" = None
    core_state_id: str = ""  # what it was opened with; "": nothing
    aux: "tuple[Auxiliary, ...]" = ()  # merged into the core
    base_state_id: str = ""  # the two together; what the session has read itself comes after
    base_token_count: int = 0


@dataclass(frozen=True)
class Auxiliary:
    """A state that is merged into a session's core. `id` as it was given, `state_id` what it named."""
    id: str
    weight: float
    state_id: str


@dataclass(frozen=True)
class CheckpointPolicy:
    """Which states a session captures by itself, and which it gives up again. `every`: tokens between
    positions of the grid; 0: as the server does, -1: none. `thinning`: "logarithmic" or "none". The
    limits are on what may be thinned; 0: none. `codec` of the states: "exact", "near", "compact" or
    "" as the server does. See proto/anabranch/v1/resources.proto."""
    turn_ends: bool = True
    every: int = 0
    thinning: str = "logarithmic"
    thin_turn_ends: bool = False
    max_states: int = 0
    max_bytes: int = 0
    codec: str = ""


@dataclass(frozen=True)
class StateInfo:
    id: str
    parent_ids: tuple[str, ...]
    operation: str
    model_fingerprint: str
    numerics_profile: str
    token_count: int
    span_token_count: int
    size_bytes: int
    labels: dict[str, str] = field(default_factory=dict)
    create_time: datetime.datetime | None = None
    expire_time: datetime.datetime | None = None
    pinned: bool = False
    etag: str = ""
    kind: str = ""  # "turn", "mark", "grid", "fork", "idle", "merge"
    thinned: bool = False
    operation_params: str = ""
    codec: str = ""  # "exact", "near", "compact" or "archive"
    exact_size_bytes: int = 0
    codec_error: float = 0.0  # largest relative L2 error of its tensors, as measured
    lossy_restores: int = 0
    archived: bool = False


@dataclass(frozen=True)
class Recoded:
    """A state in its new codec. `usage.tokens_replayed` if its tokens were read again."""
    state: StateInfo
    usage: Usage


@dataclass(frozen=True)
class RefInfo:
    name: str
    state_id: str
    etag: str = ""


@dataclass(frozen=True)
class Token:
    id: int
    text: str
    logprob: float
    top: tuple["Token", ...] = ()


@dataclass(frozen=True)
class Delta:
    """A piece of a generation. `durable_token_count` tokens of the session survive a crash now."""
    text: str
    tokens: tuple[Token, ...]
    token_count: int
    durable_token_count: int


@dataclass(frozen=True)
class Reply:
    """The end of a generation, sent once everything generated is durable."""
    text: str
    finish_reason: str  # "end", "stop_string", "max_tokens", "context_limit"
    session: SessionInfo
    usage: Usage


@dataclass(frozen=True)
class Append:
    session: SessionInfo
    usage: Usage


@dataclass(frozen=True)
class Score:
    logprob: float
    token_count: int
    tokens: tuple[Token, ...]
    usage: Usage


@dataclass(frozen=True)
class Commit:
    state: StateInfo
    ref: RefInfo | None
    session: SessionInfo
    usage: Usage


@dataclass(frozen=True)
class AuxChange:
    """`state` is the session's new head; None: the session is empty."""
    session: SessionInfo
    state: StateInfo | None
    usage: Usage


@dataclass(frozen=True)
class Rewind:
    """`session` goes on from `base_state_id` ("": the beginning); its next use replays tokens."""
    session: SessionInfo
    base_state_id: str
    tokens_to_replay: int
    tokens_dropped: int


@dataclass(frozen=True)
class SearchHit:
    """A state that was found, and why. Ranks count from 1; 0: not among the candidates of that
    kind. pmi, answer_gain and entropy are set if the model judged the state (`reranked`)."""
    state: StateInfo
    ref: str
    session_id: str
    snippet: str
    score: float
    lexical_score: float
    lexical_rank: int
    embedding_cosine: float
    embedding_rank: int
    fused: float
    reranked: bool
    pmi: float
    answer_gain: float
    entropy: float


@dataclass(frozen=True)
class Search:
    """`hits` best first, out of `states_searched`. `states_pending` is not 0 only while the server
    builds its index anew."""
    hits: tuple[SearchHit, ...]
    states_searched: int
    states_pending: int
    candidates_ms: float
    rerank_ms: float
    usage: Usage


@dataclass(frozen=True)
class Merge:
    """`ancestor_id` was counted once ("": none). `query_scores`: by input, the mean log-likelihood of
    the query and the entropy of the next token."""
    state: StateInfo
    ref: RefInfo | None
    ancestor_id: str
    usage: Usage
    query_scores: tuple[tuple[float, float], ...] = ()


@dataclass(frozen=True)
class LogEntry:
    """A position with a state. Token count p up to `next_token_count` is reached by replaying
    p - state.token_count tokens."""
    state: StateInfo
    ref_names: tuple[str, ...]
    session_ids: tuple[str, ...]
    child_count: int
    next_token_count: int
    base_ids: tuple[str, ...] = ()  # of a graph: for each parent the nearest that is not thinned


@dataclass(frozen=True)
class Log:
    """Positions with a state, newest first; below `first_token_count` nothing can be reached."""
    entries: tuple[LogEntry, ...]
    token_count: int
    first_token_count: int

    def base_of(self, position: int) -> LogEntry | None:
        """The entry that a rewind to `position` goes on from; None: the beginning. ValueError for a
        position that no rewind reaches."""
        if not self.first_token_count <= position <= self.token_count:
            raise ValueError(f"{position} is not between {self.first_token_count} and "
                             f"{self.token_count}")
        base = next((e for e in self.entries if e.state.token_count <= position), None)
        if base and base.next_token_count <= position < self.token_count:
            raise ValueError(f"{position} lies inside a computed state: the nearest position before "
                             f"it is {base.next_token_count - 1}")
        return base

    def replay_to(self, position: int) -> int:
        """Tokens that a rewind to `position` replays."""
        base = self.base_of(position)
        return position - (base.state.token_count if base else 0)


@dataclass(frozen=True)
class Edit:
    """`before` is the ref of the old line's end."""
    before: RefInfo
    rewind: Rewind
    append: Append


@dataclass(frozen=True)
class Graph:
    """Children before their parents, otherwise the newest first."""
    entries: tuple[LogEntry, ...]
    truncated: bool


@dataclass(frozen=True)
class TensorStats:
    """One tensor of a state; `norms` by head. See proto/anabranch/v1/states.proto."""
    layer: int
    kind: str  # "window", "recurrent", "steps", "keys", "values", "logits" (of layer -1)
    shape: tuple[int, ...]
    norms: tuple[float, ...]
    max_abs: float
    nonfinite_count: int
    checksum: int


@dataclass(frozen=True)
class StateStats:
    state_id: str
    token_count: int
    tensors: tuple[TensorStats, ...]


@dataclass(frozen=True)
class BranchDelta:
    """What branch number `branch`, from 1, said since its last delta."""
    branch: int
    text: str
    tokens: tuple[int, ...]


@dataclass(frozen=True)
class BranchError:
    code: int  # of google.rpc.Code
    reason: str
    message: str


@dataclass(frozen=True)
class BranchResult:
    """How a branch ended. `score`: mean log-probability of the tokens generated."""
    branch: int
    text: str
    tokens: tuple[int, ...]
    finish_reason: str
    score: float
    token_count: int
    usage: Usage
    error: BranchError | None = None


@dataclass(frozen=True)
class KeptBranch:
    branch: int
    session: SessionInfo


@dataclass(frozen=True)
class Delegated:
    """The end of a delegation: all results in order, and what was kept."""
    results: tuple[BranchResult, ...]
    kept: tuple[KeptBranch, ...]
    usage: Usage


@dataclass(frozen=True)
class Computed:
    """A state computed from one state; `begin` and `end` of the span, in that state's tokens."""
    state: StateInfo
    ref: RefInfo | None
    begin: int
    end: int
    usage: Usage


@dataclass(frozen=True)
class Distance:
    """relative_l2: |a - b| / max(|a|, |b|), 0 for equal."""
    relative_l2: float
    cosine: float
    norm_a: float
    norm_b: float


@dataclass(frozen=True)
class TensorDistance:
    """One tensor of a layer; `parts` are its heads, or groups of `heads_per_part`."""
    layer: int
    kind: str  # "recurrent", "keys", "values"
    whole: Distance
    parts: tuple[Distance, ...]
    heads_per_part: int


@dataclass(frozen=True)
class Diff:
    a: StateInfo
    b: StateInfo
    ancestor_id: str
    tensors: tuple[TensorDistance, ...]
    usage: Usage
