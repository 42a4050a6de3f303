"""``python -m mmmixmim``."""

from mmmixmim.cli.main import main

if __name__ == '__main__':
    main()
