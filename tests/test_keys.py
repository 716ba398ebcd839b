"""The page of keys is what the code makes of it, and no key of a recipe lacks its meaning."""

import importlib.util

from tests.test_config import ROOT


def keys_program():
    spec = importlib.util.spec_from_file_location("keys", ROOT / "docs" / "keys.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_of_keys_is_up_to_date_and_says_what_every_key_means():
    keys = keys_program()
    assert keys.PAGE.read_text(encoding="utf-8") == keys.page(), "run: python docs/keys.py"
    sections = [keys.Recipe, keys.Data, keys.Augment, keys.Model, keys.Teacher, keys.Optim, keys.Lars, keys.Train]
    for section in (*sections, *keys._members(keys.Task), *keys.KINDS):
        missing = [key for key, meaning in keys.meanings(section).items() if not meaning and key != "kind"]
        assert not missing, f"{section.__name__}: write what {missing} mean behind them, as a comment or a description"
