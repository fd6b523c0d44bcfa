"""Networks in stages under PyTorch's schedules and under the rule's own, measured and predicted."""

from collections.abc import Sequence
from statistics import median, quantiles
from typing import Any

from benchmarks.speed.pipeline.processes import time_in_stages
from benchmarks.speed.pipeline.stages import ONE_PROCESS, Setting, StageTimes
from benchmarks.speed.workloads import load_settings
from benchmarks.utils.values import check_known
from dfa.pipeline.timeline import Costs

Row = dict[str, Any]
MINIMUM_ROUNDS = 15
_PREDICTED_AS = {"ScheduleGPipe": "gpipe", "Schedule1F1B": "1f1b"}


def bench_pipeline(models: Sequence[str], threads: int, rounds: int) -> list[Row]:
    """Measure the rows of `pipeline.json`, one per network, number of micro-batches and baseline.

    Ratios are medians over rounds of times of the same round; below 1 where the rule's schedule is faster.

    Args:
        models: names of `configs/bench/pipeline.yaml`, and "sleeping"; others are left out; empty for all.
        threads: of each stage.
        rounds: turns of every contestant, at least `MINIMUM_ROUNDS`.

    Returns:
        Rows with `model`, `size`, `stages`, `microbatches`, `rule`, `execution` ("stages", or in one process on all
        cores one of `EXECUTIONS`), `baseline` (a schedule of PyTorch's under
        backpropagation, or "one_process": backpropagation in one process on all cores), `ratio`, `ratio_quartiles`,
        `predicted` (by `dfa.pipeline.timeline` from the times of one stage; None for "one_process"),
        `ratio_to_one_process`, and milliseconds: of both contestants, and of a stage's parts on a micro-batch.

    Raises:
        ConfigError: an unknown model.
        ResultsError: a process has failed.
    """
    settings = load_settings("pipeline")
    elsewhere = {entry["name"] for entry in load_settings("steps")}
    known = [*(entry["name"] for entry in settings["measured"]), "sleeping"]
    for name in models:
        if name not in elsewhere:
            check_known("model of the bench of pipelines", name, known)
    rounds = max(rounds, MINIMUM_ROUNDS)
    rows: list[Row] = []
    for entry in settings["measured"]:
        if not models or entry["name"] in models:
            rows += _bench(Setting(entry, 2, settings["microbatches"], "dfa", threads, rounds))
    if not models or "sleeping" in models:
        sleeping = settings["sleeping"]
        for stages in sorted({stages for stages, _ in sleeping["pairs"]}):
            options = {"layers": stages, "forward": sleeping["forward"], "backward": sleeping["backward"]}
            counts = [count for others, count in sleeping["pairs"] if others == stages]
            entry = {"name": "sleeping", "size": f"{stages} stages that only wait", "network": "sleepers"}
            entry["options"] = {**options, "rows": max(counts)}
            rows += _bench(Setting(entry, stages, counts, "dfa", threads, rounds))
    return rows


def _bench(setting: Setting) -> list[Row]:
    turns, times = time_in_stages(setting)
    model = {"model": setting.entry["name"], "size": setting.entry["size"]}
    rival = turns["bp", ONE_PROCESS, 1]
    rows = []
    for (rule, baseline, count), theirs in turns.items():
        if rule == "bp":
            for own_count in setting.microbatches if baseline == ONE_PROCESS else [count]:
                ours = turns[setting.rule, "feedback", own_count]
                facts = {"stages": setting.stages, "microbatches": own_count, "rule": setting.rule}
                facts |= {"execution": "stages", "baseline": baseline}
                found = _compared(
                    ours, theirs, rival, _predicted(times[own_count], baseline, own_count, setting.stages)
                )
                rows.append({**model, **facts, **found, "stage_ms": _milliseconds(times[own_count].costs)})
    for execution in setting.executions():
        facts = {"stages": 1, "microbatches": 1, "rule": setting.rule, "execution": execution, "baseline": ONE_PROCESS}
        rows.append({**model, **facts, **_compared(turns[setting.rule, execution, 1], rival, rival, None)})
    return rows


def _compared(
    ours: Sequence[float], theirs: Sequence[float], rival: Sequence[float], predicted: float | None
) -> dict[str, Any]:
    ratios = [mine / other for mine, other in zip(ours, theirs, strict=True)]
    return {
        "ratio": median(ratios),
        "ratio_quartiles": quantiles(ratios)[::2],
        "predicted": predicted,
        "ratio_to_one_process": median(mine / other for mine, other in zip(ours, rival, strict=True)),
        "median_ms": 1e3 * median(ours),
        "baseline_ms": 1e3 * median(theirs),
    }


def _predicted(times: StageTimes, baseline: str, microbatches: int, stages: int) -> float | None:
    schedule = _PREDICTED_AS.get(baseline)
    if schedule is None:
        return None
    ours, theirs = (times.predict(name, microbatches, stages) for name in ("feedback", schedule))
    return ours / theirs


def _milliseconds(costs: Costs) -> dict[str, float]:
    return {name: 1e3 * getattr(costs, name) for name in ("forward", "backward", "own")}
