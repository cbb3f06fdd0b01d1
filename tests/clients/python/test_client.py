"""The Python client against a real server."""
import subprocess
import sys
from pathlib import Path

import pytest

import anabranch
from anabranch import (Aborted, AlreadyExists, AsyncClient, CheckpointPolicy, Client,
                       FailedPrecondition, InvalidArgument, Message, NotFound, Unavailable)


def test_a_reply_streams_and_its_usage_adds_up(server):
    with Client(server.addr) as client:
        ada = client.open_session("assistants/ada")
        read = ada.append(Message("user", "My name is Ada."))
        assert read.usage.tokens_read > 0
        generation = ada.generate(reply=True, max_tokens=12)
        text = "".join(delta.text for delta in generation)
        assert generation.result.text == text
        assert generation.result.usage.tokens_generated > 0
        assert generation.result.session.token_count == ada.info().token_count


def test_a_session_survives_sigkill_without_reading_again(server):
    with Client(server.addr) as client:
        ada = client.open_session("assistants/ada")
        before = ada.append(Message("user", "My name is Ada.")).session.token_count
    server.kill()
    server.start()
    with Client(server.addr) as client:
        ada = client.open_session("assistants/ada")
        assert ada.info().token_count == before
        assert "My name is Ada." in ada.text()
        reply = ada.generate(reply=True, max_tokens=4).result
        assert reply.usage.tokens_reused == before and reply.usage.tokens_replayed == 0


def test_commit_moves_the_ref_and_states_can_be_resumed(server):
    with Client(server.addr) as client:
        ada = client.open_session("ada")
        ada.append("some text to remember")
        commit = ada.commit(labels={"topic": "test"})
        assert commit.ref is not None and commit.ref.state_id == commit.state.id
        assert client.ref("ada").state_id == commit.state.id
        assert [s.id for s in client.states(labels={"topic": "test"})] == [commit.state.id]
        twin, usage = client.create_session("twin", state=commit.state.id)
        assert usage.tokens_reused == commit.state.token_count and usage.tokens_read == 0
        assert twin.text() == ada.text()
        with pytest.raises(Aborted):
            client.set_ref("ada", commit.state.id, expected="-")
        assert commit.state.id in [s.id for s in client.lineage("ada")]


def test_forks_go_on_from_one_point_and_a_rewound_one_forgets(server):
    with Client(server.addr) as client:
        ada = client.open_session("ada")
        ada.append("one two three")
        before = ada.info().token_count
        left, right = ada.fork(2)
        assert (left.id, right.id) == ("ada/1", "ada/2")
        left.append(" four")
        assert left.text() == ada.text() + " four" and right.text() == ada.text()
        plan = left.rewind(before, dry_run=True)
        assert plan.tokens_dropped == left.info().token_count - before
        assert left.rewind(before).session.token_count == before
        assert left.text() == ada.text()
        ada.commit()
        assert [s.id for s in client.fork(from_ref="ada", names=["x", "y"])] == ["x", "y"]
        with pytest.raises(AlreadyExists):
            ada.fork(2)


def test_a_log_predicts_what_going_back_costs_and_an_edit_keeps_the_old_line(server):
    with Client(server.addr) as client:
        ada, _ = client.create_session("ada", checkpoints=CheckpointPolicy(every=16))
        ada.append(" ".join(f"one two three {i}" for i in range(60)))
        assert ada.mark("start").name == "ada/marks/start"
        ada.append(" and then some more")
        log, end = ada.log(), ada.info().token_count
        (start,) = [e for e in log.entries if "ada/marks/start" in e.ref_names]
        assert log.token_count == end and start.state.kind == "turn"
        assert {e.state.kind for e in log.entries} == {"turn", "grid"}
        for position in (1, 17, end // 2, end - 1, end):
            assert log.replay_to(position) == ada.rewind(position, dry_run=True).tokens_to_replay
        with pytest.raises(ValueError):
            log.replay_to(end + 1)
        before = ada.text()
        edit = ada.edit(end - 2, " something else")
        assert edit.rewind.tokens_to_replay == log.replay_to(end - 2)
        assert ada.text().endswith(" something else")
        old, _ = client.create_session("old", from_ref=edit.before.name)
        assert old.text() == before
        assert client.log("ada/marks/start").token_count == start.state.token_count
        info = ada.set_checkpoints(CheckpointPolicy(turn_ends=False, every=-1, thinning="none"))
        assert info.checkpoints == CheckpointPolicy(turn_ends=False, every=-1, thinning="none")


def test_what_was_read_separately_is_merged(server):
    with Client(server.addr) as client:
        for name, text in (("ann", "one two"), ("ben", "three four five")):
            session = client.open_session(name)
            session.append(text)
            session.commit()
        merge = client.merge(["ann", "ben"], ref="both")
        assert merge.ref is not None and merge.ref.state_id == merge.state.id
        both, usage = client.create_session("both", from_ref="both")
        assert usage.tokens_read == 0 and both.text() == "one twothree four five"
        heavier = client.merge({"ann": 3.0, "ben": 1.0}, method="mean", norm="inputs")
        assert heavier.state.id != merge.state.id
        with pytest.raises(ValueError, match="compose"):
            client.merge(["ann", "ben"], method="sum")


def test_auxiliary_states_are_merged_into_a_session_and_swapped(server):
    with Client(server.addr) as client:
        for name, text in (("core", "My name is Ada."), ("skill", "My locker code is 4711.")):
            session = client.open_session(name)
            session.append(Message("user", text))
            session.commit()
        session, usage = client.create_session("x", from_ref="core", aux={"skill": 0.5})
        assert usage.tokens_read == 0
        info = session.info()
        assert [(aux.id, aux.weight) for aux in info.aux] == [("skill", 0.5)]
        assert info.core_state_id == client.ref("core").state_id
        session.append(Message("user", "I like rain."))
        own = session.info().token_count - info.base_token_count
        change = session.set_aux(drop=["skill"])
        assert change.state.operation == "swap" and change.usage.tokens_read == 0
        assert change.session.token_count - change.session.base_token_count == own
        log = session.log()
        with pytest.raises(ValueError, match="computed"):
            log.replay_to(log.token_count - 1)
        with pytest.raises(ValueError):
            session.set_aux(["skill"], drop=["skill"])
        with pytest.raises(FailedPrecondition) as known:
            session.set_aux(["core"])
        assert known.value.reason == "ALREADY_KNOWN"


def test_the_state_that_knows_is_found(server):
    with Client(server.addr) as client:
        for name, text in (("ann", "Ann keeps a spare key."), ("ben", "Ben sold the boat."),
                           ("cat", "Cat paints houses.")):
            session = client.open_session(name)
            session.append(text)
            session.commit(labels={"who": name})
        found = client.search("Who sold a boat?", rerank=0)
        assert found.hits[0].ref == "ben" and found.hits[0].lexical_rank == 1
        assert "boat" in found.hits[0].snippet and found.states_searched == 3
        assert [h.ref for h in client.search("boat", labels={"who": "cat"}).hits if h.lexical_rank] == []
        resumed, usage = client.create_session("again", state=found.hits[0].state.id)
        assert usage.tokens_read == 0 and resumed.text() == "Ben sold the boat."
        with pytest.raises(ValueError, match="either"):
            client.search()
        with pytest.raises(InvalidArgument, match="limit"):
            client.search("boat", limit=1000)


def test_the_skill_library_example_finds_and_resumes(server):
    example = Path(__file__).resolve().parents[3] / "clients/python/examples/skill_library.py"
    for _ in range(2):  # the second run finds what the first kept
        run = subprocess.run([sys.executable, example, server.addr], capture_output=True, text=True,
                             timeout=120)
        assert run.returncode == 0, run.stderr
        assert "What is the code for the gate? skills/gate knows" in run.stdout
        assert "What is Ada's profession? skills/ada knows" in run.stdout


def test_score_does_not_move_the_session(server):
    with Client(server.addr) as client:
        ada = client.open_session("ada")
        ada.append("one two three")
        before = ada.info().token_count
        score = ada.score(" four", per_token=True)
        assert score.logprob < 0 and score.token_count == len(score.tokens)
        assert sum(t.logprob for t in score.tokens) == pytest.approx(score.logprob, rel=1e-4)
        assert ada.info().token_count == before


def test_errors_have_classes_and_reasons(server):
    with Client(server.addr) as client:
        with pytest.raises(NotFound) as error:
            client.session("nobody").info()
        assert error.value.reason
        with pytest.raises(InvalidArgument) as error:
            client.create_session("Not Allowed")
        assert "session_id" in error.value.message
        with pytest.raises(NotFound):
            client.create_session("x", from_ref="no/such/ref")
    with Client("127.0.0.1:1", timeout=5) as client, pytest.raises(Unavailable) as error:
        client.status()
    assert "127.0.0.1:1" in str(error.value)


def test_status_names_the_model(server):
    with Client(server.addr) as client:
        assert client.status().model.model_type == "mamba2"


def test_a_session_runs_on_the_model_that_it_asks_for(server):
    with Client(server.addr) as client:
        served = [each.model for each in client.status().models]
        assert [model.fingerprint for model in served] == [client.status().model.fingerprint]
        for model in served[0].name, served[0].fingerprint:
            session, _ = client.create_session(model=model)
            assert session.info().model_fingerprint == served[0].fingerprint
        with pytest.raises(InvalidArgument, match="'other' is no model that is served"):
            client.open_session("ada", model="other")


def test_states_are_listed_by_the_name_of_their_model(server):
    with Client(server.addr) as client:
        ada = client.open_session("ada")
        ada.append("some text to remember")
        state = ada.commit().state
        served = client.status().model
        for model in served.name, served.fingerprint, "":
            assert [s.id for s in client.states(model=model)] == [state.id]
        assert list(client.states(model="0" * 64)) == []
        with pytest.raises(InvalidArgument, match="'other' is no model that is served"):
            list(client.states(model="other"))


async def test_the_asyncio_client_does_the_same(server):
    async with AsyncClient(server.addr) as client:
        ada = await client.open_session("ada")
        await ada.append(Message("user", "My name is Ada."))
        generation = ada.generate(reply=True, max_tokens=8)
        text = "".join([delta.text async for delta in generation])
        assert (await generation.result()).text == text
        commit = await ada.commit()
        assert (await client.ref("ada")).state_id == commit.state.id
        assert [s.id async for s in client.sessions()] == ["ada"]
        (twin,) = await ada.fork(names=["twin"])
        log = await ada.log()
        assert log.entries[0].state.id == commit.state.id
        assert (await twin.edit(2, "x")).before.state_id == commit.state.id
        assert (await twin.rewind(1)).session.token_count == 1
        other, _ = await client.create_session("other", aux={"ada": 0.5})
        assert [aux.id for aux in (await other.info()).aux] == ["ada"]
        assert (await other.set_aux([])).session.token_count == 0
        with pytest.raises(NotFound):
            await client.session("nobody").info()


def test_everything_exported_exists():
    assert all(hasattr(anabranch, name) for name in anabranch.__all__)


def test_what_resent_conversations_share_is_read_twice_and_then_never(server):
    shared = [Message("user", f"My key number {i} hangs on hook {2 * i}.") for i in range(12)]
    with Client(server.addr) as client:
        usages = [client.create_session(f"chat{i}", history=[*shared, Message("user", last)])[1]
                  for i, last in enumerate(("What is new?", "Where is key 3?", "Good morning."))]
    first, second, third = usages
    assert first.tokens_reused == 0 and first.branch_token_count == 0
    assert second.tokens_reused == 0 and second.branch_token_count > 64
    assert third.tokens_reused >= second.branch_token_count and third.tokens_read < 32


def test_a_state_is_kept_smaller_archived_and_brought_back(server):
    with Client(server.addr) as client:
        session, _ = client.create_session("small", checkpoints=CheckpointPolicy(codec="near"))
        session.append("The boat was repainted in Ghent.")
        state = session.commit().state
        assert (state.codec, state.lossy_restores) == ("near", 0) and state.codec_error > 0
        assert session.info().checkpoints.codec == "near"
        archived = client.archive_state("small").state
        assert archived.archived and archived.size_bytes == 0 and archived.id == state.id
        back = client.recode_state(state.id, "exact")
        assert back.state.codec == "exact" and back.usage.tokens_replayed == state.token_count
        assert back.state.size_bytes == archived.exact_size_bytes
        with pytest.raises(ValueError):
            client.recode_state(state.id, "tiny")


async def test_states_are_recoded_from_asyncio_too(server):
    async with AsyncClient(server.addr) as client:
        session, _ = await client.create_session("async")
        await session.append("Some text.")
        state = (await session.commit()).state
        recoded = await client.recode_state(state.id, "compact")
        assert recoded.state.size_bytes < state.size_bytes
        assert (await client.archive_state(state.id)).state.codec == "archive"
