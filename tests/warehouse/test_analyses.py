"""Every analysis asks something, says for whom, stands in the docs, and is recomputed (see test_engines.py)."""

import re

import yaml

from payments.queries import warehouse
from payments.settings import PROJECT_ROOT
from tests.warehouse.analyses import RECOMPUTED


def test_every_analysis_is_described_recomputed_and_listed_by_its_question() -> None:
    questions = {query.name: query.question for query in warehouse.queries()}
    described = yaml.safe_load((warehouse.FOLDER / "_analyses.yml").read_text(encoding="utf-8"))["analyses"]
    listed = re.findall(
        r"^\| (.+) \| \[(\w+)\.sql\]\(\.\./\.\./analyses/\2\.sql\) \|$",
        (PROJECT_ROOT / "docs" / "queries" / "README.md").read_text(encoding="utf-8"),
        re.MULTILINE,
    )
    assert len(questions) >= 25
    assert all(question.endswith("?") for question in questions.values()), questions
    assert {analysis["name"] for analysis in described if " For " in analysis["description"]} == set(questions)
    assert {name: question for question, name in listed} == questions
    assert set(RECOMPUTED) == set(questions)
