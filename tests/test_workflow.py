"""The workflow runs what is run anywhere, and releases tags alone."""

import re

import yaml
from written import ROOT

WORKFLOW = (ROOT / ".github/workflows/ci.yml").read_text()
JOBS = yaml.safe_load(WORKFLOW)["jobs"]
CI = (ROOT / ".ci/run").read_text()


def commands(job: str) -> list[str]:
    return [step["run"] for step in JOBS[job]["steps"] if "run" in step]


def test_it_runs_ci_where_the_pythons_are_that_this_looks_for():
    assert commands("tests") == [".ci/run"]
    steps = JOBS["tests"]["steps"]
    (there,) = (x["with"]["python-version"] for x in steps if "setup-python" in str(x))
    wanted = set(re.findall(r"find_python (\d\.\d+)", CI))
    (tried,) = re.findall(r"for version in (.+); do", CI)
    assert set(there.split()) == wanted | set(tried.split())


def test_it_builds_the_site_as_ci_does():
    (build,) = (x for x in commands("docs") if x.startswith("mkdocs"))
    assert build in CI.replace("--quiet ", "")


def test_releases_come_from_tags_and_keep_no_token():
    for name in {*JOBS} - {"tests"}:
        needs = JOBS[name]["needs"]
        assert "refs/tags/v" in str(JOBS[name].get("if")) or needs == "build"
    assert JOBS["release"]["permissions"] == {"id-token": "write"}
    assert "secrets." not in WORKFLOW
