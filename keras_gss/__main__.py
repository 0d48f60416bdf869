"""`python -m keras_gss` is `keras-gss`."""

import sys

from keras_gss_cli import main

sys.exit(main())
