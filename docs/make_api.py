"""Write docs/api.md: signatures and docstrings of the public API.

python docs/make_api.py
"""

import importlib
import inspect
import re
import textwrap
from pathlib import Path
from typing import Any

PAGE = Path(__file__).with_name("api.md")
HEAD = """\
# API

What other code may call, with shapes and errors, made from the docstrings by `python docs/make_api.py`. Everything else
may change without notice. `titans_seq.ops` needs torch alone.
"""
# Public names of each module; None takes its `__all__`.
MODULES: dict[str, tuple[str, ...] | None] = {
    "titans_seq.ops": None,
    "titans_seq.ops.recurrences": None,
    "titans_seq.nn": ("NeuralMemory", "NeuralMemoryState", "SlidingWindowAttention", "AttentionState"),
    "titans_seq.backbone": None,
    "titans_seq.models.forecaster": ("Forecaster",),
    "titans_seq.models.stream_forecaster": ("StreamForecaster",),
    "titans_seq.models.classifier": ("SequenceClassifier",),
    "titans_seq.tasks": ("from_pretrained", "save_pretrained"),
    "titans_seq.config": ("load_config", "to_container", "to_yaml"),
    "titans_seq.experiment": None,
    "titans_seq.studies.seeds": ("fit_seeds",),
    "titans_seq.studies.sweep": ("run_sweep",),
    "titans_seq.studies.compare": ("compare",),
    "datamodules.time_series.datamodule": ("ForecastingDataModule",),
    "datamodules.dna.classification.datamodule": ("SequenceDataModule",),
    "titans_seq.batch": ("ForecastBatch", "CovariateBatch", "SequenceBatch", "StreamBatch"),
}


def entry(module: str, name: str, thing: Any) -> list[str]:
    """Return the section of one function, class or constant."""
    if not callable(thing):
        return [f"### {name}", "", f"`{module}.{name}`: {', '.join(f'`{key}`' for key in thing)}", ""]
    lines = [f"### {name}", "", "```text", signature(name, thing), "```", "", *prose(inspect.getdoc(thing)), ""]
    if inspect.isclass(thing):
        for method, function in vars(thing).items():
            if not method.startswith("_") and inspect.isfunction(function) and inspect.getdoc(function):
                lines += [f"**{method}** `{parameters(function)}`", "", *prose(inspect.getdoc(function)), ""]
    return lines


def signature(name: str, thing: Any) -> str:
    """Return the signature of a call, with one line per argument if it is too long for one line."""
    line = f"{name}{parameters(thing)}"
    if len(line) <= 100:
        return line
    shown = [p for p in inspect.signature(thing).parameters.values() if p.name != "self"]
    rows = [str(p) for p in shown]
    named = next((n for n, p in enumerate(shown) if p.kind is p.KEYWORD_ONLY), None)
    if named is not None:
        rows.insert(named, "*")
    inner = ",\n".join(rows)
    return f"{name}(\n{textwrap.indent(plain(inner), '    ')},\n)"


def parameters(thing: Any) -> str:
    """Return the parameters of a call, without `self`."""
    found = inspect.signature(thing)
    shown = [p for p in found.parameters.values() if p.name != "self"]
    return plain(str(found.replace(parameters=shown)))


def plain(text: str) -> str:
    """Shorten types to their last name and object defaults to their class."""
    text = re.sub(r"<class '([\w.]+)'>", r"\1", text)
    text = re.sub(r"\b(?:[A-Za-z_]\w*\.)+([A-Za-z_]\w*)", r"\1", text)
    return text.replace("NoneType", "None")


def prose(text: str | None) -> list[str]:
    """Convert a docstring to Markdown; Google-style sections become lists."""
    lines, section = [], ""
    for line in (text or "").splitlines():
        if head := re.fullmatch(r"(Args|Returns|Raises):", line):
            section = head[1]
            lines += [f"*{section}*", ""]
        elif section and line.startswith("    "):
            bullet = "" if section == "Returns" else "- "
            lines.append(f"{bullet}{line.strip()}" if re.match(r"    \S", line) else f"  {line.strip()}")
        else:
            section = section if not line.strip() else ""
            lines.append(line)
    return lines


def page() -> str:
    """Return the whole page."""
    lines = [HEAD]
    for module, chosen in MODULES.items():
        content = importlib.import_module(module)
        names = chosen or content.__all__
        lines += [f"## {module}", "", f"{inspect.getdoc(content)}".partition("\n")[0], ""]
        for name in names:
            lines += entry(module, name, getattr(content, name))
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).rstrip() + "\n"


if __name__ == "__main__":
    PAGE.write_text(page())
