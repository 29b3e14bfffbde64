"""The running development cluster, as scenarios see it.

Owns: `DevCluster`, which satisfies the scenario runner's protocol of a cluster.
Must not know: scenarios.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from skerry.dev.control import DevControl


class DevCluster(DevControl):
    """Addresses, credentials and process control of one `skerry dev` cluster.

    Args:
        facts: the content of its ``dev.json``.
    """

    def __init__(self, facts: dict[str, Any]) -> None:
        super().__init__(Path(facts["dir"]))
        self.apis: dict[str, str] = facts["apis"]
        self.chaos_api: str = facts["chaos_api"]
        self.trace = Path(facts["trace"])
        self.token = Path(facts["token_file"]).read_text(encoding="utf-8").strip()
