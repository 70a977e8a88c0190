"""The map of docs/architecture.md holds: the places of SQL, HTTP and settings, and imports."""

import ast
import re
from pathlib import Path

import pytest

from tests.servers import ROOT

# From the bottom up: a module imports from its own layer or from one above it in this list.
LAYERS = [
    ["config", "errors", "messages"],
    ["heavy", "logs", "metrics", "pool", "validation"],
    ["db"],
    ["files"],
    ["engines"],
    ["accounts"],
    ["images"],
    ["migrations", "web"],
    ["commands"],
    ["app", "worker", "serve", "gunicorn"],
]
WINGS = {"accounts", "commands", "engines", "files", "images", "migrations", "web"}
SQL_FILES = {
    "accounts/admin.py",
    "accounts/api_keys.py",
    "accounts/invites.py",
    "accounts/limits.py",
    "accounts/audit.py",
    "accounts/identities.py",
    "accounts/codes.py",
    "accounts/mails.py",
    "accounts/rate_limits.py",
    "accounts/sessions.py",
    "accounts/second_factor.py",
    "accounts/users.py",
    "files/cleanup.py",
    "images/archive_links.py",
    "files/withheld.py",
    "images/history.py",
    "images/queue.py",
    "images/quota.py",
    "images/retention.py",
    "images/shares.py",
    "images/admin.py",
    "images/stats.py",
    "images/submit.py",
    "images/tags.py",
    "images/tickets.py",
    "images/turns.py",
    "images/trash.py",
    "images/uploads.py",
    "images/usage.py",
    "images/waiting.py",
}
TABLES = {
    "users",
    "codes",
    "mails",
    "image_generations",
    "deleted_generations",
    "image_tags",
    "trashed_generations",
    "trashed_files",
    "idempotency_keys",
    "pending_deletions",
    "rate_limits",
    "sessions",
    "api_keys",
    "invites",
    "invite_uses",
    "workers",
    "turns",
    "model_seconds",
    "shares",
    "archive_links",
    "audit_log",
    "daily_jobs",
    "paused_models",
    "recovery_codes",
    "identities",
    "login_codes",
    "waiting",
    "uploads",
    "upload_uses",
}
SQL = re.compile(r"\b(SELECT .+ FROM|INSERT INTO|UPDATE \w+\s+SET|DELETE FROM)\b", re.DOTALL)
CALLS = {"all", "execute", "insert", "one", "run_transaction", "value"}


def modules() -> dict[str, ast.Module]:
    """Return the syntax tree of each module of the service by its path."""
    files = [*ROOT.glob("*.py")]
    for wing in WINGS:
        files += (ROOT / wing).rglob("*.py")
    return {
        str(file.relative_to(ROOT)): ast.parse(file.read_text(encoding="utf-8"))
        for file in sorted(files)
    }


MODULES = modules()


def name_of(path: str) -> str:
    """Return the dotted name of a module, such as images.jobs."""
    return path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def layer_of(name: str) -> int:
    top = name.partition(".")[0]
    return next(number for number, layer in enumerate(LAYERS) if top in layer)


def imports_of(path: str) -> set[str]:
    """Return the modules of the service that one imports, wherever it does."""
    names = {name_of(other) for other in MODULES}
    found = set()
    for node in ast.walk(MODULES[path]):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            found |= {f"{node.module}.{alias.name}" for alias in node.names} & names or {
                node.module
            }
    return found & names


def strings_of(path: str) -> list[str]:
    """Return the texts of a module that are no docstrings, f-strings with {} for their values."""
    tree = MODULES[path]
    docstrings = set()
    for node in ast.walk(tree):
        is_documented = isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
        if is_documented and ast.get_docstring(node):
            docstrings.add(id(node.body[0].value))
    texts = []
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            parts = [part.value if isinstance(part, ast.Constant) else "{}" for part in node.values]
            texts.append("".join(parts))
        elif isinstance(node, ast.Constant) and id(node) not in docstrings:
            texts.append(node.value)
    return [text for text in texts if isinstance(text, str)]


def test_the_root_holds_thirteen_modules_and_seven_wings():
    root_modules = [path for path in MODULES if "/" not in path]
    wings = {path.partition("/")[0] for path in MODULES if "/" in path}

    assert len(root_modules) == 13
    assert wings == WINGS


@pytest.mark.parametrize("path", MODULES)
def test_arrows_point_one_way(path):
    layer = layer_of(name_of(path).removesuffix(".conf"))

    assert [name for name in imports_of(path) if layer_of(name) > layer] == []


def test_no_import_goes_round_in_a_circle():
    left = {name_of(path): imports_of(path) - {name_of(path)} for path in MODULES}
    while free := [name for name, needed in left.items() if not needed & left.keys()]:
        for name in free:
            del left[name]

    assert left == {}


@pytest.mark.parametrize("path", MODULES)
def test_sql_stands_only_in_the_files_that_say_so(path):
    has_sql = any(SQL.search(text) for text in strings_of(path))

    # The runner of the migrations has two tables of its own.
    if path not in SQL_FILES and path != "migrations/__init__.py":
        assert not has_sql or path == "db.py"
    else:
        assert has_sql
    if path in SQL_FILES:
        assert "SQL" in ast.get_docstring(MODULES[path]).partition("\n\n")[0]


def test_db_knows_no_table():
    text = (ROOT / "db.py").read_text()

    assert not [table for table in TABLES if re.search(rf"\b{table}\b", text)]


def test_the_drivers_are_used_by_their_public_api():
    private = []
    for node in ast.walk(MODULES["pool.py"]):
        is_private = isinstance(node, ast.Attribute) and re.match("_[^_]", node.attr)
        if is_private and ast.unparse(node.value) != "self":
            private.append(ast.unparse(node))

    assert private == []


@pytest.mark.parametrize("path", MODULES)
def test_only_the_routes_speak_http(path):
    named = set()
    for node in ast.walk(MODULES[path]):
        if isinstance(node, ast.ImportFrom) and node.module:
            named.add(node.module.partition(".")[0])
        elif isinstance(node, ast.Import):
            named |= {alias.name.partition(".")[0] for alias in node.names}

    # The operator's commands belong to Flask, too.
    if path != "app.py" and not path.startswith(("commands/", "web/")):
        assert not named & {"flask", "flask_cors"}


@pytest.mark.parametrize("path", MODULES)
def test_only_config_reads_the_environment(path):
    reads = []
    for node in ast.walk(MODULES[path]):
        if isinstance(node, ast.Attribute) and ast.unparse(node) in ("os.environ", "os.getenv"):
            reads.append(node.lineno)

    # prometheus_client and diffusers take a setting of theirs from there alone: we only set it.
    if path not in ("config.py", "metrics.py", "engines/diffusers.py"):
        assert reads == []


@pytest.mark.parametrize(
    ("path", "most"), [("app.py", 450), ("db.py", 180), ("openapi.yaml", 1300)]
)
def test_files_that_everybody_reads_stay_short(path, most):
    assert len((ROOT / path).read_text(encoding="utf-8").splitlines()) <= most


@pytest.mark.parametrize("path", MODULES)
def test_functions_are_short(path):
    long = []
    for node in ast.walk(MODULES[path]):
        if isinstance(node, ast.FunctionDef) and node.end_lineno - node.lineno >= 40:
            long.append(node.name)

    assert long == []


@pytest.mark.parametrize("path", MODULES)
def test_every_transaction_that_the_database_takes_back_is_repeated(path):
    functions = [node for node in ast.walk(MODULES[path]) if isinstance(node, ast.FunctionDef)]

    unrepeated = [
        function.name
        for function in functions
        if any(is_transaction(node) for node in ast.walk(function))
        and "db.retried" not in map(ast.unparse, function.decorator_list)
    ]

    assert unrepeated == []


def is_transaction(node: ast.AST) -> bool:
    return isinstance(node, ast.With) and ast.unparse(node.items[0]) == "db.transaction()"


def test_every_route_is_in_app_or_one_of_its_blueprints():
    routes = []
    for path in MODULES:
        for node in ast.walk(MODULES[path]):
            if isinstance(node, ast.FunctionDef) and any(
                isinstance(one, ast.Call)
                and isinstance(one.func, ast.Attribute)
                and isinstance(one.func.value, ast.Name)
                and one.func.value.id in ("app", "routes")
                for one in node.decorator_list
            ):
                routes.append(path)

    assert set(routes) == {"app.py", "web/account.py", "web/admin.py", "web/uploads.py"}


def test_the_map_names_every_file():
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")

    missing = [path for path in MODULES if Path(path).name not in text]
    assert missing == []


@pytest.mark.parametrize("name", ["architecture.md", "architecture.zh-CN.md"])
def test_the_map_has_one_row_for_each_thing(name):
    text = (ROOT / "docs" / name).read_text(encoding="utf-8")

    for table in text.split("\n\n"):
        first_cells = re.findall(r"^\| (.+?) \|", table, re.MULTILINE)
        assert sorted(first_cells) == sorted(set(first_cells))
