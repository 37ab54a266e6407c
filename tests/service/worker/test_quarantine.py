from __future__ import annotations

from pathlib import Path

import pytest

from nnz_service.worker.quarantine import PATIENCE, Quarantine

NET, OTHER = Path("net"), Path("other")


class TestQuarantine:
    def test_counts_ends_of_the_worker(self, tmp_path: Path) -> None:
        note = tmp_path / "run" / "note"

        for _ in range(PATIENCE):
            assert not Quarantine(note).holds(NET)
            Quarantine(note).enter(NET)

        assert Quarantine(note).holds(NET)
        assert not Quarantine(note).holds(OTHER)

    def test_a_load_that_ended_does_not_count(self, tmp_path: Path) -> None:
        note = tmp_path / "note"

        for _ in range(3 * PATIENCE):
            quarantine = Quarantine(note)
            quarantine.enter(NET)
            quarantine.leave()

        assert not Quarantine(note).holds(NET)

    def test_good_loads_between_do_not_make_it_forget(self, tmp_path: Path) -> None:
        note = tmp_path / "note"

        for _ in range(PATIENCE):
            quarantine = Quarantine(note)
            quarantine.enter(OTHER)
            quarantine.leave()
            quarantine.enter(NET)

        assert Quarantine(note).holds(NET)
        assert not Quarantine(note).holds(OTHER)

    @pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"net": "x"}'])
    def test_damaged_note(self, tmp_path: Path, content: str) -> None:
        (tmp_path / "note").write_text(content)

        quarantine = Quarantine(tmp_path / "note")
        quarantine.enter(NET)

        assert not quarantine.holds(NET)

    def test_no_room_for_the_note(self, tmp_path: Path) -> None:
        (tmp_path / "run").write_text("a file where the folder should be")

        quarantine = Quarantine(tmp_path / "run" / "note")
        for _ in range(PATIENCE):
            quarantine.enter(NET)

        assert quarantine.holds(NET)
        assert not Quarantine(tmp_path / "run" / "note").holds(NET)
