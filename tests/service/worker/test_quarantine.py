from __future__ import annotations

from pathlib import Path

import pytest

from nnz_service.worker.quarantine import PATIENCE, Quarantine


class TestQuarantine:
    def test_counts_ends_of_the_worker(self, tmp_path: Path) -> None:
        note = tmp_path / "run" / "note"

        for _ in range(PATIENCE):
            assert Quarantine(note).enter("net", "1")

        assert not Quarantine(note).enter("net", "1")
        assert Quarantine(note).enter("net", "1")

    def test_a_load_that_ended_does_not_count(self, tmp_path: Path) -> None:
        note = tmp_path / "note"

        for _ in range(3 * PATIENCE):
            quarantine = Quarantine(note)
            assert quarantine.enter("net", "1")
            quarantine.leave()

        assert not note.exists()

    def test_another_version_is_another_load(self, tmp_path: Path) -> None:
        note = tmp_path / "note"
        for _ in range(PATIENCE):
            Quarantine(note).enter("net", "1")

        assert Quarantine(note).enter("net", "2")

    @pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"name": 1}'])
    def test_damaged_note(self, tmp_path: Path, content: str) -> None:
        (tmp_path / "note").write_text(content)

        assert Quarantine(tmp_path / "note").enter("net", "1")
