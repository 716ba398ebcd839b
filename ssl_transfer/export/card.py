"""The model card: what was trained from what, how well it does by which protocol, and how to load it."""

from collections.abc import Mapping
from pathlib import Path

import yaml

from ssl_transfer import config
from ssl_transfer.export.artifact import Artifact
from ssl_transfer.models import EmbeddingModel
from ssl_transfer.models.checkpoint import ModelSpec
from ssl_transfer.runs import RunInfo, read_scores
from ssl_transfer.scores import explain
from ssl_transfer.scores.score import Score

_CARD = """\
---
{front_matter}---

# {name}

{summary}

The license is for whoever publishes this model to choose: add `license:` to the lines above.

## Load it

```python
{load}```

{notes}

## What it is

{facts}

## Scores

{scores}

## Recipe

`ssl-transfer run recipe.yaml` trains this model again.

```yaml
{recipe}```

## Versions

{versions}
"""


def model_card(
    run: Path,
    recipe: config.Recipe,
    info: RunInfo,
    model: EmbeddingModel,
    spec: ModelSpec,
    artifact: Artifact,
    *,
    location: str | None,
) -> str:
    """The text of ``README.md``; ``location`` is the model's name on the Hub, None where it stays a folder."""
    purpose = "image-feature-extraction"
    if spec.head is not None and spec.head.kind == "classifier":
        purpose = "image-classification"
    front_matter = {
        "library_name": artifact.library,
        "pipeline_tag": purpose,
        "tags": [purpose, "ssl-transfer", recipe.task.kind, recipe.data.dataset],
    }
    return _CARD.format(
        front_matter=yaml.safe_dump(front_matter, sort_keys=False),
        name=recipe.name,
        summary=_summary(recipe, spec),
        load=_load(artifact, location),
        notes="\n".join(artifact.notes),
        facts=_bullets(_facts(recipe, info, model, spec)),
        scores=_scores(run, recipe.data.title),
        recipe=config.dump(recipe),
        versions=_bullets(info.versions or {"ssl-transfer": "not recorded by the run"}),
    )


def _summary(recipe: config.Recipe, spec: ModelSpec) -> str:
    taught = " and ".join(f"{teacher.title} (its {teacher.output})" for teacher in recipe.teachers)
    learned = f" from the {'teachers' if len(recipe.teachers) > 1 else 'teacher'} {taught}" if taught else ""
    return f"`{spec.backbone}` trained by `{recipe.task.kind}`{learned} on `{recipe.data.title}` with ssl-transfer."


def _load(artifact: Artifact, location: str | None) -> str:
    if location is None:
        return artifact.load.replace("{location}", "path/to/this/folder")
    timm_finds_it = artifact.load.replace("local-dir:{location}", f"hf-hub:{location}")
    download = f'from huggingface_hub import snapshot_download\n\nfolder = snapshot_download("{location}")\n'
    return (download + timm_finds_it).replace('"{location}/', 'folder + "/').replace('"{location}"', "folder")


def _facts(recipe: config.Recipe, info: RunInfo, model: EmbeddingModel, spec: ModelSpec) -> Mapping[str, str]:
    optim, size = recipe.optim, model.backbone.input_size
    outputs = f"features ({model.num_features})"
    if model.head is not None:
        outputs += f", {model.head.output_name} ({model.embedding_dim})"
    colors = model.backbone.preprocessing
    return {
        "backbone": f"{spec.backbone}, stem {spec.stem}, "
        f"{sum(weight.numel() for weight in model.backbone.network.parameters()):,} weights",
        "outputs": outputs,
        "preprocessing": f"{spec.in_chans} channels in [0, 1], resized to {size} x {size} px, minus "
        f"{list(colors.mean)}, divided by {list(colors.std)}",
        "started from": _start(recipe.model),
        "training": f"{info.steps:,} steps of {recipe.data.batch_size} images, {optim.name}, learning rate "
        f"{optim.lr:g}, weight decay {optim.weight_decay:g}, seed {recipe.seed}",
        "trained on": f"{info.processes} x {info.device} in {info.precision}, {info.seconds:,.0f} s",
    }


def _start(model: config.Model) -> str:
    if not model.pretrained:
        return "random weights"
    kept = "" if model.freeze is None else f"; the stem and the first {model.freeze} stages stayed as they were"
    return f"pretrained weights of timm{kept}"


def _scores(run: Path, images: str) -> str:
    found = read_scores(run)
    if found is None:
        return "None were taken."
    table = found.table
    rows = [[model, *(_percent(score) for score in table.row(model))] for model in table.models]
    taken: dict[str, str] = {}  # by the sentence, which several metrics may share
    for metric in table.metrics:
        sentence = explain([score for score in found.scores if score.metric == metric])
        taken[sentence] = f"{taken[sentence]}, {metric}" if sentence in taken else metric
    return (
        _table(["%", *table.metrics], rows)
        + f"\n\nTaken on {found.about['date']}, on `{images}`:\n\n"
        + _bullets({metrics: sentence for sentence, metrics in taken.items()})
    )


def _percent(score: Score | None) -> str:
    return "" if score is None else score.percent + ("" if score.n is None else f" (n={score.n})")


def _table(header: list[str], rows: list[list[str]]) -> str:
    lines = [header, ["---"] + ["---:"] * (len(header) - 1), *rows]
    return "\n".join(f"| {' | '.join(map(_cell, line))} |" for line in lines)


def _cell(text: str) -> str:
    """``text`` as a cell of a Markdown table, which a line break or a bar would end and a tag would leave."""
    return " ".join(text.split()).replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")


def _bullets(facts: Mapping[str, str]) -> str:
    return "\n".join(f"* {key}: {value}" for key, value in facts.items())
