"""One thread for each worker (there is a worker for each core), the seconds of each test, and the
counts as the last line."""
import multiprocessing
import os

import pytest

os.environ.update(OMP_NUM_THREADS='1', MKL_NUM_THREADS='1', TOKENIZERS_PARALLELISM='false')
# Processes that train or run a notebook are forks of one that has imported the library and done
# nothing: autograd's threads do not survive a fork.
if 'forkserver' in multiprocessing.get_all_start_methods(): multiprocessing.set_forkserver_preload(['colorgan.run'])


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item):
    """Notes the processor's seconds: on a busy machine only they say what a test costs. A test adds
    those of processes that are not its own children as `elsewhere`."""
    before = sum(os.times()[:4])
    try: return (yield)
    finally:
        elsewhere = dict(item.user_properties).get('elsewhere', 0)
        item.user_properties.append(('cpu', sum(os.times()[:4]) - before + elsewhere))


def pytest_report_teststatus(report):
    if report.when == 'call' and report.outcome in ('passed', 'failed'):
        seconds = (f'{report.duration:.1f} s, {dict(report.user_properties)["cpu"]:.1f} s of '
                   'processor')
        return report.outcome, report.outcome[0], f'{report.outcome.upper()} in {seconds}'


def pytest_unconfigure(config):
    reporter = config.pluginmanager.get_plugin('terminalreporter')
    if reporter is None or hasattr(config, 'workerinput'): return
    count = {k: len(reporter.stats.get(k, [])) for k in ('passed', 'failed', 'error')}
    print(f"{count['passed']} passed, {count['failed'] + count['error']} failed")
