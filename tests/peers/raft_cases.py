"""Joint quorums and configuration changes against cases of another implementation, restated as data.

    python tests/peers/raft_cases.py FILE      FILE: quorum.json or confchange.json

Prints one JSON object: passed, failed, cases [id, ok, expected, got], differs [case, reason]; exit code 1 when a
case failed.  `differs` are cases whose rule we chose otherwise, each with the reason, and checked to be refused.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from raft.configuration import Impossible, enter_joint, leave_joint
from raft.messages import Configuration
from raft.quorum import jointly_agreed, jointly_lost, jointly_won

Case = dict[str, Any]
NEVER = "<empty majority quorum>∞"


# -- quorum.json -----------------------------------------------------------------------------------


def _halves(case: Case) -> tuple[tuple[str, ...], ...]:
    second = case.get("cfgj", "zero")
    named = [case.get("cfg", []), [] if second == "zero" else second]
    return tuple(tuple(half) for half in named if half)


def _ids(case: Case) -> list[str]:
    """The values of a case belong to the voters in order of first mention, smallest id first in each set."""
    return list(dict.fromkeys(voter for half in _halves(case) for voter in half))


def quorum_case(case: Case) -> str:
    """What our functions say to one case, in its words."""
    halves = _halves(case)
    if case["cmd"] == "committed":
        if not halves:
            return NEVER  # our functions take no empty sets: the configuration's rules exclude them
        reached = {voter: int(value) for voter, value in zip(_ids(case), case["idx"], strict=True) if value != "_"}
        return str(jointly_agreed(halves, reached))
    given = case.get("votes", [])
    votes = {voter: vote == "y" for voter, vote in zip(_ids(case), given, strict=True) if vote != "_"}
    if jointly_won(halves, votes):
        return "VoteWon"
    return "VoteLost" if jointly_lost(halves, votes) else "VotePending"


def quorum_cases(cases: list[Case]) -> tuple[list[Case], list[Case]]:
    told = [(case["id"], case["expect"], quorum_case(case)) for case in cases]
    return [{"id": key, "ok": want == got, "expected": want, "got": got} for key, want, got in told], []


# -- confchange.json -------------------------------------------------------------------------------


def _store(number: str) -> str:
    return f"{int(number):032x}"


def _target(configuration: Configuration, changes: list[str]) -> tuple[dict[str, str], dict[str, str]]:
    """The voters and learners that the changes (v2, l3, r1) ask for, one after the other; id 0 is nobody."""
    voters, learners = dict(configuration.voters), dict(configuration.learners)
    for change in changes:
        what, number = change[0], change[1:]
        if number == "0" or (what == "l" and number in learners) or (what == "v" and number in voters):
            continue
        voters.pop(number, None)
        learners.pop(number, None)
        if what != "r":
            (voters if what == "v" else learners)[number] = _store(number)
    return voters, learners


def _named(configuration: Configuration, expected: str) -> str:
    def listed(stores: dict[str, str]) -> str:
        return "(" + " ".join(sorted(stores, key=int)) + ")"

    told = "voters=" + listed(configuration.voters)
    if configuration.outgoing:
        told += "&&" + listed(configuration.outgoing)
    if configuration.learners:
        told += " learners=" + listed(configuration.learners)
    return told + (" autoleave" if expected.endswith(" autoleave") else "")


SAME_WORDS = {
    "config is already joint": "the configuration is already joint",
    "removed all voters": "a cluster without voters decides nothing",
}
OTHERWISE = {
    "more than one voter changed": "every change of voters is joint here, so any number may change at once",
    "learners_next": "a voter's store that learns on is refused: demotion is out and in again, with a new store",
}


def _step(configuration: Configuration, step: Case) -> tuple[Configuration, str]:
    """Take one step; a simple change is a joint one that is left at once."""
    expected = step["expect"][0]
    try:
        if step["cmd"] == "leave-joint":
            configuration = leave_joint(configuration)
        else:
            if configuration.outgoing:
                raise Impossible("the configuration is already joint")
            voters, learners = _target(configuration, step["changes"])
            if configuration.voters or not voters:
                changed = enter_joint(configuration, voters, learners)
                configuration = changed if step["cmd"] == "enter-joint" else leave_joint(changed)
            else:  # the first voter of all
                configuration = Configuration("c" * 32, 1, voters, learners)
    except Impossible as refusal:
        return configuration, str(refusal)
    return configuration, _named(configuration, expected)


def confchange_cases(files: list[Case]) -> tuple[list[Case], list[Case]]:
    results, differs = [], []
    for file in files:
        configuration = Configuration("c" * 32, 1, {})
        for step in file["steps"]:
            key, expected = f"{file['file']}:{step['line']}", step["expect"][0]
            after, got = _step(configuration, step)
            expected = SAME_WORDS.get(expected, expected)
            reason = next((why for words, why in OTHERWISE.items() if words in expected or words in got), "")
            demoted = "cannot leave the voters and learn" in got
            if got != expected and (reason or demoted):
                differs.append({"case": key, "reason": reason or OTHERWISE["learners_next"]})
                if demoted:
                    break  # what follows builds on it
                continue
            configuration = after
            results.append({"id": key, "ok": got == expected, "expected": expected, "got": got})
    return results, differs


def main(path: Path) -> int:
    """Judge one file; returns the exit code."""
    cases = json.loads(path.read_text())["cases"]
    results, differs = quorum_cases(cases) if "cmd" in cases[0] else confchange_cases(cases)
    failed = [case for case in results if not case["ok"]]
    report = {"v": 1, "passed": len(results) - len(failed), "failed": len(failed), "cases": results, "differs": differs}
    sys.stdout.write(json.dumps(report, indent=1, ensure_ascii=False) + "\n")
    return 1 if failed else 0


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.stderr.write("usage: python tests/peers/raft_cases.py FILE\n")
        sys.exit(2)
    sys.exit(main(Path(sys.argv[1])))
