"""Expiry, pins, labels, use and garbage collection as a Python program sees them."""
import asyncio
import datetime

import pytest

from anabranch import AsyncClient, Client


def test_expiry_pin_and_labels_are_set_and_shown(server):
    with Client(server.addr) as client:
        session = client.open_session("ada")
        session.append("My name is Ada.")
        state = session.commit().state
        month = datetime.timedelta(days=30)
        updated = client.update_state(state.id, expire=month, pinned=True, labels={"a": "b"})
        assert updated.pinned and updated.labels == {"a": "b"}
        left = updated.expire_time - datetime.datetime.now(datetime.timezone.utc).replace(tzinfo=None)
        assert abs(left - month) < datetime.timedelta(minutes=5)
        updated = client.update_state(state.id, expire=None)
        assert updated.expire_time is None and updated.pinned
        assert not client.state(state.id).archived
        with pytest.raises(ValueError):
            client.update_state(state.id)


def test_use_is_shown_and_garbage_collected(server):
    with Client(server.addr) as client:
        session = client.open_session("ada")
        session.append("My name is Ada.")
        session.commit()
        use = client.status().tenant_use
        assert use.sessions == 1 and use.states >= 1 and use.bytes > 0
        phases = []
        report = client.collect_garbage(dry_run=True, on_progress=lambda p: phases.append(p.phase))
        assert report.dry_run and report.stale_keys == 0 and phases[-1] == "done"


def test_the_same_from_asyncio(server):
    async def main():
        async with AsyncClient(server.addr) as client:
            session = await client.open_session("ada")
            await session.append("My name is Ada.")
            state = (await session.commit()).state
            soon = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(hours=1)
            assert (await client.update_state(state.id, expire=soon)).expire_time is not None
            assert (await client.collect_garbage()).disk_bytes_before > 0

    asyncio.run(main())
