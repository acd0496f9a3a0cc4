"""`python -m hutch.setup`: what `./quickstart` runs once Python and hutch are installed."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Sequence

from hutch.domain.nodes import EngineKind
from hutch.errors import HutchError
from hutch.setup import daemons, host, launch, machine, person
from hutch.setup.host import Finding
from hutch.setup.launch import Launch
from hutch.setup.options import Options, parse
from hutch.setup.steps import Reporter, StepFailedError, run_steps


def main(arguments: Sequence[str] | None = None) -> int:
    given = sys.argv[1:] if arguments is None else list(arguments)
    os.umask(0o022)
    reporter = Reporter()
    has_terminal = sys.stdin.isatty() and sys.stdout.isatty()
    options = parse(given, is_root=os.geteuid() == 0, has_terminal=has_terminal)
    if options.engine is EngineKind.INCUS:
        findings = [f for f in host.check_host(options.data) if not _is_waived(f, options)]
        if findings:
            return _offer_simulated(findings, given, options, reporter)
    return _set_up(options, reporter)


def _is_waived(finding: Finding, options: Options) -> bool:
    # Plain folders need neither a file system of their own nor a file to mount one from.
    return options.pool == "dir" and finding.check in {"file system", "loop devices"}


def _set_up(options: Options, reporter: Reporter) -> int:
    try:
        site = machine.decide_site(options)
        _tell_engine(options, reporter)
        run_steps(machine.steps(options, site), reporter)
        launching = Launch(options, site, person.whoever_runs_this())
        run_steps(launch.steps(launching), reporter)
    except (StepFailedError, HutchError) as error:
        advice = getattr(error, "advice", "") or getattr(error, "hint", "")
        reporter.line(f"\n{error}\n{advice}".rstrip())
        return 1
    except KeyboardInterrupt:
        reporter.line("\nStopped. Run ./quickstart again: it goes on where it was.")
        return 130
    _tell_end(launching, reporter)
    return 0


def _tell_engine(options: Options, reporter: Reporter) -> None:
    what = "real containers, by Incus"
    if options.engine is EngineKind.SIMULATED:
        what = "simulated machines: everything can be tried, none can be logged in to"
    reporter.line(f"Setting up hutch in {options.data} ({what})")


def _offer_simulated(
    findings: list[Finding], given: list[str], options: Options, reporter: Reporter
) -> int:
    """Says what is missing, and offers what runs everywhere in the same breath."""
    reporter.line("This machine cannot run Incus as it is:\n")
    for finding in findings:
        reporter.line(f"  x {finding.check}: {finding.problem}\n    {finding.advice}")
    arguments = without_engine(given)
    command = shlex.join(["./quickstart", "--engine", "simulated", *arguments])
    reporter.line("\nhutch can also run here with simulated machines, to be tried out:")
    reporter.line(f"  {command}")
    if not options.ask:
        return 3
    answer = input("\nDo that now? [y/N] ").strip().lower()
    if answer not in {"y", "yes"}:
        return 3
    is_root = os.geteuid() == 0
    return _set_up(
        parse(["--engine", "simulated", *arguments], is_root=is_root, has_terminal=True), reporter
    )


def without_engine(arguments: Sequence[str]) -> list[str]:
    """The arguments with the choice of an engine left out."""
    kept: list[str] = []
    skip = False
    for argument in arguments:
        if skip or argument.startswith("--engine="):
            skip = False
        elif argument == "--engine":
            skip = True
        else:
            kept.append(argument)
    return kept


def _tell_end(launching: Launch, reporter: Reporter) -> None:
    reporter.line(f"\nhutch runs at {daemons.server_url(launching.settings)}")
    reporter.line(f"  Administrator: {launching.administrator}")
    if launching.password is not None:
        reporter.line(f"  Password:      {launching.password}   (shown only now: keep it)")
    reporter.line(f"  {launching.who.name} is signed in: try `hutch list`")
    path = os.environ.get("PATH", "").split(os.pathsep)
    if str(launching.options.command_folder) not in path:
        reporter.line(f"  (put {launching.options.command_folder} on your PATH first)")
    instance = launching.instance
    if instance is None or instance["state"] != "running":
        return
    if launching.site.engine is EngineKind.INCUS:
        ssh = instance["ssh"]
        reporter.line(f"\nYour machine `{instance['name']}` is ready. Log in to it:")
        reporter.line(f"  ssh -p {ssh['port']} {ssh['user']}@{ssh['host']}")
        name, place = instance["name"], launching.gateway_place
        reporter.line("By its name, at one address for all machines:")
        reporter.line(f"  hutch ssh-config --install && ssh {name}")
        reporter.line(f"  ssh -J {place} {ssh['user']}@{name}")
        reporter.line(f"  (the key of {place} is {launching.gateway_fingerprint})")


if __name__ == "__main__":
    sys.exit(main())
