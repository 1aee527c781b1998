"""Writes what is generated from the models: CRDs, the chart that ships them, and the reference documentation.

`python -m sluice.cli.crds` writes, `--check` only compares and exits 1 on a difference; CI runs the check. Both work
on the checkout in the current directory, or the one named by `--root`.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import yaml

from sluice.api.crds import INTERNAL_KINDS, KINDS, crd
from sluice.cli.reference import index_page, kind_page

CRDS = Path("crds")
CHART_TEMPLATES = Path("charts/sluice-crds/templates")
REFERENCE = Path("docs/reference")

HEADER = "# Generated from operator/sluice/api by `python -m sluice.cli.crds`. Do not edit.\n"


class _Dumper(yaml.SafeDumper):
    """Repeats equal values instead of using anchors, which people and some tools read badly."""

    def ignore_aliases(self, data: object) -> bool:
        return True


def generated() -> dict[Path, str]:
    """Every generated file, as its path in the checkout and its text."""
    files: dict[Path, str] = {}
    for each in (*KINDS, *INTERNAL_KINDS):
        text = HEADER + yaml.dump(crd(each), Dumper=_Dumper, sort_keys=False, width=120, allow_unicode=True)
        files[CRDS / f"{each.crd_name}.yaml"] = text
        files[CHART_TEMPLATES / f"{each.crd_name}.yaml"] = text
    for kind in KINDS:
        files[REFERENCE / f"{kind.name.lower()}.md"] = kind_page(kind)
    files[REFERENCE / "README.md"] = index_page()
    return files


def differences(root: Path) -> list[str]:
    """What is stale, missing or left over under `root`, one sentence each."""
    files = generated()
    found = []
    for path, text in files.items():
        file = root / path
        if not file.exists():
            found.append(f"{path} is missing")
        elif file.read_text(encoding="utf-8") != text:
            found.append(f"{path} is stale")
    for directory, pattern in ((CRDS, "*.yaml"), (CHART_TEMPLATES, "*.yaml"), (REFERENCE, "*.md")):
        for file in sorted((root / directory).glob(pattern)):
            relative = file.relative_to(root)
            is_ours = file.read_text(encoding="utf-8").startswith(("# Generated from", "<!-- Generated from"))
            if relative not in files and is_ours:
                found.append(f"{relative} is generated no more")
    return found


def write(root: Path) -> list[Path]:
    """Writes every generated file under `root`; returns those that changed."""
    changed = []
    for path, text in generated().items():
        file = root / path
        if not file.exists() or file.read_text(encoding="utf-8") != text:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding="utf-8")
            changed.append(path)
    return changed


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line. Returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m sluice.cli.crds", description=__doc__.partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="compare only; exit 1 if anything differs")
    parser.add_argument("--root", type=Path, default=Path.cwd(), help="the checkout (default: current directory)")
    options = parser.parse_args(arguments)
    if options.check:
        found = differences(options.root)
        for sentence in found:
            sys.stderr.write(f"{sentence}; run `python -m sluice.cli.crds` and commit the result\n")
        return 1 if found else 0
    for path in write(options.root):
        sys.stdout.write(f"wrote {path}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
