"""How the commands are shown: by what people come for, each with examples."""

from collections.abc import Mapping
from typing import Any

from typer.core import TyperGroup

JOURNEYS: dict[str, dict[str, tuple[str, ...]]] = {
    "Score a cohort": {
        "demo": ("demo",),
        "doctor": ("doctor",),
        "manifest": (),
        "plan": (
            "plan manifest.csv",
            "plan manifest.csv results --output plan.csv",
            "plan manifest.csv --tiles-per-second 40 --price-per-hour 3.20",
        ),
        "score": (
            "score manifest.csv results",
            "score manifest.csv results --model path/to/DeepLIIF_Latest_Model",
            "score manifest.csv trial --limit 5 --engine local",
            "score manifest.csv results --slide S-001 --slide S-002",
            "score s3://bucket/manifest.csv s3://bucket/results --address head:6379",
        ),
    },
    "Look at results": {
        "status": ("status results", "status results --watch"),
        "view": (
            "view results",
            "view s3://bucket/results --read-only",
            "view results --no-browser --port 8000",
        ),
        "picture": (
            "picture results S-001 --output S-001.png",
            "picture results S-001 --at 12000,8000,1000,750 --output field.png",
            "picture results S-001 --heat density --hot-spots 3 --output map.png",
        ),
        "report": (
            "report results report.html",
            "report results ki67.html --marker Ki67 --by scanner --pictures 12",
            "report results S-001.html --slide S-001",
        ),
        "infer": (
            "infer S-001.svs S-001.ome.tiff --region 12000,8000,2000,2000",
            "infer S-001.svs field.ome.tiff --region 0,0,1024,1024 --modalities dapi,marker,segmentation",
        ),
        "check": ("check results", "check results --repair"),
        "optimize": ("optimize results",),
        "forget": ("forget results --patient P-17 --dry-run", "forget results --slide S-001 --slide S-002"),
    },
    "Annotate": {
        "regions": (),
        "corrections": (),
    },
    "Ask": {
        "index": (
            "index results",
            "index results --marker Ki67 --by site",
            "index results --patient P-17 --slides",
            "index results --marker Ki67 --region Tumor",
            "index results --output indices.csv",
        ),
        "cutoffs": (
            "cutoffs results --marker ER --by site",
            "cutoffs results --marker ER --control S-900 --control S-901 --save er-2026",
        ),
        "hot-spots": (
            "hot-spots results --marker Ki67",
            "hot-spots results --marker Ki67 --area-mm2 0.16 --count 3 --output spots.csv",
            "hot-spots results --marker CD8 --area-mm2 0.5 --by density --slide S-001",
        ),
        "spatial": (
            "spatial results --marker Ki67",
            "spatial results --marker CD8 --radius-um 30 --ripley-um 20 --ripley-um 80",
        ),
        "sql": (
            'sql results "SELECT patient_id FROM patient_indices WHERE index_percent > 30"',
            'sql results "FROM slide_quality WHERE len(flags) > 0" --output quality.csv',
            'sql results --sandbox "SELECT count(*) FROM cells"',
            "sql results",
            "sql results --describe patient_indices",
            "sql results --file questions.sql --format markdown",
        ),
        "agreement": (
            "agreement results --marker Ki67",
            "agreement results --other results-of-another-model",
            "agreement results --reader pathologist.csv --cutoffs 1,10",
        ),
        "export": (),
    },
    "Run jobs": {
        "run": ("run jobs/reprocess.yaml",),
        "submit": ("submit jobs/reprocess.yaml --address http://head:8265",),
        "jobs": (),
    },
    "Models": {
        "models": ("models",),
        "evaluate": (
            "evaluate compact --truth labelled",
            "evaluate runs/compact/model stain --truth labelled --output report",
            "evaluate compact --truth labelled --mpp 0.16 --reach-um 2.4",
            "evaluate compact --images fields --mpp 0.25 --robustness --output report",
        ),
    },
    "Train": {
        "train": ("train compact.yaml runs/compact --workers 2",),
        "tune": ("tune compact.yaml runs/search --trials 20",),
        "panels": (),
    },
}
"""Commands by journey, in the order in which people need them; and what to type after ``deepliif-ray``."""
WITHIN = {
    "manifest scan": (
        "manifest scan s3://bucket/slides --pattern '{patient_id}/{marker}/{slide_id}.svs' --output all.csv",
    ),
    "export duckdb": (
        "export duckdb results results.duckdb",
        "export duckdb s3://bucket/results results.duckdb --overwrite",
    ),
    "export qupath": (
        "export qupath results S-001.geojson --slide S-001",
        "export qupath results S-001.geojson.gz --slide S-001 --strength --region Tumor",
        "export qupath results S-001.geojson --slide S-001 --shard 20000 --points",
    ),
    "export qupath-tsv": (
        "export qupath-tsv results S-001.tsv --slide S-001",
        "export qupath-tsv results cohort.tsv --summary --strength",
    ),
    "export geoparquet": ("export geoparquet results S-001.parquet --slide S-001",),
    "export csv": ("export csv results S-001.csv.gz --slide S-001",),
    "export anndata": ("export anndata results S-001.h5ad --slide S-001 --region Tumor",),
    "export spatialdata": ("export spatialdata results S-001.zarr --slide S-001",),
    "export dicom-annotations": ("export dicom-annotations results S-001.dcm --slide S-001",),
    "export labels": (
        "export labels results S-001.ome.tiff --slide S-001",
        "export labels results field.zarr --slide S-001 --at 12000,8000,1000,750",
    ),
    "regions import": (
        "regions import results S-001.geojson",
        "regions import results drawn.geojson.gz --slide S-001 --author 'A. Reader'",
    ),
    "regions list": ("regions list results", "regions list results --all"),
    "regions drop": ("regions drop results 20260301T101500000000-0a1b2c3d",),
    "regions export": ("regions export results S-001 S-001.geojson",),
    "regions refresh": ("regions refresh results",),
    "corrections import": (
        "corrections import results corrections.csv",
        "corrections import results S-001.geojson --reach-um 3",
    ),
    "corrections list": ("corrections list results",),
    "corrections drop": ("corrections drop results 20260301T101500000000-0a1b2c3d",),
    "jobs list": ("jobs list --address http://head:8265",),
    "jobs logs": ("jobs logs ID --follow",),
    "jobs stop": ("jobs stop ID",),
    "jobs schema": ("jobs schema > job.json",),
    "panels check": ("panels check panels/train",),
    "panels truth": ("panels truth mask.tiff mpif-ki67.png seg.png",),
    "panels distill": ("panels distill path/to/DeepLIIF_Latest_Model slides panels/distilled",),
    "panels synthesize": ("panels synthesize panels/synthetic --count 200",),
    "panels neg-to-pos": ("panels neg-to-pos runs/neg-to-pos/model panels/train panels/converted",),
}
"""The same of commands that belong to another."""
_PLACES = {
    name: (place, panel)
    for place, (name, panel) in enumerate(
        (name, panel) for panel, commands in JOURNEYS.items() for name in commands
    )
}
_EXAMPLES = {name: shown for commands in JOURNEYS.values() for name, shown in commands.items()} | WITHIN


class Group(TyperGroup):
    """Commands in the order of `JOURNEYS`, with their examples, and flags without the type of a flag."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        commands: Mapping[str, Any] = self.commands
        for name, command in commands.items():
            for parameter in command.params:
                _hush(parameter)
            if name in _PLACES:
                command.rich_help_panel = _PLACES[name][1]
            examples = _EXAMPLES.get(name) or _EXAMPLES.get(f"{self.name} {name}", ())
            if examples:
                lines = (f"  deepliif-ray {example}".replace("[", r"\[") for example in examples)
                command.epilog = "\n".join(["Examples:" if len(examples) > 1 else "Example:", *lines])

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the names of the commands in the order in which they are shown."""
        return sorted(super().list_commands(ctx), key=lambda name: _PLACES.get(name, (0, ""))[0])

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Return the command of this name, made ready to be shown."""
        command = super().get_command(ctx, cmd_name)
        if command is not None:
            _hush(command.get_help_option(ctx))
        return command

    def get_params(self, ctx: Any) -> Any:
        """Return the options of the group itself."""
        parameters = super().get_params(ctx)
        for parameter in parameters:
            _hush(parameter)
        return parameters


def _hush(parameter: Any) -> None:
    """Let a flag be shown by its name alone: that it is of type bool says nothing."""
    if getattr(parameter, "is_flag", False) and parameter.metavar is None:
        parameter.metavar = ""
