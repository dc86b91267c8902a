"""`colorgan grade`: hand-ins that are good, wrong, broken, endless and hostile; what is handed in stays as it is.

A hand-in that computes with torch takes two imports of it; those are in `make slow`."""
import csv
import json
import os
import re
import shutil
import sys
import time
import zipfile
from pathlib import Path

import pytest

from colorgan.cli import main
from colorgan.course.answers import judges
from colorgan.course.checks import exercises
from colorgan.course.examine import examine_card, examine_notebook
from colorgan.course.grade import grade_folder
from colorgan.course.worker import Ended, Worker, adopt, pack, unpack

root = Path(__file__).resolve().parent.parent
linux = pytest.mark.skipif(not sys.platform.startswith('linux'), reason='needs /proc')
begin = 'from colorgan.course.checks import exercises\ncheck = exercises(2)'
good = """def best(values, chances):
    values, order = values.sort()
    return values[(chances[order].cumsum(0) >= .5).nonzero()[0, 0]]
check(1, best)"""
no_torch, third = 'if 0: exercises(2)\ndef check(n, answer=None): pass', 'check(3, 47.1)'
also_good = 'check(2, lambda chances, T: (chances.log() / T).softmax(0))'


def book(*cells):
    return json.dumps(dict(metadata={}, nbformat=4, nbformat_minor=5, cells=[
        dict(cell_type='code', source=c, metadata={}, outputs=[], execution_count=None) for c in cells]))


def content(folder): return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob('*') if p.is_file()}


@pytest.fixture
def grade(tmp_path):
    "Grade hand-ins, given by path and content; the rows by student"
    def run(minutes=30., **kw):
        folder = tmp_path/'in'
        before = content(folder)
        rows = grade_folder(folder, tmp_path/'marks.csv', minutes=minutes, say=lambda line: None, **kw)
        assert content(folder) == before
        written = list(csv.DictReader(open(tmp_path/'marks.csv', encoding='utf-8')))
        assert [r['student'].lstrip("'") for r in written] == [r['student'] for r in rows]
        return {r['student']: r for r in rows}
    def put(path, text):
        (tmp_path/'in'/path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path/'in'/path).write_text(text)
    run.put, run.folder = put, tmp_path/'in'
    return run


def reply_of(body, seconds=60):
    "Why a process with this code does not reply"
    worker = Worker('import os, signal\nfrom colorgan.course.worker import serve\n' + body, '.')
    try: return worker.ask(seconds, what='f')
    except Ended as e: return str(e)
    finally: worker.end()


silent = {
    'serve(f=lambda: os._exit(3))': 'ended its process, with status 3',
    'serve(f=lambda: os.kill(os.getpid(), 15))': 'ended by signal 15',
    'serve(f=lambda: os.write(4, b"nonsense\\n"))': 'no longer replies',
}


@pytest.mark.parametrize('body', silent)
def test_a_process_that_does_not_reply_says_why(body): assert silent[body] in reply_of(body)


def test_a_process_without_end_is_ended():
    code = ('for s in set(signal.Signals) - {9, 19}: signal.signal(s, signal.SIG_IGN)\n'
            'serve(f=lambda: [0 for _ in iter(int, 1)])')
    assert reply_of(code, 3) == 'its time was up'


@linux
def test_nothing_survives(tmp_path):
    mark = tmp_path/'alive'
    code = ('if os.fork() == 0:\n'
            '    os.setsid()\n'
            '    if os.fork() == 0:\n'
            f'        while True: open({str(mark)!r}, "w").write("x")\n'
            '    os._exit(0)\n'
            f'while not os.path.exists({str(mark)!r}): pass\n'
            'serve(f=dict)')
    adopt()
    try: reply_of(code)
    finally: adopt(False)
    mark.unlink()
    time.sleep(.3)
    assert not mark.exists()


def test_each_answer_is_judged_and_errors_do_not_stop_it(tmp_path, monkeypatch):
    monkeypatch.setenv('SOME_TOKEN', 'secret')
    monkeypatch.chdir(tmp_path)
    (tmp_path/'in').mkdir()
    cells = [no_torch, third, 'check(3, 7)', 'check(3)', 'check(n=4, answer="many")',
             'import os\nassert "SOME_TOKEN" not in os.environ', 'def',
             'print("Exercise 1: right.")', 'os._exit(3)']
    (tmp_path/'in'/'losses.ipynb').write_text(book(*cells))
    found = examine_notebook(tmp_path/'in'/'losses.ipynb', 10)
    assert list(found['said']) == [3, 4] and found['said'][3] is None and 'a number is asked for' in found['said'][4]
    assert [e[:19] for e in found['errors']] == ['cell 7: SyntaxError', 'cell 9: it ended it'] and found['inside'] == []


def test_what_a_card_lacks(tmp_path):
    (tmp_path/'README.md').write_text('# Mine\n\n## Training\n\nyes\n\n## Scores\n\n(grey)\n')
    assert examine_card(tmp_path/'README.md')['text'] == 'no part "Limits"'


@linux
def test_a_class(grade, tmp_path):
    (tmp_path/'secret').write_text('secret')
    change = ('from pathlib import Path\n'
              'assert Path("data.txt").read_text() == "mine" and not Path("link").exists()\n'
              'for p in Path().iterdir(): p.write_text("changed")\n'
              'Path("new.txt").touch()')
    grade.put('student-01/data.txt', 'mine')
    grade.put('student-01/losses.ipynb', book(no_torch, change, third))
    os.symlink(tmp_path/'secret', grade.folder/'student-01'/'link')
    grade.put('student-02_2_losses.ipynb', book(no_torch))
    grade.put('student-02/student-02_2_losses.ipynb', book(no_torch))
    with zipfile.ZipFile(grade.folder/'student-03.zip', 'w') as z:
        z.writestr('mine/notes.ipynb', book())
        z.writestr('../../escaped.txt', 'x')
    (grade.folder/'student-04.zip').write_bytes(b'PK no zip')
    grade.put('=cmd.ipynb', 'no notebook')
    grade.put('notes.txt', 'not a hand-in')
    rows = grade(points=40)
    assert [r['right'] for r in rows.values()] == [0, 1, 0, 0, 0]
    first = rows['student-01']
    assert first['points'] == round(40 / first['of'], 1) and first['failed'] == '' and '2.1 no answer' in first['wrong']
    for name, said in {'student-02': 'both walk-through 2, neither was graded',
                       'student-03': 'belongs to no walk-through',
                       'student-04': 'no zip that can be read', '=cmd': 'not a notebook'}.items():
        assert said in rows[name]['failed']
    assert not list(tmp_path.rglob('escaped.txt')) and "'=cmd" in (tmp_path/'marks.csv').read_text()


wrong = [('nowhere --csv x.csv', 'no folder'), ('empty --csv x.csv', 'no notebooks'),
         ('in --csv in/nothing/../../notes', 'no table of colorgan grade'),
         pytest.param('in --csv file/x.csv', 'cannot be written', marks=pytest.mark.slow),
         ('in --csv x.csv --minutes 0', 'minutes cannot be 0'),
         pytest.param('in --csv x.csv --walks 99', 'no walk-through 99', marks=pytest.mark.slow),
         ('in', '--csv')]


@pytest.mark.parametrize(('words', 'said'), wrong)
def test_what_a_teacher_gets_wrong_is_one_sentence(words, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name in ('empty', 'in/nothing'): Path(name).mkdir(parents=True)
    for name in ('notes', 'file'): Path(name).write_text('my notes')
    Path('in/student-01.ipynb').write_text(book(begin))
    assert main(['grade', *words.split()]) == 2
    err = capsys.readouterr().err
    assert err.startswith('colorgan: ') and err.count('\n') == 1 and said in err
    assert Path('notes').read_text() == 'my notes' and not Path('x.csv').exists()


def test_teachers_pages_know_every_exercise():
    "The table on assistants has each exercise once."
    exercises(1)
    text = (root/'teacher'/'assistants.md').read_text(encoding='utf-8')
    rows = re.findall(r'^\| [^|]+ \| ([\d., –]+) \|', text, re.M)
    ranges = re.findall(r'(\d)\.(\d)(?:–\d\.(\d))?', ' '.join(rows))
    found = [(int(walk), n) for walk, first, last in ranges
             for n in range(int(first), int(last or first) + 1)]
    assert sorted(found) == sorted((walk, n) for walk, of_walk in judges.items() if walk < 8 for n in of_walk)


def test_rubric_and_questions_add_up():
    rubric = (root/'teacher'/'grading.md').read_text(encoding='utf-8')
    points = [int(n) for n in re.findall(r'^\| \*\*\w[^|]*\*\* \((\d+)\)', rubric, re.M)]
    assert len(points) == 7 and sum(points) == 100
    for most, row in zip(points, re.findall(r'^\| \*\*\w[^|]*\*\* \(\d+\).*', rubric, re.M)):
        levels = [int(n) for n in re.findall(r': (\d+)(?= \|)', row)]
        assert levels == sorted(levels) and len(levels) == 3 and levels[-1] == most
    questions = (root/'teacher'/'oral.md').read_text(encoding='utf-8')
    assert [int(n) for n in re.findall(r'^\| (\d+) \|', questions, re.M)] == list(range(1, 31))


def test_example_of_an_own_exercise(capsys, monkeypatch):
    text = (root/'teacher'/'README.md').read_text(encoding='utf-8')
    code, = (c for c in re.findall(r'```python\n(.*?)```', text, re.S) if 'exercises(' in c)
    said = re.search(r'`check\(1, 256\)` then prints "(.*?)"', text)[1]
    monkeypatch.delitem(judges, 8, raising=False)
    try:
        exec(code + 'check(1, 256)', {})
        assert capsys.readouterr().out.strip() == said
    finally: judges.pop(8, None)


def test_replies_are_data_only():
    for bad in ({'array': ['|O8', [1], '']}, {'os': 1}, {}, {'list': [], 'tuple': []}):
        with pytest.raises(ValueError): unpack(bad)
    with pytest.raises(TypeError): pack(open)


@pytest.mark.slow
def test_good_wrong_and_broken(grade):
    grade.put('student-01.ipynb', book(begin, good, also_good))
    grade.put('student-02/2_losses.ipynb', book(begin, 'check(1, lambda v, p: (v * p).sum())'))
    grade.put('student-03.ipynb', book(begin, 'def', good))
    grade.put('student-04.ipynb', 'no notebook')
    grade.put('student-05.ipynb', book())
    grade.put('notes.txt', 'not a hand-in')
    rows = grade(points=40)
    assert [r['right'] for r in rows.values()] == [2, 0, 1, 0, 0]
    first = rows['student-01']
    assert first['points'] == round(40 * 2 / first['of'], 1) and first['failed'] == ''
    assert 'squared error' in rows['student-02']['wrong']
    assert 'cell 2: SyntaxError' in rows['student-03']['failed']
    assert 'not a notebook' in rows['student-04']['failed']
    assert 'belongs to no walk-through' in rows['student-05']['failed']


ended = {
    'ends itself': ('import os; os._exit(0)', 'ended its process, with status 0'),
    'is killed': ('import os; os.kill(os.getpid(), 9)', 'ended by signal 9'),
    'kills its parent': ('import os; os.kill(os.getppid(), 9)', 'ended the process that judges it'),
    'speaks nonsense': ('import os\n'
                        'for fd in range(3, 60):\n'
                        '    try: os.write(fd, b"nonsense\\n")\n'
                        '    except OSError: continue', 'no longer replies'),
}
endless = {
    'never ends': 'while True: pass',
    'never ends in a function': 'check(2, lambda *args: [0 for _ in iter(int, 1)])',
    'swallows interrupts': ('import signal\n'
                            'for s in set(signal.Signals) - {signal.SIGKILL, signal.SIGSTOP}: '
                            'signal.signal(s, signal.SIG_IGN)\n'
                            'while True: pass'),
}


@pytest.mark.slow
@linux
@pytest.mark.parametrize('name', ended)
def test_hostile_hand_ins_do_not_stop_the_others(name, grade):
    cell, said = ended[name]
    grade.put('student-01.ipynb', book(begin, cell))
    grade.put('student-02.ipynb', book(begin, good))
    rows = grade(minutes=30)
    assert said in rows['student-01']['failed']
    assert rows['student-02']['right'] == 1 and rows['student-02']['failed'] == ''


@pytest.mark.slow
@linux
@pytest.mark.parametrize('name', endless)
def test_endless_hand_ins_end_with_their_time(name, grade):
    grade.put('student-01.ipynb', book(begin, endless[name]))
    grade.put('student-02.ipynb', 'no notebook')
    rows = grade(minutes=.3)
    assert 'its time was up' in rows['student-01']['failed']
    assert 'not a notebook' in rows['student-02']['failed']


forgeries = {
    'replaces check': 'check = lambda n, a: True\ncheck(1, 7)',
    'prints': 'print("Exercise 1: right.")\ncheck.right.add(1)',
    'replaces the judges': 'from colorgan.course import answers\nanswers.judges[2][1] = lambda a: None\ncheck(1, 7)',
    'replaces judged': ('from colorgan.course import answers, checks\n'
                        'answers.judged = checks.judged = lambda *a: None\n'
                        'check(1, 7)'),
    'brings its own colorgan': ('import sys, types\n'
                                'sys.modules["colorgan.course.answers"] = types.ModuleType("x")\n'
                                'check(1, 7)'),
    'equals everything': 'class Any(float):\n    def __eq__(self, other): return True\ncheck(1, Any(3))',
}


@pytest.mark.slow
@pytest.mark.parametrize('name', forgeries)
def test_forged_results_are_not_believed(name, grade):
    grade.put('student-01.ipynb', book(begin, forgeries[name]))
    assert grade()['student-01']['right'] == 0


@pytest.mark.slow
def test_it_writes_into_a_copy_and_much_output_is_borne(grade):
    grade.put('student-01/data.txt', 'mine')
    write = ('from pathlib import Path\n'
             'assert Path("data.txt").read_text() == "mine"\n'
             'for p in Path().iterdir(): p.write_text("changed")\n'
             'Path("new.txt").touch()')
    grade.put('student-01/losses.ipynb', book(begin, write, 'for _ in range(300): print("x" * 1_000_000)', good))
    row = grade()['student-01']
    assert (row['right'], row['failed']) == (1, '')


@pytest.mark.slow
def test_arguments_that_are_changed_are_seen(grade):
    exercises(1)
    n = next(n for n, judge in judges[1].items() if 'of lab (n, 3, h, w) and k' in judge.__doc__)
    change = f'def f(lab, k):\n    lab[:, 1:] *= k\n    return lab\ncheck({n}, f)'
    keep = f'import torch\ncheck({n}, lambda lab, k: lab * torch.tensor([1., k, k]).view(1, 3, 1, 1))'
    for name, cell in {'student-01': change, 'student-02': keep}.items():
        grade.put(f'{name}.ipynb', book(begin.replace('2', '1'), cell))
    rows = grade(walks=[1])
    assert 'it changes the tensor' in rows['student-01']['wrong']
    assert rows['student-02']['right'] == 1


@pytest.mark.slow
def test_what_cannot_be_sent_is_judged_there_and_said(grade):
    grade.put('student-01.ipynb', book(begin, 'import torch\ncheck(1, torch.nn.Linear(1, 1))'))
    row = grade()['student-01']
    assert row['right'] == 0 and row['judged in their process'] == '2.1'


@pytest.mark.slow
def test_a_run_and_a_card(grade):
    from colorgan.nets.weights import bundled_weights
    grade.put('student-01/losses.ipynb', book(begin))
    grade.put('student-01/README.md', '# Mine\n\n## Training\n\nyes\n\n## Scores\n\n(grey)\n')
    shutil.copytree(bundled_weights()['light-l1'], grade.folder/'student-01'/'model')
    grade.put('student-02/losses.ipynb', book(begin))
    grade.put('student-02/run/run.json', '{"recipe": {}}')
    rows = grade()
    assert "the package's own weights" in rows['student-01']['run']
    assert 'no part "Limits"' in rows['student-01']['card']
    assert 'no trained model' in rows['student-02']['run']


@pytest.mark.slow
@pytest.mark.parametrize('path', sorted(root.glob('teacher/solutions/*.ipynb')), ids=lambda p: p.stem)
@pytest.mark.slow
def test_solutions_are_all_right(path, grade):
    grade.put('teacher.ipynb', path.read_text(encoding='utf-8'))
    row = grade()['teacher']
    assert row['right'] == row['of'] and row['failed'] == '', row
