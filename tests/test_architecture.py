"""The house rules of docs/architecture.md, read from the source: layers, single importers, purity, no hidden state.

Left out: what only running shows, such as that nothing blocks a callback.
"""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator

import pytest

from architecture_rules import IMPORTERS, IMPURE, LAYERS, MILTER_LAYERS, PROGRAMS, PURE, READS_FILES
from source_tree import ROOT, Module, imported, is_ours, modules, within

MAX_LINES = 500


def layer_of(name: str, layers: tuple[tuple[str, ...], ...]) -> tuple[int, str]:
    """The number of the layer, and the entry of it that names the module."""
    for number, layer in enumerate(layers):
        for entry in layer:
            package = entry.removesuffix(".*")
            if name == entry or (entry.endswith(".*") and name.startswith(package + ".")):
                return number, entry
    for number, layer in enumerate(layers):
        if f"{name}.*" in layer:
            return number, f"{name}.*"
    raise AssertionError(f"{name} has no layer: give it one in tests/architecture_rules.py")


def layer_faults(module: Module, layers: tuple[tuple[str, ...], ...], short: Callable[[str], str]) -> Iterator[str]:
    own, own_entry = layer_of(short(module.name), layers)
    for name in module.imports:
        if not is_ours(name) or name.partition(".")[0] != module.name.partition(".")[0]:
            continue
        other, other_entry = layer_of(short(name), layers)
        is_inside = own_entry == other_entry and own_entry.endswith(".*")
        if other > own or (other == own and not is_inside):
            yield f"{module.name} imports {name}, which is not below it"


def named(name: str) -> str:
    return name


def in_daemon(name: str) -> str:
    return name.removeprefix("mailguard_milter.")


def test_every_module_imports_only_from_lower_layers() -> None:
    faults = [fault for module in modules().values() for fault in layer_faults(module, LAYERS, named)]
    daemon = [module for name, module in modules().items() if name.startswith("mailguard_milter.")]
    faults += [fault for module in daemon for fault in layer_faults(module, MILTER_LAYERS, in_daemon)]
    assert not faults, "\n".join(faults)


def test_the_library_does_not_know_the_daemon() -> None:
    library = [module for name, module in modules().items() if within(name, "mailguard")]
    faults = [module.name for module in library if any(within(name, "mailguard_milter") for name in module.imports)]
    assert not faults


def test_the_layers_would_be_enforced() -> None:
    upwards = ast.parse("def f():\n    from mailguard.dns.live import open_resolver\n")
    path = modules()["mailguard.message"].path
    known = {name: module.path for name, module in modules().items()}
    wrong = Module("mailguard.message", path, upwards, frozenset(imported(upwards, known=known)))
    assert list(layer_faults(wrong, LAYERS, named))
    sideways = Module("mailguard.domain", path, upwards, frozenset({"mailguard.taglist"}))
    assert list(layer_faults(sideways, LAYERS, named))
    inside = Module("mailguard.dkim.sign", path, upwards, frozenset({"mailguard.dkim.key"}))
    assert not list(layer_faults(inside, LAYERS, named))


def test_no_module_imports_itself_in_a_circle() -> None:
    done: set[str] = set()

    def visit(name: str, above: tuple[str, ...]) -> None:
        assert name not in above, " -> ".join([*above, name])
        if name in done or name not in modules():
            return
        for other in modules()[name].imports:
            if is_ours(other) and other != name:
                visit(other, (*above, name))
        done.add(name)

    for name in modules():
        visit(name, ())


@pytest.mark.attack("P23")
def test_each_dependency_has_its_importer() -> None:
    faults = []
    for module in modules().values():
        for name in sorted(module.imports):
            top = name.partition(".")[0]
            if is_ours(name) or top in sys.stdlib_module_names:
                continue
            allowed = IMPORTERS.get(top)
            if allowed is None:
                faults.append(f"{module.name} imports {top}, which no rule knows")
            elif not any(within(module.name, importer) for importer in allowed):
                faults.append(f"{module.name} imports {top}; only {', '.join(allowed) or 'nobody'} may")
    assert not faults, "\n".join(faults)


def test_each_single_importer_does_import_it() -> None:
    """So that a rule that has become empty is noticed."""
    waiting = {"Milter"}
    for top in IMPORTERS.keys() - waiting:
        assert any(name.partition(".")[0] == top for module in modules().values() for name in module.imports), top


def test_pure_modules_reach_neither_clock_nor_files_nor_network() -> None:
    faults = []
    for module in modules().values():
        if module.name in READS_FILES or not any(within(module.name, pure) for pure in PURE):
            continue
        faults += [f"{module.name} imports {name}" for name in module.imports if name.partition(".")[0] in IMPURE]
        faults += [f"{module.name}:{call.lineno} opens a file" for call in calls(module.tree, "open")]
    assert not faults, "\n".join(faults)
    assert all(any(within(name, pure) for name in modules()) for pure in PURE if pure not in NOT_THERE_YET)


NOT_THERE_YET = frozenset({"mailguard.arc"})


# -- no hidden ends, no hidden state ------------------------------------------------------------------------------


def dotted(node: ast.expr) -> str:
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else "?"


def calls(tree: ast.AST, *names: str) -> Iterator[ast.Call]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and dotted(node.func) in names:
            yield node


def forbidden(tree: ast.AST, *, program: bool) -> Iterator[str]:
    """K13 and P09: what no module does, and what only a program does."""
    for call in calls(tree, "eval", "exec", "compile", "__import__", "input", "breakpoint", "os.system", "os.popen"):
        yield f"line {call.lineno}: {dotted(call.func)}"
    if not program:
        for call in calls(tree, "print", "sys.exit", "exit", "quit", "os._exit", "os.abort"):
            yield f"line {call.lineno}: {dotted(call.func)} in the library"
    for node in ast.walk(tree):
        if isinstance(node, ast.Raise) and node.exc is not None and not program:
            raised = node.exc.func if isinstance(node.exc, ast.Call) else node.exc
            if dotted(raised) in ("SystemExit", "KeyboardInterrupt"):
                yield f"line {node.lineno}: raise {dotted(raised)} in the library"
        if isinstance(node, ast.keyword) and node.arg == "shell":
            yield f"line {node.value.lineno}: a command through a shell"
        if isinstance(node, ast.ExceptHandler) and node.type is None:
            yield f"line {node.lineno}: a bare except"


@pytest.mark.attack("K13", "P09")
def test_the_library_neither_prints_nor_exits_nor_evaluates() -> None:
    faults = [
        f"{module.name}: {fault}"
        for module in modules().values()
        for fault in forbidden(module.tree, program=any(within(module.name, program) for program in PROGRAMS))
    ]
    dangerous = {"pickle", "marshal", "shelve", "dill", "yaml", "imp"}
    faults += [
        f"{module.name} imports {name}"
        for module in modules().values()
        for name in module.imports
        if name.partition(".")[0] in dangerous
    ]
    assert not faults, "\n".join(faults)


@pytest.mark.parametrize(
    "source",
    [
        "print(1)",
        "import sys\nsys.exit(1)",
        "raise SystemExit",
        "raise SystemExit(2)",
        "eval('1')",
        "os._exit(1)",
        "subprocess.run('x', shell=True)",
        "try:\n    pass\nexcept:\n    pass",
    ],
)
def test_what_is_forbidden_would_be_found(source: str) -> None:
    assert list(forbidden(ast.parse(source), program=False))


MUTABLE_CALLS = frozenset(
    {"list", "dict", "set", "bytearray", "defaultdict", "OrderedDict", "Counter", "deque", "count", "cycle", "local"}
    | {"WeakKeyDictionary", "WeakValueDictionary", "WeakSet", "Lock", "RLock", "Event", "Condition", "Semaphore"}
    | {"Thread", "Queue", "SimpleQueue", "TTLCache", "LRUCache", "Random", "ContextVar"}
)
CHANGING = frozenset(
    {"append", "extend", "insert", "remove", "pop", "popitem", "clear", "update", "setdefault", "add", "discard"}
    | {"difference_update", "intersection_update", "symmetric_difference_update", "sort", "reverse"}
)
CACHES = frozenset({"cache", "lru_cache", "functools.cache", "functools.lru_cache"})


def is_mutable(value: ast.expr | None) -> bool:
    if isinstance(value, ast.List | ast.Dict | ast.Set | ast.ListComp | ast.DictComp | ast.SetComp):
        return True
    return isinstance(value, ast.Call) and dotted(value.func).rpartition(".")[2] in MUTABLE_CALLS


def assigned(statement: ast.stmt) -> tuple[list[str], ast.expr | None]:
    if isinstance(statement, ast.Assign):
        return [target.id for target in statement.targets if isinstance(target, ast.Name)], statement.value
    if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
        return [statement.target.id], statement.value
    return [], None


def state_faults(tree: ast.Module) -> Iterator[str]:
    """A table is a constant: named in capitals, a plain display, and changed by nothing in its module."""
    constants: set[str] = set()
    for statement in tree.body:
        names, value = assigned(statement)
        for name in names:
            if name == "__all__" or not is_mutable(value):
                continue
            if not name.isupper() or isinstance(value, ast.Call):
                yield f"line {statement.lineno}: {name} is mutable and no constant"
            constants.add(name)
    for node in ast.walk(tree):
        if isinstance(node, ast.Global):
            yield f"line {node.lineno}: global {', '.join(node.names)}"
        elif isinstance(node, ast.ClassDef):
            for statement in node.body:
                names, value = assigned(statement)
                if names and is_mutable(value):
                    yield f"line {statement.lineno}: {node.name}.{names[0]} is shared by all its instances"
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            for decorator in node.decorator_list:
                target = decorator.func if isinstance(decorator, ast.Call) else decorator
                if dotted(target) in CACHES:
                    yield f"line {node.lineno}: {node.name} keeps results without an owner"
            defaults = [*node.args.defaults, *node.args.kw_defaults]
            if any(is_mutable(default) for default in defaults):
                yield f"line {node.lineno}: {node.name} has a mutable default"
        elif isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Store | ast.Del):
            if dotted(node.value) in constants:
                yield f"line {node.lineno}: {dotted(node.value)} is changed"
        elif (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr in CHANGING
            and dotted(node.func.value) in constants
        ):
            yield f"line {node.lineno}: {dotted(node.func.value)} is changed"


def test_no_module_has_mutable_state() -> None:
    faults = [f"{module.name}: {fault}" for module in modules().values() for fault in state_faults(module.tree)]
    assert not faults, "\n".join(faults)


@pytest.mark.parametrize(
    "source",
    [
        "cache = {}",
        "_seen: set[str] = set()",
        "TABLE = {}\ndef f():\n    TABLE[1] = 2",
        "TABLE = []\ndef f():\n    TABLE.append(1)",
        "COUNTER = defaultdict(int)",
        "LOCK = threading.Lock()",
        "x = 1\ndef f():\n    global x",
        "@lru_cache\ndef f(): ...",
        "@functools.lru_cache(maxsize=9)\ndef f(): ...",
        "def f(x=[]): ...",
        "class A:\n    seen = {}",
    ],
)
def test_mutable_state_would_be_found(source: str) -> None:
    assert list(state_faults(ast.parse(source)))


@pytest.mark.parametrize("source", ["TABLE = {1: 2}", "WORDS = ['a']", "NAMES = frozenset({'a'})", "x = (1, 2)"])
def test_constants_are_no_state(source: str) -> None:
    assert not list(state_faults(ast.parse(source)))


@pytest.mark.attack("D52")
def test_digests_are_compared_in_constant_time() -> None:
    """RFC 6376 has no secret for a verifier; still no hash is compared octet by octet."""
    faults, compared = [], 0
    for name, module in modules().items():
        if not within(name, "mailguard.dkim"):
            continue
        compared += sum(1 for _ in calls(module.tree, "hmac.compare_digest"))
        for node in ast.walk(module.tree):
            if isinstance(node, ast.Compare) and any(isinstance(one, ast.Eq | ast.NotEq) for one in node.ops):
                sides = [dotted(side) for side in (node.left, *node.comparators)]
                if any(side.rpartition(".")[2] in ("body_hash", "digest", "computed", "signature") for side in sides):
                    faults.append(f"{name}:{node.lineno}")
    assert not faults
    assert compared == 1


@pytest.mark.attack("D15")
def test_answers_grow_old_by_the_monotonic_clock() -> None:
    """So a jump of the clock neither empties the cache nor keeps a key for ever; t= and x= have a skew of minutes."""
    resolver = [module for name, module in modules().items() if within(name, "mailguard.dns")]
    assert not [module.name for module in resolver for _ in calls(module.tree, "time.time", "datetime.now")]
    assert [module.name for module in resolver for _ in calls(module.tree, "time.monotonic")]


@pytest.mark.attack("P19")
def test_the_name_that_libmilter_points_to_lives_as_long_as_the_process() -> None:
    engine = modules()["mailguard_milter.engine_libmilter"].tree
    (registered,) = [dotted(call.args[0]) for call in calls(engine, "milter.register")]
    constants = {name for statement in engine.body for name in assigned(statement)[0]}
    assert registered in constants


@pytest.mark.attack("P22")
def test_no_list_of_macros_is_longer_than_pymilter_can_hold() -> None:
    """It holds five names; what an application asks for replaces the list of main.cf."""
    from mailguard_milter.received_macros import SYMBOLS

    engine = modules()["mailguard_milter.engine_libmilter"].tree
    assert [node for node in ast.walk(engine) if isinstance(node, ast.Attribute) and node.attr == "setsymlist"]
    assert all(0 < len(names.split()) <= 5 for names in SYMBOLS.values())


# -- sizes and names ----------------------------------------------------------------------------------------------


def test_files_are_short_enough_to_read() -> None:
    lengths = {module.name: len(module.path.read_text("utf-8").splitlines()) for module in modules().values()}
    assert not {name: lines for name, lines in lengths.items() if lines > MAX_LINES}


def test_files_are_named_after_one_thing() -> None:
    vague = {"utils", "util", "helpers", "helper", "manager", "common", "misc", "data", "info", "base", "core"}
    assert not [name for name in modules() if vague & set(name.split("."))]


def test_every_module_says_what_it_is() -> None:
    assert not [module.name for module in modules().values() if not ast.get_docstring(module.tree)]


# -- what an import brings in -------------------------------------------------------------------------------------


def after(statement: str, expression: str) -> str:
    """What a fresh interpreter prints for `expression` after `statement`."""
    code = f"import sys\n{statement}\nprint({expression})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    return done.stdout.strip()


LOADED = "sorted({name.partition('.')[0] for name in sys.modules} & set(%r))"


def test_import_mailguard_needs_no_extra() -> None:
    extras = [
        "milter",
        "Milter",
        "pydantic",
        "pydantic_core",
        "click",
        "rich",
        "publicsuffixlist",
        "mailguard_milter",
    ]
    assert after("import mailguard", LOADED % extras) == "[]"
    assert after("import mailguard.config", LOADED % extras) == "['pydantic', 'pydantic_core']", "the test can fail"


def test_import_mailguard_leaves_the_mail_path_without_dkimpy() -> None:
    assert after("import mailguard", LOADED % ["dkim"]) == "[]"


def test_the_supervisor_imports_next_to_nothing() -> None:
    heavy = ["milter", "pydantic", "click", "rich", "dns", "cryptography", "authres", "asyncio", "idna"]
    assert after("import mailguard_milter.supervisor, mailguard_milter.__main__", LOADED % heavy) == "[]"


BEFORE = "import dns.rdatatype; before = dict(vars(dns.rdatatype)); members = list(dns.rdatatype.RdataType)"
CHANGED = (
    "(sorted(set(vars(dns.rdatatype)) - set(before)), [one for one in before if vars(dns.rdatatype)[one] !="
    " before[one]], list(dns.rdatatype.RdataType) == members)"
)


def test_dnspython_is_left_as_it_is() -> None:
    """pyspf adds to dns.rdatatype at import where it misses something: the one exception, with spf/engine.py."""
    every = ", ".join(name for name in modules() if within(name, "mailguard") and not name.endswith("__main__"))
    assert after(f"{BEFORE}\nimport {every}", CHANGED) == "([], [], True)"
    changed = after(f"{BEFORE}\ndns.rdatatype.EXTRA = 99", CHANGED)
    assert changed == "(['EXTRA'], [], True)", "the test can fail"


def test_the_dependencies_are_those_declared() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    # SQLAlchemy imports its drivers by their names.
    drivers = {"pg8000", "PyMySQL"}
    distribution = {"dns": "dnspython", "dkim": "dkimpy", "spf": "pyspf", "milter": "pymilter", "Milter": "pymilter"}
    distribution["OpenSSL"] = "pyOpenSSL"
    wanted = {distribution.get(name, name) for name in IMPORTERS} - {"pydantic_core"} | drivers
    groups = [
        project["dependencies"],
        *(
            project["optional-dependencies"][extra]
            for extra in ("cli", "dane", "milter", "mta-sts", "native", "psl", "sql")
        ),
    ]
    declared = {entry.split(">")[0].split("[")[0] for group in groups for entry in group} - {project["name"]}
    assert declared == wanted
