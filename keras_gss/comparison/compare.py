"""Running a comparison: search each method's strength, freeze it, run the seeds."""

import contextlib
import multiprocessing
import os
import shutil
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any, Literal

import keras

from keras_gss._checks import check_fraction, check_integer, reject
from keras_gss.comparison.methods import METHODS
from keras_gss.comparison.protocol import TRAINED, Protocol, Run, execute, further, pretrain, train
from keras_gss.comparison.store import RESULTS, Store, read
from keras_gss.comparison.table import Comparison

QUICK = {"budget": 2, "beyond": 0, "pretrain_epochs": 2, "epochs": 2, "finetune_epochs": 1}


def compare_methods(
    model: str,
    dataset: str,
    directory: str | os.PathLike,
    *,
    methods: Sequence[str] | Literal["all"] = "all",
    target_macs: float | Sequence[float] | None = None,
    target_params: float | Sequence[float] | None = None,
    seeds: Sequence[int] = (1, 2, 3),
    jobs: int = 1,
    quick: bool = False,
    command: str = "",
    verbose: bool = True,
    **protocol: Any,
) -> Comparison:
    """Compares methods under one protocol: same data, start, epochs, search and cost for all.

    Every method begins with the same pretrained weights (one that prunes at initialisation, with
    the same initial ones, and trains as long in all), tries the same number of strengths with one
    seed, or goes on by the same rule (`beyond`), judged on the validation data, and then runs with
    the strength found and every other seed. All are cut to the same cost, finetuned, made smaller
    and counted alike. The test data are read by these last runs only. Several targets share the
    training under a penalty, which does not depend on them (`Method.training` says where it does).

    Started again with the same arguments, it goes on where it was killed; more methods, targets
    and seeds may be asked of a directory at any time.

    Args:
        model: a named model, or a file.
        dataset: a named dataset.
        directory: holds `results.jsonl`, a JSON line for each finished run, the pretrained models,
            and what resumes the runs under way.
        methods: names, or "all" of `keras_gss.comparison.METHODS`.
        target_macs: the fraction of the live MACs that may remain, or several of them.
        target_params: instead of that, of the non-zero parameters.
        seeds: of the final runs.
        jobs: how many processes. With more than one, a script has to call this under
            `if __name__ == "__main__":`.
        quick: a smoke run of few epochs, of which no table is made.
        command: what the user typed, for the records.
        verbose: print a line per run.
        protocol: further arguments of `Protocol`, the schedule among them.

    Returns:
        The `Comparison` with all records of the directory.

    Raises:
        TypeError, ValueError: an argument, before any work; a directory of another protocol.

    Example:
    >>> import tempfile, keras_gss as gss
    >>> compared = gss.compare_methods("digits-mlp", "digits", tempfile.mkdtemp(),
    ...     methods=["random"], target_macs=0.3, seeds=[1], pretrain_epochs=1, epochs=0,
    ...     finetune_epochs=1, verbose=False)
    >>> [record["method"] for record in compared.records]
    ['random']
    """
    names = _names(methods)
    unit, targets = _targets(target_macs, target_params)
    seeds = [check_integer("seeds", seed) for seed in dict.fromkeys(seeds)]
    if not seeds:
        raise reject("seeds", "at least one integer >= 0", seeds)
    jobs = check_integer("jobs", jobs, minimum=1)
    settings = {**protocol, **(QUICK if quick else {})}
    same = Protocol(model=model, dataset=dataset, unit=unit, quick=quick, **settings)
    directory = Path(directory)
    store = Store(directory, same)

    pairs = [(name, target) for target in targets for name in names]
    tried = {(name, target): same.strengths(METHODS[name]) for name, target in pairs}
    with workers(jobs, same, directory) as submit:
        searched = [pair for pair in pairs if len(tried[pair]) > 1]
        _pretrain(submit, [same.search_seed] if searched else [])
        for extension in range(same.beyond + 1):
            for pair in searched if extension else ():
                tried[pair] += _beyond(tried[pair], _validated(store, same, pair, tried[pair]))
            runs = [_search(same, pair, each) for pair in searched for each in tried[pair]]
            _finish(store, submit, runs, command, verbose)
        chosen = {
            pair: _best(strengths, _validated(store, same, pair, strengths))
            for pair, strengths in tried.items()
        }
        _pretrain(submit, seeds)
        final = [
            Run(name, target, chosen[name, target], seed, "final")
            for name, target in pairs
            for seed in seeds
        ]
        _finish(store, submit, final, command, verbose)
    return Comparison(tuple(store.records))


def _names(methods: Sequence[str] | str) -> list[str]:
    names = list(METHODS) if methods == "all" else methods
    if isinstance(names, str):
        names = names.split(",")
    names = list(dict.fromkeys(names))
    unknown = [name for name in names if name not in METHODS]
    if unknown or not names:
        raise ValueError(
            f"`methods` must be 'all' or some of {', '.join(METHODS)}. "
            f"Received: {', '.join(map(repr, unknown)) or 'none'}"
        )
    return names


def _targets(macs: Any, params: Any) -> tuple[str, list[float]]:
    if (macs is None) == (params is None):
        raise ValueError("Give one of `target_macs` and `target_params`.")
    unit, given = ("macs", macs) if params is None else ("params", params)
    several = given if isinstance(given, (list, tuple)) else [given]
    targets = [check_fraction(f"target_{unit}", each) for each in dict.fromkeys(several)]
    if not targets:
        raise reject(f"target_{unit}", "at least one fraction", given)
    return unit, targets


Submit = Callable[..., Any]

RUNS_PER_PROCESS = 20


@contextlib.contextmanager
def workers(jobs: int, shared: Any, directory: Path) -> Iterator[Submit]:
    """Yields a function that yields `(argument, function(shared, argument, directory))`.

    Args:
        jobs: how many processes; 1 for this one alone.
        shared: the first argument of every call.
        directory: the last argument of every call.
    """
    if jobs == 1:

        def one_by_one(function: Callable, arguments: Sequence[Any]) -> Iterator[Any]:
            for argument in arguments:
                yield argument, function(shared, argument, directory)
                keras.utils.clear_session()

        yield one_by_one
        return
    threads = str(max(1, (os.cpu_count() or 1) // jobs))
    variables = ("TF_NUM_INTRAOP_THREADS", "OMP_NUM_THREADS", "NPROC")  # the last is XLA's
    with _environment(**dict.fromkeys(variables, threads)):
        context = multiprocessing.get_context("spawn")

        def in_parallel(function: Callable, arguments: Sequence[Any]) -> Iterator[Any]:
            # What a process leaves in memory goes with it. `max_tasks_per_child` would do the same
            # but hangs in Python up to 3.14 (python/cpython#115634).
            for begin in range(0, len(arguments), RUNS_PER_PROCESS * jobs):
                some = arguments[begin : begin + RUNS_PER_PROCESS * jobs]
                with ProcessPoolExecutor(jobs, context, initializer=_end_with_parent) as pool:
                    futures = {
                        pool.submit(function, shared, each, directory): each for each in some
                    }
                    try:
                        for future in as_completed(futures):
                            yield futures[future], future.result()
                    except BaseException:
                        pool.shutdown(wait=False, cancel_futures=True)
                        raise

        yield in_parallel


def _end_with_parent() -> None:
    """Ends this process as soon as the one that began it does, even by a kill.

    It would train on for hours, beside whoever resumes the same directory.
    """
    parent = multiprocessing.parent_process()

    def wait() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


@contextlib.contextmanager
def _environment(**values: str) -> Iterator[None]:
    """Sets environment variables, where they are not set, for the processes begun meanwhile."""
    added = [name for name in values if name not in os.environ]
    os.environ.update({name: values[name] for name in added})
    try:
        yield
    finally:
        for name in added:
            del os.environ[name]


def _pretrain(submit: Submit, seeds: Sequence[int]) -> None:
    for _ in submit(pretrain, seeds):
        pass


def _finish(store: Store, submit: Submit, runs: Sequence[Run], command: str, verbose: bool) -> None:
    waiting = [run for run in runs if store.of(run) is None]
    done = len(runs) - len(waiting)
    training = {run.training: run for run in waiting if METHODS[run.method].training != "none"}
    for trained, (run, _) in enumerate(submit(train, list(training.values())), 1):
        if verbose:
            print(f"trained {trained}/{len(training)}  {run.training}", flush=True)
    for run, record in submit(execute, waiting):
        store.add({**record, "command": command})
        done += 1
        if verbose:
            print(f"{done}/{len(runs)}  {run.name}  {_said(record)}", flush=True)
    shutil.rmtree(store.path.parent / TRAINED, ignore_errors=True)


def _said(record: dict[str, Any]) -> str:
    if "error" in record:
        return f"failed: {record['error']}"
    figures = f"validation {record['validation']:.4f}  MACs {record['live_macs']:,}"
    return f"{figures}  {record['seconds']:.0f} s"


Pair = tuple[str, float]
Strengths = list[Any]  # of floats, or of None alone


def _search(same: Protocol, pair: Pair, strength: float | None) -> Run:
    return Run(*pair, strength, same.search_seed, "search")


def _validated(store: Store, same: Protocol, pair: Pair, strengths: Strengths) -> dict[Any, float]:
    """Returns the validation accuracy of each strength, -1 of a run that failed or is not due."""
    records = {each: store.of(_search(same, pair, each)) or {} for each in strengths}
    return {each: record.get("validation", -1.0) for each, record in records.items()}


def _best(strengths: Strengths, accuracies: dict[Any, float]) -> float | None:
    """Returns the strength of the highest accuracy, the smaller one of equals."""
    return max(strengths if len(strengths) == 1 else sorted(strengths), key=accuracies.__getitem__)


def _beyond(strengths: Strengths, accuracies: dict[Any, float]) -> Strengths:
    """Returns what to try next if the best strength is the strongest or the weakest one.

    Where both are, as if every network were destroyed, the stronger side is tried: what is cut
    far survives when little was left to cut.
    """
    weakest, strongest = min(strengths), max(strengths)
    best = max(accuracies.values())
    if accuracies[strongest] == best:
        return [further(strongest, 1)]
    return [further(weakest, -1)] if accuracies[weakest] == best else []


def load_comparison(directory: str | os.PathLike) -> Comparison:
    """Reads the records of a directory.

    Raises:
        OSError: there are none.
    """
    path = Path(directory) / RESULTS
    if not path.is_file():
        raise OSError(f"There is no '{path}': run `keras-gss compare` with that directory first.")
    return Comparison(tuple(read(path)))
