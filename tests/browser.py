"""A browser without a window for the tests of app and page: Debian's Chromium, or Chrome, whichever is installed."""
import shutil
from contextlib import contextmanager

import pytest

names = 'chromium', 'chromium-browser', 'google-chrome'


def browser():
    "The path of the installed browser."
    found = next(filter(None, map(shutil.which, names)), None)
    if not found:
        pytest.fail(f"there is no browser ({', '.join(names)}): install one, on Debian by "
                    "apt-get install chromium", pytrace=False)
    return found


@contextmanager
def page(width=1280, height=800, # of the window, in CSS pixels
         phone=False, # a finger instead of a mouse, and two device pixels for each CSS pixel
         seconds=300, # that anything may take: these machines are busy
         args=(), # of the browser's command line, besides
         **context): # as `Browser.new_context` of Playwright takes it
    """An empty page of Playwright. What goes wrong in its scripts, or is written to its
    console as an error, is listed in `page.errors`."""
    from playwright.sync_api import sync_playwright
    options = dict(executable_path=browser(), args=['--no-sandbox', '--disable-dev-shm-usage', *args],
                   timeout=seconds * 1000)
    if phone: context |= dict(has_touch=True, is_mobile=True, device_scale_factor=2)
    with sync_playwright() as play, play.chromium.launch(**options) as chromium:
        tab = chromium.new_context(viewport=dict(width=width, height=height), **context).new_page()
        tab.set_default_timeout(seconds * 1000)
        tab.errors = []
        tab.on('pageerror', lambda e: tab.errors.append(str(e)))
        tab.on('console', lambda m: m.type == 'error' and tab.errors.append(m.text))
        yield tab
