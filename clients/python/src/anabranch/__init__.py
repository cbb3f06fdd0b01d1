"""Client of Anabranch: contexts that are read once, kept, resumed, and continued.

    from anabranch import Client

    with Client("127.0.0.1:50051") as client:
        ada = client.open_session("assistants/ada")
        print(ada.ask("My name is Ada.").text)
        print(ada.ask("What is my name?").text)
        print(ada.commit().state.id)

AsyncClient has the same methods for asyncio.
"""
from .aio import AsyncClient, AsyncDelegation, AsyncGeneration, AsyncSession
from .client import Client, Delegation, Generation, Session
from .errors import (Aborted, AlreadyExists, AnabranchError, Cancelled, DataLoss, DeadlineExceeded,
                     FailedPrecondition, InvalidArgument, NotFound, ResourceExhausted, Unavailable)
from .types import BranchDelta, BranchError, BranchResult, Delegated, KeptBranch
from .types import (CheckpointPolicy, Edit, Graph, Log, LogEntry, Recoded, StateStats,
                    TensorStats)
from .types import (Append, AuxChange, Auxiliary, Commit, Computed, Delta, Diff, Distance, Merge,
                    Message, RefInfo, Reply, Rewind, Score, Search, SearchHit, SessionInfo, StateInfo,
                    TensorDistance, Token, Usage)

__all__ = [
    "Aborted", "AlreadyExists", "AnabranchError", "Append", "AsyncClient", "AsyncDelegation",
    "AsyncGeneration", "AsyncSession", "AuxChange", "Auxiliary", "BranchDelta", "BranchError",
    "BranchResult", "Cancelled", "CheckpointPolicy", "Client", "Commit", "Computed", "DataLoss",
    "DeadlineExceeded", "Delegated", "Delegation", "Delta", "Diff", "Distance", "Edit",
    "FailedPrecondition", "Generation", "Graph", "InvalidArgument", "KeptBranch", "Log",
    "LogEntry", "Merge", "Message", "NotFound", "Recoded", "RefInfo", "Reply", "ResourceExhausted",
    "Rewind", "Score", "Search", "SearchHit", "Session", "SessionInfo", "StateInfo",
    "StateStats", "TensorDistance", "TensorStats", "Token", "Unavailable", "Usage",
]
