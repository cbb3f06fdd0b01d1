"""Branches from one point, through the Python clients."""
import asyncio

import pytest

from anabranch import AlreadyExists, AsyncClient, BranchResult, Cancelled, Client, Message


def ask(text):
    return Message("user", text)


def test_branches_answer_and_the_parent_knows_nothing_of_it(server):
    with Client(server.addr) as client:
        ada = client.open_session("ada")
        ada.ask("My name is Ada.")
        before = ada.text()
        streamed = {1: "", 2: ""}
        delegation = ada.delegate([ask("What is my name?"), (ask("What is my name?"),
                                                             {"max_tokens": 1})], reply=True)
        for event in delegation:
            if not isinstance(event, BranchResult):
                streamed[event.branch] += event.text
        whole = delegation.result
        assert "Ada" in whole.results[0].text
        assert [r.text for r in whole.results] == [streamed[1], streamed[2]]
        assert [r.finish_reason for r in whole.results] == ["end", "max_tokens"]
        assert whole.results[0].score < 0 and whole.results[0].error is None
        assert whole.kept == () and ada.text() == before


def test_the_best_branch_is_kept_and_goes_on(server):
    with Client(server.addr) as client:
        client.open_session("ada").ask("My name is Ada.")
        tasks = [(ask("What is my name?"), {"temperature": 2.0, "seed": i}) for i in range(4)]
        whole = client.delegate(tasks, session="ada", policy="best", reply=True, max_tokens=16).result
        best = max(whole.results, key=lambda r: r.score)
        assert [k.branch for k in whole.kept] == [best.branch]
        assert best.text in client.session(whole.kept[0].session.id).text()
        with pytest.raises(AlreadyExists):
            client.delegate(tasks, session="ada", policy="keep", reply=True).result
        with pytest.raises(ValueError):
            client.delegate(tasks, session="ada", policy="sometimes")


def test_a_cancelled_delegation_leaves_nothing(server):
    with Client(server.addr) as client:
        client.open_session("ada").append("The river forks here.")
        delegation = client.delegate([None] * 3, session="ada", policy="keep", ignore_eos=True,
                                     max_tokens=16000)
        next(delegation)
        delegation.cancel()
        with pytest.raises(Cancelled):
            delegation.result
        assert [s.id for s in client.sessions()] == ["ada"]


def test_the_asyncio_client_delegates_too(server):
    async def run():
        async with AsyncClient(server.addr) as client:
            ada = await client.open_session("ada")
            await ada.ask("My name is Ada.")
            delegation = ada.delegate([ask("What is my name?")] * 2, reply=True)
            events = [event async for event in delegation]
            whole = await delegation.result()
            # Branches report in the order in which they end; the whole lists them by number.
            told = [event for event in events if isinstance(event, BranchResult)]
            assert sorted(told, key=lambda r: r.branch) == list(whole.results)
            assert all("Ada" in r.text for r in whole.results)
    asyncio.run(run())
