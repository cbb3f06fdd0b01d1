"""Bundles, backups and verification through the Python clients, against real servers."""
import asyncio
import tempfile

import pytest

from anabranch import AsyncClient, Client, InvalidArgument, Message
from conftest import Server


@pytest.fixture
def other():
    with tempfile.TemporaryDirectory() as data:
        server = Server(data)
        server.start()
        yield server
        server.kill()


def read(client, name):
    session = client.open_session(name)
    session.append(Message("user", "My name is Ada."))
    return session, session.commit().state


def test_a_lineage_moves_to_another_server_and_goes_on_there(server, other, tmp_path):
    path = tmp_path / "ada.bundle"
    with Client(server.addr) as here, Client(other.addr) as there:
        ada, state = read(here, "ada")
        seen = []
        bundle = here.export_state("ada", path, lineage=True,
                                   on_progress=lambda done, total: seen.append((done, total)))
        assert bundle.state_id == state.id and bundle.size_bytes == path.stat().st_size
        assert seen[-1] == (bundle.size_bytes, bundle.size_bytes)
        assert not (tmp_path / "ada.bundle.part").exists()
        result = there.import_bundle(path, ref="copies/ada")
        assert result.state.id == state.id and result.ref.name == "copies/ada"
        assert there.import_bundle(path).states_added == 0
        twin, usage = there.create_session("twin", from_ref="copies/ada")
        assert usage.tokens_read == 0
        question = Message("user", "What is my name?")
        for session in (ada, twin):
            session.append(question)
        assert twin.generate(reply=True).result.text == ada.generate(reply=True).result.text


def test_an_export_goes_on_with_what_is_there(server, tmp_path):
    path, part = tmp_path / "ada.bundle", tmp_path / "ada.bundle.part"
    with Client(server.addr) as client:
        read(client, "ada")
        bundle = client.export_state("ada", path)
        whole = path.read_bytes()
        part.write_bytes(whole[:1500000])
        (tmp_path / "ada.bundle.part.id").write_text(bundle.bundle_id + "\n")
        path.unlink()
        seen = []
        client.export_state("ada", path, on_progress=lambda done, total: seen.append(done))
        assert seen[0] > 1500000 and path.read_bytes() == whole
        # Of another bundle: not glued together.
        part.write_bytes(b"something else")
        (tmp_path / "ada.bundle.part.id").write_text("00" * 32 + "\n")
        client.export_state("ada", path)
        assert path.read_bytes() == whole


def test_a_damaged_bundle_is_refused(server, tmp_path):
    path = tmp_path / "ada.bundle"
    with Client(server.addr) as client:
        read(client, "ada")
        client.export_state("ada", path)
        damaged = bytearray(path.read_bytes())
        damaged[len(damaged) // 2] ^= 1
        path.write_bytes(damaged)
        with pytest.raises(InvalidArgument, match="of the bundle"):
            client.import_bundle(path)


def test_backups_are_made_listed_and_limited(server):
    with Client(server.addr) as client:
        read(client, "ada")
        phases = []
        first = client.backup("daily", on_progress=lambda progress: phases.append(progress.phase))
        assert first.id == 1 and phases[-1] == "verifying"
        client.backup("daily", keep=1)
        assert [(b.id, b.problem) for b in client.backups("daily")] == [(2, "")]
        with pytest.raises(InvalidArgument, match="backup-root"):
            client.backup("/somewhere/else")


def test_verify_reads_everything(server):
    with Client(server.addr) as client:
        _, state = read(client, "ada")
        status, findings = client.verify()
        assert status.states_checked >= 1 and status.bytes_checked > 0 and not findings
        assert client.status().last_scrub.states_checked == status.states_checked
        status, findings = client.verify(state.id)
        assert status.states_checked == 1 and not findings


def test_the_async_client_has_the_same_calls(server, other, tmp_path):
    async def run():
        path = tmp_path / "ada.bundle"
        async with AsyncClient(server.addr) as here, AsyncClient(other.addr) as there:
            session = await here.open_session("ada")
            await session.append(Message("user", "My name is Ada."))
            state = (await session.commit()).state
            bundle = await here.export_state("ada", path, lineage=True)
            assert bundle.size_bytes == path.stat().st_size
            result = await there.import_bundle(path)
            assert result.state.id == state.id and list(result.refs_set) == ["ada"]
            backup = await here.backup("nightly")
            assert [b.id async for b in here.backups("nightly")] == [backup.id]
            status, findings = await here.verify(repair=True)
            assert status.states_checked >= 1 and not findings
    asyncio.run(run())
