"""One thread for each worker (there is a worker for each core), and the counts as the last line."""
import os

os.environ.update(OMP_NUM_THREADS='1', MKL_NUM_THREADS='1', TOKENIZERS_PARALLELISM='false')


def pytest_report_teststatus(report):
    if report.when == 'call' and report.outcome in ('passed', 'failed'):
        return report.outcome, report.outcome[0], f'{report.outcome.upper()} in {report.duration:.1f} s'


def pytest_unconfigure(config):
    reporter = config.pluginmanager.get_plugin('terminalreporter')
    if reporter is None or hasattr(config, 'workerinput'): return
    count = {k: len(reporter.stats.get(k, [])) for k in ('passed', 'failed', 'error')}
    print(f"{count['passed']} passed, {count['failed'] + count['error']} failed")
