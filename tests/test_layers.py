"""Law 7: imports run down, and the lower half needs no torch."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import understudy

SOURCE = Path(understudy.__file__).parent

# From top to bottom. A module may import from its own line and from the lines below it.
LAYERS = (
    ("cli",),
    ("demo",),
    ("report", "interactive", "reinforcement"),
    ("trainer",),
    ("cuda_graph",),
    ("checkpoint",),
    ("windows",),
    ("policies",),
    ("normalize",),
    # --- no torch from here on ---
    ("robots",),
    ("playback", "advice", "export"),
    ("observers", "dataset"),
    ("evaluate",),
    ("collector",),
    ("rollout",),
    ("sim.experts",),
    ("execution",),
    ("presets",),
    ("loading",),
    ("onnx_predictor",),
    ("onnx_file",),
    ("inference", "recipe", "runs"),
    ("network_shape",),
    ("policy_file", "onnx_messages"),
    ("statistics",),
    ("worlds",),
    ("sim",),
    ("workers",),
    ("worker_process",),
    ("durable",),
    ("episode",),
    ("agent", "spec"),
    ("errors",),
)
NEEDS_TORCH = {
    "interactive",
    "reinforcement",
    "trainer",
    "cuda_graph",
    "checkpoint",
    "windows",
    "policies",
    "normalize",
}


def layer_of(module: str) -> str:
    parts = module.removeprefix("understudy.").split(".")
    two = ".".join(parts[:2])
    return two if any(two in layer for layer in LAYERS) else parts[0]


def imports():
    for path in SOURCE.rglob("*.py"):
        module = ".".join(path.relative_to(SOURCE).with_suffix("").parts).removesuffix(".__init__")
        if module == "__init__":
            continue  # the public face names everything
        for node in ast.walk(ast.parse(path.read_text())):
            names = []
            if isinstance(node, ast.ImportFrom):
                # `from understudy import rollout` is an import of understudy.rollout.
                names = (
                    [f"understudy.{alias.name}" for alias in node.names]
                    if node.module == "understudy"
                    else [node.module or ""]
                )
            elif isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            for name in names:
                yield module, name


def test_imports_run_down():
    height = {name: index for index, layer in enumerate(LAYERS) for name in layer}
    for module, imported in imports():
        if imported.startswith("understudy."):
            upper, lower = layer_of(module), layer_of(imported)
            assert upper in height, f"{upper} has no place in LAYERS"
            assert lower in height, f"{lower} has no place in LAYERS"
            assert height[upper] <= height[lower], f"{module} imports {imported}, upwards"


def test_torch_is_imported_by_name_only_in_its_half():
    for module, imported in imports():
        if imported.split(".")[0] == "torch":
            assert layer_of(module) in NEEDS_TORCH, f"{module} imports torch"


@pytest.mark.parametrize(
    "code",
    [
        "import understudy",
        "from understudy import report, playback, observers, evaluate, execution, inference, recipe, worlds",
        "from understudy import cli",
        "import understudy; understudy.sim.expert_for(understudy.make_env('understudy/PickPlace-v0'), 'scripted')",
    ],
)
def test_the_lower_half_runs_without_torch(code):
    check = f"{code}; import sys; assert 'torch' not in sys.modules; assert 'scipy' not in sys.modules"
    subprocess.run([sys.executable, "-c", check], check=True)


def test_a_policy_executes_without_torch_matplotlib_and_mujoco():
    golden = Path(__file__).parent / "golden" / "ensemble-1"
    check = (
        "import sys, numpy, understudy\n"
        f"agent = understudy.PolicyAgent(understudy.load_predictor({str(golden)!r}))\n"
        "agent.reset(0)\n"
        "assert agent.act(numpy.zeros(3, numpy.float32)).action.shape == (2,)\n"
        "assert not {'torch', 'matplotlib', 'mujoco', 'av'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", check], check=True)


def test_an_exported_policy_executes_without_torch_onnx_matplotlib_and_mujoco():
    pytest.importorskip("onnxruntime")
    golden = Path(__file__).parent / "golden" / "ensemble-1" / "policy.onnx"
    check = (
        "import sys, numpy, understudy\n"
        f"agent = understudy.PolicyAgent(understudy.load_predictor({str(golden)!r}))\n"
        "agent.reset(0)\n"
        "assert agent.act(numpy.zeros(3, numpy.float32)).action.shape == (2,)\n"
        "assert not {'torch', 'onnx', 'matplotlib', 'mujoco', 'av'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", check], check=True)


def test_the_public_face_is_what_it_says():
    code = "import understudy as us; [getattr(us, name) for name in us.__all__]; print(*us.__all__)"
    names = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    assert names == sorted(names, key=lambda name: (not name.isupper(), not name[0].isupper(), name)), (
        "keep the list in order"
    )
    public = {name for name in vars(understudy) if not name.startswith("_")} - {"annotations"}
    modules = {path.stem for path in SOURCE.iterdir()} | {"TYPE_CHECKING", "Any", "import_module"}
    assert public - modules <= set(names), "a public name that __all__ does not list"


def test_no_module_is_a_drawer_for_odds_and_ends():
    assert not [path for path in SOURCE.rglob("*.py") if path.stem in ("utils", "helpers", "misc", "common")]


def test_nothing_opens_a_pickle_or_evaluates_text():
    for path in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id not in ("eval", "exec", "__import__"), path
            if isinstance(node, ast.keyword) and node.arg == "allow_pickle":
                assert isinstance(node.value, ast.Constant), path
                assert node.value.value is False, path
