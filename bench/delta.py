"""What changed between two result files of the same benchmark.

    python -m bench.delta before.json after.json [--all]

A table of before, after and after / before for every number of every row that both files have. The ratios to
another engine in the same run hold across days and machines; plain times hold only on a quiet machine, the
same one. Only what changed by more than 3 % is shown, unless --all.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from bench import command

LEAST_CHANGE = 0.03


def changes(before: dict[str, Any], after: dict[str, Any], least: float) -> list[dict[str, Any]]:
    """One row for each number that changed by more than the share `least`."""
    keys = after["keys"]
    old = {tuple(r[k] for k in keys): r for r in before["rows"]}
    rows = []
    for new in after["rows"]:
        name = tuple(new[k] for k in keys)
        for metric, value in new.items():
            was = old.get(name, {}).get(metric)
            if metric in keys or not (_is_number(value) and _is_number(was)):
                continue
            change = value / was if was else 1.0 if value == was else float("inf")
            if abs(change - 1) > least:
                named = dict(zip(keys, name, strict=True))
                rows.append(named | {"of": metric, "before": was, "after": value, "after/before": change})
    return rows


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def one_sided(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """Rows that only one of the files has."""
    keys = after["keys"]
    old, new = ({tuple(r[k] for k in keys) for r in f["rows"]} for f in (before, after))
    gone = [f"only before: {' '.join(map(str, name))}" for name in sorted(old - new, key=str)]
    return gone + [f"only after: {' '.join(map(str, name))}" for name in sorted(new - old, key=str)]


def main() -> int:
    parser = command.parser("delta", __doc__, json=False)
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path)
    parser.add_argument("--all", action="store_true", help="also what did not change")
    arguments = parser.parse_args()
    before, after = (json.loads(p.read_text()) for p in (arguments.before, arguments.after))
    if (before["bench"], before["keys"]) != (after["bench"], after["keys"]):
        print(f"{before['bench']} and {after['bench']} cannot be compared", file=sys.stderr)
        return 2
    for label, result in (("before", before), ("after", after)):
        m = result["machine"]
        print(f"{label:6s} {m['date']}  {m['commit']}  {m['cpu']}, {m['cores']} cores")
    print()
    rows = changes(before, after, -1.0 if arguments.all else LEAST_CHANGE)
    if rows:
        from bench import report

        print(report.table(rows, list(rows[0])))
    else:
        print("no change")
    print(*one_sided(before, after), sep="\n")
    return 0


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    raise SystemExit(main())
