"""The request of a search from arguments, and its answer as dataclasses."""
from __future__ import annotations

import datetime
from collections.abc import Mapping

from . import _protocol as p
from .types import Search, SearchHit
from .v1 import search_pb2 as search


def request(text: str, like: str, labels: Mapping[str, str] | None, model: str, descendant_of: str,
            created_after: datetime.datetime | None, created_before: datetime.datetime | None,
            limit: int, method: str, rerank: int | None) -> search.SearchRequest:
    if bool(text) == bool(like):
        raise ValueError("give either text or like")
    message = search.SearchRequest(labels=dict(labels or {}), model_fingerprint=model,
                                   descendant_of=descendant_of, limit=limit,
                                   method=p.enum(search.SearchMethod, "SEARCH_METHOD_", method),
                                   rerank=0 if rerank is None else rerank or -1)
    if text:
        message.text = text
    else:
        message.like_id = like
    for field, time in (("created_after", created_after), ("created_before", created_before)):
        if time is not None:
            getattr(message, field).FromDatetime(time.astimezone(datetime.timezone.utc))
    return message


def hit(m: search.SearchHit) -> SearchHit:
    fields = {name: getattr(m, name) for name in SearchHit.__dataclass_fields__}
    fields["state"] = p.state_info(m.state)
    return SearchHit(**fields)


def answer(m: search.SearchResponse) -> Search:
    return Search(tuple(map(hit, m.hits)), m.states_searched, m.states_pending, m.candidates_ms,
                  m.rerank_ms, p.usage(m.usage))
