"""`python -m titans_seq`, the same as `titans-seq`."""

import sys

from titans_seq.cli.main import main

sys.exit(main())
