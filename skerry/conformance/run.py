"""Each case asked and compared.

Owns: what of an answer is compared, and the report's shape (DESIGN.md §13).
Must not know: rules or words of Kubernetes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from scheduler.engine import resources
from skerry.conformance import plugins, translate
from skerry.conformance.schema import Case, read_case
from skerry.conformance.translate import Scene


def report(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Every case with what was expected and what the engine says; one that cannot be read counts as failed."""
    judged = [_judged(row) for row in rows]
    passed = sum(row["ok"] for row in judged)
    return {"passed": passed, "failed": len(judged) - passed, "cases": judged}


def _judged(row: dict[str, Any]) -> dict[str, Any]:
    try:
        case = read_case(row)
        expected, got = answered(case)
    except (msgspec.ValidationError, ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        return {"id": row["id"], "ok": False, "expected": row.get("expect"), "got": f"not understood: {error!r}"}
    ok = got in expected["any_of_nodes"] if case.stage == "select" else expected == got
    return {"id": case.id, "ok": ok, "expected": expected, "got": got}


def answered(case: Case) -> tuple[Any, Any]:
    """(expected, got) of one case, in one form."""
    here = translate.scene(case)
    if case.stage == "config":
        weights = [(row.name, row.weight) for row in case.args.resources]
        return case.expect_config_error, [f"resources[{place}].weight" for place in resources.weight_faults(weights)]
    if case.expect_error:
        return "refused", "refused" if plugins.refused(case) else "taken"
    if case.stage == "filter" and case.plugin in plugins.FILTERS:
        return _filtered(case, here)
    if case.stage == "score" and case.plugin in plugins.SCORERS:
        scores = plugins.SCORERS[case.plugin](case, here)
        slots = _slots(case, here)
        return case.expect, [{"node": here.names[slot], "score": int(scores[slot])} for slot in slots]
    if case.plugin == "preemption" and case.stage in ("dry_run", "select", "preempt"):
        return _preempted(case, here)
    raise ValueError(f"there is no plugin {case.plugin} with a stage {case.stage}")


def _slots(case: Case, here: Scene) -> list[int]:
    """The node of each expectation: by name, or by position where names repeat."""
    if len(dict.fromkeys(here.names)) < len(here):
        return list(range(len(case.expect)))
    return [here.names.index(row["node"]) for row in case.expect]


def _filtered(case: Case, here: Scene) -> tuple[Any, Any]:
    codes = plugins.FILTERS[case.plugin](case, here)
    expected, got = [], []
    for slot, row in zip(_slots(case, here), case.expect, strict=True):
        wanted = {name: row[name] for name in ("node", "feasible", "code") if row.get(name) is not None}
        answer: dict[str, Any] = {"node": here.names[slot], "feasible": codes[slot] is None}
        if "code" in wanted:
            answer["code"] = codes[slot]
        if row.get("insufficient") is not None:
            wanted["insufficient"] = sorted(row["insufficient"], key=lambda short: str(short["resource"]))
            answer["insufficient"] = plugins.insufficient(case, here, slot)
        expected.append(wanted)
        got.append(answer)
    return expected, got


def _preempted(case: Case, here: Scene) -> tuple[Any, Any]:
    def names(victims: Sequence[int]) -> list[str]:
        return sorted(here.existing[victim][1].name for victim in victims)

    if case.stage == "preempt":
        chosen = plugins.nomination(case, here)
        expected = {**case.expect, "victims": sorted(case.expect["victims"])}
        if chosen is None:
            return expected, {"nominated": None, "victims": []}
        return expected, {"nominated": here.names[chosen.slot], "victims": names(chosen.victims)}
    found = plugins.candidates(case, here, list(range(here.candidates)))
    if case.stage == "select":
        best = plugins.best_of(here, found)
        return case.expect, None if best is None else here.names[best.slot]
    got = [
        {"node": here.names[each.slot], "victims": names(each.victims), "pdbViolations": each.violations}
        for each in found
    ]
    rows = [{**row, "victims": sorted(row["victims"])} for row in case.expect["candidates"]]
    return sorted(rows, key=lambda row: str(row["node"])), sorted(got, key=lambda row: str(row["node"]))
