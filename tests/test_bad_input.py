"""The page of bad inputs says what the tools say."""

import pytest

from .bad_inputs import CASES, INTRODUCTION, PAGE, TOPICS, run_cases, table


def test_page_has_every_topic():
    text = PAGE.read_text()
    assert text.startswith(INTRODUCTION)
    assert [x[3:] for x in text.splitlines() if x.startswith('## ')] == list(TOPICS)
    assert len(CASES) >= 30 and {case.topic for case in CASES} == set(TOPICS)


@pytest.mark.parametrize('topic', TOPICS)
def test_tools_say_what_the_page_says(topic):
    """After a change, ``python -m tests.bad_inputs`` writes the page anew."""
    _, _, rest = PAGE.read_text().partition(f'## {topic}\n')
    wanted = rest.partition('\n## ')[0].strip().splitlines()
    assert table(topic, run_cases(topic)).strip().splitlines()[2:] == wanted
