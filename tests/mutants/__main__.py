"""Mutates `keras_gss.graph` and `keras_gss.slimming`, and counts the mutants that a test kills.

python tests/mutants                 # a sample of 300, hours; goes on where it was stopped
python tests/mutants --again TEST    # those that survived, against this new test alone
python tests/mutants --list 20       # what would be run

The operators are cosmic-ray's (`pip install -e ".[test,mutation]"`). A mutant meets the tests that
run its statement, those of the module's own test file first and the quickest of each first, until
one fails. One row per mutant goes to rows.jsonl, the count and the survivors to results.md.
"""

import argparse
import ast
import json
import random
import signal
import sys
import time
import warnings
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1]))
import coverage
import pytest
from altered_tree import ROOT, altered, copied, first_failure, run_tests
from cosmic_ray import plugins
from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code
from equivalent import EQUIVALENT

HERE = Path(__file__).parent
ROWS, RESULTS = HERE / "rows.jsonl", HERE / "results.md"
# rules/keras_hub.py needs KerasHub, which the other tests do without.
MODULES = [
    *(path for path in sorted(ROOT.glob("keras_gss/graph/**/*.py")) if path.stem != "keras_hub"),
    ROOT / "keras_gss/slimming.py",
]
TESTS = [
    *sorted(str(path.relative_to(ROOT)) for path in ROOT.glob("tests/test_graph*.py")),
    *(f"tests/test_{name}.py" for name in ("slimming", "count", "report")),
]
OWN_TESTS = {"linear": "graph_linear", "embedding": "graph_linear", "companions": "graph_rules"}
OWN_TESTS |= {"elementwise": "graph_rules", "spatial": "graph_rules", "merges": "graph_rules"}
OWN_TESTS |= {each: f"graph_{each}" for each in ("attention", "movers", "normalisation")}
OWN_TESTS |= {"recurrent": "graph_recurrent", "slimming": "slimming"}
Key = tuple[str, str, int]


@dataclass(frozen=True)
class Mutant:
    """One change: the `occurrence`-th place of a module that a cosmic-ray operator can change."""

    module: str
    operator: str
    occurrence: int
    line: int

    @property
    def key(self) -> Key:
        """What tells it from the others."""
        return self.module, self.operator, self.occurrence

    def text(self) -> str | None:
        """Returns the changed module, None if it is no Python."""
        operator = plugins.get_operator(self.operator)()
        text = mutate_code((ROOT / self.module).read_text(), operator, self.occurrence)
        try:
            with warnings.catch_warnings(action="ignore"):
                compile(text, self.module, "exec")
        except SyntaxError:
            return None
        return text


def mutants(path: Path) -> list[Mutant]:
    """Returns all mutants of a module but those of annotations."""
    text = path.read_text()
    nodes = list(ast_nodes(get_ast(text)))
    ignored = _annotations(ast.parse(text))
    module = str(path.relative_to(ROOT))
    found = []
    for name in plugins.operator_names():
        kind = plugins.get_operator(name)
        if kind.arguments():  # these rename variables that they are told
            continue
        places = (place for node in nodes for place in kind().mutation_positions(node))
        found += [
            Mutant(module, name, occurrence, start[0])
            for occurrence, (start, _) in enumerate(places)
            if not any(first <= start < last for first, last in ignored)
        ]
    return found


def _annotations(tree: ast.AST) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    parts: list[ast.AST | None] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.arg | ast.AnnAssign):
            parts.append(node.annotation)
        elif isinstance(node, ast.FunctionDef):
            parts.append(node.returns)
        elif isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            parts.append(node)
    return [((n.lineno, n.col_offset), (n.end_lineno, n.end_col_offset)) for n in parts if n]


def sample(count: int, seed: int) -> list[Mutant]:
    """Draws mutants, of each module in proportion to all that it has, in a random order."""
    draw = random.Random(seed)
    every = [mutants(path) for path in MODULES]
    total = sum(map(len, every))
    chosen = []
    for of_module in every:
        draw.shuffle(of_module)
        wanted = round(count * len(of_module) / total)
        compiling = (mutant for mutant in of_module if mutant.text() is not None)
        chosen += [mutant for mutant, _ in zip(compiling, range(wanted), strict=False)]
    draw.shuffle(chosen)
    return chosen


class Tests:
    """Which tests run which lines, and how long each test takes."""

    def __init__(self, folder: Path):
        durations = folder / "durations.json"
        arguments = ["-q", "--cov", "--cov-context=test", "--cov-report=", *TESTS]
        code, output = run_tests(folder, arguments, (_Durations(durations),))
        if code:
            raise RuntimeError(f"The tests fail without any mutant:\n{output}")
        self.seconds = json.loads(durations.read_text())
        data = coverage.CoverageData(str(folder / ".coverage"))
        data.read()
        self.contexts = {
            str(Path(file).relative_to(folder)): data.contexts_by_lineno(file)
            for file in data.measured_files()
        }

    def of(self, mutant: Mutant, seconds: float) -> list[str]:
        """Returns the tests that run the statement of a mutant, as many as fit into some time."""
        contexts = self.contexts[mutant.module]
        tree = ast.parse((ROOT / mutant.module).read_text())
        running = {c for line in _statement(tree, mutant.line) for c in contexts.get(line, ())}
        tests = {context.rsplit("|", 1)[0] for context in running if context}
        own = f"tests/test_{OWN_TESTS.get(Path(mutant.module).stem, 'graph')}.py"
        order = sorted(tests, key=lambda t: (not t.startswith(own), self.seconds[t]))
        if "" in running:  # it runs on import: any test may see what comes of it
            rest = self.seconds.keys() - tests
            order += sorted(rest, key=lambda t: (not t.startswith(own), self.seconds[t]))
        chosen, left = [], seconds
        for test in order:
            if self.seconds[test] <= left:
                chosen.append(test)
                left -= self.seconds[test]
        return chosen


def _statement(tree: ast.AST, line: int) -> range:
    """Returns the lines of the innermost statement (of its head, if it has a body) around one."""
    spans = [range(line, line + 1)]
    for node in ast.walk(tree):
        if isinstance(node, ast.stmt):
            first = min([node.lineno, *(d.lineno for d in getattr(node, "decorator_list", ()))])
            body = getattr(node, "body", None)
            last = max(first, body[0].lineno - 1) if body else node.end_lineno
            if first <= line <= last:
                whole = isinstance(node, ast.FunctionDef)  # a default matters where it is used
                spans.append(range(first, (node.end_lineno if whole else last) + 1))
    return spans[0] if len(spans) == 1 else min(spans[1:], key=len)


class _Durations:
    """A pytest plugin that writes how long each test took."""

    def __init__(self, path: Path):
        self.path, self.seconds = path, {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.seconds[report.nodeid] = self.seconds.get(report.nodeid, 0.0) + report.duration

    def pytest_sessionfinish(self) -> None:
        self.path.write_text(json.dumps(self.seconds))


class _Chosen:
    """A pytest plugin that runs some tests only, with one or all parameters, in their order."""

    def __init__(self, tests: list[str]):
        self.tests = tests

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        place = {test: k for k, test in enumerate(self.tests)}
        places = {item: place.get(item.nodeid, place.get(_bare(item.nodeid))) for item in items}
        items[:] = sorted((i for i in items if places[i] is not None), key=places.__getitem__)


def _bare(test: str) -> str:
    return test.split("[")[0]


def outcome(folder: Path, module: str, text: str, chosen: list[str], limit: float) -> tuple:
    """Runs tests on a mutant; returns "killed", "timeout" or "survived", and by which test."""
    with altered(folder / module, text):
        for part in (chosen[:10], chosen[10:]):  # most die at once, and a file takes time to load
            if part:
                files = sorted({test.split("::")[0] for test in part})
                code, output = run_tests(folder, ["-qx", *files], (_Chosen(part),), limit)
                if code == -signal.SIGKILL:
                    return "timeout", f"{limit:.0f} s"
                if code and code != pytest.ExitCode.NO_TESTS_COLLECTED:
                    return "killed", first_failure(output) or f"pytest ends with {code}"
    return "survived", f"{len(chosen)} tests"


def read_rows() -> dict[Key, dict]:
    """Returns the last row of every mutant that was run."""
    lines = ROWS.read_text().splitlines() if ROWS.exists() else []
    rows = map(json.loads, lines)
    return {(row["module"], row["operator"], row["occurrence"]): row for row in rows}


def _settled(row: dict) -> bool:
    return row["outcome"] != "survived" or _reason(row) is not None


def _reason(row: dict) -> str | None:
    return EQUIVALENT.get((row["module"], row["before"], row["after"]))


def changed(before: str, after: str) -> tuple[str, str]:
    """Returns what two texts differ in: the lines of the one and of the other."""
    old, new = before.splitlines(), after.splitlines()
    while old and new and old[0] == new[0]:
        del old[0], new[0]
    while old and new and old[-1] == new[-1]:
        del old[-1], new[-1]
    return ("\n".join(" ".join(lines_.split()) for lines_ in lines) for lines in (old, new))


def write(rows: list[dict], count: int, seed: int, seconds: float) -> str:
    """Writes results.md; returns the line that counts."""
    survived = [row for row in rows if not _settled(row)]
    same = [(row, _reason(row)) for row in rows if row["outcome"] == "survived" and _reason(row)]
    killed = len(rows) - len(survived) - len(same)
    timeouts = sum(row["outcome"] == "timeout" for row in rows)
    total = (
        f"{killed} of {len(rows)} mutants killed, {killed / max(len(rows), 1):.1%} ({timeouts} by "
        f"the time limit); {killed / max(len(rows) - len(same), 1):.1%} without the {len(same)} "
        "that change nothing"
    )
    packages = ("cosmic_ray", "keras", "tensorflow", "numpy")
    versions = ", ".join(f"{each} {version(each)}" for each in packages)
    lines = [
        f"Written by `python tests/mutants --count {count} --seed {seed} --seconds {seconds:g}` on "
        f"{time.strftime('%Y-%m-%d')} with {versions}.",
        *("", f"{total}.", "", "| module | mutants | killed | change nothing | survived |"),
        "|---|---|---|---|---|",
    ]
    for module in sorted({row["module"] for row in rows}):
        n = sum(row["module"] == module for row in rows)
        e = sum(row["module"] == module for row, _ in same)
        s = sum(row["module"] == module for row in survived)
        lines.append(f"| `{module}` | {n} | {n - e - s} | {e} | {s} |")
    lines += ["", "Survivors:", ""]
    lines += [f"- {_shown(row)}" for row in sorted(survived, key=_place)]
    lines += ["", "Mutants that compute the same, each with its reason (`equivalent.py`):", ""]
    lines += [f"- {_shown(row)}: {why}" for row, why in sorted(same, key=lambda e: _place(e[0]))]
    RESULTS.write_text("\n".join(lines) + "\n")
    return total


def _place(row: dict) -> tuple[str, int]:
    return row["module"], row["line"]


def _shown(row: dict) -> str:
    module = row["module"].removeprefix("keras_gss/")
    before, after = (row[key].replace("\n", " ") for key in ("before", "after"))
    return f"{module}:{row['line']} `{before}` → `{after}`"


def main() -> None:
    """Runs what of the sample was not run yet."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=300, help="mutants drawn")
    parser.add_argument("--seed", type=int, default=0, help="of the draw")
    parser.add_argument("--seconds", type=float, default=60, help="of tests that a mutant meets")
    parser.add_argument("--again", nargs="+", help="tests that those that survived are to meet")
    parser.add_argument("--list", type=int, default=0, help="print so many mutants and stop")
    options = parser.parse_args()
    drawn = sample(options.count, options.seed)
    rows = read_rows()
    if options.again:
        waiting = [m for m in drawn if m.key in rows and not _settled(rows[m.key])]
    else:
        waiting = [mutant for mutant in drawn if mutant.key not in rows]
    for mutant in waiting[: options.list]:
        print(mutant, *changed((ROOT / mutant.module).read_text(), mutant.text()), sep="\n")
    if options.list:
        return
    with copied() as folder:
        tests = None if options.again or not waiting else Tests(folder)
        sys.dont_write_bytecode = True  # it is told from its source by second and size alone
        for mutant in waiting:
            started = time.perf_counter()
            text = mutant.text()
            before, after = changed((ROOT / mutant.module).read_text(), text)
            row = {**asdict(mutant), "before": before, "after": after}
            # What is said to change nothing has to survive a few tests only.
            chosen = options.again or tests.of(mutant, options.seconds)
            chosen = chosen[: 10 if _reason(row) else None]
            state, by = outcome(folder, mutant.module, text, chosen, 60 + 5 * options.seconds)
            took = round(time.perf_counter() - started, 1)
            row |= {"outcome": state, "by": by, "seconds": took}
            if state != "survived" or not options.again:
                with ROWS.open("a") as file:
                    file.write(json.dumps(row) + "\n")
                rows[mutant.key] = row
            done = [rows[each.key] for each in drawn if each.key in rows]
            print(len(done), state, by, took, _shown(row), flush=True)
            write(done, options.count, options.seed, options.seconds)
    done = [rows[each.key] for each in drawn if each.key in rows]
    print(write(done, options.count, options.seed, options.seconds))


if __name__ == "__main__":
    main()
