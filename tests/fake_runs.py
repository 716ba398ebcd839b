"""Run folders as a finished run leaves them, without the run."""

import json
from pathlib import Path
from typing import Any

from ssl_transfer import config, runs

RECIPES = Path(__file__).parent.parent / "recipes"
Rows = dict[str, dict[str, float]]  # model -> metric -> value


def fake_run(
    folder: Path,
    rows: Rows,
    *overrides: str,
    recipe: str = "digits/transfer.yaml",
    about: dict[str, Any] | None = None,
    **protocol: Any,
) -> Path:
    """A finished run of a shipped recipe whose scores are ``rows``, each taken by ``protocol``."""
    loaded = config.load(RECIPES / recipe, overrides)
    folder.mkdir(parents=True)
    (folder / "recipe.yaml").write_text(config.dump(loaded))
    runs.write_info(folder, runs.RunInfo(config.identity_hash(loaded), 10, 10, 5.0, 200.0, finished=True))
    scores = [
        {
            "model": model,
            **({"role": "teacher"} if model.startswith("teacher ") else {}),
            "metric": metric,
            "value": value,
            "protocol": {"layer": "features"} | protocol,
        }
        | {"sd": None, "n": None}
        for model, row in rows.items()
        for metric, value in row.items()
    ]
    content = {"asked": runs.final_scores(loaded), "dataset": loaded.data.dataset, **(about or {}), "scores": scores}
    (folder / "scores.json").write_text(json.dumps(content))
    return folder
