"""The walk-throughs in nbs/course: each has what a walk-through has, its exercises are judged, and
its solutions are right."""
import contextlib
import io
import json
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest

from colorgan.course import judges_build, judges_first, judges_last # noqa: F401
from colorgan.course.answers import judged, judges
from colorgan.course.checks import exercises

root = Path(__file__).resolve().parent.parent
walks = sorted(root.glob('nbs/course/[0-9]_*.ipynb'))
every_walk = pytest.mark.parametrize('walk', walks, ids=lambda p: p.stem)
mode = "mode = 'full' if torch.cuda.is_available() else 'smoke'"
strange = {'number': 0, 'nothing': '', 'word': 'x', 'list': [], 'dict': {}, 'object': object(),
           'nan': float('nan'), 'array': np.zeros(3), 'type': int, 'pair': (1, 2),
           'no arguments': lambda: 1, 'forgets return': lambda *args, **kwargs: None,
           'raises': lambda *args, **kwargs: 1 / 0, 'words': lambda *args, **kwargs: 'x'}


def cells(path, kind):
    return [c for c in json.loads(path.read_text(encoding='utf-8'))['cells']
            if c['cell_type'] == kind]
def source(cell): return ''.join(cell['source'])
def printed(cell): return ''.join(''.join(o.get('text', '')) for o in cell['outputs'])
def number(walk): return int(walk.stem.split('_')[0])
def solution(walk): return root/'teacher'/'solutions'/walk.name


def places(walk):
    "The cells where answers go, by the number of the exercise."
    asked = [(re.findall(r'^check\((\d+), \w+\)', source(c), re.M), c) for c in cells(walk, 'code')]
    return {int(n): c for found, c in asked for n in found}


def test_there_are_seven(): assert [number(w) for w in walks] == [1, 2, 3, 4, 5, 6, 7]


@every_walk
def test_head_says_what_you_will_do_time_and_mode(walk):
    head = '\n'.join(source(c) for c in cells(walk, 'markdown')[:5]).lower()
    missing = [word for word in ('**you will**', '**time.**', '**before.**', 'save a copy in drive',
                                  f'/nbs/course/{walk.name}') if word not in head]
    assert missing == []
    assert sum(mode in source(c).splitlines() for c in cells(walk, 'code')) == 1


@every_walk
def test_it_exports_nothing(walk):
    assert [s for s in map(source, cells(walk, 'code'))
            if re.search(r'^#\| *(export|default_exp)', s, re.M)] == []


@every_walk
def test_a_reader_meets_no_test_machinery(walk):
    own = '\n'.join(map(source, cells(walk, 'code')))
    assert [word for word in ('unittest', 'SimpleNamespace', '_thread', 'rmtree', 'assert ')
            if word in own] == []


@every_walk
def test_links_and_pictures_survive_a_copy_in_drive(walk):
    text = '\n'.join(map(source, cells(walk, 'markdown')))
    assert re.findall(r'\]\((?!https://)[^)]*\)', text) == []


@every_walk
def test_it_ends_with_what_a_chapter_ends_with(walk):
    end = '\n'.join(source(c) for c in cells(walk, 'markdown')[-2:])
    assert [part for part in ('## Summary', '**Questions.**', '**Further research.**', '**Next:**')
            if part not in end] == []


@every_walk
def test_exercises_wait_for_an_answer(walk):
    asked, text = places(walk), '\n'.join(map(source, cells(walk, 'markdown')))
    assert 3 <= len(asked) <= 5
    assert asked.keys() == judges[number(walk)].keys()
    for n, c in asked.items():
        assert f'Exercise {n}' in text
        assert re.search(r'^\w+ = None +# your answer here', source(c), re.M)
        assert f'Exercise {n}: not yet. Put your answer in place of None.' in printed(c)


@every_walk
def test_solutions_are_not_given_away(walk):
    own = '\n'.join(map(source, cells(walk, 'code')))
    solved = [re.sub(r'^check\(.*', '', source(c), flags=re.M).strip()
              for c in cells(solution(walk), 'code') if re.search(r'^check\(\d', source(c),
                                                                  re.M)]
    assert [body for body in solved if body and body in own] == []
    assert [printed(c)
            for c in cells(walk, 'code') if re.search(r'Exercise \d+: right',
                                                      printed(c))] == []


@every_walk
def test_solutions_say_right_as_committed(walk):
    said = '\n'.join(printed(c) for c in cells(solution(walk), 'code'))
    assert {int(n) for n in re.findall(r'Exercise (\d+): right\.',
                                       said)} == set(judges[number(walk)])
    assert 'not yet' not in said and 'Traceback' not in said


@every_walk
def test_solutions_are_right(walk):
    "Run in a kernel of their own, without CUDA."
    execute = runpy.run_path(str(root/'tools'/'run.py'))['execute']
    with patch.dict(os.environ, CUDA_VISIBLE_DEVICES=''): book = execute(solution(walk))
    said = '\n'.join(o.get('text', '') for c in book.cells for o in c.get('outputs', []))
    assert {int(n) for n in re.findall(r'Exercise (\d+): right\.',
                                       said)} == set(judges[number(walk)]), said


@pytest.mark.parametrize(('walk', 'n'), [(w, n) for w in sorted(judges) for n in sorted(judges[w])])
@pytest.mark.parametrize('answer', strange.values(), ids=strange)
def test_judges_bear_strange_answers(walk, n, answer, capsys):
    right = exercises(walk)(n, answer)
    said = capsys.readouterr().out.splitlines()
    assert isinstance(right, bool) and len(said) == 1 and said[0].startswith(f'Exercise {n}: ')


@pytest.mark.parametrize('walk', sorted(judges))
def test_judges_say_what_is_asked(walk):
    for n, judge in judges[walk].items():
        assert judge.__doc__ and '\n' not in judge.__doc__
        assert judged(walk, n, None).startswith('put your answer in place of None')


late = """
import sys
from colorgan.course.answers import exercise, judged
from colorgan.course.checks import exercises
assert 'torch' not in sys.modules
@exercise(1, 2)
def own(answer): return 'no'
assert exercises(1)(2, 7) is False and judged(1, 2, 7) == 'no' and judged(2, 3, -5)
"""


def test_judges_come_late_and_leave_own_ones_alone():
    subprocess.run([sys.executable, '-c', late], check=True)


def test_checks_know_their_exercises():
    check = exercises(1)
    with contextlib.redirect_stdout(io.StringIO()) as said:
        assert [check(n, 1) for n in (99, 'one', None)] == [False] * 3
    assert all('there are 1, 2, 3, 4' in line for line in said.getvalue().splitlines())
