"""The command `ovc MODEL [--output_model FILE]`: reads a model and writes it as IR."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from ovjit.compat.ovc.cli_parser import get_all_cli_parser, get_model_name_from_args
from ovjit.compat.ovc.convert_impl import convert
from ovjit.readers.ir.writer import save_model


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command `ovc`. Returns its exit code."""
    parser = get_all_cli_parser()
    try:
        options = parser.parse_args(argv)
        model, _ = convert(vars(options), is_command=True)
        target = Path(get_model_name_from_args(options))
        save_model(model, target, options.compress_to_fp16)
    except (AssertionError, RuntimeError, OSError) as error:
        print(f"[ ERROR ]  {error}", file=sys.stderr)
        return 1
    print(f"[ SUCCESS ] XML file: {target}\n[ SUCCESS ] BIN file: {target.with_suffix('.bin')}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
