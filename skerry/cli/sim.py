"""``skerry sim``: campaigns of simulated runs, one run with its trace, and the deliberate bugs.

Owns: the options and exit codes of these commands.  Must not know: how a seed is run or judged.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from skerry.cli.common import empty_folder, output_option, print_json, print_table, progress
from skerry.errors import FAILED, OK, UNKNOWN, UsageError

if TYPE_CHECKING:
    from chaos.sim.swarm.report import Report
    from chaos.sim.swarm.repro import Wanted

SEEDS_DEFAULT = 20
SEEDS_MAX = 10_000_000
COMPARED_DEFAULT = 20
SHRINK_TRIALS = 48
INTERRUPTED = 130


def run_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """What a run is made of, beyond its seed."""
    for option in (
        click.option("--policy", type=click.Choice(["fifo", "random", "pct"]), help="Order of what is ready to run."),
        click.option("--faults", help="Of a seed's faults, only those of these numbers: 0,3 or none."),
        click.option("--transport", type=click.Choice(["direct", "http"]), help="Else 5 % of the seeds use http."),
        click.option("--break", "breaks", multiple=True, help="Plant a deliberate bug; see `skerry sim breaks`."),
    ):
        command = option(command)
    return command


@click.group(invoke_without_command=True)
@click.option("--seeds", type=click.IntRange(1, SEEDS_MAX), help=f"How many seeds.  [default: {SEEDS_DEFAULT}]")
@click.option("--from", "first", type=click.IntRange(0), default=0, show_default=True, help="The first seed.")
@click.option("--seed", type=click.IntRange(0), help="This seed alone.")
@click.option(
    "--out", type=click.Path(path_type=Path, file_okay=False), help="With --seed: write the run's trace here."
)
@click.option("--plan", "show_plan", is_flag=True, help="With --seed: show what the seed stands for; run nothing.")
@click.option("--fail-fast", is_flag=True, help="End at the first failing seed.")
@click.option("--shrink/--no-shrink", default=True, show_default=True, help="Shorten the first failure.")
@click.option(
    "--compare",
    type=click.IntRange(0, SEEDS_MAX),
    help=f"Run so many seeds again in another process, and compare.  [default: {COMPARED_DEFAULT} of a campaign]",
)
@run_options
@output_option
@click.pass_context
def sim(
    ctx: click.Context,
    seeds: int | None,
    first: int,
    seed: int | None,
    out: Path | None,
    show_plan: bool,
    fail_fast: bool,
    shrink: bool,
    compare: int | None,
    breaks: tuple[str, ...],
    transport: Any,
    faults: str | None,
    policy: Any,
    output: str,
) -> int:
    """Run whole clusters in virtual time, under faults drawn from seeds, and judge them.

    Each seed stands for a cluster of 3 to 5 replicas and at least 4 agents, a load of at least 50 jobs, and at least
    3 faults.  The same seed is the same run, byte for byte.  Exits 1 when a seed fails, 6 when nothing failed and
    something could not be decided.
    """
    if ctx.invoked_subcommand is not None:
        return OK
    from chaos.sim.swarm.repro import Wanted, parse_faults

    if seed is not None and seeds is not None:
        raise UsageError("give --seeds or --seed, not both", hint="--from moves the first of --seeds")
    if seed is None and (out is not None or show_plan or faults is not None):
        raise UsageError("--out, --plan and --faults belong to one seed", hint="pass --seed")
    wanted = Wanted(breaks=breaks, transport=transport, faults=parse_faults(faults), policy=policy)
    if seed is not None and show_plan:
        return _show_plan(wanted, seed, output)
    chosen = range(seed, seed + 1) if seed is not None else range(first, first + (seeds or SEEDS_DEFAULT))
    if out is not None:
        empty_folder(out)
    sample = compare if compare is not None else (COMPARED_DEFAULT if seed is None and not breaks else 0)
    report = _carry_out(wanted, chosen, sample, out, fail_fast=fail_fast, shrink=shrink and not breaks)
    return _tell(report, output)


@sim.command("breaks")
@click.argument("names", nargs=-1, metavar="[BREAK]...")
@click.option(
    "--docs",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help="Measure how many seeds each survives, and rewrite the table of this document.",
)
@click.option("--starts", type=click.IntRange(1, 5), default=5, show_default=True, help="With --docs: campaigns each.")
@output_option
def breaks_command(names: tuple[str, ...], docs: Path | None, starts: int, output: str) -> int:
    """List the deliberate bugs and the checker that must catch each, or measure how soon it does."""
    from chaos.breaks import BREAKS, find_breaks
    from chaos.errors import BreakUnknown

    try:
        rows = find_breaks(names) if names else [each for _, each in sorted(BREAKS.items())]
    except BreakUnknown as error:
        raise UsageError(error.message, hint=error.hint or "") from None
    if docs is not None:
        return _measure([each.name for each in rows], docs, starts, output)
    if output == "json":
        found = [{"name": each.name, "checker": each.checker, "lesson": each.lesson} for each in rows]
        print_json({"breaks": found})
    else:
        print_table(("break", "caught by", "what is wrong"), [(each.name, each.checker, each.lesson) for each in rows])
    return OK


def _measure(names: list[str], docs: Path, starts: int, output: str) -> int:
    """Exit 1 when a campaign did not find its break, or the same seed fails without it."""
    import msgspec

    from chaos.sim.swarm.catching import STARTS, catch, markdown
    from chaos.sim.swarm.run import runner
    from skerry.cli.bench import rewrite_table

    found = catch(names, runner, progress, STARTS[:starts])
    rewrite_table(docs, "sim breaks", markdown(found))
    if output == "json":
        print_json({"breaks": msgspec.to_builtins(found)})
    else:
        rows = [(each.name, each.checker, str(each.seeds_median), "yes" if each.caught else "no") for each in found]
        print_table(("break", "caught by", "seeds (median)", "always"), rows)
    return OK if all(each.caught for each in found) else FAILED


@sim.command("exhaustive")
@click.argument("scopes", nargs=-1, metavar="[SCOPE]...")
@click.option(
    "--states", type=click.IntRange(1), default=5_000_000, show_default=True, help="End a scope after so many states."
)
@output_option
def exhaustive(scopes: tuple[str, ...], states: int, output: str) -> int:
    """Visit every state of three consensus cores within small bounds, instead of those that seeds lead to.

    Exits 1 when an invariant does not hold in one of them, and tells the shortest way there.
    """
    import msgspec

    from chaos.exhaustive.scopes import MILLION, SCOPES
    from chaos.exhaustive.search import explored

    if unknown := [name for name in scopes if name not in SCOPES]:
        raise UsageError(f"there is no scope {unknown[0]!r}", hint=f"there are: {', '.join(SCOPES)}")
    found = explored(scopes or (MILLION,), states)
    if output == "json":
        print_json(msgspec.to_builtins(found))
    else:
        rows = [
            (each.scope, str(each.states), "all" if each.complete else "first", str(each.depth), f"{each.wall_s:.1f} s")
            for each in found.scopes
        ]
        print_table(("scope", "states", "of them", "depth", "took"), rows)
        for each in found.scopes:
            if each.violated:
                print("\n".join([f"{each.violated}: {each.why}", *[f"  {line}" for line in each.path]]))
    return FAILED if found.violated else OK


@sim.command("digests", hidden=True)
@click.argument("seeds", nargs=-1, type=click.IntRange(0))
@run_options
def digests(seeds: tuple[int, ...], breaks: tuple[str, ...], transport: Any, faults: str | None, policy: Any) -> int:
    """The digests of whole traces, for the comparison of two processes."""
    from chaos.sim.swarm.campaign import Campaign
    from chaos.sim.swarm.interruption import interruption
    from chaos.sim.swarm.repro import Wanted, parse_faults
    from chaos.sim.swarm.run import runner

    wanted = Wanted(breaks=breaks, transport=transport, faults=parse_faults(faults), policy=policy)
    found: dict[str, str] = {}
    with runner(breaks) as run, interruption() as interrupted:
        campaign = Campaign(run, wanted, say=progress)
        for seed in seeds:
            found[str(seed)] = campaign.run_seed(seed, digest=True).digest
            if interrupted.asked:
                break
    print_json({"digests": found})
    return OK


def _carry_out(wanted: Wanted, seeds: range, sample: int, out: Path | None, *, fail_fast: bool, shrink: bool) -> Report:
    from chaos.sim.swarm.campaign import Campaign
    from chaos.sim.swarm.run import runner
    from chaos.sim.swarm.twice import SecondRun

    twice = _spread(seeds, sample)
    with ExitStack() as stack:
        run = stack.enter_context(runner(wanted.breaks, out=out))
        second = stack.enter_context(SecondRun(twice, _options(wanted))) if twice else None
        trials = SHRINK_TRIALS if shrink and out is None and wanted.faults is None else 0
        campaign = Campaign(run, wanted, say=progress, shrink_trials=trials, fail_fast=fail_fast)
        return campaign.carry_out(seeds, twice=twice, again=second.digests if second else None)


def _spread(seeds: range, count: int) -> Sequence[int]:
    """`count` of the seeds, evenly over all of them."""
    count = min(count, len(seeds))
    return [seeds[number * len(seeds) // count] for number in range(count)]


def _options(wanted: Wanted) -> list[str]:
    """The same wishes as options, for the process that runs seeds again."""
    return wanted.line(0).split()[4:]


def _tell(report: Report, output: str) -> int:
    from chaos.sim.swarm.report import as_json, in_words

    if output == "json":
        print_json(as_json(report))
    else:
        print("\n".join(in_words(report)))
    if not report.ok:
        return FAILED
    if report.interrupted:
        return INTERRUPTED
    return UNKNOWN if report.undecided else OK


def _show_plan(wanted: Wanted, seed: int, output: str) -> int:
    from chaos.sim.swarm.plan import draw_plan, plan_to_builtins

    plan = wanted.applied(draw_plan(seed, wanted.transport))
    if output == "json":
        print_json({"plan": plan_to_builtins(plan)})
        return OK
    profile = plan.profile
    print(f"seed {seed}: {len(profile.replicas)} replicas, {len(profile.agents)} agents, over {profile.transport}")
    print(f"lease {profile.lease.duration_ms} ms, election timeout {profile.raft.election_timeout_ms} ms")
    print(f"phase one {profile.safety_ms} ms, {len(plan.load)} calls; core of phase two: {', '.join(plan.core)}")
    rows = [
        (
            number,
            fault.kind,
            f"{fault.at_ms} ms",
            f"{fault.for_ms} ms",
            ",".join(fault.nodes),
            ",".join(fault.others),
            fault.amount or "",
        )
        for number, fault in enumerate(plan.faults)
    ]
    print_table(("number", "fault", "at", "for", "nodes", "others", "amount"), rows)
    return OK
