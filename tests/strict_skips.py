"""pytest --strict-skips: tells the skips by reason, and fails a run that skipped what it could have run.

A test that is skipped passes in silence, and so does all that it guards. Where everything can be installed, only what
nobody can bring may be missing.
"""

from collections import Counter

import pytest

# A GPU, and data that may not be passed on, which environment variables of these names would lead to.
ALLOWED = ("needs a CUDA device", "FASTVAE_CELEBA_RAW ", "FASTVAE_VGG19 ")


def pytest_addoption(parser):
    """--strict-skips."""
    parser.addoption(
        "--strict-skips", action="store_true", help="fail if anything but GPU and foreign data was missing"
    )


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session, exitstatus):
    """The exit status; what pytest itself found wrong goes first."""
    if _is_strict(session.config) and exitstatus == 0 and _missing(_reasons(session.config)):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter, config):
    """The skips by reason, the most frequent first."""
    if not _is_strict(config):
        return
    reasons = _reasons(config)
    terminalreporter.section("skips by reason")
    for reason, count in reasons.most_common():
        terminalreporter.line(f"{count:5} {'' if reason.startswith(ALLOWED) else 'NOT ALLOWED: '}{reason}")
    if missing := _missing(reasons):
        terminalreporter.line(f"FAILED: --strict-skips: {missing} skipped that should have run: see above", red=True)


def _is_strict(config) -> bool:
    # Reports of all workers of pytest-xdist meet in the controller; a worker has nothing to count them with.
    is_worker = hasattr(config, "workerinput")
    return config.getoption("--strict-skips") and not config.getoption("--collect-only") and not is_worker


def _missing(reasons: Counter[str]) -> int:
    return sum(count for reason, count in reasons.items() if not reason.startswith(ALLOWED))


def _reasons(config) -> Counter[str]:
    # Of tests, and of whole files that are skipped when they are read.
    reports = config.pluginmanager.get_plugin("terminalreporter").stats.get("skipped", [])
    return Counter(str(report.longrepr[-1]).removeprefix("Skipped: ") for report in reports)
