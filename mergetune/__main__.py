"""``python -m mergetune``, and what the command ``mergetune`` starts."""

from search.cli import main

if __name__ == "__main__":
    main()
