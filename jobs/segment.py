"""Count nuclei and label them: ``python -m jobs.segment MODEL RUN ARCHIVE[:KEY] ...``.

As `jobs.count` in all, and besides with the label images in ``RUN/labels.h5`` and a row
for each nucleus in ``RUN/nuclei.csv``.
"""

import sys

from jobs.count import main

if __name__ == "__main__":
    sys.exit(main(labels=True))
