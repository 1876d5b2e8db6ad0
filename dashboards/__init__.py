"""What is shown: Grafana boards made from the targets with grafanalib."""

from __future__ import annotations

import json

from anvil_monitor.targets import Configuration

from . import runbook_boards, targets_board
from .runbook_boards import UID as RUNBOOK_UID
from .targets_board import TITLE, UID

__all__ = ["RUNBOOK_UID", "TITLE", "UID", "generated"]


def generated(configuration: Configuration) -> dict[str, str]:
    """Every board as JSON text, by file name. Byte-stable: the same configuration gives the same bytes."""
    boards = {targets_board.FILE: targets_board.board(configuration), **runbook_boards.boards(configuration)}
    return {
        name: json.dumps(board, indent=2, sort_keys=True, ensure_ascii=False) + "\n" for name, board in boards.items()
    }
