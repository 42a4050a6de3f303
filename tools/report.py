"""Write the report of one run, or of several side by side, as one HTML file."""

import argparse
from pathlib import Path

from mmmixmim.runtime import one_line_errors
from mmmixmim.visualization import write_report


def parse_args() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog='Example: python tools/report.py work_dirs/my_run'
    )
    parser.add_argument(
        'runs',
        nargs='+',
        type=Path,
        metavar='RUN',
        help='folder (work_dir) of a run, finished or not',
    )
    parser.add_argument(
        '--out', type=Path, help='output file (report.html in the first run)'
    )
    return parser.parse_args()


@one_line_errors()
def main() -> None:
    """Write the report and print its path."""
    args = parse_args()
    print(write_report(args.runs, args.out))


if __name__ == '__main__':
    main()
