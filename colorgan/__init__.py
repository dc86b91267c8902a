"""Learn, train and use image colorization with conditional GANs: the public names, each imported when it is first used."""
from importlib import import_module

__version__ = "0.1.0"

_modules = {
    'colorize': 'colorizer', 'Colorizer': 'colorizer', 'colorize_files': 'use.album',
    'colorize_film': 'use.film',
    'train': 'run', 'evaluate': 'evaluation', 'replace': 'recipes',
    'get_dls': 'data', 'pretrain_learner': 'pretrain', 'gan_learner': 'gan',
    'bundled_photos': 'photos.sources', 'ColorganError': 'core'}
__all__ = list(_modules)


def __getattr__(name):
    if name not in _modules: raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    globals()[name] = value = getattr(import_module(f'{__name__}.{_modules[name]}'), name)
    return value


def __dir__(): return sorted({*globals(), *__all__})
